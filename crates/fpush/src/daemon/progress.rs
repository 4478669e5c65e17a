//! What became of the last settings, and of the files that they name: which attempts are made, and what is said of them.

use std::time::SystemTime;

use fpush_monitor::Reload;

/// Why settings are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The operator wants it.
    Asked,
    /// A file that they name has changed.
    Files,
}

/// What is known of attempts to go on with other settings or files.
#[derive(Debug, Default)]
pub(super) struct Progress {
    files: Files,
    last: Option<Reload>,
    /// The settings file that the operator asked for last, if it was refused: files that are reloaded later do not make
    /// that good.
    refused: Option<Reload>,
}

/// What is known of the files that the settings name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Files {
    /// They are those in force.
    #[default]
    InForce,
    /// They could not be used when they were looked at: certificate and key are often written one after the other.
    Unusable,
    /// They were refused, and this was said; by their digest.
    Refused(u128),
}

impl Progress {
    /// What to show of the last attempt.
    pub(super) fn last(&self) -> Option<&Reload> {
        self.last.as_ref()
    }

    /// The files are those in force. Whether that is to be said, because others had been refused.
    pub(super) fn are_in_force(&mut self) -> bool {
        let were_refused = matches!(self.files, Files::Refused(_));
        if were_refused {
            // Only what the operator asked for may still be refused.
            self.last.clone_from(&self.refused);
        }
        self.files = Files::InForce;
        were_refused
    }

    /// Whether files with this digest are to be tried.
    pub(super) fn is_worth_a_try(&self, digest: u128) -> bool {
        self.files != Files::Refused(digest)
    }

    /// Files cannot be used. Whether that is to be said: they get a second look before it is an error.
    pub(super) fn are_refused(&mut self) -> bool {
        let second = self.files == Files::Unusable;
        self.files = Files::Unusable;
        second
    }

    /// Other settings or files are in force.
    pub(super) fn taken(&mut self, cause: Cause, at: SystemTime) {
        self.files = Files::InForce;
        if cause == Cause::Asked {
            self.refused = None;
        }
        self.last = self.refused.clone().or(Some(Reload { at, refused: None }));
    }

    /// They were refused for a reason. `changed` is the digest of the files, if they are not those in force.
    pub(super) fn refused(&mut self, cause: Cause, why: String, changed: Option<u128>, at: SystemTime) {
        self.files = changed.map_or(Files::InForce, Files::Refused);
        self.last = Some(Reload {
            at,
            refused: Some(why),
        });
        if cause == Cause::Asked {
            self.refused.clone_from(&self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn shown(progress: &Progress) -> Option<Option<&str>> {
        progress.last().map(|last| last.refused.as_deref())
    }

    #[test]
    fn files_that_do_not_fit_are_looked_at_twice_and_refused_once() {
        let mut progress = Progress::default();
        assert!(progress.is_worth_a_try(1) && !progress.are_refused());
        assert!(progress.is_worth_a_try(1) && progress.are_refused());
        progress.refused(Cause::Files, "a key is missing".to_owned(), Some(1), NOW);
        assert!(!progress.is_worth_a_try(1), "it was said");
        assert!(progress.is_worth_a_try(2), "they have changed once more");
        assert_eq!(shown(&progress), Some(Some("a key is missing")));
        assert!(progress.are_in_force(), "that is news");
        assert!(!progress.are_in_force(), "it was said");
        assert_eq!(shown(&progress), None);
    }

    #[test]
    fn files_do_not_make_good_what_the_operator_wanted() {
        let mut progress = Progress::default();
        progress.refused(Cause::Asked, "a typo".to_owned(), None, NOW);
        progress.taken(Cause::Files, NOW);
        assert_eq!(shown(&progress), Some(Some("a typo")));
        progress.refused(Cause::Files, "no key".to_owned(), Some(1), NOW);
        progress.are_in_force();
        assert_eq!(shown(&progress), Some(Some("a typo")));
        progress.taken(Cause::Asked, NOW);
        assert_eq!(shown(&progress), Some(None));
    }
}
