//! The steps of a world.

use std::{collections::BTreeMap, fs, path::PathBuf};

use fpush_push::{CommandError, Found, Recipient};
use fpush_registry::Known;
use fpush_simulation::split_mix;
use fpush_testkit::TempDir;

use crate::instance::{Instance, MOST_OF_DOMAIN};

/// When worlds begin, in milliseconds since 1970.
pub(crate) const BEGINNING: u64 = 20_000 * 86_400_000;

/// A device that its owner wants to have pushes.
#[derive(Clone, Debug)]
struct Truth {
    owner: usize,
    secret: String,
    token: String,
    /// Those that it had before.
    former: Vec<String>,
    /// How often it has registered again.
    renewals: u32,
}

/// What a publish found.
struct Seen {
    node: usize,
    recipient: Recipient,
    renewals: u32,
    /// Whether it may be as it was before others changed it.
    has_memory: bool,
}

pub(crate) struct World {
    random: u64,
    told: bool,
    folder: TempDir,
    /// The database that the settings name.
    path: PathBuf,
    /// What a state directory remembers of the database.
    known: Vec<Option<Known>>,
    devices: BTreeMap<usize, Truth>,
    seen: Vec<Seen>,
    /// Whether the database is not the right one, or has forgotten something.
    is_wrong: bool,
    backups: u32,
    millis: u64,
    found: u64,
    strangers: i64,
}

const OWNERS: [&str; 3] = [
    "alice@one.example.org",
    "bob@one.example.org",
    "carol@two.example.com",
];
const NODES: usize = 5;

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let folder = TempDir::new();
        let path = folder.path().join("devices.db");
        Self {
            random: seed,
            told,
            folder,
            path,
            known: vec![None, None],
            devices: BTreeMap::new(),
            seen: Vec::new(),
            is_wrong: false,
            backups: 0,
            millis: BEGINNING,
            found: 0,
            strangers: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (split_mix(&mut self.random) % bound as u64) as usize
    }

    #[expect(clippy::disallowed_macros, reason = "a person has asked for it")]
    fn tell(&self, what: &str) {
        if self.told {
            eprintln!("{what}");
        }
    }

    async fn open(&self, number: usize) -> Instance {
        Instance::open(&self.path, number == 0, self.known[number].clone()).await
    }

    pub(crate) async fn live(mut self) -> Result<u64, String> {
        let mut instances = vec![self.open(0).await, self.open(1).await];
        for _ in 0..40 {
            self.millis += 1 + self.below(100_000) as u64;
            fpush_simulation::stop_wall_at(self.millis);
            self.step(&mut instances).await?;
            for (number, instance) in instances.iter().enumerate() {
                // One that doubts its database remembers what it knew before.
                if let Some(known) = instance.known() {
                    self.known[number] = Some(known);
                }
            }
        }
        for instance in instances {
            instance.close().await;
        }
        Ok(self.found)
    }

    async fn step(&mut self, instances: &mut Vec<Instance>) -> Result<(), String> {
        let (one, node) = (self.below(2), self.below(NODES));
        match self.below(100) {
            0..25 => self.register(&instances[one], node).await?,
            25..55 => self.publish(&instances[one], one == 0, node).await?,
            55..65 => self.dead().await?,
            65..72 => self.unregister(&instances[one], node).await?,
            72..82 => self.stranger(&instances[one], node).await?,
            82..90 => {
                self.tell(&format!("instance {one} crashes"));
                let next = self.open(one).await;
                std::mem::replace(&mut instances[one], next).crash();
            }
            90..94 => self.back_up(instances).await?,
            _ => self.slip(instances).await?,
        }
        Ok(())
    }

    fn token(&mut self) -> String {
        let [one, two, three, four] = [(); 4].map(|()| split_mix(&mut self.random));
        format!("{one:016x}{two:016x}{three:016x}{four:016x}")
    }

    async fn register(&mut self, instance: &Instance, node: usize) -> Result<(), String> {
        let owner = self
            .devices
            .get(&node)
            .map_or_else(|| node % OWNERS.len(), |device| device.owner);
        // Most apps have the same token for long.
        let same = self.devices.get(&node).map(|device| device.token.clone());
        let token = match same {
            Some(token) if self.below(3) == 0 => token,
            Some(_) | None => self.token(),
        };
        let registered = instance.register(OWNERS[owner], &name(node), &token).await;
        self.tell(&format!(
            "{node} registers: {:?}",
            registered.as_ref().map(|_| ())
        ));
        match registered {
            Ok(secret) => {
                let (mut former, mut renewals) = (Vec::new(), 0);
                if let Some(before) = self.devices.remove(&node) {
                    (former, renewals) = (before.former, before.renewals + 1);
                    former.push(before.token);
                }
                let truth = Truth {
                    owner,
                    secret,
                    token,
                    former,
                    renewals,
                };
                self.devices.insert(node, truth);
                Ok(())
            }
            // In a database that does not know it, a stranger may have been first.
            Err(CommandError::TooMany | CommandError::Full | CommandError::Forbidden) if self.is_wrong => {
                Ok(())
            }
            Err(error) => Err(format!("{node} cannot register: {error}")),
        }
    }

    async fn unregister(&mut self, instance: &Instance, node: usize) -> Result<(), String> {
        let Some(device) = self.devices.get(&node) else {
            return Ok(());
        };
        match instance.unregister(OWNERS[device.owner], &name(node)).await {
            Ok(()) => {
                self.tell(&format!("{node} unregisters"));
                self.devices.remove(&node);
                Ok(())
            }
            Err(CommandError::NotFound) if self.is_wrong => Ok(()),
            Err(error) => Err(format!("{node} cannot unregister: {error}")),
        }
    }

    async fn publish(&mut self, instance: &Instance, has_memory: bool, node: usize) -> Result<(), String> {
        let device = self.devices.get(&node).cloned();
        let secret = device.as_ref().map(|device| device.secret.clone());
        let found = instance
            .find(&name(node), Some(secret.as_deref().unwrap_or("none")))
            .await;
        let found = found.map_err(|_| "the database is out of reach".to_owned())?;
        self.tell(&format!("publish for {node}: {found:?}"));
        match (found, device) {
            (Found::Ended, Some(_)) => Err(format!("{node} lives, and is said to have ended")),
            (Found::Device(recipient), Some(device)) => {
                // Memory hears of others' changes a few seconds later.
                let token = recipient.token.as_str();
                let is_former = has_memory && device.former.iter().any(|former| former == token);
                if token != device.token && !is_former && !self.is_wrong {
                    return Err(format!("a publish for {node} goes to another token"));
                }
                self.found += 1;
                self.seen.push(Seen {
                    node,
                    recipient,
                    renewals: device.renewals,
                    has_memory,
                });
                Ok(())
            }
            (Found::Device(_), None) if !self.is_wrong && !has_memory => {
                Err(format!("{node} is found, and has ended"))
            }
            (found, Some(_)) if !self.is_wrong => Err(format!("{node} lives, and is {found:?}")),
            (_, _) => Ok(()),
        }
    }

    /// A provider calls a token dead to which a push was sent.
    async fn dead(&mut self) -> Result<(), String> {
        if self.seen.is_empty() {
            return Ok(());
        }
        let at = self.below(self.seen.len());
        let Seen {
            node,
            recipient,
            renewals,
            has_memory,
        } = self.seen.swap_remove(at);
        let ended = recipient.record.gone(None).await;
        self.tell(&format!("the token that {node} had is called dead: {ended:?}"));
        let is_same = self
            .devices
            .get(&node)
            .is_some_and(|device| (&*device.token, device.renewals) == (recipient.token.as_str(), renewals));
        match ended {
            Ok(true) if is_same => drop(self.devices.remove(&node)),
            Ok(true) if self.devices.contains_key(&node) => {
                return Err(format!("{node} has registered since, and is ended"));
            }
            Ok(false) if is_same && !has_memory && !self.is_wrong => {
                return Err(format!("{node} is dead, and is kept"));
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// A stranger wants another one's node, a token as a node, or all the room that there is.
    async fn stranger(&mut self, instance: &Instance, node: usize) -> Result<(), String> {
        let token = self.token();
        match self.below(3) {
            0 => {
                let Some(secret) = self.devices.get(&node).map(|device| device.secret.clone()) else {
                    return Ok(());
                };
                let got = instance.register("mallory@evil.org", &name(node), &token).await;
                self.tell(&format!("a stranger registers node {node}"));
                match got {
                    Ok(theirs) if theirs == secret => Err(format!("a stranger has the secret of {node}")),
                    Ok(_) if !self.is_wrong => Err(format!("a stranger has node {node}")),
                    Ok(_) | Err(_) => Ok(()),
                }
            }
            1 => {
                let victim = self.token();
                self.tell("a stranger registers a token as a node");
                match instance.register("mallory@evil.org", &victim, &token).await {
                    Ok(_) => Err("a token is somebody's node".to_owned()),
                    Err(_) => Ok(()),
                }
            }
            _ => {
                for _ in 0..6 {
                    let (who, token, other) = (self.below(1_000), self.token(), self.below(1_000_000));
                    let owner = format!("u{who}@d{who}.evil.org");
                    let registered = instance
                        .register(&owner, &format!("stranger-{other}"), &token)
                        .await;
                    self.strangers += i64::from(registered.is_ok());
                }
                self.tell(&format!("strangers have {} devices", self.strangers));
                if self.strangers > MOST_OF_DOMAIN && !self.is_wrong {
                    return Err(format!("a domain has {} devices", self.strangers));
                }
                Ok(())
            }
        }
    }

    async fn close(&mut self, instances: &mut Vec<Instance>) {
        for instance in instances.drain(..) {
            instance.close().await;
        }
    }

    async fn back_up(&mut self, instances: &mut Vec<Instance>) -> Result<(), String> {
        self.close(instances).await;
        self.backups += 1;
        let backup = self.folder.path().join(format!("backup-{}", self.backups));
        let copied = fs::copy(&self.path, backup);
        self.tell("a copy of the database is made");
        *instances = vec![self.open(0).await, self.open(1).await];
        copied.map(drop).map_err(|e| e.to_string())
    }

    /// An operator takes another database, or an old copy.
    async fn slip(&mut self, instances: &mut Vec<Instance>) -> Result<(), String> {
        self.close(instances).await;
        let name = if self.backups > 0 && self.below(2) == 0 {
            let copy = 1 + self.below(self.backups as usize);
            self.tell(&format!("copy {copy} is restored"));
            format!("backup-{copy}")
        } else {
            self.backups += 1;
            self.tell("another database is taken");
            format!("backup-{}", self.backups)
        };
        self.path = self.folder.path().join(name);
        self.is_wrong = true;
        // What is found there says nothing of the right one.
        self.seen.clear();
        *instances = vec![self.open(0).await, self.open(1).await];
        Ok(())
    }
}

fn name(node: usize) -> String {
    format!("node-{node}")
}
