//! A connection to the engine, whatever kind it is.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    address::{Address, Host, Kind},
    settings::ClusterSettings,
    trouble::Trouble,
};

/// A connection, over which everybody asks at once. Clones are the same one.
#[derive(Clone)]
pub(crate) enum Connection {
    /// To one engine, the one that the sentinels named included.
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects, and logs in.
    pub(crate) async fn open(settings: &ClusterSettings) -> Result<Self, Trouble> {
        let certificates = match settings.tls.clone() {
            None => None,
            // The roots of the system are many, and come from disk.
            Some(tls) => spawn_blocking(move || tls.certificates()).await.ok(),
        };
        match timeout(PATIENCE, open(&settings.address, certificates)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(e)) => Err(refused(&settings.address, Trouble::of(&e))),
            Err(_) => Err(refused(&settings.address, Trouble::Slow)),
        }
    }

    /// Asks one thing.
    pub(crate) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
        .and_then(Value::extract_error)
    }

    /// Asks what is of no key, in a cluster any of the nodes.
    pub(crate) async fn ask_any(&mut self, command: Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(&command).await,
            Self::Cluster(connection) => {
                let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
                connection.route_command(command, any).await
            }
        }
        .and_then(Value::extract_error)
    }
}

/// Why there is no connection to what is at this address: there something else may answer, or nobody.
fn refused(address: &Address, trouble: Trouble) -> Trouble {
    match (trouble, &address.kind) {
        (Trouble::Slow, _) if address.tls => Trouble::Unreachable(
            "it does not answer in TLS; where it speaks none, cluster.url begins with redis, not rediss",
        ),
        (Trouble::Slow, _) => Trouble::Unreachable("it does not answer"),
        (Trouble::Other(_), Kind::Sentinel { .. }) => Trouble::NotEngine("a sentinel"),
        (Trouble::Other(_), Kind::Cluster(_)) => Trouble::NotEngine("a node of a cluster"),
        (Trouble::Other(code), Kind::One(_) | Kind::Socket(_)) if code == Trouble::UNKNOWN => {
            Trouble::NotEngine("Valkey or Redis")
        }
        (trouble, _) => trouble,
    }
}

async fn open(address: &Address, certificates: Option<TlsCertificates>) -> RedisResult<Connection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTING))
        .set_response_timeout(None);
    match &address.kind {
        Kind::One(host) => {
            let info = info(to(host, address.tls), address)?;
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            };
            let connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            Ok(Connection::One(connection))
        }
        Kind::Socket(path) => {
            let client = Client::open(info(ConnectionAddr::Unix(path.clone()), address)?)?;
            let connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            Ok(Connection::One(connection))
        }
        Kind::Sentinel { sentinels, service } => {
            let sentinels = sentinels.iter().map(|host| to(host, address.tls));
            let mut builder = SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
                .set_client_to_redis_db(address.database)
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
            if let Some(user) = &address.user {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = &address.password {
                builder = builder.set_client_to_redis_password(password);
            }
            if let Some(password) = &address.sentinel_password {
                builder = builder.set_client_to_sentinel_password(password);
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_certificates(certificates);
            }
            let connection = builder.build()?.get_async_connection_with_config(&config).await?;
            Ok(Connection::One(connection))
        }
        Kind::Cluster(hosts) => {
            let nodes: RedisResult<Vec<_>> = hosts
                .iter()
                .map(|host| info(to(host, address.tls), address))
                .collect();
            let mut builder = ClusterClientBuilder::new(nodes?)
                .connection_timeout(CONNECTING)
                .response_timeout(PATIENCE)
                .retries(REDIRECTIONS)
                .tcp_settings(tcp());
            if let Some(certificates) = certificates {
                builder = builder.tls(TlsMode::Secure).certs(certificates);
            }
            let connection = builder.build()?.get_async_connection().await?;
            Ok(Connection::Cluster(connection))
        }
    }
}

fn to(host: &Host, tls: bool) -> ConnectionAddr {
    let (host, port) = (host.name.clone(), host.port);
    if tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn info(to: ConnectionAddr, address: &Address) -> RedisResult<ConnectionInfo> {
    let mut redis = RedisConnectionInfo::default().set_db(address.database);
    if let Some(user) = &address.user {
        redis = redis.set_username(user);
    }
    if let Some(password) = &address.password {
        redis = redis.set_password(password);
    }
    let info = to.into_connection_info()?;
    Ok(info.set_redis_settings(redis).set_tcp_settings(tcp()))
}

/// A push waits for each packet.
fn tcp() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(PATIENCE)
}

/// To one node.
const CONNECTING: Duration = Duration::from_secs(1);
/// For connecting in all, and for what no push waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// A node of a cluster may send us to another one.
const REDIRECTIONS: u32 = 2;
