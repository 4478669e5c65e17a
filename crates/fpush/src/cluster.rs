//! What several instances share, as far as this build has it.

#[cfg(feature = "enable_cluster")]
pub(crate) use with::*;
#[cfg(not(feature = "enable_cluster"))]
pub(crate) use without::*;

#[cfg(feature = "enable_cluster")]
mod with {
    use std::{sync::Arc, time::Duration};

    use fpush_cluster::{Engine, EngineStatus, Fingerprints};
    use fpush_driver::{Cluster, Modules};
    use fpush_monitor::ClusterStatus;
    use fpush_push::{Agreement, TokenHasher, settings::Section};

    pub(crate) type ClusterSettings = fpush_cluster::ClusterSettings;

    /// What all instances share, in use.
    pub(crate) struct Sharing(Engine);

    /// All that has to go on under another key.
    struct Hashed {
        hasher: TokenHasher,
        modules: Arc<Modules>,
    }

    impl Sharing {
        /// Begins to use the engine.
        pub(crate) fn start(
            settings: &ClusterSettings,
            hasher: &TokenHasher,
            modules: &Arc<Modules>,
        ) -> Self {
            let hashed = Hashed {
                hasher: hasher.clone(),
                modules: Arc::clone(modules),
            };
            Self(Engine::start(settings.clone(), Box::new(hashed)))
        }

        /// Waits for a moment until the engine can be used: what is known of tokens before that is known under another key.
        pub(crate) async fn tried(&self) {
            self.0.tried(FIRST).await;
        }

        /// Waits for a moment until the others have been told all.
        pub(crate) async fn flush(&self) {
            self.0.flush(LAST).await;
        }

        /// By which backends agree.
        pub(crate) fn agreement(&self) -> Arc<dyn Agreement> {
            self.0.agreement()
        }

        /// By which modules share.
        pub(crate) fn cluster(&self) -> &dyn Cluster {
            &self.0
        }

        /// What there is to say of it.
        pub(crate) fn status(&self) -> ClusterStatus {
            let EngineStatus {
                engine,
                since,
                trouble,
                up,
                instances,
                concerns,
                unread,
                requests,
            } = self.0.status();
            ClusterStatus {
                engine,
                since,
                up,
                down: trouble.map(|trouble| trouble.to_string()),
                instances,
                concerns,
                unread,
                requests,
            }
        }
    }

    impl Fingerprints for Hashed {
        fn key(&self) -> [u8; 16] {
            self.hasher.key()
        }

        fn set_key(&self, key: [u8; 16]) {
            self.hasher.set_key(key);
            for module in self.modules.all() {
                module.rekey();
            }
        }
    }

    /// Reads the block `cluster`.
    pub(crate) fn read(section: Option<Section<'_>>) -> Option<ClusterSettings> {
        let mut section = section?;
        let settings = ClusterSettings::read(&mut section);
        section.finish();
        settings
    }

    pub(crate) fn facts(settings: &ClusterSettings) -> Vec<(&'static str, String)> {
        settings.facts()
    }

    /// Connects as a running fpush would. Returns what is wrong with how the engine is set up; the error says why it cannot
    /// be used.
    pub(crate) async fn probe(settings: &ClusterSettings) -> Result<Vec<String>, String> {
        let probed = fpush_cluster::probe(settings).await;
        probed.map_err(|trouble| format!("the engine cannot be used: {trouble}"))
    }

    /// A start waits for the engine for so long.
    const FIRST: Duration = Duration::from_secs(1);
    /// So long waits an end.
    const LAST: Duration = Duration::from_millis(500);
}

#[cfg(not(feature = "enable_cluster"))]
mod without {
    use std::{convert::Infallible, sync::Arc};

    use fpush_driver::{Cluster, Modules};
    use fpush_monitor::ClusterStatus;
    use fpush_push::{Agreement, TokenHasher, settings::Section};

    /// There are none.
    #[derive(Clone, PartialEq, Eq)]
    pub(crate) struct ClusterSettings(Infallible);

    /// Nothing is shared.
    pub(crate) struct Sharing(Infallible);

    impl Sharing {
        pub(crate) fn start(
            settings: &ClusterSettings,
            _hasher: &TokenHasher,
            _modules: &Arc<Modules>,
        ) -> Self {
            match settings.0 {}
        }

        #[expect(clippy::unused_async, reason = "as the other one")]
        pub(crate) async fn tried(&self) {
            match self.0 {}
        }

        #[expect(clippy::unused_async, reason = "as the other one")]
        pub(crate) async fn flush(&self) {
            match self.0 {}
        }

        pub(crate) fn agreement(&self) -> Arc<dyn Agreement> {
            match self.0 {}
        }

        pub(crate) fn cluster(&self) -> &dyn Cluster {
            match self.0 {}
        }

        pub(crate) fn status(&self) -> ClusterStatus {
            match self.0 {}
        }
    }

    pub(crate) fn read(section: Option<Section<'_>>) -> Option<ClusterSettings> {
        if let Some(section) = section {
            section.error(
                "",
                "this build shares nothing with other instances; it needs the Cargo feature enable_cluster",
            );
        }
        None
    }

    pub(crate) fn facts(settings: &ClusterSettings) -> Vec<(&'static str, String)> {
        match settings.0 {}
    }

    #[expect(clippy::unused_async, reason = "as the other one")]
    pub(crate) async fn probe(settings: &ClusterSettings) -> Result<Vec<String>, String> {
        match settings.0 {}
    }
}
