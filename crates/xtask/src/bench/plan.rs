//! How much is done.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::providers::Backend;
use super::template::{Server, Template};

/// A load that keeps so many publishes in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) backend: Backend,
    pub(super) server: Server,
    pub(super) in_flight: u64,
}

impl Load {
    /// What it sends, to the module that has the backend's name.
    pub(super) fn template(self) -> Template {
        Template::new(self.server, self.backend.name(), &self.backend.token())
    }
}

impl Display for Load {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            server,
            in_flight,
        } = self;
        write!(f, "{}, {}, {in_flight} in flight", backend.name(), server.name())
    }
}

pub(super) struct Plan {
    /// The rounds of the main load, the first of [`LOADS`].
    pub(super) main: Rounds,
    /// Those of the others.
    pub(super) others: Rounds,
    /// Before the first round.
    pub(super) warm_up: Duration,
    /// Publishes a second at which times and costs are measured.
    pub(super) rates: &'static [u64],
    /// How long each.
    pub(super) paced: Duration,
    /// The one of these rates that has a target.
    pub(super) target_rate: u64,
    /// That one lasts this long, in two parts: memory must not grow in the second.
    pub(super) soak: [Duration; 2],
    /// The window of the rate limit meanwhile, and how long it keeps tokens: less than the first part, so that
    /// afterwards as many are forgotten as come.
    pub(super) soak_limit: [&'static str; 2],
    /// How long nothing is sent.
    pub(super) idle: Duration,
    /// Numbers of modules without provider, and with one.
    pub(super) demo_modules: &'static [u64],
    pub(super) apns_modules: &'static [u64],
    /// Tokens in the rate limit and on the block list.
    pub(super) tokens: u64,
    /// Pushes that wait for their turn.
    pub(super) queued: u64,
    /// Pushes that are held in an outage.
    pub(super) held: u64,
    /// New pushes a second while those are sent.
    pub(super) drain_rate: u64,
    /// Registered devices.
    pub(super) devices: u64,
    /// Registrations under way at a time; the last one has a target.
    pub(super) registering: [u64; 3],
    /// Sender domains at an overload.
    pub(super) domains: DomainsPlan,
    /// New tokens until tables have grown.
    pub(super) growth: GrowthPlan,
    /// What could hold up pushes, with many modules.
    pub(super) stall: StallPlan,
    /// Longer than from one writing of the block list to the next.
    pub(super) snapshot: Duration,
    /// Publishes a second at equal distances whose cost has a target.
    pub(super) even_rate: u64,
    /// How long the rate with the target is kept up for its rarest times, by fpush and by the bare client.
    pub(super) tail: Duration,
    pub(super) floor_tail: Duration,
    /// Servers that strangers have chosen, of one device each.
    pub(super) origins: u64,
    pub(super) flood: FloodPlan,
    pub(super) starts: usize,
}

/// More than a provider takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct DomainsPlan {
    pub(super) domains: u64,
    /// Pushes at the provider at a time.
    pub(super) permits: u64,
    /// Publishes that wait for their answer: more than fit into the lines.
    pub(super) in_flight: u64,
    pub(super) time: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct GrowthPlan {
    pub(super) tokens: u64,
    pub(super) per_second: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StallPlan {
    pub(super) modules: u64,
    pub(super) per_second: u64,
    pub(super) time: Duration,
}

/// A flood of one registrable domain.
#[derive(Clone, Copy, Debug)]
pub(super) struct FloodPlan {
    /// Pushes at the provider at a time.
    pub(super) permits: u64,
    /// Stanzas of the flood; each is from another name.
    pub(super) per_second: u64,
    /// How long, and as long without it.
    pub(super) time: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    pub(super) count: usize,
    pub(super) time: Duration,
}

impl Plan {
    pub(super) const FULL: Self = Self {
        main: Rounds {
            count: 7,
            time: Duration::from_secs(3),
        },
        others: Rounds {
            count: 3,
            time: Duration::from_secs(2),
        },
        warm_up: Duration::from_secs(1),
        rates: &[1_000, 2_000, 10_000, 20_000],
        paced: Duration::from_secs(8),
        target_rate: 5_000,
        soak: [Duration::from_secs(30), Duration::from_secs(90)],
        soak_limit: ["1s", "20s"],
        // After 30 s of silence fpush would ping the server, which the load does not answer.
        idle: Duration::from_secs(20),
        demo_modules: &[1, 10, 100, 1_000],
        apns_modules: &[1, 10, 100],
        tokens: 1_000_000,
        queued: 100_000,
        held: 1_000_000,
        drain_rate: 1_000,
        devices: 2_000_000,
        registering: [1, 64, 512],
        domains: DomainsPlan {
            domains: 10_000,
            permits: 150,
            in_flight: 4_096,
            time: Duration::from_secs(5),
        },
        growth: GrowthPlan {
            tokens: 4_500_000,
            per_second: 20_000,
        },
        stall: StallPlan {
            modules: 1_000,
            per_second: 1_000,
            time: Duration::from_secs(20),
        },
        snapshot: Duration::from_secs(75),
        even_rate: 1_000,
        tail: Duration::from_secs(300),
        floor_tail: Duration::from_secs(60),
        origins: 10_000,
        flood: FloodPlan {
            permits: 100,
            per_second: 5_000,
            time: Duration::from_secs(20),
        },
        starts: 7,
    };

    /// The same in miniature.
    pub(super) const SHORT: Self = Self {
        main: Rounds {
            count: 1,
            time: Duration::from_millis(100),
        },
        others: Rounds {
            count: 1,
            time: Duration::from_millis(50),
        },
        warm_up: Duration::from_millis(50),
        rates: &[100],
        paced: Duration::from_millis(100),
        target_rate: 200,
        soak: [Duration::from_millis(100), Duration::from_millis(100)],
        soak_limit: ["10ms", "50ms"],
        idle: Duration::from_millis(100),
        demo_modules: &[1, 10],
        apns_modules: &[1, 2],
        tokens: 2_000,
        queued: 500,
        held: 20,
        drain_rate: 100,
        devices: 3_000,
        // Who waits for seconds is refused, and a busy machine takes its time without optimisation.
        registering: [1, 4, 16],
        domains: DomainsPlan {
            domains: 100,
            permits: 10,
            in_flight: 200,
            time: Duration::from_millis(200),
        },
        growth: GrowthPlan {
            tokens: 200,
            per_second: 1_000,
        },
        stall: StallPlan {
            modules: 10,
            per_second: 200,
            time: Duration::from_millis(1_200),
        },
        snapshot: Duration::from_millis(100),
        even_rate: 100,
        tail: Duration::from_millis(200),
        floor_tail: Duration::from_millis(100),
        origins: 100,
        flood: FloodPlan {
            permits: 10,
            per_second: 500,
            time: Duration::from_secs(1),
        },
        starts: 1,
    };
}

/// Each kind of module, each server and each number in flight at least once; not all their combinations.
pub(super) const LOADS: [Load; 11] = {
    use Backend::{Certificate, Demo, Fcm, ProviderToken};
    use Server::{Ejabberd, Prosody};
    [
        load(Certificate, Prosody, 512),
        load(Certificate, Prosody, 64),
        load(Certificate, Prosody, 1),
        load(Certificate, Ejabberd, 512),
        load(ProviderToken, Prosody, 512),
        load(Fcm, Prosody, 512),
        load(Fcm, Ejabberd, 64),
        load(Demo, Prosody, 512),
        load(Demo, Prosody, 64),
        load(Demo, Prosody, 1),
        load(Demo, Ejabberd, 512),
    ]
};

const fn load(backend: Backend, server: Server, in_flight: u64) -> Load {
    Load {
        backend,
        server,
        in_flight,
    }
}
