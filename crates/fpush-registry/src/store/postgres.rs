//! The database of a PostgreSQL server.

use std::{io, str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, timeout, timeout_at},
};

use super::{
    run::{PATIENCE, Result, in_time},
    statements as sql,
};
use crate::error::OpenError;

/// Prepares to connect when the first statement is to be executed.
pub(super) fn prepare(url: &str) -> std::result::Result<PgPool, OpenError> {
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

/// A connection that hears at once of what others have committed (`LISTEN`), as long as it lasts.
pub(crate) struct Listener {
    connection: PgListener,
    /// Whose own changes are no news.
    own: String,
    /// After so long without a word it is tried whether the server is still there.
    quiet: Duration,
}

impl Listener {
    /// Begins to listen at the server of these connections, with one of its own: a connection that never ends would keep the
    /// others from ending. What was committed before is to be read after this returns.
    pub(super) async fn begin(pool: &PgPool, own: String, quiet: Duration) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with((*pool.connect_options()).clone());
        in_time(async {
            let mut connection = PgListener::connect_with(&pool).await?;
            connection.eager_reconnect(false);
            connection.listen(sql::CHANNEL).await?;
            Ok(Self {
                connection,
                own,
                quiet,
            })
        })
        .await
    }

    /// Returns when others have changed something, and those who would have done so a moment later, too.
    ///
    /// # Errors
    ///
    /// The connection is lost: others are not heard any more.
    pub(crate) async fn hear(&mut self) -> Result<()> {
        loop {
            match timeout(self.quiet, self.hear_others()).await {
                Ok(heard) => break heard?,
                // A server whose machine is gone never says so.
                Err(_) => {
                    let answer = timeout(PATIENCE, self.connection.execute("SELECT 1")).await;
                    answer.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into()))??;
                }
            }
        }
        let end = Instant::now() + TOGETHER;
        while let Ok(heard) = timeout_at(end, self.hear_others()).await {
            heard?;
        }
        Ok(())
    }

    /// Dropped before its end, it leaves what comes to the next call.
    async fn hear_others(&mut self) -> Result<()> {
        loop {
            match self.connection.try_recv().await? {
                Some(notification) if notification.payload() == self.own => {}
                Some(_) => return Ok(()),
                None => return Err(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into())),
            }
        }
    }
}

/// What is in the way of a connection, if a look shows it: sqlx tries again when it is refused, and does not say so.
pub(super) async fn obstacle(pool: &PgPool) -> Option<String> {
    let options = pool.connect_options();
    let (refused, place) = match options.get_socket() {
        Some(folder) => {
            let socket = folder.join(format!(".s.PGSQL.{}", options.get_port()));
            let connecting = timeout(LOOK, UnixStream::connect(&socket)).await;
            (
                connecting.map(|tried| tried.map(drop)),
                socket.display().to_string(),
            )
        }
        None => {
            let place = (options.get_host(), options.get_port());
            let connecting = timeout(LOOK, TcpStream::connect(place)).await;
            (
                connecting.map(|tried| tried.map(drop)),
                format!("{}:{}", place.0, place.1),
            )
        }
    };
    match refused {
        Ok(Ok(())) => None,
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Some(format!("refused at {place}")),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Some(format!("there is no {place}")),
        Ok(Err(e)) => Some(format!("{} at {place}", e.kind())),
        Err(_) => Some(format!("no answer at {place}")),
    }
}

/// How long a look at what is in the way may take.
const LOOK: Duration = Duration::from_secs(1);
const CONNECTIONS: u32 = 8;
/// An instance that hangs must not keep the others from writing.
const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '3s'; \
                      SET idle_in_transaction_session_timeout = '10s'";
/// Others may change devices a hundred times a second: to read what they changed costs ten statements each time.
const TOGETHER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use fpush_testkit::{Flow, Postgres};

    use super::*;

    /// The kernel would wait for a machine that is gone for a quarter of an hour.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_hears_nothing_tries_whether_the_server_is_still_there() {
        let server = Postgres::shared();
        let (url, relay) = (server.database(), server.relay());
        let pool = prepare(&server.through(&relay, &url)).unwrap();
        let quiet = Duration::from_millis(50);
        let mut listener = Listener::begin(&pool, "own".to_owned(), quiet).await.unwrap();
        let mut hearing = Box::pin(listener.hear());
        let say = |what: &str| {
            let notify = format!("SELECT pg_notify('fpush', '{what}')");
            server.psql(server.name(&url), &notify).unwrap();
        };
        say("own");
        assert!(timeout(10 * quiet, &mut hearing).await.is_err());
        say("another one");
        hearing.await.unwrap();
        relay.hold(Flow::Answers);
        assert!(listener.hear().await.is_err());
    }
}
