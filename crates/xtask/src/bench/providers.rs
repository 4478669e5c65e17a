//! The stand-ins for Apple and Google, and the modules that push to them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use fpush_testkit::{ApnsKey, FakeApns, FakeFcm, FakeProxy, FakePush, ProxyAnswer, TestCa};
use serde_json::{Value, json};

use super::template::NUMBER;

/// What a module pushes to, and how it proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Certificate,
    ProviderToken,
    Fcm,
    Demo,
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Certificate => "APNs, certificate",
            Self::ProviderToken => "APNs, provider token",
            Self::Fcm => "FCM",
            Self::Demo => "demo",
        }
    }

    /// A device's token of usual length, with [`NUMBER`] in it.
    pub(super) fn token(self) -> String {
        match self {
            Self::Certificate | Self::ProviderToken | Self::Demo => format!("{NUMBER}{}", "a".repeat(48)),
            Self::Fcm => format!("dCXr7fTpTm2yXGVYTXJb6r:APA91b{NUMBER}{}", "x".repeat(118)),
        }
    }
}

/// The stand-ins. The process that holds this is theirs.
pub(super) struct Providers {
    pub(super) apns: FakeApns,
    pub(super) slow_apns: FakeApns,
    pub(super) fcm: FakeFcm,
    /// All push services of browsers, and the way to them.
    _push: FakePush,
    proxy: FakeProxy,
}

impl Providers {
    /// Starts them, and writes what their clients need into the folder.
    pub(super) fn start(folder: &Path, recording: bool) -> Result<Self> {
        let ca = TestCa::new();
        let fcm = FakeFcm::builder(&ca).recording(recording).start();
        let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
        let identity = ca.client_cert("org.example.app", tomorrow);
        for (name, content) in [
            (CA, ca.pem()),
            (CERTIFICATE, identity.cert_pem),
            (CERTIFICATE_KEY, identity.key_pem),
            (TOKEN_KEY, ApnsKey::generate().p8()),
            (SERVICE_ACCOUNT, fcm.service_account("bench")),
            (VAPID_KEY, ApnsKey::generate().p8()),
        ] {
            let file = folder.join(name);
            fs::write(&file, content)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        }
        let apns = || FakeApns::builder(&ca).recording(recording);
        let (push, proxy) = (FakePush::start_blind(&ca), FakeProxy::start());
        proxy.answer_with(ProxyAnswer::TunnelTo(push.address()));
        Ok(Self {
            _push: push,
            proxy,
            apns: apns().start(),
            slow_apns: apns().delay(DELAY).start(),
            fcm,
        })
    }

    pub(super) fn endpoints(&self, folder: &Path) -> Endpoints {
        Endpoints {
            folder: folder.to_owned(),
            apns: self.apns.url(),
            slow_apns: self.slow_apns.url(),
            fcm: self.fcm.url(),
            proxy: self.proxy.url(),
        }
    }
}

/// Where the stand-ins are, and what a client of theirs needs.
pub(super) struct Endpoints {
    folder: PathBuf,
    apns: String,
    slow_apns: String,
    fcm: String,
    /// What leads to all push services of browsers.
    pub(super) proxy: String,
}

impl Endpoints {
    /// One line that [`Self::read`] reads.
    pub(super) fn line(&self) -> String {
        [self.apns.as_str(), &self.slow_apns, &self.fcm, &self.proxy].join(" ")
    }

    pub(super) fn read(folder: &Path, line: &str) -> Result<Self> {
        let mut urls = line.split(' ').map(str::to_owned);
        let mut url = || urls.next().context("the stand-in names no address");
        Ok(Self {
            folder: folder.to_owned(),
            apns: url()?,
            slow_apns: url()?,
            fcm: url()?,
            proxy: url()?,
        })
    }

    /// A module of this kind.
    pub(super) fn module(&self, backend: Backend) -> Value {
        match backend {
            Backend::Certificate => self.with_certificate(&self.apns),
            Backend::ProviderToken => json!({
                "type": "apple",
                "apns": {
                    "tokenKeyFilePath": self.folder.join(TOKEN_KEY),
                    "keyId": "ABC123DEFG",
                    "teamId": "DEF123GHIJ",
                    "topic": "org.example.app",
                    "endpoint": self.apns,
                    "caFilePath": self.ca(),
                },
            }),
            Backend::Fcm => json!({
                "type": "google",
                "fcm": {
                    "fcmSecretPath": self.folder.join(SERVICE_ACCOUNT),
                    "endpoint": self.fcm,
                    "caFilePath": self.ca(),
                },
            }),
            Backend::Demo => json!({ "type": "demo" }),
        }
    }

    /// A module for the push services of browsers, and for the hosts below one more domain.
    pub(super) fn web_module(&self) -> Value {
        json!({
            "type": "webpush",
            "webpush": {
                "vapidKeyFilePath": self.folder.join(VAPID_KEY),
                "subject": "mailto:push@example.org",
                "allowedEndpoints": [VENDOR, format!("*.{STRANGERS}")],
                "caFilePath": self.ca(),
            },
        })
    }

    /// The module of [`Backend::Certificate`] for an APNs that takes [`DELAY`].
    pub(super) fn slow_module(&self) -> Value {
        self.with_certificate(&self.slow_apns)
    }

    /// Where the stand-in of a module is; nowhere for the demo.
    pub(super) fn url(&self, backend: Backend) -> Option<&str> {
        match backend {
            Backend::Certificate | Backend::ProviderToken => Some(&self.apns),
            Backend::Fcm => Some(&self.fcm),
            Backend::Demo => None,
        }
    }

    /// The certificate to trust.
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.join(CA)
    }

    fn with_certificate(&self, endpoint: &str) -> Value {
        json!({
            "type": "apple",
            "apns": {
                "certFilePath": self.folder.join(CERTIFICATE),
                "certKeyFilePath": self.folder.join(CERTIFICATE_KEY),
                "topic": "org.example.app",
                "endpoint": endpoint,
                "caFilePath": self.ca(),
            },
        })
    }
}

/// How long a request waits at the slow APNs: about as long as at Apple.
pub(super) const DELAY: Duration = Duration::from_millis(50);

const CA: &str = "ca.pem";
const CERTIFICATE: &str = "client.pem";
const CERTIFICATE_KEY: &str = "client.key.pem";
const TOKEN_KEY: &str = "AuthKey.p8";
const VAPID_KEY: &str = "vapid.key";
/// A vendor's push service.
pub(super) const VENDOR: &str = "updates.push.services.mozilla.com";
/// The domain of servers that strangers have chosen.
pub(super) const STRANGERS: &str = "up.example.org";
const SERVICE_ACCOUNT: &str = "service-account.json";
