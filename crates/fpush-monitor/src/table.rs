//! All metrics: their names, types, labels and help texts. The one list.
//!
//! Counters and histograms are counted where things happen ([`fpush_push::metrics`]) and read where they are
//! ([`Counted`](crate::Counted) and the modules' [`Meters`](fpush_push::Meters)). All others come from the
//! [`Status`](crate::Status), from what this crate knows itself, and from `/proc/self`. All are written by this crate, and
//! nothing can be written that is not in the table.
//!
//! No label holds what a stranger can choose freely, but `domain`, which is a top list.

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub metric_type: MetricType,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    /// What it is about: a heading on the page of metrics.
    pub about: &'static str,
}

/// Types of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricType {
    /// It only goes up.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often a value was in which range.
    Histogram,
}

impl MetricType {
    /// Its name in the exposition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! table {
    ($($about:literal: $($constant:ident: $type:expr, $name:literal, $labels:tt, $help:literal;)*)*) => {
        $($(pub(crate) const $constant: Metric = Metric {
            name: $name,
            metric_type: $type,
            labels: &$labels,
            help: $help,
            about: $about,
        };)*)*

        /// The table.
        pub const METRICS: &[Metric] = &[$($($constant),*),*];
    };
}

use MetricType::{Counter, Gauge, Histogram};

table! {
    "Counted":
    PUSHES: Counter, "fpush_pushes_total", ["module", "outcome"],
        "Publishes by push module and what became of them; the module is empty if they came to none.";
    NOTIFICATIONS: Counter, "fpush_push2_notifications_total", ["outcome"],
        "Notifications of Push 2.0 and what became of them. Those that came to a push module are among its pushes as well.";
    HELD_PUSHES: Counter, "fpush_held_pushes_total", ["module", "outcome"],
        "Acknowledged pushes that were held and sent later, by push module and what became of them.";
    TAKEOVERS: Counter, "fpush_held_takeovers_total", ["module", "from"],
        "Held pushes that this instance took over: from instances that were stopped, or are dead; and those that it sent though another one had taken them over (sent_twice).";
    PUSHES_LOST: Counter, "fpush_pushes_lost_total", ["module"],
        "Acknowledged pushes that could not be delivered; the module is empty if it is not in the settings any more.";
    PROVIDER_ANSWERS: Counter, "fpush_provider_answers_total", ["module", "reason"],
        "Answers of the provider to single attempts, by push module and reason.";
    VENDOR_ATTEMPTS: Counter, "fpush_vendor_attempts_total", ["module", "vendor", "result"],
        "Single attempts at a vendor, where the push module sends to several: accepted or not_accepted. Web Push services that are not \
         a vendor's are other.";
    REJECTED_TOKENS: Counter, "fpush_rejected_tokens_total", ["module", "verdict"],
        "Answers that called a token dead or wrong, by push module and whether that was believed or doubted.";
    REJECTION_BURSTS: Counter, "fpush_rejection_bursts_total", ["module"],
        "Times that the provider began to reject far more tokens than usual.";
    PROVIDER_DURATION: Histogram, "fpush_provider_duration_seconds", ["module"],
        "Seconds that one attempt at the provider took.";
    REPLY_DURATION: Histogram, "fpush_reply_duration_seconds", [],
        "Seconds from a publish to its reply.";
    REPLIES: Counter, "fpush_replies_total", ["link", "type", "condition"],
        "Replies to XMPP servers by link, type and error condition.";
    COMPONENT_CONNECTS: Counter, "fpush_component_connects_total", ["link"],
        "Logins at the XMPP server that worked, by link.";
    COMPONENT_DISCONNECTS: Counter, "fpush_component_disconnects_total", ["link", "reason"],
        "Connections to the XMPP server that ended, by link and reason.";
    COMPONENT_LOGIN_FAILURES: Counter, "fpush_component_login_failures_total", ["link", "reason"],
        "Attempts to connect and log in at the XMPP server that failed, by link and reason.";
    RELOADS: Counter, "fpush_reloads_total", ["result"],
        "Reloads of the settings by result.";
    STATE_WRITES: Counter, "fpush_state_writes_total", ["result"],
        "Writes of the state directory by result.";
    CLUSTER_REQUESTS: Counter, "fpush_cluster_requests_total", ["result"],
        "Questions to the engine by which instances share what they know, on behalf of a push, by result.";
    PROBLEMS: Counter, "fpush_problems_total", ["level"],
        "Errors and warnings in the log by level, those included that were withheld.";

    "The daemon":
    BUILD_INFO: Gauge, "fpush_build_info", ["version"],
        "1, with the version of fpush.";
    COMPONENT_UP: Gauge, "fpush_component_up", ["component", "link"],
        "Whether a link to an XMPP server is up, by our address there and link.";
    REGISTERED_DEVICES: Gauge, "fpush_registered_devices", [],
        "Devices that are registered.";
    REGISTRY_TRUSTED: Gauge, "fpush_registry_trusted", [],
        "Whether the database of registered devices is the one that it was.";
    REGISTRY_UP: Gauge, "fpush_registry_up", [],
        "Whether the database of registered devices can be used.";
    CLUSTER_UP: Gauge, "fpush_cluster_up", [],
        "Whether the engine can be used by which instances share what they know.";
    CLUSTER_INSTANCES: Gauge, "fpush_cluster_instances", [],
        "Instances that use this engine, this one included.";
    CLUSTER_UNREAD: Gauge, "fpush_cluster_unread", [],
        "Held pushes in the engine that this instance cannot read, because another version of fpush has written them.";
    LAST_RELOAD_SUCCESSFUL: Gauge, "fpush_last_reload_successful", [],
        "Whether the last reload of the settings was accepted; 1 if there was none.";
    LAST_RELOAD_TIMESTAMP: Gauge, "fpush_last_reload_timestamp_seconds", [],
        "When settings were last read and accepted or refused, as a Unix time; the start if there was no reload.";
    STATE_DIRECTORY_OK: Gauge, "fpush_state_directory_ok", [],
        "Whether the state directory can be written.";
    CERTIFICATE_EXPIRES: Gauge, "fpush_certificate_expires_in_seconds", ["name"],
        "Seconds until the certificate of a listener ends; negative if it has ended.";
    ENDED_REGISTRATIONS: Counter, "fpush_registrations_ended_total", ["reason"],
        "Registrations that fpush has ended since the database was opened, by reason: dead, unregistered or expired.";
    DOMAIN_ENDED_REGISTRATIONS: Gauge, "fpush_domain_registrations_ended", ["domain", "reason"],
        "The same of the registrable domains of which most have ended, twenty at most.";
    SENDER_PUBLISHES: Gauge, "fpush_sender_publishes", ["domain"],
        "Publishes of the domains that lately sent most, twenty at most.";

    "Each push module":
    PUSHES_IN_FLIGHT: Gauge, "fpush_pushes_in_flight", ["module"],
        "Pushes at the provider, those included that wait for their next attempt.";
    PUSHES_WAITING: Gauge, "fpush_pushes_waiting", ["module"],
        "Publishes in the line before the provider.";
    PUSHES_QUEUED: Gauge, "fpush_pushes_queued", ["module"],
        "Acknowledged pushes that are held and go out later.";
    PUSHES_SPOOLED: Gauge, "fpush_pushes_spooled", ["module"],
        "Those of them that wait until the provider is back.";
    SPOOL_OLDEST: Gauge, "fpush_spool_oldest_seconds", ["module"],
        "How long ago the oldest push was published that waits until the provider is back; 0 if none does.";
    MODULE_OUTAGE: Gauge, "fpush_module_outage", ["module", "phase"],
        "1 for what the push module does with publishes: up (they go to the provider), down (they are held) or recovering (what was held follows).";
    RATELIMIT_TOKENS: Gauge, "fpush_ratelimit_tokens", ["module"],
        "Tokens that the rate limit remembers.";
    BLOCKLIST_TOKENS: Gauge, "fpush_blocklist_tokens", ["module"],
        "Tokens that the block list remembers.";
    DOUBTED_TOKENS: Gauge, "fpush_doubted_tokens", ["module"],
        "Tokens that the provider called dead or wrong and that are not believed dead.";
    MODULE_UP: Gauge, "fpush_module_up", ["module"],
        "Whether the push module can deliver, as far as is known: its credentials are not refused, tokens fit, and the provider is well.";
    MODULE_TROUBLE: Gauge, "fpush_module_trouble", ["module", "kind"],
        "1 for what keeps the push module from working as it should.";
    VENDOR_TROUBLE: Gauge, "fpush_vendor_trouble", ["module", "vendor", "kind"],
        "1 for what keeps one of several vendors from working as it should, where the push module sends to several, as for Web Push.";
    MODULE_PROOF: Gauge, "fpush_module_proof", ["module", "state"],
        "1 for what is known of the push module's credentials: proven, not_tried or refused.";
    PROVIDER_CONNECTIONS: Gauge, "fpush_provider_connections", ["module"],
        "Open connections to the provider.";
    PROVIDER_STREAMS: Gauge, "fpush_provider_streams", ["module"],
        "Requests to the provider that wait for their answer.";
    PROVIDER_PING: Gauge, "fpush_provider_ping_seconds", ["module"],
        "Seconds that the answer to the last PING took.";
    PROVIDER_CONNECTS: Counter, "fpush_provider_connects_total", ["module"],
        "Connections to the provider that came to be.";
    PROVIDER_CONNECT_FAILURES: Counter, "fpush_provider_connect_failures_total", ["module"],
        "Attempts to connect to the provider that failed.";
    CREDENTIAL_AGE: Gauge, "fpush_credential_age_seconds", ["module", "kind"],
        "Age of a credential that is renewed all the time.";
    CREDENTIAL_EXPIRES: Gauge, "fpush_credential_expires_in_seconds", ["module", "kind"],
        "Seconds until a credential ends; negative if it has ended.";

    "The process":
    PROCESS_CPU: Counter, "process_cpu_seconds_total", [],
        "Total user and system CPU time spent in seconds.";
    PROCESS_RESIDENT_MEMORY: Gauge, "process_resident_memory_bytes", [],
        "Resident memory size in bytes.";
    PROCESS_VIRTUAL_MEMORY: Gauge, "process_virtual_memory_bytes", [],
        "Virtual memory size in bytes.";
    PROCESS_OPEN_FDS: Gauge, "process_open_fds", [],
        "Number of open file descriptors.";
    PROCESS_MAX_FDS: Gauge, "process_max_fds", [],
        "Maximum number of open file descriptors.";
    PROCESS_START_TIME: Gauge, "process_start_time_seconds", [],
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS: Gauge, "process_threads", [],
        "Number of OS threads in the process.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for (at, metric) in METRICS.iter().enumerate() {
            let name = metric.name;
            assert!(
                METRICS[..at].iter().all(|earlier| earlier.name != name),
                "{name} twice"
            );
            assert_eq!(name.ends_with("_total"), metric.metric_type == Counter, "{name}");
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']),
                "{name}"
            );
        }
    }
}
