//! The statements and the tables, for SQLite and PostgreSQL alike.

use std::sync::LazyLock;

pub(super) const CREATE_META: &str =
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)";
pub(super) const META: &str = "SELECT value FROM meta WHERE name = $1";
pub(super) const SET_META: &str =
    "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// As how many a device counts: [`Device::places`](crate::device::Device::places) in SQL.
macro_rules! places {
    () => {
        "((octet_length(node) + octet_length(secret) + octet_length(token) + coalesce(octet_length(call_token), 0) \
         + coalesce(octet_length(owner), 0) + coalesce(octet_length(account), 0) + coalesce(octet_length(channel), 0) \
         + 511) / 512)"
    };
}

/// As how many the devices count together.
macro_rules! sum_of_places {
    () => {
        concat!("CAST(coalesce(sum(", places!(), "), 0) AS BIGINT)")
    };
}

/// One entry for each version of the tables; what is published is never changed. `{node}` is the type of a node,
/// `{id}` a number that counts up, `{now}` the time. Times are milliseconds since 1970.
pub(super) const MIGRATIONS: &[&[&str]] = &[
    &[
        "CREATE TABLE devices (
        node {node} PRIMARY KEY,
        dialect TEXT NOT NULL,
        kind TEXT NOT NULL,
        secret TEXT NOT NULL,
        token TEXT NOT NULL,
        call_token TEXT,
        owner TEXT,
        account TEXT,
        channel TEXT,
        registered BIGINT NOT NULL,
        renewed BIGINT,
        delivered BIGINT,
        failed BIGINT
    )",
        "CREATE INDEX devices_by_owner ON devices (owner) WHERE owner IS NOT NULL",
        "CREATE TABLE changes (id {id}, node TEXT NOT NULL, at BIGINT NOT NULL, source TEXT NOT NULL)",
    ],
    &[
        "ALTER TABLE devices ADD COLUMN former TEXT",
        // Before that nobody noted it.
        "ALTER TABLE devices ADD COLUMN imported BIGINT NOT NULL DEFAULT 1",
        "CREATE TABLE tombstones (hash TEXT PRIMARY KEY, at BIGINT NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX tombstones_by_time ON tombstones (at)",
        "CREATE TABLE states (
            change BIGINT PRIMARY KEY, mark TEXT NOT NULL, devices BIGINT NOT NULL, at BIGINT NOT NULL
        )",
    ],
    &["CREATE TABLE domains (name TEXT PRIMARY KEY, devices BIGINT NOT NULL)"],
    // When a device was imported. Nobody noted it before, so that all of them have been here since then.
    &["ALTER TABLE devices ADD COLUMN arrived BIGINT DEFAULT {now}"],
    // Large devices count as several, also in the table of domains, which is counted anew.
    &[
        // Without a value an older version has written it: it counts as many as there are devices.
        "ALTER TABLE states ADD COLUMN places BIGINT",
        concat!(
            "UPDATE states SET places = (SELECT ",
            sum_of_places!(),
            " FROM devices) WHERE change = (SELECT max(change) FROM states)"
        ),
        "DELETE FROM meta WHERE name = 'domains'",
    ],
    // The number of the change that ended the device. Before that nobody noted it.
    &["ALTER TABLE tombstones ADD COLUMN change BIGINT NOT NULL DEFAULT 0"],
    &["CREATE INDEX IF NOT EXISTS devices_by_account ON devices (account) WHERE account IS NOT NULL"],
    // The forms of nodes that other push services made. Those of devices that were imported before have the lengths of what is
    // not made here: of a node that its client has chosen, those of the ids of devices.
    &[
        "CREATE TABLE foreign_nodes (dialect TEXT NOT NULL, length BIGINT NOT NULL, PRIMARY KEY (dialect, length))",
        "INSERT INTO foreign_nodes (dialect, length) SELECT DISTINCT dialect, octet_length(node) FROM devices WHERE \
         dialect = 'p2' AND octet_length(node) < 64 \
         OR dialect = 'tigase' AND NOT (node LIKE 'tigase-%' AND octet_length(node) = 71) \
         OR dialect = 'mod_push_appserver' AND imported = 1 AND octet_length(node) IN (16, 32, 36)",
    ],
    // Whether a device is at home in the second of two lanes. Before that the state directory alone knew it.
    &["ALTER TABLE devices ADD COLUMN in_second BIGINT NOT NULL DEFAULT 0"],
];

macro_rules! columns {
    () => {
        "node, dialect, kind, secret, token, call_token, owner, account, channel, registered, renewed, delivered, failed, former, imported, in_second"
    };
}

/// What a statement says of the devices that it removes.
macro_rules! removed {
    () => {
        concat!("RETURNING node, owner, CAST(", places!(), " AS BIGINT)")
    };
}

pub(super) const FIND: &str = concat!("SELECT ", columns!(), " FROM devices WHERE node = $1");
pub(super) const PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE node > $1 ORDER BY node LIMIT $2"
);
pub(super) const OWNED: &str = concat!("SELECT ", columns!(), " FROM devices WHERE owner = $1");
pub(super) const NEWEST_OWNED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE owner = $1 ORDER BY coalesce(renewed, registered) DESC LIMIT $2"
);
/// By the account: one owner may have all devices of a domain, whose accounts are not known.
pub(super) const OF_ACCOUNT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE account = $1 AND owner || '' = $2"
);
/// Without an index: somebody asks once in a while.
pub(super) const WITH_TOKEN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM devices WHERE token = $1 OR token = $2 OR call_token = $1 OR call_token = $2 ORDER BY node LIMIT 20"
);
pub(super) const COUNT: &str = "SELECT count(*) FROM devices";
/// Without an index: it is asked for at a start. Kinds that nobody has in the settings can be as many as there are devices.
pub(super) const KINDS: &str =
    "SELECT dialect, kind, count(*) FROM devices GROUP BY dialect, kind ORDER BY count(*) DESC LIMIT 100";
/// Of PostgreSQL alone.
pub(super) const MAY_CREATE: &str =
    "SELECT CAST(coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS int)::bigint";
pub(super) const HAS_DEVICES: &str = "SELECT count(*) FROM (SELECT 1 FROM devices LIMIT 1) AS first";
macro_rules! put {
    () => {
        concat!("INSERT INTO devices (", columns!(), ", arrived) VALUES ")
    };
}
const OR_CHANGE: &str = " ON CONFLICT (node) DO UPDATE SET \
     dialect = excluded.dialect, kind = excluded.kind, secret = excluded.secret, token = excluded.token, \
     call_token = excluded.call_token, owner = excluded.owner, account = excluded.account, \
     channel = excluded.channel, registered = excluded.registered, renewed = excluded.renewed, \
     delivered = excluded.delivered, failed = excluded.failed, former = excluded.former, imported = excluded.imported, \
     in_second = excluded.in_second, arrived = excluded.arrived";
pub(super) static PUT: LazyLock<Many> =
    LazyLock::new(|| Many::new(|number| [put!(), &rows(number, 17), OR_CHANGE].concat()));
/// Rows of the largest statement for many, a power of two.
pub(crate) const AT_ONCE: usize = 128;

/// A statement in the words of both databases.
pub(super) struct Both {
    pub(super) sqlite: String,
    pub(super) postgres: String,
}

impl Both {
    /// Of a statement whose places for values come once each, in the order of their numbers. In SQLite they have no names:
    /// it would look for each name among all of them, and sqlx asks for all names whenever the statement is executed.
    fn new(postgres: String) -> Self {
        let mut parts = postgres.split('$');
        let mut sqlite = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            sqlite.push('?');
            sqlite.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        Self { sqlite, postgres }
    }
}

/// A statement for 1, 2, 4 … [`AT_ONCE`] rows or values.
pub(super) struct Many(Vec<Both>);

impl Many {
    fn new(write: impl Fn(usize) -> String) -> Self {
        let sizes = (0..=AT_ONCE.ilog2()).map(|power| 1 << power);
        Self(sizes.map(|size| Both::new(write(size))).collect())
    }

    /// The one that leaves the fewest of so many over, and for how many it is.
    pub(super) fn within(&self, number: usize) -> (usize, &Both) {
        let power = number.clamp(1, AT_ONCE).ilog2();
        (1 << power, &self.0[power as usize])
    }

    /// The one with the fewest places that has so many, and how many it has.
    pub(super) fn around(&self, number: usize) -> (usize, &Both) {
        let power = number.clamp(1, AT_ONCE).next_power_of_two().ilog2();
        (1 << power, &self.0[power as usize])
    }
}

/// Places of values for so many rows.
fn rows(rows: usize, columns: usize) -> String {
    let row = |row| {
        let places: Vec<_> = (1..=columns)
            .map(|column| format!("${}", row * columns + column))
            .collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
pub(super) const REMOVE: &str = concat!("DELETE FROM devices WHERE node = $1 ", removed!());
pub(super) const REMOVE_DEAD: &str = concat!(
    "DELETE FROM devices WHERE node = $1 AND token = $2 AND coalesce(renewed, registered) < $3 ",
    removed!()
);
/// What is dated before 2000 was written by a clock that did not know the time yet.
pub(super) const REMOVE_UNUSED: &str = concat!(
    "DELETE FROM devices WHERE node IN \
                                        (SELECT node FROM devices WHERE coalesce(renewed, registered) < $1 \
                                        AND coalesce(delivered, 0) < $1 AND coalesce(arrived, 0) < $1 \
                                        AND coalesce(renewed, registered) >= 946684800000 LIMIT $2) \
                                        ",
    removed!()
);
/// In one scan of the table.
pub(crate) const LAST_USE: &str = "SELECT coalesce(max(CASE WHEN coalesce(delivered, 0) > coalesce(renewed, registered) \
                        THEN delivered ELSE coalesce(renewed, registered) END), 0) FROM devices";
/// For so many devices that other processes do not wait for one answer of the database each.
pub(crate) const NOTED_AT_ONCE: usize = 500;
pub(super) static FIND_NOTED: LazyLock<Both> =
    LazyLock::new(|| Both::new(devices_with("node", NOTED_AT_ONCE)));
pub(super) static WITH_NODES: LazyLock<Many> =
    LazyLock::new(|| Many::new(|number| devices_with("node", number)));
pub(super) static WITH_OWNERS: LazyLock<Many> =
    LazyLock::new(|| Many::new(|number| devices_with("owner", number)));
pub(super) static WITH_ACCOUNTS: LazyLock<Many> =
    LazyLock::new(|| Many::new(|number| devices_with("account", number)));
/// Devices that have one of so many texts in a column.
fn devices_with(column: &str, texts: usize) -> String {
    format!(
        concat!("SELECT ", columns!(), " FROM devices WHERE {} IN {}"),
        column,
        rows(1, texts)
    )
}
pub(super) static NOTE_PUSHES: LazyLock<Both> = LazyLock::new(|| {
    let rows: Vec<_> = (0..NOTED_AT_ONCE)
        .map(|row| {
            let [node, delivered, failed, in_second] = [1, 2, 3, 4].map(|column| 4 * row + column);
            format!(
                "(${node}, CAST(${delivered} AS BIGINT), CAST(${failed} AS BIGINT), CAST(${in_second} AS BIGINT))"
            )
        })
        .collect();
    Both::new(format!(
        "WITH noted (node, delivered, failed, in_second) AS (VALUES {}) UPDATE devices SET \
         delivered = coalesce(noted.delivered, devices.delivered), failed = coalesce(noted.failed, devices.failed), \
         in_second = coalesce(noted.in_second, devices.in_second) \
         FROM noted WHERE devices.node = noted.node",
        rows.join(", ")
    ))
});
pub(super) static SET_FORMER: LazyLock<Both> = LazyLock::new(|| {
    let rows: Vec<_> = (0..NOTED_AT_ONCE)
        .map(|row| format!("(${}, ${})", 2 * row + 1, 2 * row + 2))
        .collect();
    Both::new(format!(
        "WITH noted (node, former) AS (VALUES {}) UPDATE devices SET former = noted.former \
         FROM noted WHERE devices.node = noted.node",
        rows.join(", ")
    ))
});
pub(super) const COUNTED_OF: &str = "SELECT devices FROM domains WHERE name = $1";
pub(super) const COUNT_OF: &str = "INSERT INTO domains (name, devices) VALUES ($1, $2) \
                                   ON CONFLICT (name) DO UPDATE SET devices = domains.devices + excluded.devices";
pub(super) const FORGET_DOMAIN: &str = "DELETE FROM domains WHERE name = $1 AND devices <= 0";
pub(super) const FORGET_DOMAINS: &str = "DELETE FROM domains";
/// The two have other names for the function that finds a text in another one.
macro_rules! count_domains {
    ($position:literal) => {
        concat!(
            "SELECT ",
            sum_of_places!(),
            ", substr(owner, ",
            $position,
            "(owner, '@') + 1) AS domain FROM devices WHERE owner IS NOT NULL GROUP BY domain"
        )
    };
}
pub(super) const COUNT_DOMAINS_IN_SQLITE: &str = count_domains!("instr");
pub(super) const COUNT_DOMAINS_IN_POSTGRES: &str = count_domains!("strpos");
pub(super) const COUNT_WITHOUT_OWNER: &str =
    concat!("SELECT ", sum_of_places!(), " FROM devices WHERE owner IS NULL");
pub(super) const COUNT_PLACES: &str = concat!("SELECT ", sum_of_places!(), " FROM devices");
pub(super) static TELL: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|number| ["INSERT INTO changes (node, at, source) VALUES ", &rows(number, 3)].concat())
});
/// The one that is named does not hear of its own changes.
pub(super) const NOTIFY: &str = "SELECT pg_notify('fpush', $1)";
/// The channel of [`NOTIFY`].
pub(super) const CHANNEL: &str = "fpush";
pub(super) const LAST_CHANGE: &str = "SELECT coalesce(max(id), 0) FROM changes";
pub(super) const OLDEST_CHANGE: &str = "SELECT coalesce(min(id), 0) FROM changes";
/// By id, in which there is an index: the first change since a time, or else the last one.
pub(super) const CHANGE_SINCE: &str = "SELECT coalesce((SELECT id FROM changes WHERE at >= $1 ORDER BY id LIMIT 1), \
                                       (SELECT max(id) FROM changes), 0)";
pub(super) const CHANGES: &str =
    "SELECT id, node FROM changes WHERE id > $1 AND source <> $2 ORDER BY id LIMIT $3";
pub(super) const BURY: &str = "INSERT INTO tombstones (hash, at, reason, change) VALUES ($1, $2, $3, $4) \
                    ON CONFLICT (hash) DO UPDATE SET at = excluded.at, reason = excluded.reason, \
                    change = excluded.change";
pub(super) static UNBURY: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|number| ["DELETE FROM tombstones WHERE hash IN ", &rows(1, number)].concat())
});
pub(super) const HAS_TOMBSTONE: &str = "SELECT count(*) FROM tombstones WHERE hash = $1 AND change > $4 \
                             AND EXISTS (SELECT 1 FROM states WHERE change = $2 AND mark = $3)";
pub(super) const FORGET_TOMBSTONES: &str = "DELETE FROM tombstones WHERE hash IN \
                                            (SELECT hash FROM tombstones WHERE at < $1 ORDER BY at LIMIT $2)";
/// The oldest go first: without its tombstone a node is answered `wait`.
pub(super) const LIMIT_TOMBSTONES: &str = "DELETE FROM tombstones WHERE hash IN (SELECT hash FROM tombstones WHERE at < \
     (SELECT at FROM tombstones ORDER BY at DESC LIMIT 1 OFFSET $1) ORDER BY at LIMIT $2)";
pub(super) const LAST_STATE: &str =
    "SELECT change, mark, devices, coalesce(places, devices) FROM states ORDER BY change DESC LIMIT 1";
pub(super) const MISSING: &str =
    "SELECT devices - (SELECT count(*) FROM devices) FROM states ORDER BY change DESC LIMIT 1";
pub(super) const ADD_STATE: &str =
    "INSERT INTO states (change, mark, devices, at, places) VALUES ($1, $2, $3, $4, $5)";
pub(super) const MARK: &str = "SELECT mark FROM states WHERE change = $1";
pub(super) const OLDEST_STATE: &str = "SELECT coalesce(min(change), 0) FROM states";
pub(super) const FORGET_STATES: &str = "DELETE FROM states WHERE change < $1";
pub(super) const FORGET_CHANGES: &str = "DELETE FROM changes WHERE id < $1";
pub(super) const FOREIGN: &str = "SELECT length, dialect FROM foreign_nodes";
pub(super) const ADD_FOREIGN: &str =
    "INSERT INTO foreign_nodes (dialect, length) VALUES ($1, $2) ON CONFLICT (dialect, length) DO NOTHING";
pub(super) const OWNERS: &str = "SELECT DISTINCT owner FROM devices WHERE owner IS NOT NULL";
pub(super) const RENAME_OWNER: &str = "UPDATE devices SET owner = $1 WHERE owner = $2";
