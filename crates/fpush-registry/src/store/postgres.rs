//! The database of a PostgreSQL server.

use std::str::FromStr as _;

use sqlx::{
    ConnectOptions as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::run::PATIENCE;
use crate::error::OpenError;

/// Prepares to connect when the first statement is to be executed.
pub(super) fn prepare(url: &str) -> Result<PgPool, OpenError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| OpenError::Database("the URL cannot be read".to_owned()))?
        .application_name("fpush")
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(LIMITS).await.map(drop) }));
    Ok(pool.connect_lazy_with(options))
}

const CONNECTIONS: u32 = 8;
/// An instance that hangs must not keep the others from writing.
const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '3s'; \
                      SET idle_in_transaction_session_timeout = '10s'";
