//! The registry on real databases: SQLite, and a PostgreSQL server that the tests start.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod behaviour;
mod foreign;
mod hostile;
mod loading;
mod news;
mod operators;
mod outages;
mod past;
mod races;
mod rig;
