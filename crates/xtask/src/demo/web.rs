//! `cargo xtask demo --web`: the example of a web app, in a browser of this machine.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fpush_testkit::{
    FakeXmpp, Link, Site, TempDir, free_port,
    publish::{Publish, field, options},
    servers::{Guarded, Running},
    site::OnForm,
};
use serde_json::json;

use super::{build, heading, pretty};
use crate::interrupt;

/// Runs the demo until a signal comes. Whatever it started ends when this returns.
pub(crate) fn run() -> Result<()> {
    println!("{INTRODUCTION}");

    heading("1. Build fpush");
    let program = build()?;

    heading("2. Start everything");
    let folder = TempDir::new();
    let (site, api) = (Site::bind(), free_port()?);
    let page = format!("http://{}", site.local_addr()?);
    let xmpp = FakeXmpp::start(COMPONENT, SECRET);
    make_key(&program, &folder)?;
    let settings = settings(&folder, xmpp.port(), &page, api)?;
    let log = folder.path().join("fpush.log");
    let mut fpush = Guarded::new(&program)
        .arg(&settings)
        .current_dir(folder.path())
        .envs([("RUST_LOG", "info")])
        .spawn(File::create(&log)?)
        .context("cannot start fpush")?;
    let link = xmpp.try_accept(PATIENCE);
    let link = link.map_err(|error| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        anyhow::anyhow!(
            "fpush does not log in: {error}; its log:\n{}",
            pretty::indent(&said)
        )
    })?;
    println!("fpush runs with these settings:\n");
    print!("{}", pretty::indent(&fs::read_to_string(&settings)?));
    let site = Site::serve(site, files(&page, api)?, on_form(link));

    heading("3. Open it");
    println!(
        "    {}\n\nTurn push on there, and then press the other button. Ctrl-C ends the demo.",
        site.url()
    );
    wait(&mut fpush, &log)?;
    println!("\nEverything is stopped, and nothing is left behind but the build.");
    Ok(())
}

/// Waits for the signal that ends the demo, and says meanwhile what goes wrong.
fn wait(fpush: &mut Running, log: &Path) -> Result<()> {
    let mut said = 0;
    while !interrupt::happened() {
        if let Some(status) = fpush.try_wait()? {
            bail!("fpush ended ({status})");
        }
        let text = fs::read_to_string(log).unwrap_or_default();
        for line in text.lines().skip(said) {
            said += 1;
            if line.contains("WARN") || line.contains("ERROR") {
                println!("{line}");
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn make_key(program: &Path, folder: &TempDir) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(["vapid", "new", "vapid.key"])
        .current_dir(folder.path());
    let status = command.status().context("cannot start fpush")?;
    if !status.success() {
        bail!("fpush vapid new ends with {status}");
    }
    Ok(())
}

fn settings(folder: &TempDir, port: u16, page: &str, api: u16) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let settings = json!({
        "component": {
            "componentHostname": COMPONENT, "componentKey": SECRET,
            "serverHostname": "127.0.0.1", "serverPort": port,
        },
        "pushModules": { "web": {
            "type": "webpush",
            "ratelimit": { "enabled": false },
            "webpush": { "vapidKeyFilePath": "vapid.key", "subject": "mailto:demo@example.org" },
        } },
        "registration": {
            "store": { "type": "sqlite", "path": "devices.db" },
            "types": { "webpush": "web" },
            "http": { "listen": format!("127.0.0.1:{api}"), "allowedOrigins": [page] },
        },
    });
    let path = folder.write("settings.json", pretty::json(&settings));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// The files of the example, with the address of this fpush.
fn files(page: &str, api: u16) -> Result<HashMap<String, Vec<u8>>> {
    let folder = Path::new("examples/web-client");
    let mut files = HashMap::new();
    for name in ["index.html", "app.js", "worker.js"] {
        let content =
            fs::read(folder.join(name)).with_context(|| format!("cannot read {name} of the example"))?;
        files.insert(name.to_owned(), content);
    }
    let host = page.rsplit_once(':').map_or(page, |(host, _)| host);
    let config = json!({ "api": format!("{host}:{api}/push_appserver/v1/"), "type": "webpush" });
    files.insert("config.json".to_owned(), config.to_string().into_bytes());
    Ok(files)
}

/// In the place of an XMPP server whose user has a message: publishes to the device that the page names.
fn on_form(mut link: Link) -> OnForm {
    let mut published = 0;
    Box::new(move |path, form| {
        let value = |name: &str| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let (Some(node), Some(secret)) = (value("node"), value("secret")) else {
            return "there is no such form".to_owned();
        };
        if path != "publish" {
            return "there is no such page".to_owned();
        }
        published += 1;
        let id = format!("publish-{published}");
        let publish = Publish::new(&id, &node, ITEM, &options("submit", &field("secret", &secret)));
        println!(
            "\nThe server publishes to node {node}:\n\n{}",
            pretty::indent(&pretty::xml(&publish.to_string()))
        );
        link.send(publish);
        let reply = link.reply_to(&id, PATIENCE);
        println!("\nfpush replies:\n\n{}", pretty::indent(&pretty::xml(&reply.raw)));
        reply.verdict()
    })
}

const INTRODUCTION: &str = "\
fpush demo: a web page that gets pushes.

It builds fpush and starts it on 127.0.0.1, with a stand-in for an XMPP server and the example in examples/web-client.
Your browser and fpush talk to your browser's own push service over the internet; what is pushed is encrypted, and made up.";

const COMPONENT: &str = "push.localhost";
const SECRET: &str = "made-up-component-secret";
/// A message with a body.
const ITEM: &str = "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
    <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
    <field var='last-message-body'><value>New message</value></field></x></notification></item>";
/// A publish is answered after 25 s at the latest.
const PATIENCE: Duration = Duration::from_secs(30);
