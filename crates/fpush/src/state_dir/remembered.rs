//! What was known of push modules when the daemon started.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use fpush_driver::{Module, clocks};
use fpush_policy::{BlockRecord, Clocks, HeldChange, HomeRecord, VerdictRecord};
use fpush_push::metrics::Counter;
use tracing::{info, warn};

use super::{
    Line,
    spool::{Expired, Spool},
};

/// What the files said of push modules that are not there yet, and the file of what is held. After the start some of that
/// may be held for modules that are not in the settings: they may be back after the next reload, because somebody renamed
/// one or lost its section.
#[derive(Default)]
pub(crate) struct Remembered {
    blocks: ByModule<BlockRecord>,
    verdicts: ByModule<VerdictRecord>,
    homes: ByModule<HomeRecord>,
    spool: Option<Spool>,
    /// What is held for modules that are not in the settings.
    absent: Vec<Expired>,
    /// What has expired of that.
    expired: Option<mpsc::Receiver<Expired>>,
    /// When that was last looked at.
    looked: Option<Instant>,
    lost: Arc<Counter>,
}

/// Records by the name of their module and its type.
type ByModule<T> = HashMap<(String, String), Vec<T>>;

impl Remembered {
    pub(super) fn new(
        blocks: Vec<Line<BlockRecord>>,
        verdicts: Vec<Line<VerdictRecord>>,
        homes: Vec<Line<HomeRecord>>,
        spool: Spool,
    ) -> Self {
        Self {
            blocks: by_module(blocks),
            verdicts: by_module(verdicts),
            homes: by_module(homes),
            absent: spool.counts(),
            spool: Some(spool),
            ..Self::default()
        }
    }

    /// Acknowledged pushes that could not be delivered because their module did not come back, or because they could not be
    /// read.
    pub(crate) fn lost(&self) -> &Arc<Counter> {
        &self.lost
    }

    /// The file of what is held.
    pub(super) fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Tells a new module what was known of it, and where it writes down what it holds.
    pub(crate) fn tell(&mut self, module: &Module, module_type: &str) {
        let name = (module.name().to_owned(), module_type.to_owned());
        let blocks = self.blocks.remove(&name).unwrap_or_default();
        let verdicts = self.verdicts.remove(&name).unwrap_or_default();
        let clocks = clocks();
        module.remember(blocks, verdicts, clocks);
        module.remember_homes(self.homes.remove(&name).unwrap_or_default());
        let Some(spool) = &mut self.spool else {
            return;
        };
        let store = spool.store(module.name(), module_type);
        let free = spool.free_number(module.name(), module_type, clocks);
        module.keep_in(Arc::clone(&store), free);
        let (mut held, mut gone) = (0, Vec::new());
        let unreadable = spool.each_held(module.name(), module_type, |number, record| {
            if module.remember_held(number, record, clocks) {
                held += 1;
            } else {
                gone.push(HeldChange::Gone(number));
            }
        });
        self.lost.add(unreadable as u64);
        if !gone.is_empty() {
            store.write(gone, None);
        }
        module.has_remembered();
        self.absent
            .retain(|(absent, _)| absent.name != name.0 || absent.module_type != name.1);
        if held > 0 {
            info!(module = module.name(), held, "held since before the start");
        }
    }

    /// All modules of the settings are there. What is left is said, and only what is held is kept.
    pub(crate) fn settle(&mut self) {
        self.blocks = HashMap::new();
        self.verdicts = HashMap::new();
        self.homes = HashMap::new();
        self.absent.retain(|(_, held)| *held > 0);
        for (absent, held) in &self.absent {
            warn!(
                module = absent.name,
                kind = absent.module_type,
                held,
                "pushes are held for a module that is not in the settings: was it renamed? They are sent if it is there \
                 again, under this name and of this type, within holdFor of their time, and lost otherwise"
            );
        }
    }

    /// Gives up what was held for too long. To be called once a second.
    pub(crate) fn tick(&mut self, clocks: Clocks) {
        if let Some(expired) = &self.expired {
            for (module, lost) in expired.try_iter().filter(|(_, lost)| *lost > 0) {
                self.lost.add(lost as u64);
                warn!(
                    module = module.name,
                    kind = module.module_type,
                    lost,
                    "pushes were held for a module that is not in the settings any more"
                );
                for (absent, held) in &mut self.absent {
                    if Arc::ptr_eq(absent, &module) {
                        *held = held.saturating_sub(lost);
                    }
                }
            }
            self.absent.retain(|(_, held)| *held > 0);
        }
        let is_time = |looked: Instant| clocks.now.saturating_duration_since(looked) >= BETWEEN_LOOKS;
        if let Some(spool) = &self.spool
            && !self.absent.is_empty()
            && self.looked.is_none_or(is_time)
        {
            self.looked = Some(clocks.now);
            let modules = self.absent.iter().map(|(module, _)| Arc::clone(module)).collect();
            let (done, expired) = mpsc::channel();
            spool.expire(modules, clocks.wall_millis(), done);
            self.expired = Some(expired);
        }
    }

    /// How many pushes are held for modules that are not in the settings.
    pub(crate) fn held(&self) -> usize {
        self.absent.iter().map(|(_, held)| *held).sum()
    }
}

fn by_module<T>(lines: impl IntoIterator<Item = Line<T>>) -> ByModule<T> {
    let mut by_module = ByModule::new();
    for (module, module_type, record) in lines {
        by_module.entry((module, module_type)).or_default().push(record);
    }
    by_module
}

/// Between two looks whether something has expired.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);
