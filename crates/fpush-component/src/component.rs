//! The component: all links, and how they come and go.

use std::{
    collections::BTreeMap,
    panic,
    sync::{Arc, Mutex},
};

use fpush_driver::{Drain, Liveness, Modules, Senders};
use fpush_push::{Devices, LinkMeters, canonical_domain, sync::lock};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{
    dial::{Dial, Net},
    dispatcher::Dispatcher,
    life::Life,
    link::{Link, LinkStatus},
    meters::ComponentMeters,
    outbox::Group,
    reply,
    settings::LinkSettings,
};

/// The component. It has no link before its [`Handle`] opens one.
#[derive(Debug)]
pub struct Component {
    openings: UnboundedReceiver<Opening>,
    dispatcher: Arc<Dispatcher>,
    drain: Drain,
    liveness: Arc<Liveness>,
}

/// Changes the component while it runs, and knows how it is.
#[derive(Clone, Debug)]
pub struct Handle {
    openings: UnboundedSender<Opening>,
    dispatcher: Arc<Dispatcher>,
    links: Arc<Mutex<Links>>,
}

/// What becomes of a link when the settings do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStep {
    /// It is as it was.
    Keep,
    /// It goes on with its connection, and its settings are others.
    Adjust,
    /// It takes the place of the link with this name, which is closed first. It sends that one's replies, too,
    /// if they are for the same server or cluster.
    Replace(String),
    /// It is new.
    Open,
}

#[derive(Debug, Default)]
struct Links {
    /// Those of the settings, in their order.
    links: Vec<Arc<Link>>,
    /// Groups of the settings, by our address and their name.
    groups: BTreeMap<(String, String), Arc<Group>>,
    /// The meters of all that have ever been there, by name: what was counted stays.
    meters: BTreeMap<String, Arc<LinkMeters>>,
}

/// A link that is to be opened.
#[derive(Debug)]
struct Opening {
    link: Arc<Link>,
    after: Option<Arc<Link>>,
}

impl Component {
    /// A component that hands publishes to these modules, and serves these registered devices; and the handle to it.
    #[must_use]
    pub fn new(
        modules: Arc<Modules>,
        devices: Option<Arc<dyn Devices>>,
        senders: Senders,
        drain: Drain,
        liveness: Arc<Liveness>,
    ) -> (Self, Handle) {
        let dispatcher = Dispatcher::new(modules, devices, senders, drain.clone());
        let (sender, openings) = unbounded_channel();
        let handle = Handle {
            openings: sender,
            dispatcher: Arc::clone(&dispatcher),
            links: Arc::default(),
        };
        let component = Self {
            openings,
            dispatcher,
            drain,
            liveness,
        };
        (component, handle)
    }

    /// Opens links and keeps them up. When the shutdown begins, they answer what is under way and close their streams, and
    /// it returns.
    pub async fn run(self) {
        self.run_over(Net).await;
    }

    /// The same over connections of another kind.
    pub async fn run_over<D: Dial>(mut self, dial: D) {
        let mut probe = self.liveness.probe("component");
        let mut lives = JoinSet::new();
        loop {
            tokio::select! {
                () = self.drain.until_begun() => break,
                Some(ended) = lives.join_next() => pass_on(ended),
                opening = probe.while_waiting(self.openings.recv()) => {
                    let Some(Opening { link, after }) = opening else {
                        // Nobody is left who could open any.
                        self.drain.until_begun().await;
                        break;
                    };
                    let life = Life {
                        probe: self.liveness.probe(format!("link {}", link.settings().name)),
                        link,
                        after,
                        dispatcher: Arc::clone(&self.dispatcher),
                        dial: dial.clone(),
                        drain: self.drain.clone(),
                    };
                    lives.spawn(life.live());
                }
            }
        }
        while let Some(ended) = lives.join_next().await {
            pass_on(ended);
        }
    }
}

/// A link that panics must not leave a daemon that looks alive.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        panic::resume_unwind(error.into_panic());
    }
}

impl Links {
    fn named(&self, name: &str) -> Option<Arc<Link>> {
        let link = self.links.iter().find(|link| link.settings().name == name);
        link.cloned()
    }

    /// The group that the settings of a link name.
    fn group(&mut self, settings: &LinkSettings) -> Option<Arc<Group>> {
        let address = canonical_domain(&settings.hostname).into_owned();
        let key = (address, settings.group.clone()?);
        Some(Arc::clone(self.groups.entry(key).or_default()))
    }
}

impl Handle {
    /// Closes the links with these names, and goes on with those; each step is about the link of these settings.
    pub fn set_links(&self, closed: &[String], wanted: Vec<(LinkSettings, LinkStep)>) {
        let mut links = lock(&self.links);
        for name in closed {
            if let Some(link) = links.named(name) {
                link.dismiss();
            }
        }
        let all = wanted
            .into_iter()
            .map(|(settings, step)| self.step(&mut links, settings, step))
            .collect();
        links.links = all;
    }

    fn step(&self, links: &mut Links, settings: LinkSettings, step: LinkStep) -> Arc<Link> {
        let group = links.group(&settings);
        let former = match &step {
            LinkStep::Keep | LinkStep::Adjust => {
                if let Some(link) = links.named(&settings.name) {
                    if let Some(group) = group {
                        link.outbox().join(&group);
                    } else if link.settings().group.is_some() {
                        link.outbox().join(&Arc::default());
                    }
                    link.adjust(settings);
                    return link;
                }
                None
            }
            LinkStep::Replace(former) => links.named(former),
            LinkStep::Open => None,
        };
        let group = group.unwrap_or_default();
        let meters = links.meters.entry(settings.name.clone());
        let meters = meters.or_insert_with(|| Arc::new(LinkMeters::new(reply::counters())));
        let link = Link::new(settings, Arc::clone(&group), Arc::clone(meters));
        if let Some(former) = &former {
            if link.settings().may_reply_for(&former.settings()) {
                former.outbox().join(&group);
            }
            former.dismiss();
        }
        let opening = Opening {
            link: Arc::clone(&link),
            after: former,
        };
        // It fails only if the daemon is about to stop.
        drop(self.openings.send(opening));
        link
    }

    /// Serves these registered devices from now on.
    pub fn set_devices(&self, devices: Option<Arc<dyn Devices>>) {
        self.dispatcher.set_devices(devices);
    }

    /// All links now, in the order of the settings.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        lock(&self.links).links.iter().map(|link| link.status()).collect()
    }

    /// What all links count that have ever been there, by their names.
    #[must_use]
    pub fn link_meters(&self) -> Vec<(String, Arc<LinkMeters>)> {
        let links = lock(&self.links);
        let meters = links.meters.iter();
        meters
            .map(|(name, meters)| (name.clone(), Arc::clone(meters)))
            .collect()
    }

    /// What the component counts beside that.
    #[must_use]
    pub fn meters(&self) -> &ComponentMeters {
        self.dispatcher.meters()
    }

    /// The domains that sent most publishes in the last ten to twenty minutes, and how many: most first, twenty at most.
    /// `None` if [`SenderNames`](fpush_push::SenderNames) are off.
    #[must_use]
    pub fn senders(&self) -> Option<Vec<(String, u64)>> {
        self.dispatcher.domains().top(Instant::now())
    }
}
