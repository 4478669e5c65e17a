//! Google's names for what went wrong.

use http::StatusCode;

/// The codes of FCM itself ("`ErrorCode`").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FcmCode {
    Unspecified,
    InvalidArgument,
    Unregistered,
    SenderIdMismatch,
    QuotaExceeded,
    Unavailable,
    Internal,
    ThirdPartyAuthError,
    /// One that is not in this list: shortened, letters only.
    Unknown(String),
}

/// The canonical codes of Google's interfaces (google/rpc/code.proto).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    /// Google's own `UNKNOWN`, and every name that is not in this list, letters only.
    Unknown(String),
}

impl FcmCode {
    pub(super) const NAMES: [(&str, Self); 8] = [
        ("UNSPECIFIED_ERROR", Self::Unspecified),
        ("INVALID_ARGUMENT", Self::InvalidArgument),
        ("UNREGISTERED", Self::Unregistered),
        ("SENDER_ID_MISMATCH", Self::SenderIdMismatch),
        ("QUOTA_EXCEEDED", Self::QuotaExceeded),
        ("UNAVAILABLE", Self::Unavailable),
        ("INTERNAL", Self::Internal),
        ("THIRD_PARTY_AUTH_ERROR", Self::ThirdPartyAuthError),
    ];

    pub(super) fn from_name(name: &str) -> Self {
        find_name(&Self::NAMES, name).unwrap_or_else(|| Self::Unknown(letters(name)))
    }

    pub(super) fn name(&self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

impl Status {
    pub(super) const NAMES: [(&str, Self); 15] = [
        ("ABORTED", Self::Aborted),
        ("ALREADY_EXISTS", Self::AlreadyExists),
        ("CANCELLED", Self::Cancelled),
        ("DATA_LOSS", Self::DataLoss),
        ("DEADLINE_EXCEEDED", Self::DeadlineExceeded),
        ("FAILED_PRECONDITION", Self::FailedPrecondition),
        ("INTERNAL", Self::Internal),
        ("INVALID_ARGUMENT", Self::InvalidArgument),
        ("NOT_FOUND", Self::NotFound),
        ("OUT_OF_RANGE", Self::OutOfRange),
        ("PERMISSION_DENIED", Self::PermissionDenied),
        ("RESOURCE_EXHAUSTED", Self::ResourceExhausted),
        ("UNAUTHENTICATED", Self::Unauthenticated),
        ("UNAVAILABLE", Self::Unavailable),
        ("UNIMPLEMENTED", Self::Unimplemented),
    ];

    pub(super) fn from_name(name: &str) -> Self {
        find_name(&Self::NAMES, name).unwrap_or_else(|| Self::Unknown(letters(name)))
    }

    /// The canonical name behind an HTTP status, as google/rpc/code.proto has it.
    pub(super) fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::Aborted,
            429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            500 => Self::Internal,
            501 => Self::Unimplemented,
            503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            _ => Self::Unknown(String::new()),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

fn find_name<T: Clone>(names: &[(&str, T)], name: &str) -> Option<T> {
    names
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.clone())
}

/// The name of a value that has one, and `unknown` for those that nobody knows.
fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names
        .iter()
        .find(|(_, known)| known == value)
        .map_or("unknown", |(name, _)| name)
}

fn letters(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphabetic() || *c == '_')
        .take(LONGEST_NAME)
        .collect()
}

/// Letters of a name that nobody knows.
pub(super) const LONGEST_NAME: usize = 40;
