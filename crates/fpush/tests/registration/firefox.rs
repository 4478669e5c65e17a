//! A web app in a real Firefox that is an XMPP client as well, whose user has an account at a real Prosody: the whole way of a
//! message, but for the push service between fpush and Firefox, which is a stand-in.

use std::{sync::mpsc, time::Instant};

use fpush_testkit::{
    Answer, ApnsKey, Daemon, FakePush, Firefox, Site, TestCa, free_port,
    servers::{Prosody, Server as _},
};
use serde_json::json;

use crate::{
    rig::{LONG, PROGRAM},
    web_client::{files, module},
};

/// It registers over HTTP as the example does, or by command, and enables push at its server.
#[test]
#[ignore = "needs Firefox: `cargo xtask test --long` runs it"]
fn firefox_shows_what_a_prosody_publishes_for_a_message() {
    for way in ["http", "command"] {
        let (ca, port, site) = (TestCa::new(), free_port().unwrap(), Site::bind());
        let push = FakePush::start(&ca);
        push.answer_with(|_| Answer::status(201));
        let config = format!(
            "modules_enabled = {{ \"saslauth\", \"roster\", \"disco\", \"register\", \"offline\", \"smacks\", \
             \"cloud_notify\", \"websocket\" }}\n\
             http_ports = {{ {port} }}\nhttp_interfaces = {{ \"127.0.0.1\" }}\nhttps_ports = {{ }}\n\
             http_default_host = \"localhost\"\nconsider_websocket_secure = true\n"
        );
        let prosody =
            Prosody::start(&[("push.localhost", "secret")], &config).unwrap_or_else(|e| panic!("{e}"));
        let origin = format!("http://{}", site.local_addr().unwrap());
        let daemon = Daemon::builder(PROGRAM)
            .settings(&json!({
                "component": {
                    "componentHostname": "push.localhost", "componentKey": "secret",
                    "serverHostname": "127.0.0.1", "serverPort": prosody.component_port(),
                },
                "pushModules": module(&push),
                "registration": {
                    "store": { "type": "sqlite", "path": "devices.db" }, "types": { "webpush": "web" },
                    "http": { "listen": "127.0.0.1:0", "allowedOrigins": [origin] },
                },
            }))
            .rust_log("trace")
            .file("vapid.key", ApnsKey::generate().p8())
            .file("push-ca.pem", ca.pem())
            .start();
        prosody.wait_for_component(1, LONG).unwrap();
        for user in ["romeo", "juliet"] {
            prosody.register(user, "secret").unwrap();
        }

        let (report, reports) = mpsc::channel();
        let on_form = move |_: &str, form: &str| {
            drop(report.send(form.to_owned()));
            String::new()
        };
        let client = CLIENT.replace("WAY", way).replace("PORT", &port.to_string());
        let mut files = files(&daemon, &client);
        files.get_mut("worker.js").unwrap().splice(..0, SHOWING.bytes());
        let site = Site::serve(site, files, Box::new(on_form));
        let firefox = Firefox::open(&site.url(), &format!("https://{}/wpush/v2/", push.address()));
        let mut page = String::new();
        let mut wait_for = |words: &str| {
            let start = Instant::now();
            while !page.contains(words) {
                let heard = reports.recv_timeout(LONG);
                page = heard.unwrap_or_else(|_| panic!("{way}: Firefox says nothing"));
                assert!(start.elapsed() < LONG, "{way}: there is no {words:?} in {page}");
            }
        };
        wait_for("Push is enabled, and juliet is away.");

        let mut romeo = prosody.login("romeo", "secret").unwrap();
        romeo.send_message("juliet@localhost", "hello").unwrap();
        let pushed = &push.wait_for(1, LONG)[0];
        assert!(pushed.claims.is_ok(), "{:?}", pushed.claims);
        assert_eq!(
            firefox.deliver(&pushed.path, &pushed.body),
            100,
            "{way}: it is decrypted"
        );
        wait_for("The service worker has got a push: {}");
        wait_for("has got a push: {\"shown\":\"New message\"}");
        drop(daemon);
    }
}

/// Tells the page once Firefox has shown a notification.
const SHOWING: &str = "const show = ServiceWorkerRegistration.prototype.showNotification;
    ServiceWorkerRegistration.prototype.showNotification = async function (title, options) {
        await show.call(this, title, options);
        const pages = await self.clients.matchAll({ type: 'window' });
        pages.forEach((page) => page.postMessage({ shown: title }));
    };
";

/// A client of XMPP over WebSocket (RFC 7395) that has its device registered and enables push for it. The push service of a new
/// Firefox may not be there at first.
const CLIENT: &str = r##"<script type=module>
    const { api, type } = await (await fetch("config.json")).json();
    const log = document.querySelector("#log");
    const say = (text) => log.append(`${text}\n`);
    setInterval(() => fetch("report", { method: "POST", body: log.innerText }), 500);
    setTimeout(() => log.innerText.includes("subscribed") || location.reload(), 6000);

    const connect = async () => {
        const socket = new WebSocket("ws://127.0.0.1:PORT/xmpp-websocket", "xmpp");
        const [came, waiting] = [[], []];
        socket.onmessage = ({ data }) => {
            const stanza = new DOMParser().parseFromString(data, "text/xml").documentElement;
            waiting.length ? waiting.shift()(stanza) : came.push(stanza);
        };
        const next = () => came.shift() ?? new Promise((resolve) => waiting.push(resolve));
        const until = async (is_it) => {
            for (;;) {
                const stanza = await next();
                if (is_it(stanza)) return stanza;
            }
        };
        const features = () => {
            socket.send("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>");
            return until((stanza) => stanza.localName === "features");
        };
        const request = async (to, content) => {
            const id = crypto.randomUUID();
            socket.send(`<iq xmlns='jabber:client' type='set' id='${id}' ${to}>${content}</iq>`);
            const answer = await until((stanza) => stanza.getAttribute("id") === id);
            if (answer.getAttribute("type") !== "result") throw new Error(answer.outerHTML);
            return answer;
        };
        await new Promise((resolve) => (socket.onopen = resolve));
        await features();
        const plain = btoa("\0juliet\0secret");
        socket.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${plain}</auth>`);
        await until((stanza) => stanza.localName === "success");
        await features();
        await request("", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>");
        const end = () => socket.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
        return { request, end };
    };

    const by_http = async () => {
        const button = document.querySelector("#subscribe");
        while (!button.onclick) await new Promise((resolve) => setTimeout(resolve, 100));
        button.click();
        for (;;) {
            const [, node, secret] = log.innerText.match(/node='(.*?)'[^]*<field var='secret'><value>(.*?)</) ?? [];
            if (secret) return { node, secret };
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    };
    const by_command = async ({ request }) => {
        const worker = await navigator.serviceWorker.ready;
        const vapid = await (await fetch(`${api}vapid/${type}`)).text();
        const options = { userVisibleOnly: true, applicationServerKey: vapid };
        const { endpoint, keys } = (await worker.pushManager.subscribe(options)).toJSON();
        const fields = Object.entries({ type, node: "firefox", endpoint, ...keys, vapid });
        const written = fields.map(([name, value]) => `<field var='${name}'><value>${value}</value></field>`);
        const answer = await request("to='push.localhost'",
            `<command xmlns='http://jabber.org/protocol/commands' node='v1-register-push' action='execute'>
            <x xmlns='jabber:x:data' type='submit'>${written.join("")}</x></command>`);
        const value = (name) => answer.querySelector(`field[var=${name}] value`).textContent;
        return { node: value("node"), secret: value("secret") };
    };
    try {
        const connection = await connect();
        const { node, secret } = await ("WAY" === "http" ? by_http() : by_command(connection));
        say("It has subscribed.");
        await connection.request("", `<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='${node}'>
            <x xmlns='jabber:x:data' type='submit'>
            <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
            <field var='secret'><value>${secret}</value></field></x></enable>`);
        connection.end();
        say("Push is enabled, and juliet is away.");
    } catch (error) {
        say(`It fails: ${error}`);
    }
</script>"##;
