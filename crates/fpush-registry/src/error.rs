//! What can go wrong.

use fpush_push::{BadPayload, CommandError, TokenFlaw, Unavailable};

/// Why a registration, or the end of one, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A field is missing, too long, or has control characters.
    #[error("the field {0} is missing or has an impossible value")]
    BadField(&'static str),
    /// The settings have no push module for this push type.
    #[error("this push type is not known")]
    UnknownType,
    /// The token cannot be one for this push type.
    #[error(transparent)]
    BadToken(TokenFlaw),
    /// The app has subscribed with another key than the push module's.
    #[error("{}", BadPayload::OtherKey)]
    OtherKey,
    /// The node is one that nobody may choose.
    #[error("{}", BadPayload::ReservedNode)]
    ReservedNode,
    /// The node belongs to somebody else, or the secret is missing or another one.
    #[error("somebody else has registered this node")]
    Forbidden,
    /// There is no such registration.
    #[error("no such registration")]
    NotFound,
    /// Too many registrations of one owner, or too many in a short time.
    #[error("too many registrations")]
    TooMany,
    /// There are as many devices as the settings allow, in all or of the owner's domain.
    #[error("{}", CommandError::Full)]
    Full,
    /// The database is out of reach.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<RegisterError> for CommandError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::BadField(field) => BadPayload::Impossible(field).into(),
            RegisterError::UnknownType => BadPayload::UnknownType.into(),
            RegisterError::BadToken(flaw) => BadPayload::BadToken(flaw).into(),
            RegisterError::OtherKey => BadPayload::OtherKey.into(),
            RegisterError::ReservedNode => BadPayload::ReservedNode.into(),
            RegisterError::Forbidden => Self::Forbidden,
            RegisterError::NotFound => Self::NotFound,
            RegisterError::TooMany => Self::TooMany,
            RegisterError::Full => Self::Full,
            RegisterError::Unavailable(unavailable) => Self::Unavailable(unavailable),
        }
    }
}

/// Why a registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the SQLite file could not be made, or the file not be opened.
    #[error("cannot open the database {path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What the operating system or SQLite said, and what to do.
        problem: String,
    },
    /// There is no such SQLite file, and none is to be made.
    #[error("there is no database at {0}; correct registration.store.path")]
    NoFile(String),
    /// There are no tables, and none are to be made.
    #[error(
        "the database that registration.store names has never held registered devices: correct it, or start fpush first"
    )]
    NoTables,
    /// There are no tables, and the user may not make them.
    #[error(
        "the user of registration.store may not make tables in this database of PostgreSQL; make it the owner: alter database \
         NAME owner to USER"
    )]
    NoRights,
    /// A newer version of this program made the database.
    #[error(
        "the database was made by a newer version of this program (schema {found}, known is {known}): use that one"
    )]
    Newer {
        /// The version of the tables.
        found: i64,
        /// The last one that this program knows.
        known: i64,
    },
    /// A database that is not a registry, or a damaged one.
    #[error("the database cannot be used: {0}")]
    Database(String),
    /// The operating system has no randomness to give.
    #[error("the operating system has no randomness to give")]
    Randomness(#[from] getrandom::Error),
}
