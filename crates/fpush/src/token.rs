//! `fpush token`: why a phone gets no push.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use fpush_driver::{Home, Modules, TokenRole, TokenView};
use fpush_policy::{End, Last, Limit, Waits};
use fpush_push::{OutagePhase, OutageStatus, Outcome};
use serde_json::{Value, json};
use tokio::{runtime, time::Instant};

use crate::{
    cli,
    console::{Console, Exit},
    control,
    inquiry::{Findings, Inquiry, Question, Wanted},
    registration::{KnownDevice, Looked, Lookup},
    send::read_token,
    settings::{load_whom_to_ask, unreadable},
};

pub(crate) fn token(args: &cli::Token, console: &mut Console) -> Exit {
    let cli::Token {
        settings,
        module,
        token,
        node,
        form,
    } = args;
    let wanted = match (node, module, token) {
        (Some(node), _, _) => Wanted::Node(node.clone()),
        (None, Some(module), Some(given)) => match read_token(given, *form, console) {
            Ok(token) => Wanted::Token {
                module: module.clone(),
                token,
            },
            Err(exit) => return exit,
        },
        (None, _, _) => {
            console.error("name a module and a token, or a node");
            return Exit::Usage;
        }
    };
    let file = settings.choose(console);
    let socket = load_whom_to_ask(&file).0.socket();
    match ask(&file, wanted) {
        Ok(Some(findings)) => {
            let Findings {
                ok, lines, tokens, ..
            } = &findings;
            if form.json {
                console.json(&json!({
                    "ok": ok, "asked": socket, "findings": findings.each(), "tokens": tokens,
                }));
            } else {
                lines.iter().for_each(|line| console.say(line));
            }
            if *ok { Exit::Success } else { Exit::No }
        }
        Ok(None) => {
            let problems = unreadable(&file);
            if !problems.is_empty() {
                console.wrong_settings(*form, &problems);
                return Exit::Config;
            }
            let nobody = format_args!(
                "no fpush runs with these settings (none answers at {}), and what is known of a token is in its memory; start \
                 it, or look at the registration: fpush devices show NODE",
                socket.display()
            );
            console.failed(*form, nobody);
            Exit::No
        }
        Err(e) => {
            console.failed(*form, format_args!("{e:#}"));
            Exit::OsError
        }
    }
}

/// `None` if no daemon runs.
fn ask(file: &Path, wanted: Wanted) -> anyhow::Result<Option<Findings>> {
    let (folder, components) = load_whom_to_ask(file);
    let question = Question {
        components,
        inquiry: Inquiry::Token(wanted),
    };
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(control::ask(&folder, &question))
}

impl Findings {
    /// Everything that is known of a token, or of a registered device and its tokens.
    pub(crate) async fn token(&mut self, modules: &Modules, devices: &Lookup, wanted: &Wanted) {
        match wanted {
            Wanted::Token { module, token } => {
                let Some(spelling) = modules.named(module).map(|module| {
                    let spelling = module.canonical(token);
                    spelling.map(|spelling| spelling.into_owned())
                }) else {
                    let all = modules.all();
                    let names: Vec<_> = all.iter().map(|module| module.name()).collect();
                    let names = names.join(", ");
                    return self.bad(format!(
                        "there is no push module {module} in the settings; there are: {names}"
                    ));
                };
                let Some(spelling) = spelling else {
                    self.bad(format!("module {module}: this cannot be a token of its provider"));
                    return self.explain(
                        "A publish with it is answered wait, and nothing is sent. Look whether the token is complete, and \
                         whether it is another module's.",
                    );
                };
                self.view(modules, module, token, TokenRole::First, None);
                match devices.by_token(token, &spelling).await {
                    Looked::NoRegistration => {}
                    Looked::Unavailable => self.bad(UNAVAILABLE.to_owned()),
                    Looked::Devices(devices) if devices.is_empty() => {
                        self.good("registration: no device is registered with this token".to_owned());
                        self.explain("Its publishes carry the token itself, if there are any.");
                    }
                    Looked::Devices(devices) => {
                        for device in &devices {
                            self.device(device);
                            let node = Some(&*device.node);
                            if device.voip_token.as_deref() == Some(&*spelling) {
                                self.view(modules, module, token, TokenRole::Second, node);
                            } else {
                                self.limits(inspect(modules, module, token, TokenRole::First, node).as_ref());
                            }
                        }
                    }
                }
            }
            Wanted::Node(node) => match devices.by_node(node).await {
                Looked::NoRegistration => {
                    self.bad(
                        "the settings have no block \"registration\", so there are no registered devices"
                            .to_owned(),
                    );
                }
                Looked::Unavailable => self.bad(UNAVAILABLE.to_owned()),
                Looked::Devices(devices) if devices.is_empty() => {
                    self.bad("no device is registered under this node".to_owned());
                    self.explain(
                        "Nothing is sent for it. If its phone should get pushes, the app has to register again; look whether \
                         the database is the right one if others are missing, too.",
                    );
                }
                Looked::Devices(devices) => {
                    for device in &devices {
                        self.device(device);
                        let Some(module) = &device.module else {
                            let kind = &device.kind;
                            self.bad(format!("the settings have no push module for its type {kind}"));
                            self.explain(
                                "Its publishes are answered wait. Add the type to registration.types, or the provider to \
                                 registration.providers.",
                            );
                            continue;
                        };
                        let node = Some(&*device.node);
                        self.view(modules, module, &device.token, TokenRole::First, node);
                        if let Some(token) = &device.voip_token {
                            self.view(modules, module, token, TokenRole::Second, node);
                        }
                    }
                }
            },
        }
    }

    /// What there is to say of a registration.
    fn device(&mut self, device: &KnownDevice) {
        let KnownDevice {
            kind,
            dialect,
            node,
            registered,
            renewed,
            accepted,
            refused,
            ..
        } = device;
        let renewed = renewed
            .as_ref()
            .map(|at| format!(", renewed {at}"))
            .unwrap_or_default();
        self.good(format!(
            "registration: node {node}, type {kind} ({dialect}), since {registered}{renewed}"
        ));
        let never = || "never".to_owned();
        let (accepted, refused) = (
            accepted.clone().unwrap_or_else(never),
            refused.clone().unwrap_or_else(never),
        );
        self.explain(&format!(
            "The provider last accepted a push for it: {accepted}; last refused one: {refused}."
        ));
    }

    /// What the module says of a token, of a registered device if a node is named.
    fn view(&mut self, modules: &Modules, name: &str, token: &str, role: TokenRole, node: Option<&str>) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let Some(view) = inspect(modules, name, token, role, node) else {
            self.bad(format!(
                "module {name}: it is not in the settings, or this cannot be a token of its provider"
            ));
            return self.explain("Nothing is sent. A publish is answered wait.");
        };
        let TokenView {
            hash,
            limits: _,
            silenced,
            block,
            paused,
            outage,
            trouble,
            home,
            last,
        } = &view;
        let what = match role {
            TokenRole::First => "this token",
            TokenRole::Second => "the second token, for calls,",
        };
        self.good(format!("module {name}: the log calls {what} {hash}"));
        self.explain(&format!(
            "Look for it, from RUST_LOG=debug on: journalctl -u fpush | grep {hash}"
        ));
        match (trouble, paused) {
            (Some(trouble), _) if !trouble.kind.lets_pushes_pass() => {
                self.bad(format!("module: {}", trouble.words));
                self.explain("This concerns all devices of the module. What comes meanwhile is held, or answered wait.");
            }
            (_, Some(left)) => {
                self.bad(format!("module: it sends nothing for another {}", shown(*left)));
                self.explain("Its provider wants less, or refuses its credentials; the log says which.");
            }
            (Some(trouble), None) => self.good(format!("module: {}", trouble.words)),
            (None, None) => self.good("module: works, as far as is known".to_owned()),
        }
        self.outage(outage);
        match home {
            Home::Only => {}
            Home::Main { other } => {
                self.good(format!(
                    "environment: it is tried in the main one first, then in the {other}"
                ));
                self.explain("It was never accepted in the other one, or last accepted in the main one.");
            }
            Home::Second { name } => {
                self.good(format!("environment: it is tried in the {name} first"));
                self.explain("That is where it last worked.");
            }
        }
        match block {
            Some(block) => {
                let left = shown(block.left);
                if block.dead {
                    self.bad(format!("block list: the provider has called this token dead; for another {left} nothing is sent"));
                    self.explain(
                        "Its server was told that the device is gone. The app gets a new token and has to register it: open \
                         the app. Once an hour a push to this token goes out all the same, as fpush send does: if the provider \
                         accepts one, the block ends.",
                    );
                } else {
                    self.bad(format!(
                        "block list: for another {left} nothing is sent to this token"
                    ));
                    self.explain(
                        "The provider refused it, and that was not believed or not understood; the device stays registered. An \
                         accepted push ends this: fpush send.",
                    );
                }
            }
            None => self.good("block list: not on it".to_owned()),
        }
        if let Some(left) = silenced {
            self.bad(format!(
                "rate limit: for another {} nothing is sent, because the provider called this device too busy",
                shown(*left)
            ));
            self.explain("One push waits for the end of that, if one came.");
        }
        self.limits(Some(&view));
        match last {
            Some(last) => self.last(last, now, wall),
            None => {
                self.good("last push: none since the start, or too long ago".to_owned());
                self.explain(
                    "If there should have been one: does the user's server publish at all, and does it name this module? Look \
                     for its domain on the status page.",
                );
            }
        }
        self.tokens.push(as_json(name, &view, now, wall));
    }

    /// Rate limit and queue, of a registered device for itself.
    fn limits(&mut self, view: Option<&TokenView>) {
        let limits = view.map(|view| &*view.limits).unwrap_or_default();
        for limit in limits {
            self.limit(limit);
        }
        if limits.is_empty() {
            self.good("rate limit: the next push goes out at once; queue: none waits".to_owned());
        }
    }

    fn limit(&mut self, limit: &Limit) {
        let class = limit.class.words();
        match limit.waits {
            Waits::Queued(left) => {
                self.good(format!("queue: {class} waits, and goes out in {}", shown(left)));
                self.explain(
                    "It wakes the phone for all that came since. Further ones are refused until then.",
                );
            }
            Waits::Held(left) => {
                let left = shown(left);
                self.good(format!(
                    "queue: {class} is held until the provider is back, for another {left} at most"
                ));
                self.explain("It wakes the phone for all that came since, and for all that comes meanwhile.");
            }
            Waits::Limited(left) => self.good(format!(
                "rate limit: {class} may go out in {}; one that comes before is queued",
                shown(left)
            )),
        }
    }

    /// Whether the module's provider takes pushes.
    fn outage(&mut self, outage: &OutageStatus) {
        let OutageStatus {
            phase,
            lasts,
            held,
            oldest: _,
            out_in,
        } = outage;
        match phase {
            OutagePhase::Up => {}
            OutagePhase::Down => {
                let lasts = shown(lasts.unwrap_or_default());
                self.bad(format!(
                    "outage: the provider has taken nothing for {lasts}; held until it is back: {held}"
                ));
                self.explain(
                    "This concerns all devices of the module. Publishes are held, or answered wait if they are calls or holdFor \
                     is 0s. fpush asks again every 15 s or more often, and as soon as something is taken, all that is held goes \
                     out.",
                );
            }
            OutagePhase::Recovering => {
                let left = out_in.map(|left| format!(", in about {}", shown(left)));
                self.good(format!(
                    "outage: it is over; still to go out: {held}{}",
                    left.unwrap_or_default()
                ));
                self.explain(
                    "What was held follows little by little, the oldest first; a new push goes out at once.",
                );
            }
        }
    }

    fn last(&mut self, last: &Last, now: Instant, wall: SystemTime) {
        let Last { at, end, reason } = last;
        let ago = now.into_std().saturating_duration_since(*at);
        let time = humantime::format_rfc3339_seconds(wall - ago);
        let reason = reason
            .map(|reason| format!(", the provider's reason: {reason}"))
            .unwrap_or_default();
        let name = end.name();
        let line = format!("last push: {time} ({} ago): {name}{reason}", shown(ago));
        match end {
            End::Answered(
                Outcome::Accepted
                | Outcome::Queued
                | Outcome::Coalesced
                | Outcome::Refused
                | Outcome::Unwanted,
            )
            | End::Delivered => self.good(line),
            End::Answered(_) | End::Lost | End::Dropped | End::Failed => self.bad(line),
        }
        self.explain(&end.meaning().join(" "));
    }
}

fn inspect(
    modules: &Modules,
    module: &str,
    token: &str,
    role: TokenRole,
    node: Option<&str>,
) -> Option<TokenView> {
    modules
        .named(module)?
        .inspect(token, role, node, Instant::now(), SystemTime::now())
}

/// For a script.
fn as_json(module: &str, view: &TokenView, now: Instant, wall: SystemTime) -> Value {
    let TokenView {
        hash,
        limits,
        silenced,
        block,
        paused,
        outage,
        trouble,
        home,
        last,
    } = view;
    let limits: Vec<_> = limits
        .iter()
        .map(|limit| {
            let (state, left) = match limit.waits {
                Waits::Limited(left) => ("limited", left),
                Waits::Queued(left) => ("queued", left),
                Waits::Held(left) => ("held", left),
            };
            json!({ "class": limit.class.words(), "state": state, "seconds": left.as_secs() })
        })
        .collect();
    json!({
        "module": module,
        "hash": hash,
        "limits": limits,
        "silencedSeconds": silenced.map(|silenced| silenced.as_secs()),
        "blocked": block.map(|block| json!({ "dead": block.dead, "seconds": block.left.as_secs() })),
        "outage": {
            "phase": outage.phase.name(),
            "seconds": outage.lasts.map(|lasts| lasts.as_secs()),
            "held": outage.held,
        },
        "pausedSeconds": paused.map(|paused| paused.as_secs()),
        "trouble": trouble.as_ref().map(|trouble| json!({ "kind": trouble.kind.name(), "words": trouble.words })),
        "environment": match home {
            Home::Only => None,
            Home::Main { .. } => Some("main"),
            Home::Second { name } => Some(*name),
        },
        "last": last.map(|last| json!({
            "at": humantime::format_rfc3339_seconds(wall - now.into_std().saturating_duration_since(last.at)).to_string(),
            "outcome": last.end.name(),
            "reason": last.reason,
        })),
    })
}

/// A time span without what nobody wants to know.
fn shown(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(span.as_secs()))
}

const UNAVAILABLE: &str = "registration: the database cannot be asked now";
