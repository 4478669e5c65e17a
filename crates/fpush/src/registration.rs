//! Registered devices: the registry and the HTTP listener, as far as this build has them.

#[cfg(feature = "enable_registration")]
pub(crate) use with::*;
#[cfg(not(feature = "enable_registration"))]
pub(crate) use without::*;

#[cfg(feature = "enable_registration")]
mod with {
    use std::sync::Arc;

    use anyhow::Context as _;
    use fpush_component::Registration;
    use fpush_http::Server;
    use fpush_push::{Drain, Modules, settings::Section};
    pub(crate) use fpush_registry::RegistrySettings;
    use fpush_registry::{Hooks, Registry, StoreSettings};

    pub(crate) fn read(section: Section<'_>, modules: &[&str]) -> Option<RegistrySettings> {
        RegistrySettings::read(section, modules)
    }

    /// For `fpush check`.
    pub(crate) fn facts(settings: &RegistrySettings) -> Vec<(&'static str, String)> {
        let store = match &settings.store {
            StoreSettings::Sqlite { path } => format!("SQLite, {}", path.display()),
            StoreSettings::Postgres { .. } => "PostgreSQL".to_owned(),
        };
        let targets = settings.types.iter().chain(&settings.providers);
        let listen = settings.http.iter().map(|http| {
            let scheme = if http.tls.is_some() { "https" } else { "http" };
            (
                "HTTP API",
                format!("{scheme}://{}/push_appserver/v1/", http.listen),
            )
        });
        [("store", store)]
            .into_iter()
            .chain(targets.map(|(name, module)| ("devices", format!("{name} to module {module}"))))
            .chain(listen)
            .collect()
    }

    /// What runs of it.
    pub(crate) struct Registering {
        registry: Arc<Registry>,
    }

    /// Opens the registry and the HTTP listener.
    pub(crate) async fn start(
        settings: RegistrySettings,
        modules: &Arc<Modules>,
        drain: &Drain,
    ) -> anyhow::Result<(Registration, Registering)> {
        let (accepting, forgiving) = (Arc::clone(modules), Arc::clone(modules));
        let hooks = Hooks {
            accepts: Arc::new(move |module, token| {
                accepting
                    .named(module)
                    .is_some_and(|module| module.accepts(token))
            }),
            registered: Arc::new(move |module, token| {
                if let Some(module) = forgiving.named(module) {
                    module.forgive(token);
                }
            }),
        };
        let http = settings.http.clone();
        let (registry, background) = Registry::open(settings, hooks)
            .await
            .context("cannot open the database of registered devices")?;
        tokio::spawn(background);
        if let Some(http) = http {
            let server = Server::bind(http, Arc::clone(&registry), Arc::clone(modules)).await?;
            drain.spawn(server.serve(drain.clone()));
        }
        let registration = Registration {
            directory: Arc::<Registry>::clone(&registry),
            commands: Arc::<Registry>::clone(&registry),
        };
        Ok((registration, Registering { registry }))
    }

    impl Registering {
        /// Writes what is not written yet.
        pub(crate) async fn close(self) {
            self.registry.close().await;
        }
    }
}

#[cfg(not(feature = "enable_registration"))]
mod without {
    use std::{convert::Infallible, sync::Arc};

    use fpush_component::Registration;
    use fpush_push::{Drain, Modules, settings::Section};

    /// There are none.
    pub(crate) type RegistrySettings = Infallible;

    pub(crate) fn facts(settings: &RegistrySettings) -> Vec<(&'static str, String)> {
        match *settings {}
    }

    /// Nothing runs.
    pub(crate) struct Registering(Infallible);

    pub(crate) fn read(section: Section<'_>, _modules: &[&str]) -> Option<RegistrySettings> {
        section.error(
            "",
            "this fpush was built without registration; build it with the Cargo feature enable_registration",
        );
        None
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(crate) async fn start(
        settings: RegistrySettings,
        _modules: &Arc<Modules>,
        _drain: &Drain,
    ) -> anyhow::Result<(Registration, Registering)> {
        match settings {}
    }

    impl Registering {
        #[expect(clippy::unused_async, reason = "as the other one")]
        pub(crate) async fn close(self) {
            match self.0 {}
        }
    }
}
