//! The registry on real databases: SQLite, and a PostgreSQL server that the tests start.

mod behaviour;
mod hostile;
mod outages;
mod postgres;
mod races;
mod rig;
