//! The names of keys in the engine.

/// The names of what instances share of one module. The part in braces keeps them at one node of a cluster.
pub(crate) struct Names {
    pub(crate) windows: Vec<u8>,
    pub(crate) queued: Vec<u8>,
    pub(crate) silences: Vec<u8>,
    pub(crate) blocks: Vec<u8>,
    pub(crate) pause: Vec<u8>,
    pub(crate) words: Vec<u8>,
    pub(crate) news: Vec<u8>,
    /// Which instances are there, by number.
    pub(crate) alive: Vec<u8>,
    /// How many tokens each has taken for dead. A change of the settings begins no other incident.
    pub(crate) deaths: Vec<u8>,
    /// What the engine's memory of the module began as.
    pub(crate) beginning: Vec<u8>,
    /// Held pushes, whatever the provider said: [`held`](crate::held) has what each key is.
    pub(crate) held: [Vec<u8>; 8],
}

impl Names {
    /// `digest` names the settings that the provider's words depend on: what it said to others is another key.
    pub(crate) fn new(prefix: &str, module: &str, digest: u128) -> Self {
        // A brace in a name would end the part in braces.
        let module: String = module
            .chars()
            .map(|c| if matches!(c, '{' | '}') { '_' } else { c })
            .collect();
        let name = |what: &str| format!("{prefix}:{{{module}}}:{what}").into_bytes();
        let said = |what: &str| name(&format!("{what}:{digest:032x}"));
        Self {
            windows: name("windows"),
            queued: name("queued"),
            silences: name("silences"),
            blocks: said("blocks"),
            pause: said("pause"),
            words: said("words"),
            news: said("news"),
            alive: name("alive"),
            deaths: name("deaths"),
            beginning: said("beginning"),
            held: [
                "held",
                "held-keys",
                "held-holders",
                "leases",
                "taken",
                "held-watch",
                "held-unread",
                "held-delivered",
            ]
            .map(name),
        }
    }

    /// As the scripts about held pushes want them.
    pub(crate) fn of_held(&self) -> [&[u8]; 8] {
        self.held.each_ref().map(Vec::as_slice)
    }

    /// When who holds pushes is gone.
    pub(crate) fn leases(&self) -> &[u8] {
        &self.held[3]
    }

    /// As the script of a claim wants them.
    pub(crate) fn of_claim(&self) -> [&[u8]; 9] {
        let [held, keys, _, _, taken, ..] = self.of_held();
        let [windows, queued, silences, blocks, pause, alive] = self.of_pushes();
        [windows, queued, silences, blocks, pause, alive, held, keys, taken]
    }

    /// As the script that takes note of changes wants them.
    pub(crate) fn of_tell(&self) -> Vec<&[u8]> {
        let [held, keys, holders, _, taken, _, unread, _] = self.of_held();
        [self.all().as_slice(), &[held, keys, holders, taken, unread]].concat()
    }

    fn of_pushes(&self) -> [&[u8]; 6] {
        [
            &self.windows,
            &self.queued,
            &self.silences,
            &self.blocks,
            &self.pause,
            &self.alive,
        ]
    }

    /// As the other scripts want them.
    pub(crate) fn all(&self) -> [&[u8]; 10] {
        let [windows, queued, silences, blocks, pause, alive] = self.of_pushes();
        let (words, news, deaths, beginning) = (&self.words, &self.news, &self.deaths, &self.beginning);
        [
            windows, queued, silences, blocks, pause, alive, words, news, deaths, beginning,
        ]
    }
}

/// The names of what is nobody's, for a trial: each is of a type of its own.
pub(crate) fn trial(prefix: &str) -> [Vec<u8>; 4] {
    ["string", "set", "hash", "stream"].map(|what| format!("{prefix}:{{trial}}:{what}").into_bytes())
}

/// The names of what is not of a module: the key of fingerprints, and the instances.
pub(crate) fn common(prefix: &str) -> [Vec<u8>; 2] {
    ["key", "instances"].map(|what| format!("{prefix}:{{all}}:{what}").into_bytes())
}
