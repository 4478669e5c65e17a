//! A user's own devices, as they may be shown: no node, no secret, no token.

use std::time::SystemTime;

use fpush_driver::{Modules, TokenRole};
use fpush_push::{OutagePhase, OwnDevice, Recipient, Scope, TokenHasher};
use humantime::{format_duration, format_rfc3339_seconds};
use tokio::time::{Duration, Instant};

/// A registered device of the user who asks.
pub(super) struct Own {
    /// By that its owner can name it.
    pub(super) mark: String,
    pub(super) recipient: Recipient,
    /// The push type that it registered with.
    pub(super) kind: String,
    pub(super) module: String,
    pub(super) registered: String,
    renewed: Option<String>,
    accepted: Option<String>,
    refused: Option<String>,
    /// How the last push ended, if that is remembered.
    last: Option<String>,
    state: String,
}

impl Own {
    /// What is shown of each.
    pub(super) const COLUMNS: [(&'static str, &'static str); 9] = [
        ("device", "Device"),
        ("kind", "Push type"),
        ("module", "Push module"),
        ("registered", "Registered"),
        ("renewed", "Renewed"),
        ("last-push", "Last push accepted"),
        ("last-error", "Last push refused"),
        ("last-answer", "How the last push ended"),
        ("state", "State"),
    ];

    /// A device, if its push module may be used where its owner asks.
    pub(super) fn new(
        device: OwnDevice,
        modules: &Modules,
        hasher: &TokenHasher,
        scope: &Scope,
    ) -> Option<Self> {
        let OwnDevice {
            recipient,
            kind,
            registered,
            renewed,
            accepted,
            refused,
        } = device;
        if !scope.allows(&recipient.module) {
            return None;
        }
        let (last, state) = state(&recipient, modules);
        Some(Self {
            mark: hasher.device(&recipient.node).to_string(),
            kind,
            module: recipient.module.to_string(),
            recipient,
            registered,
            renewed,
            accepted,
            refused,
            last,
            state,
        })
    }

    /// What is shown, in the order of the columns.
    pub(super) fn cells(&self) -> [String; 9] {
        let or_never = |time: &Option<String>| time.clone().unwrap_or_else(|| "never".to_owned());
        [
            self.mark.clone(),
            self.kind.clone(),
            self.module.clone(),
            self.registered.clone(),
            or_never(&self.renewed),
            or_never(&self.accepted),
            or_never(&self.refused),
            self.last.clone().unwrap_or_else(|| "not known".to_owned()),
            self.state.clone(),
        ]
    }
}

/// How the last push to a device ended, and what keeps the next one from it.
fn state(recipient: &Recipient, modules: &Modules) -> (Option<String>, String) {
    let Some(module) = modules.named(&recipient.module) else {
        return (None, "its push module is not in the settings".to_owned());
    };
    let (now, wall) = (Instant::now(), SystemTime::now());
    let (token, node) = (recipient.token.as_str(), Some(&*recipient.node));
    let Some(view) = module.inspect(token, TokenRole::First, node, now, wall) else {
        return (None, "its token cannot be one of its push module".to_owned());
    };
    let last = view.last.map(|last| {
        let ago = now.into_std().saturating_duration_since(last.at);
        let time = format_rfc3339_seconds(wall - ago);
        let reason = last
            .reason
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        format!("{time} {}{reason}", last.end.name())
    });
    let left = |span: Duration| format_duration(Duration::from_secs(span.as_secs()));
    let state = if let Some(block) = view.block {
        format!(
            "nothing is sent for {}, after the provider refused its token",
            left(block.left)
        )
    } else if let Some(silenced) = view.silenced {
        format!(
            "nothing is sent for {}: the provider wants fewer pushes for it",
            left(silenced)
        )
    } else if view.paused.is_some() || view.outage.phase == OutagePhase::Down {
        "the provider takes nothing from this push module now".to_owned()
    } else {
        "ready".to_owned()
    };
    (last, state)
}
