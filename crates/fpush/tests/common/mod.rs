//! What the black-box tests have in common.

use fpush_testkit::FakeXmpp;
use serde_json::{Value, json};

/// Our address.
pub(crate) const DOMAIN: &str = "push.localhost";
/// What we share with the server.
pub(crate) const SECRET: &str = "s3cr3t-0f-the-component";

/// Settings of a component of this server.
pub(crate) fn settings(xmpp: &FakeXmpp, modules: &Value) -> Value {
    json!({
        "component": {
            "componentHostname": DOMAIN,
            "componentKey": SECRET,
            "serverHostname": "127.0.0.1",
            "serverPort": xmpp.port(),
        },
        "pushModules": fpush_testkit::without_holding(modules.clone()),
        "timeout": { "xmppconnectionError": "100ms" },
    })
}
