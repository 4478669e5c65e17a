//! What a unit file says.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The assignments of a unit file, in its order.
pub(super) struct Unit(Vec<(String, String)>);

impl Unit {
    pub(super) fn parse(text: &str) -> Self {
        let assignments = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', ';', '[']))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        Self(assignments.collect())
    }

    /// All values of a key.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a key of which the last one counts.
    pub(super) fn get(&self, key: &str) -> Result<&str> {
        self.all(key)
            .last()
            .with_context(|| format!("the unit file has no {key}="))
    }

    /// The words of such a value, which has neither quotes nor specifiers.
    pub(super) fn words(&self, key: &str) -> Result<Vec<&str>> {
        let value = self.get(key)?;
        if value.contains(['"', '\'', '%', '\\']) {
            bail!("{key}={value} has what this simulation cannot read");
        }
        Ok(value.split_ascii_whitespace().collect())
    }

    /// A span of time without a unit, which means seconds.
    pub(super) fn seconds(&self, key: &str) -> Result<Duration> {
        let value = self.get(key)?;
        let seconds = value
            .parse()
            .with_context(|| format!("{key}={value} is not a number of seconds"))?;
        Ok(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_assignment_counts() {
        let unit =
            Unit::parse("[Service]\n# User=nobody\nUser=a\nUser=b\nWatchdogSec=30\nExecStart=/bin/x y=z\n");
        assert_eq!(unit.get("User").unwrap(), "b");
        assert_eq!(unit.all("User").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(unit.words("ExecStart").unwrap(), ["/bin/x", "y=z"]);
        assert_eq!(unit.seconds("WatchdogSec").unwrap(), Duration::from_secs(30));
        unit.get("Group").unwrap_err();
    }
}
