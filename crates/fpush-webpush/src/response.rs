//! What push services answer, and what must be done about it: the one table.

use std::{ops::RangeInclusive, time::Duration};

use fpush_push::PushError;
use http::StatusCode;
use serde_json::Value;

use self::Verdict::{Busy, Claims, Doubted, Gone, KeyOrClaims, Later, Refused, TooLarge, Unexplained};
use crate::service::{Service, Standing, Vendor};

/// An answer other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) service: Service,
    pub(crate) status: StatusCode,
    pub(crate) reason: Reason,
    pub(crate) retry_after: Option<Duration>,
}

/// What an answer says beside its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// One of Apple's (the `reason` of its JSON).
    Apple(&'static str),
    /// One of autopush's (the `errno` of its JSON), if it is in its documentation.
    Errno(u16),
    /// Google wants another form of URL.
    UrlForm,
    /// Google has not registered the signer.
    UnauthorizedRegistration,
    /// Nothing that is known.
    Unsaid,
}

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The subscription has ended.
    Gone,
    /// The subscription may be another key's, or has ended.
    Doubted,
    /// The claims are not taken, or are another key's than the subscription's.
    KeyOrClaims,
    /// The claims are not taken.
    Claims,
    /// The request is not as the service wants it: our mistake, or one of the settings.
    Refused,
    /// The push is too large.
    TooLarge,
    /// The receiver gets too many pushes, or is not there now.
    Busy,
    /// The service is not well.
    Later,
    /// Nobody knows.
    Unexplained,
}

/// What there is to say about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// One of few, for metrics.
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    /// What it means, and what the operator can do.
    pub(crate) meaning: &'static str,
}

/// Of whom a row of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    All,
    Of(Vendor),
    /// Of whom is not a vendor.
    Others,
}

impl Whose {
    fn includes(self, service: Service) -> bool {
        match (self, service) {
            (Self::All, _) | (Self::Others, Service::Other) => true,
            (Self::Of(vendor), Service::Vendor(other)) => vendor == other,
            (Self::Of(_), Service::Other) | (Self::Others, Service::Vendor(_)) => false,
        }
    }
}

/// A row of the table.
struct Row {
    whose: Whose,
    statuses: RangeInclusive<u16>,
    /// What it says beside the status, if that matters.
    reason: Option<Reason>,
    entry: Entry,
}

const fn row(
    whose: Whose,
    statuses: RangeInclusive<u16>,
    name: &'static str,
    verdict: Verdict,
    meaning: &'static str,
) -> Row {
    Row {
        whose,
        statuses,
        reason: None,
        entry: Entry {
            name,
            verdict,
            meaning,
        },
    }
}

/// One of Apple's reasons, which is its name for metrics, too.
const fn apple(
    statuses: RangeInclusive<u16>,
    reason: &'static str,
    verdict: Verdict,
    meaning: &'static str,
) -> Row {
    row(APPLE, statuses, reason, verdict, meaning).where_it_says(Reason::Apple(reason))
}

impl Row {
    const fn where_it_says(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }
}

const APPLE: Whose = Whose::Of(Vendor::Apple);
const GOOGLE: Whose = Whose::Of(Vendor::Google);
const MICROSOFT: Whose = Whose::Of(Vendor::Microsoft);
const MOZILLA: Whose = Whose::Of(Vendor::Mozilla);

/// The first row that fits counts.
static TABLE: [Row; 34] = [
    apple(400..=400, "VapidPkHashMismatch", Doubted, OTHER_KEY),
    apple(403..=403, "BadJwtToken", Claims, BAD_CLAIMS),
    apple(403..=403, "BadAuthorizationHeader", Claims, BAD_CLAIMS),
    apple(400..=403, "BadVapidPublicKey", Claims, BAD_CLAIMS),
    apple(400..=400, "BadTtl", Refused, OUR_FAULT),
    apple(400..=400, "BadUrgency", Refused, OUR_FAULT),
    apple(400..=400, "BadWebPushTopic", Refused, OUR_FAULT),
    apple(400..=400, "BadWebPushRequest", Refused, OUR_FAULT),
    row(APPLE, 403..=403, "forbidden", KeyOrClaims, OTHER_KEY),
    row(MOZILLA, 401..=401, "unauthorized", KeyOrClaims, OTHER_KEY),
    // Its bridge to a phone's own push service: about that one receiver, mostly.
    row(MOZILLA, 502..=502, "bridge", Busy, AWAY).where_it_says(Reason::Errno(901)),
    row(MOZILLA, 502..=502, "bridge", Busy, AWAY).where_it_says(Reason::Errno(902)),
    row(MOZILLA, 502..=502, "bridge", Busy, AWAY).where_it_says(Reason::Errno(903)),
    row(
        GOOGLE,
        400..=403,
        "UnauthorizedRegistration",
        KeyOrClaims,
        OTHER_KEY,
    )
    .where_it_says(Reason::UnauthorizedRegistration),
    row(GOOGLE, 401..=401, "unauthorized", KeyOrClaims, OTHER_KEY),
    row(GOOGLE, 403..=403, "forbidden", KeyOrClaims, OTHER_KEY),
    // On 2025-05-31 this was the answer for living subscriptions.
    row(GOOGLE, 404..=404, "url_form", Doubted, URL_FORM).where_it_says(Reason::UrlForm),
    row(MICROSOFT, 401..=401, "unauthorized", KeyOrClaims, OTHER_KEY),
    row(MICROSOFT, 403..=403, "forbidden", Doubted, OTHER_KEY),
    row(MICROSOFT, 406..=406, "throttled", Busy, BUSY),
    // A receiver that is unknown, or a topic that is protected, as likely as not.
    row(Whose::Others, 401..=401, "unauthorized", Doubted, NOT_OURS),
    row(Whose::Others, 403..=403, "forbidden", Doubted, NOT_OURS),
    row(Whose::All, 404..=404, "not_found", Gone, GONE),
    row(Whose::All, 410..=410, "gone", Gone, GONE),
    row(Whose::All, 413..=413, "too_large", TooLarge, TOO_LARGE),
    row(Whose::All, 429..=429, "throttled", Busy, BUSY),
    // ntfy: nobody has subscribed to the topic now.
    row(Whose::All, 507..=507, "nobody_there", Busy, AWAY),
    row(Whose::All, 400..=400, "bad_request", Refused, OUR_FAULT),
    row(Whose::All, 405..=405, "method_not_allowed", Refused, OUR_FAULT),
    row(Whose::All, 411..=411, "length_required", Refused, OUR_FAULT),
    row(
        Whose::All,
        415..=415,
        "unsupported_media_type",
        Refused,
        OUR_FAULT,
    ),
    row(Whose::All, 408..=408, "timeout", Later, UNWELL),
    row(Whose::All, 500..=599, "unwell", Later, UNWELL),
    row(Whose::All, 300..=399, "redirect", Unexplained, REDIRECT),
];

impl Refusal {
    pub(crate) fn read(
        service: Service,
        status: StatusCode,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            service,
            status,
            reason: Reason::read(service, body),
            retry_after,
        }
    }

    /// The table.
    pub(crate) fn entry(&self) -> Entry {
        let (status, reason) = (self.status.as_u16(), self.reason);
        let row = TABLE.iter().find(|row| {
            row.whose.includes(self.service)
                && row.statuses.contains(&status)
                && row.reason.is_none_or(|wanted| wanted == reason)
        });
        row.map_or(
            Entry {
                name: "unknown",
                verdict: Unexplained,
                meaning: UNKNOWN,
            },
            |row| row.entry,
        )
    }

    /// What is to be done.
    pub(crate) fn error(&self, standing: Standing) -> PushError {
        match standing {
            Standing::Vendors(_) => self.vendors_error(true),
            Standing::Below(_) => self.vendors_error(false),
            Standing::Strangers => self.strangers_error(),
        }
    }

    /// What is to be done about what a vendor says, at a host that it has named or at another one. Strangers choose the path, so
    /// what the path alone may cause silences this token, and neither pauses the lane nor calls the settings wrong.
    fn vendors_error(&self, is_named: bool) -> PushError {
        match self.entry().verdict {
            Gone => PushError::TokenGone { since: None },
            Doubted | KeyOrClaims => PushError::TokenDoubted,
            // They are the same for all endpoints of a host.
            Claims if is_named => PushError::Pause {
                length: PAUSE,
                alarm: true,
            },
            Claims => PushError::TokenDoubted,
            Refused if self.reason.is_about_headers() => PushError::Misconfigured,
            TooLarge => PushError::TooLarge,
            Busy => match self.retry_after {
                Some(pause) => PushError::TooMany { pause },
                None => PushError::TokenBusy,
            },
            Later => PushError::Later {
                after: self.retry_after,
            },
            Refused | Unexplained => PushError::TokenUnserved,
        }
    }

    /// What is to be done about what a server says that a stranger has chosen. That an endpoint is protected, or another
    /// key's, is not a word against it: such servers say so of what has expired, and of what has not.
    fn strangers_error(&self) -> PushError {
        match (self.entry().verdict, self.status) {
            (Gone, StatusCode::GONE) => PushError::TokenGone { since: None },
            (Gone, _) => PushError::TokenDoubted,
            (TooLarge, _) => PushError::TooLarge,
            (Busy, _) => PushError::TokenBusy,
            (Later, _) => PushError::Later {
                after: self.retry_after,
            },
            (Doubted | KeyOrClaims | Claims | Refused | Unexplained, _) => PushError::TokenUnserved,
        }
    }

    /// Whether it is about the claims, so that others may help.
    pub(crate) fn is_about_claims(&self) -> bool {
        matches!(self.entry().verdict, Claims | KeyOrClaims)
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        let (who, status) = (self.service.name(), self.status.as_u16());
        match self.reason {
            Reason::Apple(reason) => format!("{who} answers {status} {reason}"),
            Reason::Errno(errno) => format!("{who} answers {status} with errno {errno}"),
            Reason::UnauthorizedRegistration => format!("{who} answers {status} UnauthorizedRegistration"),
            Reason::UrlForm | Reason::Unsaid => format!("{who} answers {status}"),
        }
    }
}

impl Reason {
    /// Whether it is about a header that is the same in all pushes.
    fn is_about_headers(self) -> bool {
        match self {
            Self::Apple(reason) => matches!(reason, "BadTtl" | "BadUrgency" | "BadWebPushTopic"),
            Self::Errno(errno) => matches!(errno, 108 | 110..=113),
            Self::UrlForm | Self::UnauthorizedRegistration | Self::Unsaid => false,
        }
    }

    fn read(service: Service, body: &[u8]) -> Self {
        let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let says = |words: &[u8]| body.windows(words.len()).any(|part| part == words);
        match service {
            Service::Vendor(Vendor::Apple) => {
                let json = json();
                let reason = json["reason"].as_str().unwrap_or_default();
                let known = APPLES.iter().find(|known| **known == reason);
                known.map_or(Self::Unsaid, |known| Self::Apple(known))
            }
            Service::Vendor(Vendor::Mozilla) => {
                let errno = json()["errno"]
                    .as_u64()
                    .and_then(|errno| u16::try_from(errno).ok());
                let known = errno.filter(|errno| ERRNOS.contains(errno));
                known.map_or(Self::Unsaid, Self::Errno)
            }
            Service::Vendor(Vendor::Google) if says(b"/wp/") => Self::UrlForm,
            Service::Vendor(Vendor::Google) if says(b"UnauthorizedRegistration") => {
                Self::UnauthorizedRegistration
            }
            Service::Vendor(Vendor::Google | Vendor::Microsoft) | Service::Other => Self::Unsaid,
        }
    }
}

/// While a vendor does not take our claims.
const PAUSE: Duration = Duration::from_secs(60);
/// Apple's reasons.
const APPLES: [&str; 10] = [
    "BadAuthorizationHeader",
    "BadJwtToken",
    "BadTtl",
    "BadUrgency",
    "BadVapidPublicKey",
    "BadWebPushRequest",
    "BadWebPushTopic",
    "PayloadTooLarge",
    "TooManyRequests",
    "VapidPkHashMismatch",
];
/// autopush's documented errors.
const ERRNOS: [u16; 21] = [
    101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 201, 202, 900, 901, 902, 903, 904, 999,
];

const GONE: &str = "The subscription has ended: the app was removed, its permission was withdrawn, or it has subscribed again. The \
     device is given up once that is beyond doubt; its app registers again when it is opened.";
const OTHER_KEY: &str = "The subscription was made with another key than that of vapidKeyFilePath, or the signature is not taken. Apps have to \
     subscribe with the public key that \"fpush check\" shows; look at the clock of this machine as well.";
const BAD_CLAIMS: &str = "The signature or what it says is not taken. Check that subject is a mailto: URL with a real domain, and the clock of \
     this machine.";
const NOT_OURS: &str = "The push service does not let us send there: the endpoint has expired, or it is protected. The app gets another one \
     when it registers again.";
const URL_FORM: &str =
    "Google wants another form of URL for this subscription. The app gets one when it subscribes again.";
const OUR_FAULT: &str = "The push service does not understand the request, or there is no push service behind this endpoint. Check ttl, \
     urgency and topic; otherwise this is a mistake in fpush, please report it.";
const TOO_LARGE: &str = "The push is too large for this push service. Make additionalData shorter.";
const BUSY: &str = "This receiver gets more pushes than its push service lets through, and is left alone for a while. If many devices \
     meet this, make ratelimit stricter.";
const AWAY: &str = "The push service cannot reach this receiver now. One push goes out again after a while, and nothing else until then.";
const UNWELL: &str = "The push service has an outage, or there is none behind the endpoint. Pushes to it go on when it answers again.";
const REDIRECT: &str = "The push service names another URL, which is never followed: anybody could send us anywhere by it. The app gets a \
     new endpoint when it registers again.";
const UNKNOWN: &str =
    "This status means nothing for a push. There may be no push service behind the endpoint.";

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(service: Service, status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::read(service, status, body.as_bytes(), None)
    }

    fn apple(reason: &str) -> String {
        format!("{{\"reason\":\"{reason}\"}}")
    }

    fn mozilla(errno: u16) -> String {
        format!("{{\"code\":400,\"errno\":{errno},\"error\":\"x\",\"message\":\"y\"}}")
    }

    const M: Service = Service::Vendor(Vendor::Mozilla);
    const G: Service = Service::Vendor(Vendor::Google);
    const A: Service = Service::Vendor(Vendor::Apple);
    const W: Service = Service::Vendor(Vendor::Microsoft);
    const O: Service = Service::Other;

    /// Every answer of every service that is known, with its name and its verdict.
    fn cases() -> Vec<(Service, u16, String, &'static str, Verdict)> {
        let none = String::new;
        vec![
            (M, 400, mozilla(108), "bad_request", Refused),
            (M, 400, mozilla(110), "bad_request", Refused),
            (M, 400, mozilla(111), "bad_request", Refused),
            (M, 400, mozilla(112), "bad_request", Refused),
            (M, 400, mozilla(113), "bad_request", Refused),
            (M, 401, mozilla(109), "unauthorized", KeyOrClaims),
            (M, 404, mozilla(102), "not_found", Gone),
            (M, 410, mozilla(103), "gone", Gone),
            (M, 410, mozilla(105), "gone", Gone),
            (M, 410, mozilla(106), "gone", Gone),
            (M, 413, mozilla(104), "too_large", TooLarge),
            (M, 429, none(), "throttled", Busy),
            (M, 500, mozilla(999), "unwell", Later),
            (M, 502, mozilla(900), "unwell", Later),
            (M, 502, mozilla(901), "bridge", Busy),
            (M, 502, mozilla(902), "bridge", Busy),
            (M, 502, mozilla(903), "bridge", Busy),
            (M, 503, mozilla(201), "unwell", Later),
            (G, 400, none(), "bad_request", Refused),
            (
                G,
                400,
                "<TITLE>UnauthorizedRegistration</TITLE>".into(),
                "UnauthorizedRegistration",
                KeyOrClaims,
            ),
            (G, 401, none(), "unauthorized", KeyOrClaims),
            (
                G,
                403,
                "the key in the authorization header does not correspond".into(),
                "forbidden",
                KeyOrClaims,
            ),
            (G, 404, none(), "not_found", Gone),
            (
                G,
                404,
                "Please use /wp/ instead of /fcm/send".into(),
                "url_form",
                Doubted,
            ),
            (
                G,
                410,
                "push subscription has unsubscribed or expired.".into(),
                "gone",
                Gone,
            ),
            (G, 413, none(), "too_large", TooLarge),
            (G, 429, none(), "throttled", Busy),
            (G, 500, none(), "unwell", Later),
            (G, 503, none(), "unwell", Later),
            (A, 400, apple("BadTtl"), "BadTtl", Refused),
            (A, 400, apple("BadUrgency"), "BadUrgency", Refused),
            (A, 400, apple("BadWebPushTopic"), "BadWebPushTopic", Refused),
            (A, 400, apple("BadWebPushRequest"), "BadWebPushRequest", Refused),
            (
                A,
                400,
                apple("VapidPkHashMismatch"),
                "VapidPkHashMismatch",
                Doubted,
            ),
            (A, 400, apple("SomethingNew"), "bad_request", Refused),
            (A, 403, apple("BadJwtToken"), "BadJwtToken", Claims),
            (
                A,
                403,
                apple("BadAuthorizationHeader"),
                "BadAuthorizationHeader",
                Claims,
            ),
            (A, 403, apple("BadVapidPublicKey"), "BadVapidPublicKey", Claims),
            (A, 403, none(), "forbidden", KeyOrClaims),
            (A, 404, none(), "not_found", Gone),
            (A, 410, none(), "gone", Gone),
            (A, 413, apple("PayloadTooLarge"), "too_large", TooLarge),
            (A, 429, apple("TooManyRequests"), "throttled", Busy),
            (A, 500, none(), "unwell", Later),
            (A, 503, none(), "unwell", Later),
            (W, 400, none(), "bad_request", Refused),
            (W, 401, none(), "unauthorized", KeyOrClaims),
            (W, 403, none(), "forbidden", Doubted),
            (W, 404, none(), "not_found", Gone),
            (W, 406, none(), "throttled", Busy),
            (W, 410, none(), "gone", Gone),
            (W, 413, none(), "too_large", TooLarge),
            (W, 429, none(), "throttled", Busy),
            (W, 500, none(), "unwell", Later),
            (W, 503, none(), "unwell", Later),
            (O, 400, none(), "bad_request", Refused),
            (O, 401, none(), "unauthorized", Doubted),
            (O, 402, none(), "unknown", Unexplained),
            (O, 403, none(), "forbidden", Doubted),
            (O, 404, none(), "not_found", Gone),
            (O, 405, none(), "method_not_allowed", Refused),
            (O, 406, none(), "unknown", Unexplained),
            (O, 408, none(), "timeout", Later),
            (O, 410, none(), "gone", Gone),
            (O, 411, none(), "length_required", Refused),
            (O, 413, none(), "too_large", TooLarge),
            (O, 415, none(), "unsupported_media_type", Refused),
            (O, 418, none(), "unknown", Unexplained),
            (O, 429, none(), "throttled", Busy),
            (O, 500, none(), "unwell", Later),
            (O, 502, none(), "unwell", Later),
            (O, 503, none(), "unwell", Later),
            (O, 507, none(), "nobody_there", Busy),
            (O, 301, none(), "redirect", Unexplained),
            (O, 307, none(), "redirect", Unexplained),
            (O, 304, none(), "redirect", Unexplained),
            (O, 600, none(), "unknown", Unexplained),
        ]
    }

    #[test]
    fn every_answer_of_every_service() {
        for (service, status, body, name, verdict) in cases() {
            let entry = refusal(service, status, &body).entry();
            assert_eq!(
                (entry.name, entry.verdict),
                (name, verdict),
                "{service:?} {status} {body}"
            );
        }
    }

    #[test]
    fn every_row_is_some_answers_and_says_what_to_do() {
        for Row {
            whose,
            statuses,
            reason,
            entry:
                Entry {
                    name,
                    verdict,
                    meaning,
                },
        } in &TABLE
        {
            let is_tried = cases()
                .iter()
                .any(|(service, status, body, its_name, its_verdict)| {
                    let refusal = refusal(*service, *status, body);
                    whose.includes(*service)
                        && statuses.contains(status)
                        && reason.is_none_or(|reason| reason == refusal.reason)
                        && (name, verdict) == (its_name, its_verdict)
                });
            assert!(is_tried, "{whose:?} {statuses:?} {name}");
            assert!(
                (50..400).contains(&meaning.len()) && meaning.ends_with('.') && !meaning.contains("  "),
                "{meaning}"
            );
        }
    }

    /// What becomes of each verdict where it is a vendor's, and where a stranger has chosen who speaks.
    #[test]
    fn a_vendor_speaks_for_all_its_receivers_and_a_strangers_server_for_one() {
        let gone = PushError::TokenGone { since: None };
        let later = PushError::Later { after: None };
        let pause = PushError::Pause {
            length: PAUSE,
            alarm: true,
        };
        for (service, status, body, _, verdict) in cases() {
            let refusal = refusal(service, status, &body);
            let is_about_headers = match service {
                A => ["BadTtl", "BadUrgency", "BadWebPushTopic"]
                    .iter()
                    .any(|word| body == apple(word)),
                M => [108, 110, 111, 112, 113]
                    .iter()
                    .any(|errno| body == mozilla(*errno)),
                _ => false,
            };
            let of_vendor = match verdict {
                Gone => gone,
                Doubted | KeyOrClaims => PushError::TokenDoubted,
                Claims => pause,
                Refused if is_about_headers => PushError::Misconfigured,
                Refused | Unexplained => PushError::TokenUnserved,
                TooLarge => PushError::TooLarge,
                Busy => PushError::TokenBusy,
                Later => later,
            };
            let of_stranger = match verdict {
                Gone if status == 410 => gone,
                Gone => PushError::TokenDoubted,
                TooLarge => PushError::TooLarge,
                Busy => PushError::TokenBusy,
                Later => later,
                Doubted | KeyOrClaims | Claims | Refused | Unexplained => PushError::TokenUnserved,
            };
            let what = format!("{service:?} {status} {body}");
            assert_eq!(refusal.error(Standing::Strangers), of_stranger, "{what}");
            if let Service::Vendor(vendor) = service {
                assert_eq!(refusal.error(Standing::Vendors(vendor)), of_vendor, "{what}");
                let below = refusal.error(Standing::Below(vendor));
                assert!(!matches!(below, PushError::Pause { .. }), "{what}");
                assert!(verdict == Claims || below == of_vendor, "{what}");
            }
        }
    }

    #[test]
    fn who_says_when_to_come_again_is_heard() {
        let wait = Some(Duration::from_secs(120));
        let at = |status, standing| {
            let refusal = Refusal {
                retry_after: wait,
                ..refusal(M, status, "")
            };
            refusal.error(standing)
        };
        let (vendors, strangers) = (Standing::Vendors(Vendor::Mozilla), Standing::Strangers);
        assert_eq!(at(503, vendors), PushError::Later { after: wait });
        assert_eq!(at(503, strangers), PushError::Later { after: wait });
        let pause = Duration::from_secs(120);
        assert_eq!(at(429, vendors), PushError::TooMany { pause });
        assert_eq!(at(429, strangers), PushError::TokenBusy);
    }

    #[test]
    fn of_what_a_service_says_only_known_words_are_repeated() {
        for (service, status, body, words) in [
            (A, 403, apple("BadJwtToken"), "Apple answers 403 BadJwtToken"),
            (A, 400, apple("Secret"), "Apple answers 400"),
            (M, 410, mozilla(106), "Mozilla answers 410 with errno 106"),
            (M, 410, mozilla(6_000), "Mozilla answers 410"),
            (O, 403, "secret".into(), "the push service answers 403"),
        ] {
            assert_eq!(refusal(service, status, &body).describe(), words);
        }
    }
}
