//! Owners that were stored before addresses had one spelling.

use fpush_push::canonical_jid;

use super::{Result, Value, Writing};

impl Writing {
    /// Brings all owners into the one spelling in which they are compared; does so once in the life of a database. Servers
    /// that normalise addresses have written them so anyway: then nothing changes.
    pub(super) async fn spell_owners(&mut self) -> Result<()> {
        if self.meta(DONE).await?.is_some() {
            return Ok(());
        }
        for owner in &self.texts(OWNERS, &[]).await? {
            let canonical = canonical_jid(owner);
            if canonical != owner.as_str() {
                let values = [Value::Text(&canonical), Value::Text(owner)];
                self.execute(RENAME, &values).await?;
            }
        }
        self.set_meta(DONE, "canonical").await
    }
}

/// The name in `meta` by which it is known that this is done.
const DONE: &str = "owners";
const OWNERS: &str = "SELECT DISTINCT owner FROM devices WHERE owner IS NOT NULL";
const RENAME: &str = "UPDATE devices SET owner = $1 WHERE owner = $2";
