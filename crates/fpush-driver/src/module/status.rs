//! What a module says of itself, in words.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fpush_policy::{Complaint, Condition, LaneState, View};
use fpush_push::{
    BackendStatus, Delivery, LaneId, LaneStatus, ModuleStatus, OutagePhase, OutageStatus, Proof, PushTrait,
    Trouble, TroubleKind,
};
use tokio::time::Instant;

use super::Module;

impl Module {
    /// Everything that there is to say about the module now.
    #[must_use]
    pub fn status(&self, now: Instant, wall: SystemTime) -> ModuleStatus {
        let (view, provider) = {
            let mut state = self.lock();
            (state.policy.view(now.into_std()), Arc::clone(&state.backend))
        };
        let (backend, vendors) = (provider.status(), vendors(&view, &*provider));
        let trouble = self.trouble(&view, &*provider, &backend, wall);
        let proof = match trouble.as_ref().map(|trouble| trouble.kind) {
            Some(TroubleKind::Authentication) => Proof::Refused,
            Some(_) | None if view.proven => Proof::Proven,
            Some(_) | None => Proof::NotTried,
        };
        ModuleStatus {
            name: self.name.to_string(),
            in_flight: view.in_flight,
            waiting: view.waiting,
            held: view.held,
            outage: outage(&view),
            limited_tokens: view.limited_tokens,
            blocked_tokens: view.blocked_tokens,
            doubted_tokens: view.doubted_tokens,
            meters: Arc::clone(&self.lane.meters),
            last_accepted: view.last_accepted,
            proof,
            trouble,
            second: second(&view, &backend),
            vendors,
            backend,
        }
    }
}

/// The vendors that do not work as they should, each by its name.
fn vendors(view: &View, provider: &dyn PushTrait) -> Vec<(&'static str, Trouble)> {
    let troubles = view.vendors.iter().filter_map(|lane| {
        let name = provider.vendor(LaneId::Vendor(lane.vendor))?;
        let said = lane.trouble.as_ref();
        let of_provider = said.map(|(kind, complaint)| of_provider(*kind, complaint, Some(name)));
        let all = [of_tokens(lane.condition), of_provider];
        Some((
            name,
            all.into_iter().flatten().min_by_key(|trouble| trouble.kind)?,
        ))
    });
    troubles.collect()
}

/// How a provider treats tokens, if that is not as it should be.
fn of_tokens(condition: Condition) -> Option<Trouble> {
    let (kind, words) = match condition {
        Condition::Well => return None,
        Condition::Burst => (TroubleKind::WrongTokens, REJECTS_TOO_MANY),
        Condition::NothingAccepted => (TroubleKind::NothingAccepted, ACCEPTS_NOTHING),
        Condition::Stale => (TroubleKind::StaleTokens, STALE_TOKENS),
    };
    Some(Trouble {
        kind,
        words: words.to_owned(),
    })
}

/// What is known of the second lane, if the backend has two.
fn second(view: &View, backend: &BackendStatus) -> Option<LaneStatus> {
    let (name, _) = backend.second?;
    // Nothing may have been sent there yet.
    let last_accepted = view.second.as_ref().and_then(|second| second.last_accepted);
    let trouble = view.second.as_ref().and_then(|second| second.trouble.as_ref());
    Some(LaneStatus {
        name,
        last_accepted,
        trouble: trouble.map(|(kind, complaint)| of_provider(*kind, complaint, Some(name))),
    })
}

/// What the provider said, of all lanes or of the one with this name.
fn of_provider(kind: TroubleKind, complaint: &Complaint, lane: Option<&str>) -> Trouble {
    let Complaint { answer, meaning } = complaint;
    let place = lane.map(|name| format!("{name}: ")).unwrap_or_default();
    let words = match kind {
        TroubleKind::Unproven => format!(
            "{place}not proven yet that the provider accepts its credentials; the last attempt failed: {answer}: {meaning}"
        ),
        _ => format!("{place}the provider's answer is {answer}: {meaning}"),
    };
    Trouble { kind, words }
}

/// Whether the module's provider takes pushes, and what waits until it does.
pub(super) fn outage(view: &View) -> OutageStatus {
    let (phase, lasts) = match view.lane {
        LaneState::Up => (OutagePhase::Up, None),
        LaneState::Down { since } => (OutagePhase::Down, Some(since)),
        LaneState::Recovering => (OutagePhase::Recovering, None),
    };
    OutageStatus {
        phase,
        lasts,
        held: view.spooled,
        oldest: view.spooled_since,
        out_in: view.spooled_out_in,
    }
}

impl Module {
    /// The worst that there is to say about it.
    pub(super) fn trouble(
        &self,
        view: &View,
        provider: &dyn PushTrait,
        backend: &BackendStatus,
        wall: SystemTime,
    ) -> Option<Trouble> {
        match self.delivery {
            Delivery::Real => trouble(view, provider, backend, wall),
            Delivery::Shadow => Some(Trouble {
                kind: TroubleKind::Shadow,
                words: SHADOW.to_owned(),
            }),
        }
    }
}

fn trouble(
    view: &View,
    provider: &dyn PushTrait,
    backend: &BackendStatus,
    wall: SystemTime,
) -> Option<Trouble> {
    let of_credentials = backend.credentials.iter().find_map(|credential| {
        let words = credential.trouble.as_ref()?.to_string();
        // A token that could not be renewed is good until its end.
        let still_good = credential.age.is_some() && credential.expires.is_some_and(|end| wall < end);
        let kind = if still_good {
            TroubleKind::Expiring
        } else {
            TroubleKind::Authentication
        };
        Some(Trouble { kind, words })
    });
    let clock = backend.clock_trouble().map(|words| Trouble {
        kind: TroubleKind::Clock,
        words,
    });
    let tokens = of_tokens(view.condition);
    let of_provider = view.trouble.as_ref().map(|(kind, complaint)| {
        let of_second = view.second.as_ref().and_then(|second| second.trouble.as_ref());
        let second = backend.second.map(|(name, _)| name);
        let second = second.filter(|_| of_second == view.trouble.as_ref());
        let vendor = view.vendors.iter().find(|lane| lane.trouble == view.trouble);
        let vendor = vendor.and_then(|lane| provider.vendor(LaneId::Vendor(lane.vendor)));
        of_provider(*kind, complaint, second.or(vendor))
    });
    let expiring = backend.credentials.iter().find_map(|credential| {
        // Others end all the time and are renewed.
        let expires = credential.expires.filter(|_| credential.age.is_none())?;
        let left = expires.duration_since(wall).unwrap_or_default();
        let days = left.as_secs() / 86_400;
        let unit = if days == 1 { "day" } else { "days" };
        (left < EXPIRING).then(|| Trouble {
            kind: TroubleKind::Expiring,
            words: format!(
                "the certificate ends in {days} {unit}: get a new one, and put it in the old one's place"
            ),
        })
    });
    [of_credentials, tokens, of_provider, clock, expiring]
        .into_iter()
        .flatten()
        .min_by_key(|trouble| trouble.kind)
}

/// Before its end a certificate is trouble.
const EXPIRING: Duration = Duration::from_secs(30 * 86_400);
pub(super) const REJECTS_TOO_MANY: &str = "the provider rejects too many tokens: check environment, topic and project of this \
    module, and whether the provider has an incident; the devices are kept meanwhile";
pub(super) const ACCEPTS_NOTHING: &str = "the provider has rejected every token so far: check environment, topic and project \
    of this module; the devices are kept meanwhile";
const SHADOW: &str = "a shadow (\"shadow\": true): it decides and counts, sends nothing and answers every publish with a result; \
    take the setting away as soon as this fpush is to wake the devices";
const STALE_TOKENS: &str = "the provider rejects one token in ten or more, as it has before: devices that are gone are given up \
    after their second push; if the share does not fall, look for an app that names the wrong module, whose devices are kept";
