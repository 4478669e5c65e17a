//! Says when a push module works again: trouble is loud, and its end must not have to be guessed.

use std::{collections::HashMap, time::Duration};

use fpush_push::{ModuleStatus, Proof, TroubleKind};
use tokio::time::Instant;

/// The modules that are in trouble, with what it was and since when.
#[derive(Debug, Default)]
pub(crate) struct Recovery(HashMap<String, (TroubleKind, Instant)>);

/// A module that works again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) module: String,
    /// The worst of its trouble.
    pub(crate) kind: TroubleKind,
    pub(crate) lasted: Duration,
}

impl Recovery {
    /// Which modules work again, as far as these look at all of them shows it. A module works again when it has no trouble
    /// and its provider accepts its credentials: new settings alone end the former and prove nothing.
    pub(crate) fn look<'a>(
        &mut self,
        modules: impl IntoIterator<Item = &'a ModuleStatus>,
        now: Instant,
    ) -> Vec<Recovered> {
        let mut before = std::mem::take(&mut self.0);
        let mut recovered = Vec::new();
        for ModuleStatus {
            name, trouble, proof, ..
        } in modules
        {
            let known = before.remove(name);
            let trouble = trouble.as_ref().map(|trouble| trouble.kind);
            match (known, trouble) {
                (None, None) => {}
                (None, Some(kind)) => {
                    self.0.insert(name.clone(), (kind, now));
                }
                (Some((worst, since)), Some(kind)) => {
                    self.0.insert(name.clone(), (worst.min(kind), since));
                }
                (Some((kind, since)), None) => match proof {
                    Proof::Proven => recovered.push(Recovered {
                        module: name.clone(),
                        kind,
                        lasted: now.duration_since(since),
                    }),
                    Proof::NotTried | Proof::Refused => {
                        self.0.insert(name.clone(), (kind, since));
                    }
                },
            }
        }
        recovered
    }
}

#[cfg(test)]
mod tests {
    use fpush_push::{BackendStatus, Trouble};

    use std::sync::Arc;

    use super::*;

    fn module(name: &str, trouble: Option<TroubleKind>, proof: Proof) -> ModuleStatus {
        ModuleStatus {
            name: name.to_owned(),
            in_flight: 0,
            waiting: 0,
            held: 0,
            outage: fpush_push::OutageStatus::default(),
            limited_tokens: 0,
            blocked_tokens: 0,
            doubted_tokens: 0,
            meters: Arc::default(),
            last_accepted: None,
            proof,
            trouble: trouble.map(|kind| Trouble {
                kind,
                words: String::new(),
            }),
            backend: BackendStatus::default(),
            second: None,
            vendors: Vec::new(),
        }
    }

    #[test]
    fn the_end_of_trouble_is_told_once_with_the_worst_of_it() {
        use Proof::{NotTried, Proven};
        use TroubleKind::{Paused, Provider};
        let (mut recovery, start) = (Recovery::default(), Instant::now());
        let mut look = |second: u64, modules: &[ModuleStatus]| {
            recovery.look(modules, start + Duration::from_secs(second))
        };
        let other = module("other", Some(Paused), Proven);
        assert_eq!(look(0, &[module("m", None, NotTried)]), []);
        assert_eq!(look(1, &[module("m", Some(Paused), Proven), other.clone()]), []);
        assert_eq!(look(2, &[module("m", Some(Provider), Proven), other.clone()]), []);
        assert_eq!(look(3, &[module("m", Some(Paused), Proven), other.clone()]), []);
        assert_eq!(
            look(4, &[module("m", None, NotTried), other.clone()]),
            [],
            "new settings prove nothing"
        );
        let recovered = Recovered {
            module: "m".to_owned(),
            kind: Provider,
            lasted: Duration::from_secs(4),
        };
        assert_eq!(look(5, &[module("m", None, Proven), other]), [recovered]);
        // The other one is not in the settings any more.
        assert_eq!(look(6, &[module("m", None, Proven)]), []);
        assert_eq!(look(7, &[module("other", None, Proven)]), []);
    }
}
