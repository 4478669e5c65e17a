//! A vendor that has many hosts may have one that does not answer. All of them share the permits of the vendor's lane, so none
//! of them may have all of these.

use std::{collections::HashMap, sync::Mutex};

use fpush_push::{Failure, PushError, sync::lock};

use crate::{endpoint::Endpoint, service::Standing};

/// Requests under way at the hosts of vendors that name none.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// At one host.
    most: usize,
    under_way: Mutex<HashMap<Box<str>, usize>>,
}

/// The right to one request at a host.
pub(crate) struct Place<'a> {
    crowd: &'a Crowd,
    origin: &'a str,
}

impl Crowd {
    /// For a module with so many permits: a host has a quarter of them.
    pub(crate) fn of(permits: usize) -> Self {
        Self {
            most: permits.div_ceil(4),
            under_way: Mutex::default(),
        }
    }

    /// A place at the host of an endpoint; `None` where the host is its lane, which counts itself.
    ///
    /// # Errors
    ///
    /// All of them are taken.
    pub(crate) fn place<'a>(&'a self, endpoint: &'a Endpoint) -> Result<Option<Place<'a>>, Failure> {
        match endpoint.standing {
            Standing::Vendors(_) | Standing::Strangers => return Ok(None),
            Standing::Below(_) => {}
        }
        let origin = &*endpoint.origin;
        let mut under_way = lock(&self.under_way);
        match under_way.get_mut(origin) {
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
                under_way.insert(origin.into(), 1);
            }
        }
        Ok(Some(Place { crowd: self, origin }))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.crowd.under_way);
        if let Some(own) = under_way.get_mut(self.origin) {
            *own -= 1;
            if *own == 0 {
                under_way.remove(self.origin);
            }
        }
    }
}

const CROWDED: &str = "One host of the vendor's is slow or silent, and a quarter of maxInFlight waits for it already. The push is \
     held until later, and those for other hosts go on.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::Allowed, service::EVERYBODY};

    #[test]
    fn a_host_of_many_has_a_quarter_of_the_permits() {
        let (crowd, allowed) = (
            Crowd::of(10),
            Allowed {
                hosts: vec![EVERYBODY.to_owned()],
                ports: vec![443],
            },
        );
        let endpoint = |host: &str| allowed.endpoint(&format!("https://{host}/w")).unwrap();
        let one = endpoint("wns2-par02p.notify.windows.com");
        let places = [(); 3].map(|()| crowd.place(&one).unwrap().unwrap());
        let refused = crowd.place(&one).err().unwrap();
        assert_eq!(
            (refused.error, refused.reason),
            (PushError::Crowded, "host_crowded")
        );
        let other = endpoint("wns2-by3p.notify.windows.com");
        assert!(crowd.place(&other).unwrap().is_some());
        drop(places);
        assert!(crowd.place(&one).unwrap().is_some());
        assert!(
            crowd.under_way.lock().unwrap().is_empty(),
            "who is gone leaves nothing"
        );
        for host in ["web.push.apple.com", "up.example.org"] {
            assert!(
                crowd.place(&endpoint(host)).unwrap().is_none(),
                "{host} is its own lane"
            );
        }
    }
}
