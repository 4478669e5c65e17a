//! All decisions about pushes: functions of a state and the time.
//!
//! Nothing here waits, locks, reads a clock, draws a random number, writes a log or does I/O. Whoever carries a decision
//! out hands in what it needs to know.

mod fair;

pub use fair::{Entered, FairQueue, Gate, Passed, Sender, Standing, Ticket};
