//! A message through a real Prosody: what a module of it sends from its host reaches the push service, and what we say reaches
//! the module. `mod_push2` itself is in no package, so a few lines stand for it.

use std::fs;

use fpush_testkit::{
    FakePush, Notification, Push2Server, TempDir, TestCa,
    servers::{Prosody, Server as _},
};
use serde_json::json;

use crate::rig::{LONG, Rig, web};

/// Sends the same notification for whatever comes for a user who is away, to the endpoint that the user has as name, and notes
/// what comes back.
const MODULE: &str = r#"
local st = require "util.stanza";
local uuid = require "util.uuid";
local endpoints = module:get_option("test_endpoints");

module:hook("message/offline/handle", function (event)
    local user = event.username or event.stanza.attr.to:match("^[^@]+");
    local message = st.message({ from = module.host, to = "push.localhost", id = uuid.generate() });
    message:tag("notification", { xmlns = "urn:xmpp:push2:0" })
        :text_tag("client", endpoints[user] or "nonsense"):text_tag("priority", "normal");
    message:tag("encrypted", { xmlns = "urn:xmpp:sce:rfc8291:0" })
        :text_tag("payload", module:get_option_string("test_payload")):up();
    message:text_tag("jwt", module:get_option_string("test_jwt"), { key = module:get_option_string("test_key") });
    module:send(message);
end, 10);

module:hook("message/host", function (event)
    local kind, condition = event.stanza:get_error();
    module:log("info", "push2 says %s %s %s", tostring(event.stanza.attr.type), tostring(kind), tostring(condition));
    return true;
end, 10);
"#;

#[test]
fn a_message_for_a_user_who_is_away_reaches_the_browser() {
    let ca = TestCa::new();
    let push = FakePush::start(&ca);
    let (server, device) = (Push2Server::new(), push.subscribe("/d?up=1&x=%2b"));
    let notification = server.notification(&device, "hello").message("x", "1");
    let part = |start: &str, end: &str| {
        let (_, rest) = notification.split_once(start).unwrap();
        rest.split_once(end).unwrap().0.to_owned()
    };
    let folder = TempDir::new();
    fs::write(folder.path().join("mod_push2_small.lua"), MODULE).unwrap();
    let config = format!(
        "plugin_paths = {{ \"{}\" }}\n\
         modules_enabled = {{ \"saslauth\", \"roster\", \"disco\", \"register\", \"offline\", \"push2_small\" }}\n\
         test_endpoints = {{ juliet = \"{}\" }}\ntest_payload = \"{}\"\ntest_jwt = \"{}\"\ntest_key = \"{}\"\n",
        folder.path().display(),
        device.endpoint,
        part("<payload>", "<"),
        notification
            .rsplit_once("</jwt>")
            .unwrap()
            .0
            .rsplit_once('>')
            .unwrap()
            .1,
        part("<jwt key='", "'"),
    );
    let prosody = Prosody::start(&[("push.localhost", "secret")], &config).unwrap_or_else(|e| panic!("{e}"));
    let daemon = Rig::daemon(
        &ca,
        json!({ "web": web(&push, json!({})) }),
        json!({ "serverPort": prosody.component_port(), "push2": { "modules": ["web"] } }),
        &[],
    );
    prosody.wait_for_component(1, LONG).unwrap();
    for user in ["romeo", "juliet", "nobody"] {
        prosody.register(user, "secret").unwrap();
    }
    let mut romeo = prosody.login("romeo", "secret").unwrap();
    romeo.send_message("juliet@localhost", "hello").unwrap();
    let pushed = &push.wait_for(1, LONG)[0];
    assert_eq!(pushed.text.as_deref(), Ok("hello"));
    assert_eq!(
        (&*pushed.path, &*pushed.key),
        ("/d?up=1&x=%2b", &*server.public_key())
    );
    assert!(pushed.claims.is_ok());
    romeo.send_message("nobody@localhost", "hello").unwrap();
    prosody
        .wait_for_log("push2 says error wait policy-violation", LONG)
        .unwrap();
    // Any user may send one as well.
    let own = server
        .notification(&device, "own")
        .message("romeo@localhost", "2");
    romeo
        .send_raw(&own.replacen("from='romeo@localhost' ", "", 1))
        .unwrap();
    assert_eq!(push.wait_for(2, LONG)[1].text.as_deref(), Ok("own"));
    romeo
        .send_raw(
            &Notification::to("nonsense")
                .message("", "3")
                .replacen("from='' ", "", 1),
        )
        .unwrap();
    let error = romeo
        .next_matching(|stanza| stanza.contains("policy-violation"), LONG)
        .unwrap();
    assert!(
        error.starts_with("<message") && error.contains("type='error'"),
        "{error}"
    );
    assert_eq!(prosody.component_logins(), 1);
    drop(daemon);
}
