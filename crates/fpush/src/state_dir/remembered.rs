//! What was known of push modules when the daemon started.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fpush_driver::{Module, clocks};
use fpush_policy::{BlockRecord, Clocks, HeldRecord, VerdictRecord};
use fpush_push::metrics::Counter;
use tracing::{info, warn};
use uuid::Uuid;

use super::Line;

/// What the files said of push modules that are not there yet. After the start that is what was held for modules that are
/// not in the settings: they may be back after the next reload, because somebody renamed one or lost its section.
#[derive(Default)]
pub(crate) struct Remembered {
    blocks: ByModule<BlockRecord>,
    held: ByModule<(Uuid, HeldRecord)>,
    verdicts: ByModule<VerdictRecord>,
    changes: u64,
    lost: Arc<Counter>,
}

/// Records by the name of their module and its type.
type ByModule<T> = HashMap<(String, String), Vec<T>>;

impl Remembered {
    pub(super) fn new(
        blocks: Vec<Line<BlockRecord>>,
        held: Vec<Line<HeldRecord>>,
        verdicts: Vec<Line<VerdictRecord>>,
    ) -> Self {
        let with_id = |(module, module_type, record)| (module, module_type, (Uuid::new_v4(), record));
        Self {
            blocks: by_module(blocks),
            held: by_module(held.into_iter().map(with_id)),
            verdicts: by_module(verdicts),
            ..Self::default()
        }
    }

    /// Acknowledged pushes that could not be delivered because their module did not come back.
    pub(crate) fn lost(&self) -> &Arc<Counter> {
        &self.lost
    }

    /// Tells a new module what was known of it.
    pub(crate) fn tell(&mut self, module: &Module, module_type: &str) {
        let name = (module.name().to_owned(), module_type.to_owned());
        let blocks = self.blocks.remove(&name).unwrap_or_default();
        let held = self.held.remove(&name).unwrap_or_default();
        let verdicts = self.verdicts.remove(&name).unwrap_or_default();
        if !held.is_empty() {
            self.changes += 1;
            info!(
                module = module.name(),
                held = held.len(),
                "held since before the start"
            );
        }
        let held: Vec<_> = held.into_iter().map(|(_, record)| record).collect();
        module.remember(blocks, held, verdicts, clocks());
    }

    /// All modules of the settings are there. What is left is said, and only what is held is kept.
    pub(crate) fn settle(&mut self) {
        self.blocks = HashMap::new();
        self.verdicts = HashMap::new();
        for ((module, module_type), held) in &self.held {
            warn!(
                module,
                kind = module_type,
                held = held.len(),
                "pushes are held for a module that is not in the settings: was it renamed? They are sent if it is there \
                 again, under this name and of this type, within {} hours of their time, and lost otherwise",
                KEPT.as_secs() / 3_600
            );
        }
    }

    /// Gives up what was held for too long. To be called once a second.
    pub(crate) fn tick(&mut self, clocks: Clocks) {
        self.held.retain(|(module, module_type), held| {
            let before = held.len();
            held.retain(|(_, record)| !record.is_overdue(KEPT, clocks));
            let lost = before - held.len();
            if lost > 0 {
                self.changes += 1;
                self.lost.add(lost as u64);
                warn!(
                    module,
                    kind = module_type,
                    lost,
                    "pushes were held for a module that is not in the settings any more"
                );
            }
            !held.is_empty()
        });
    }

    /// How many pushes are held.
    pub(crate) fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// What is held, to be written again.
    pub(super) fn held_records(&self) -> Vec<super::Of<(Uuid, HeldRecord)>> {
        let by_module = self.held.iter();
        by_module
            .map(|((module, module_type), held)| (module.clone(), module_type.clone(), vec![held.clone()]))
            .collect()
    }

    /// Goes up when what is held becomes less.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

fn by_module<T>(lines: impl IntoIterator<Item = Line<T>>) -> ByModule<T> {
    let mut by_module = ByModule::new();
    for (module, module_type, record) in lines {
        by_module.entry((module, module_type)).or_default().push(record);
    }
    by_module
}

/// So long after its time a push is still worth to be sent.
const KEPT: Duration = Duration::from_secs(4 * 3_600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// A push whose time is so many seconds after 1970.
    fn held(module: &str, due: u64) -> Line<HeldRecord> {
        let record = json!({
            "token": "t", "class": "High", "choice": "Named", "domain": "a.example", "spacing": 1,
            "registered": false, "due": due * 1_000, "attempts": 0,
        });
        let record = serde_json::from_value(record).unwrap();
        (module.to_owned(), "apple".to_owned(), record)
    }

    #[test]
    fn what_is_held_for_a_module_that_does_not_come_back_is_lost_four_hours_after_its_time() {
        let mut remembered = Remembered::new(
            Vec::new(),
            vec![held("a", 100), held("a", 200), held("b", 100)],
            Vec::new(),
        );
        remembered.settle();
        let mut left = |seconds: u64| {
            let wall = UNIX_EPOCH + Duration::from_secs(seconds);
            let now = Instant::now().into_std();
            remembered.tick(Clocks { now, wall });
            let records = remembered
                .held_records()
                .iter()
                .map(|(.., parts)| parts[0].len())
                .sum::<usize>();
            assert_eq!(records, remembered.held());
            (
                remembered.held(),
                remembered.lost().get(),
                remembered.changes() > 0,
            )
        };
        assert_eq!(left(100 + 4 * 3_600), (3, 0, false));
        assert_eq!(left(101 + 4 * 3_600), (1, 2, true));
        assert_eq!(left(201 + 4 * 3_600), (0, 3, true));
        assert_eq!(left(300 + 4 * 3_600), (0, 3, true));
    }
}
