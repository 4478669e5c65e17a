//! A vendor that names no hosts has many, and anybody may invent one more. One that does not answer must not have all permits
//! of the vendor's lane, which all of them share; and one that never took anything says nothing of the vendor.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use fpush_push::{Failure, PushError, sync::lock};

use crate::{endpoint::Endpoint, service::Standing};

/// The hosts of vendors that name none.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Requests under way at one host.
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Requests under way, by origin.
    under_way: HashMap<Box<str>, usize>,
    /// Origins that have accepted a push: that cannot be invented.
    accepted: HashSet<Box<str>>,
}

/// The right to one request at a host.
pub(crate) struct Place<'a> {
    hosts: &'a Hosts,
    origin: &'a str,
}

impl Hosts {
    /// For a module with so many permits: a host has a quarter of them.
    pub(crate) fn of(permits: usize) -> Self {
        Self {
            most: permits.div_ceil(4),
            known: Mutex::default(),
        }
    }

    /// A place at the host of an endpoint; `None` where the host is its lane, which counts itself.
    ///
    /// # Errors
    ///
    /// All of them are taken.
    pub(crate) fn place<'a>(&'a self, endpoint: &'a Endpoint) -> Result<Option<Place<'a>>, Failure> {
        if !is_one_of_many(endpoint) {
            return Ok(None);
        }
        let origin = &*endpoint.origin;
        let mut known = lock(&self.known);
        match known.under_way.get_mut(origin) {
            Some(own) if *own >= self.most => {
                let error = PushError::Crowded;
                return Err(Failure::new(
                    error,
                    "host_crowded",
                    "so many pushes are under way at this host",
                    CROWDED,
                ));
            }
            Some(own) => *own += 1,
            None => {
                known.under_way.insert(origin.into(), 1);
            }
        }
        Ok(Some(Place { hosts: self, origin }))
    }

    /// The host of an endpoint has accepted a push.
    pub(crate) fn accepted(&self, endpoint: &Endpoint) {
        if is_one_of_many(endpoint) {
            let accepted = &mut lock(&self.known).accepted;
            if accepted.len() < MOST_ACCEPTED && !accepted.contains(&endpoint.origin) {
                accepted.insert(endpoint.origin.clone());
            }
        }
    }

    /// A failure as far as it is believed. That a host is not there, or wants less, is the vendor's doing only where the host has
    /// accepted something: any other name may be invented, or that of a host that takes nothing from anybody.
    pub(crate) fn weigh(&self, endpoint: &Endpoint, failure: Failure) -> Failure {
        if !is_one_of_many(endpoint) || lock(&self.known).accepted.contains(&endpoint.origin) {
            return failure;
        }
        let error = match failure.error {
            PushError::Later { after } | PushError::HostAway { after } => PushError::HostAway { after },
            PushError::Reconnected => PushError::HostAway { after: None },
            PushError::TooMany { pause: _ } => PushError::TokenBusy,
            // Said in words, by a server with the vendor's certificate, and about us, the push or its receiver.
            said @ (PushError::TokenGone { .. }
            | PushError::TokenDoubted
            | PushError::TokenOfAnotherApp
            | PushError::TokenBusy
            | PushError::Crowded
            | PushError::TokenUnserved
            | PushError::Renewed
            | PushError::TooLarge
            | PushError::Pause { .. }
            | PushError::Misconfigured
            | PushError::Unexplained) => said,
        };
        Failure { error, ..failure }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let under_way = &mut lock(&self.hosts.known).under_way;
        if let Some(own) = under_way.get_mut(self.origin) {
            *own -= 1;
            if *own == 0 {
                under_way.remove(self.origin);
            }
        }
    }
}

/// Whether the host of an endpoint is one of a vendor's that names none.
fn is_one_of_many(endpoint: &Endpoint) -> bool {
    match endpoint.standing {
        Standing::Below(_) => true,
        Standing::Vendors(_) | Standing::Strangers => false,
    }
}

const CROWDED: &str = "One host of the vendor's is slow or silent, and a quarter of maxInFlight waits for it already. The push is \
     held until later, and those for other hosts go on.";
/// All of these are real, so they are the vendor's to bound.
const MOST_ACCEPTED: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{endpoint::Allowed, service::EVERYBODY};

    fn endpoint(host: &str) -> Endpoint {
        let allowed = Allowed {
            hosts: vec![EVERYBODY.to_owned()],
            ports: vec![443],
        };
        allowed.endpoint(&format!("https://{host}/w")).unwrap()
    }

    #[test]
    fn a_host_of_many_has_a_quarter_of_the_permits() {
        let hosts = Hosts::of(10);
        let one = endpoint("wns2-par02p.notify.windows.com");
        let places = [(); 3].map(|()| hosts.place(&one).unwrap().unwrap());
        let refused = hosts.place(&one).err().unwrap();
        assert_eq!(
            (refused.error, refused.reason),
            (PushError::Crowded, "host_crowded")
        );
        let other = endpoint("wns2-by3p.notify.windows.com");
        assert!(hosts.place(&other).unwrap().is_some());
        drop(places);
        assert!(hosts.place(&one).unwrap().is_some());
        assert!(
            lock(&hosts.known).under_way.is_empty(),
            "who is gone leaves nothing"
        );
        for host in ["web.push.apple.com", "up.example.org"] {
            assert!(
                hosts.place(&endpoint(host)).unwrap().is_none(),
                "{host} is its own lane"
            );
        }
    }

    #[test]
    fn what_never_accepted_anything_says_nothing_of_its_vendor() {
        let (hosts, after) = (Hosts::of(10), Some(Duration::from_secs(9)));
        let weighed = |host: &str, error| {
            let failure = Failure::new(error, "reason", "answer", "meaning");
            hosts.weigh(&endpoint(host), failure).error
        };
        let (later, pause) = (PushError::Later { after }, Duration::MAX);
        let real = "wns2-par02p.notify.windows.com";
        let cases = [
            (later, PushError::HostAway { after }),
            (PushError::Reconnected, PushError::HostAway { after: None }),
            (PushError::TooMany { pause }, PushError::TokenBusy),
            (PushError::TokenDoubted, PushError::TokenDoubted),
        ];
        for (error, unknown) in cases {
            assert_eq!(weighed(real, error), unknown);
        }
        hosts.accepted(&endpoint(real));
        for (error, unknown) in cases {
            assert_eq!(weighed(real, error), error);
            assert_eq!(weighed("x.notify.windows.com", error), unknown, "another name");
            for host in ["web.push.apple.com", "up.example.org"] {
                assert_eq!(weighed(host, error), error, "{host}");
            }
        }
    }
}
