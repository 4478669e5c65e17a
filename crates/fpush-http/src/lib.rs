//! The HTTP listener: devices register, unregister and are pushed to over HTTP, exactly as with
//! `mod_push_appserver`, so that its apps work unchanged.
//!
//! [`Server::bind`] opens the port, [`Server::serve`] serves until the daemon is about to stop. `listener.rs` accepts
//! connections, speaks TLS and keeps all bounds, for any router; `api.rs` is the router with the endpoints and the
//! tables from outcomes and errors to lines of text; `pages.rs` has the HTML.

mod api;
mod form;
mod listener;
mod origin;
mod pages;
mod shares;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use fpush_push::{Drain, Modules};
use fpush_registry::{HttpSettings, Registry};
use tracing::{info, warn};

use crate::{
    api::Api,
    listener::{Listener, Security},
};
pub use crate::{listener::Limits, listener::StartError};

/// The HTTP API on its port.
pub struct Server {
    listener: Listener,
    settings: HttpSettings,
    registry: Arc<Registry>,
    modules: Arc<Modules>,
}

impl Server {
    /// Opens the port and reads the certificate. Connections wait until [`serve`](Self::serve) takes them.
    ///
    /// # Errors
    ///
    /// The port cannot be had, or the certificate or its key cannot be used. The text says what to do.
    pub async fn bind(
        settings: HttpSettings,
        registry: Arc<Registry>,
        modules: Arc<Modules>,
    ) -> Result<Self, StartError> {
        let security = Security {
            tls: settings.tls.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
        };
        Ok(Self {
            listener: Listener::bind(settings.listen, security, Limits::default()).await?,
            settings,
            registry,
            modules,
        })
    }

    /// With other bounds than the usual ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.listener.set_limits(limits);
        self
    }

    /// Where it listens: the port that was given where the settings ask for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until the daemon is about to stop. Ends when what was under way then has its answer, or when all patience
    /// has ended.
    pub async fn serve(self, drain: Drain) {
        let Self {
            listener,
            settings,
            registry,
            modules,
        } = self;
        let tls = settings.tls.is_some();
        info!(listen = %listener.address(), tls, "the HTTP API is open");
        if settings.debugging {
            warn!(
                "registration.http.debugging is on: whoever reaches the port sees all devices; switch it off when you \
                 are done"
            );
        }
        let limits = listener.limits();
        let router = Api::router(&settings, limits, registry, modules, drain.clone());
        listener.serve(router, drain).await;
    }
}
