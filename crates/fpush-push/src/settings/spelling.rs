//! What a misspelt key most likely means, and where a key in the wrong place belongs.

/// The candidate that a misspelt word most likely means.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest_within(word, candidates, |candidate| 1 + candidate.len() / 4)
}

/// The same, with this many mistakes at most.
pub(super) fn nearest_within<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
    most: impl Fn(&str) -> usize,
) -> Option<&'a str> {
    let word = folded(word);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= most(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many mistakes lie between two words.
pub(super) fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(&folded(one), &folded(other))
}

/// A word without what people write differently: `isDefaultModule` is `is_default_module`.
fn folded(word: &str) -> String {
    word.to_lowercase().replace(['_', '-'], "")
}

/// A section that was read to its end.
#[derive(Debug)]
pub(super) struct KnownSection {
    pub(super) path: String,
    pub(super) keys: Vec<&'static str>,
    /// Those of them that are there.
    pub(super) used: Vec<&'static str>,
}

/// What to say of a key that its section does not know, and nothing like it: where it belongs, or where it is already; of the
/// sections that are nearest to where it is, those that are no deeper, or else the outermost ones. Nothing if none would take it.
pub(super) fn homes(section: &str, key: &str, known: &[KnownSection]) -> Option<String> {
    let folded_key = folded(key);
    let is_it = |known: &&str| folded(known) == folded_key;
    let in_common = |other: &str| {
        let parts = section.split('.').zip(other.split('.'));
        parts.take_while(|(one, other)| one == other).count()
    };
    let depth = |other: &str| other.split('.').filter(|part| !part.is_empty()).count();
    let homes = known
        .iter()
        .filter(|home| home.path != section && home.keys.iter().any(is_it))
        .filter(|home| !are_of_different_names(section, &home.path));
    let mut homes: Vec<_> = homes.collect();
    if homes.iter().any(|home| home.keys.contains(&key)) {
        homes.retain(|home| home.keys.contains(&key));
    }
    let nearest = homes.iter().map(|home| in_common(&home.path)).max();
    let near = homes
        .into_iter()
        .filter(|home| Some(in_common(&home.path)) == nearest);
    let near: Vec<_> = near.collect();
    let outermost = near
        .iter()
        .map(|home| depth(&home.path))
        .min()
        .unwrap_or_default();
    let deepest = depth(section).max(outermost);
    let homes = near.into_iter().filter(|home| depth(&home.path) <= deepest);
    let (there, free): (Vec<_>, Vec<_>) = homes.partition(|home| home.used.iter().any(is_it));
    let named = |homes: Vec<&KnownSection>| {
        let name = |home: &KnownSection| match home.path.as_str() {
            "" => "the outermost object".to_owned(),
            path => path.to_owned(),
        };
        let names: Vec<_> = homes.into_iter().take(MAX_HOMES).map(name).collect();
        names.join(" or ")
    };
    match (there.is_empty(), free.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("it belongs into {}", named(free))),
        (false, _) => Some(format!("it is in {} already", named(there))),
    }
}

/// Whether both are below names of the operator's, and below different ones: what one of them takes is nothing to the other.
fn are_of_different_names(one: &str, other: &str) -> bool {
    let name = |path: &str| {
        let rest = path.strip_prefix(NAMED)?.strip_prefix('.')?;
        Some(rest.split('.').next().unwrap_or_default().to_owned())
    };
    name(one)
        .zip(name(other))
        .is_some_and(|(one, other)| one != other)
}

/// The section that holds others under names of the operator's.
const NAMED: &str = "pushModules";
/// Of the places where a key belongs no more are named.
const MAX_HOMES: usize = 3;
