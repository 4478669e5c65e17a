//! From the status to metrics.
//!
//! They are written at each scrape and not kept: what is gone, such as a module after a reload, is gone at once, and
//! domains that come and go leave nothing behind.

use std::time::{Duration, SystemTime};

use fpush_push::{Credential, Ended};

use crate::{
    Module, RegistryStatus, Status,
    exposition::Exposition,
    table::{
        BLOCKLIST_TOKENS, CERTIFICATE_EXPIRES, CLUSTER_INSTANCES, CLUSTER_REQUESTS, CLUSTER_UNREAD,
        CLUSTER_UP, COMPONENT_UP, CREDENTIAL_AGE, CREDENTIAL_EXPIRES, DOMAIN_ENDED_REGISTRATIONS,
        DOUBTED_TOKENS, ENDED_REGISTRATIONS, LAST_RELOAD_SUCCESSFUL, LAST_RELOAD_TIMESTAMP, MODULE_OUTAGE,
        MODULE_PROOF, MODULE_TROUBLE, MODULE_UP, Metric, PROVIDER_CONNECT_FAILURES, PROVIDER_CONNECTIONS,
        PROVIDER_CONNECTS, PROVIDER_PING, PROVIDER_STREAMS, PUSHES_IN_FLIGHT, PUSHES_QUEUED, PUSHES_SPOOLED,
        PUSHES_WAITING, RATELIMIT_TOKENS, REGISTERED_DEVICES, REGISTRY_TRUSTED, REGISTRY_UP,
        SENDER_PUBLISHES, SPOOL_OLDEST, STATE_DIRECTORY_OK, VENDOR_TROUBLE,
    },
};

/// Appends what the status says. `start` is when the daemon was started.
pub(crate) fn write(text: &mut Exposition, status: &Status, start: SystemTime, wall: SystemTime) {
    let links = status.links.iter();
    text.family(
        &COMPONENT_UP,
        links.map(|link| ([&*link.component, &*link.name], flag(link.down.is_none()))),
    );
    text.single(&STATE_DIRECTORY_OK, flag(status.state_trouble.is_none()));
    if let Some(devices) = status.registered_devices {
        text.single(&REGISTERED_DEVICES, devices as f64);
    }
    if let Some(registry) = &status.registry {
        let is_trusted = !matches!(registry, RegistryStatus::Doubted(_));
        text.single(&REGISTRY_TRUSTED, flag(is_trusted));
        text.single(&REGISTRY_UP, flag(status.registry_outage.is_none()));
    }
    if let Some(cluster) = &status.cluster {
        text.single(&CLUSTER_UP, flag(cluster.up));
        text.single(&CLUSTER_INSTANCES, cluster.instances as f64);
        text.single(&CLUSTER_UNREAD, cluster.unread as f64);
        let requests = cluster.requests.iter();
        text.counted(
            &CLUSTER_REQUESTS,
            requests.map(|(result, count)| ([*result], *count)),
        );
    }
    let reload = status.reload.as_ref();
    text.single(
        &LAST_RELOAD_SUCCESSFUL,
        flag(reload.is_none_or(|reload| reload.refused.is_none())),
    );
    text.single(
        &LAST_RELOAD_TIMESTAMP,
        seconds_from(SystemTime::UNIX_EPOCH, reload.map_or(start, |reload| reload.at)),
    );
    let mut certificates: Vec<_> = status.certificates.iter().collect();
    // Of several with one name the first to end counts.
    certificates.sort_by_key(|certificate| certificate.expires);
    text.family(
        &CERTIFICATE_EXPIRES,
        certificates
            .into_iter()
            .map(|certificate| ([&*certificate.name], seconds_from(wall, certificate.expires))),
    );
    if let Some(Ended { reasons, domains }) = &status.ended {
        let reasons = reasons.iter().map(|(reason, count)| ([*reason], *count as f64));
        text.family(&ENDED_REGISTRATIONS, reasons);
        let domains = domains.iter().flatten();
        let domains = domains.map(|(domain, reason, count)| ([&**domain, *reason], *count as f64));
        text.family(&DOMAIN_ENDED_REGISTRATIONS, domains);
    }
    text.family(
        &SENDER_PUBLISHES,
        status
            .senders
            .iter()
            .flatten()
            .take(MAX_SENDERS)
            .map(|(domain, count)| ([&**domain], *count as f64)),
    );
    write_modules(text, &status.modules, wall);
}

fn write_modules(text: &mut Exposition, modules: &[Module], wall: SystemTime) {
    let mut each = |metric: &Metric, value: &dyn Fn(&Module) -> Option<f64>| {
        let samples = modules
            .iter()
            .filter_map(|module| Some(([&*module.status.name], value(module)?)));
        text.family(metric, samples);
    };
    each(&PUSHES_IN_FLIGHT, &|module| Some(module.status.in_flight as f64));
    each(&PUSHES_WAITING, &|module| Some(module.status.waiting as f64));
    each(&PUSHES_QUEUED, &|module| Some(module.status.held as f64));
    each(&PUSHES_SPOOLED, &|module| Some(module.status.outage.held as f64));
    each(&SPOOL_OLDEST, &|module| {
        Some(module.status.outage.oldest.unwrap_or_default().as_secs_f64())
    });
    each(&RATELIMIT_TOKENS, &|module| {
        Some(module.status.limited_tokens as f64)
    });
    each(&BLOCKLIST_TOKENS, &|module| {
        Some(module.status.blocked_tokens as f64)
    });
    each(&DOUBTED_TOKENS, &|module| {
        Some(module.status.doubted_tokens as f64)
    });
    each(&MODULE_UP, &|module| Some(flag(is_up(module))));
    let connection = |module: &Module| module.status.backend.connections();
    each(&PROVIDER_CONNECTIONS, &|module| {
        Some(connection(module)?.open as f64)
    });
    each(&PROVIDER_STREAMS, &|module| {
        Some(connection(module)?.streams as f64)
    });
    each(&PROVIDER_PING, &|module| {
        Some(connection(module)?.ping?.as_secs_f64())
    });
    each(&PROVIDER_CONNECTS, &|module| {
        Some(connection(module)?.connects as f64)
    });
    each(&PROVIDER_CONNECT_FAILURES, &|module| {
        Some(connection(module)?.failed_connects as f64)
    });

    let troubles = modules.iter().filter_map(|module| {
        let trouble = module.status.trouble.as_ref()?;
        Some(([&*module.status.name, trouble.kind.name()], 1.0))
    });
    text.family(&MODULE_TROUBLE, troubles);
    let troubles = modules.iter().flat_map(|module| {
        let vendors = module.status.vendors.iter();
        vendors.map(|(vendor, trouble)| ([&*module.status.name, *vendor, trouble.kind.name()], 1.0))
    });
    text.family(&VENDOR_TROUBLE, troubles);
    let proofs = modules
        .iter()
        .map(|module| ([&*module.status.name, module.status.proof.name()], 1.0));
    text.family(&MODULE_PROOF, proofs);
    let outages = modules
        .iter()
        .map(|module| ([&*module.status.name, module.status.outage.phase.name()], 1.0));
    text.family(&MODULE_OUTAGE, outages);
    let credentials = |value: &dyn Fn(&Credential) -> Option<f64>| {
        let mut samples = Vec::new();
        for Module { status, .. } in modules {
            for credential in &status.backend.credentials {
                if let Some(value) = value(credential) {
                    samples.push(([&*status.name, credential.kind.name()], value));
                }
            }
        }
        samples
    };
    // Of several of one kind the worst one counts.
    let mut ages = credentials(&|credential| Some(credential.age?.as_secs_f64()));
    ages.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    text.family(&CREDENTIAL_AGE, ages);
    let mut ends = credentials(&|credential| Some(seconds_from(wall, credential.expires?)));
    ends.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    text.family(&CREDENTIAL_EXPIRES, ends);
}

/// Whether a module can deliver.
pub(crate) fn is_up(module: &Module) -> bool {
    let trouble = module.status.trouble.as_ref();
    trouble.is_none_or(|trouble| trouble.kind.lets_pushes_pass())
}

/// From one time to the other; negative if that is earlier.
pub(crate) fn seconds_from(begin: SystemTime, end: SystemTime) -> f64 {
    match end.duration_since(begin) {
        Ok(time) => time.as_secs_f64(),
        Err(error) => -Duration::as_secs_f64(&error.duration()),
    }
}

fn flag(flag: bool) -> f64 {
    if flag { 1.0 } else { 0.0 }
}

/// Domains that are shown: strangers choose them.
pub(crate) const MAX_SENDERS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_in_the_past() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(seconds_from(now, now + Duration::from_millis(1_500)), 1.5);
        assert_eq!(seconds_from(now, SystemTime::UNIX_EPOCH), -10.0);
    }
}
