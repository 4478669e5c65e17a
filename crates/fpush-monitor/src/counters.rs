//! From what is counted to metrics. The numbers are read where they are, at each scrape.

use std::{collections::BTreeMap, sync::Arc};

use fpush_push::{
    LinkMeters, Meters,
    metrics::{Counter, Histogram, Outcomes, WordCounters},
};

use crate::{
    exposition::Exposition,
    table::{
        COMPONENT_CONNECTS, COMPONENT_DISCONNECTS, COMPONENT_LOGIN_FAILURES, HELD_PUSHES, NOTIFICATIONS,
        PROBLEMS, PROVIDER_ANSWERS, PROVIDER_DURATION, PUSHES, PUSHES_LOST, REJECTED_TOKENS,
        REJECTION_BURSTS, RELOADS, REPLIES, REPLY_DURATION, STATE_WRITES, TAKEOVERS, VENDOR_ATTEMPTS,
    },
};

/// What is counted beside the push modules, by its owners.
#[derive(Debug)]
pub struct Counted {
    /// Publishes that came to no module, by what became of them.
    pub outcomes: Arc<Outcomes>,
    /// Notifications of Push 2.0, by what became of them.
    pub notifications: Arc<Outcomes>,
    /// Acknowledged pushes that could not be delivered by modules that are not in the settings any more.
    pub lost: Arc<Counter>,
    /// From a publish to its reply.
    pub reply_durations: Arc<Histogram>,
    /// Reloads of the settings by result.
    pub reloads: Arc<WordCounters>,
    /// Writes of the state directory by result.
    pub state_writes: Arc<WordCounters>,
    /// Errors and warnings in the log by level.
    pub problems: Arc<WordCounters>,
}

/// The meters of modules by their names.
pub(crate) type ByModule<'a> = BTreeMap<&'a str, &'a Meters>;

/// Appends everything that is counted. What the modules count is there from the start, the rest from its first count on.
pub(crate) fn write(
    text: &mut Exposition,
    counted: &Counted,
    modules: &ByModule<'_>,
    links: &[(String, Arc<LinkMeters>)],
) {
    let Counted {
        outcomes,
        notifications,
        lost,
        reply_durations,
        reloads,
        state_writes,
        problems,
    } = counted;
    let without_module = outcomes.named().into_iter().filter(|(_, count)| *count > 0);
    let without_module = without_module.map(|(outcome, count)| (["", outcome], count));
    text.family(
        &PUSHES,
        by_word(modules, |meters| meters.outcomes().named()).chain(without_module),
    );
    let notified = notifications.named().into_iter();
    text.family(
        &NOTIFICATIONS,
        notified.map(|(outcome, count)| ([outcome], count)),
    );
    text.family(&HELD_PUSHES, by_word(modules, Meters::held));
    text.family(&TAKEOVERS, by_word(modules, Meters::takeovers));
    let lost_without_module = Some(lost.get()).filter(|lost| *lost > 0);
    text.family(
        &PUSHES_LOST,
        each(modules, Meters::lost).chain(lost_without_module.map(|lost| ([""], lost))),
    );
    text.family(&PROVIDER_ANSWERS, by_word(modules, Meters::answers));
    let by_vendor = modules.iter().flat_map(|(name, meters)| {
        let counts = meters.vendors();
        counts.map(move |([vendor, result], count)| ([*name, vendor, result], count))
    });
    text.counted(&VENDOR_ATTEMPTS, by_vendor);
    text.family(&REJECTED_TOKENS, by_word(modules, Meters::rejections));
    text.family(&REJECTION_BURSTS, each(modules, Meters::bursts));
    text.histograms(&PROVIDER_DURATION, each(modules, Meters::attempts));
    text.histograms(&REPLY_DURATION, [([], &**reply_durations)]);
    write_links(text, links);
    for (metric, words) in [
        (&RELOADS, reloads),
        (&STATE_WRITES, state_writes),
        (&PROBLEMS, problems),
    ] {
        text.counted(
            metric,
            words.get().into_iter().map(|(word, count)| ([word], count)),
        );
    }
}

fn write_links(text: &mut Exposition, links: &[(String, Arc<LinkMeters>)]) {
    let links = || links.iter().map(|(name, meters)| (&**name, &**meters));
    let replies = links().flat_map(|(name, meters)| {
        let dropped = (["dropped", ""], meters.dropped_replies.get());
        let replies = meters.replies.get().chain([dropped]);
        replies.map(move |([kind, condition], count)| ([name, kind, condition], count))
    });
    text.counted(&REPLIES, replies);
    let connects = links().map(|(name, meters)| ([name], meters.connects.get()));
    text.counted(&COMPONENT_CONNECTS, connects);
    type Words = fn(&LinkMeters) -> &WordCounters;
    let by_reason: [(_, Words); 2] = [
        (&COMPONENT_DISCONNECTS, |meters| &meters.disconnects),
        (&COMPONENT_LOGIN_FAILURES, |meters| &meters.login_failures),
    ];
    for (metric, words) in by_reason {
        let counts = links().flat_map(|(name, meters)| {
            let words = words(meters).get().into_iter();
            words.map(move |(word, count)| ([name, word], count))
        });
        text.counted(metric, counts);
    }
}

/// A value of each module.
fn each<'a, T>(
    modules: &ByModule<'a>,
    value: impl Fn(&'a Meters) -> T,
) -> impl Iterator<Item = ([&'a str; 1], T)> {
    modules.iter().map(move |(name, meters)| ([*name], value(meters)))
}

/// Several counts of each module, each with its word.
fn by_word<'a, W: IntoIterator<Item = (&'static str, u64)>>(
    modules: &ByModule<'a>,
    counts: impl Fn(&'a Meters) -> W,
) -> impl Iterator<Item = ([&'a str; 2], u64)> {
    modules.iter().flat_map(move |(name, meters)| {
        let counts = counts(meters).into_iter();
        counts.map(|(word, count)| ([*name, word], count))
    })
}
