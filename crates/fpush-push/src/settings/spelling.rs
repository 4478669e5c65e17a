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

/// The other sections that know a key: those that are nearest to where it is.
pub(super) fn homes<'a>(section: &str, key: &str, known: &'a [(String, Vec<&'static str>)]) -> Vec<&'a str> {
    let key = folded(key);
    let in_common = |other: &str| {
        let parts = section.split('.').zip(other.split('.'));
        parts.take_while(|(one, other)| one == other).count()
    };
    let homes = known
        .iter()
        .filter(|(path, keys)| path != section && keys.iter().any(|known| folded(known) == key))
        .map(|(path, _)| match path.as_str() {
            "" => "the outermost object",
            path => path,
        });
    let homes: Vec<_> = homes.collect();
    let nearest = homes.iter().map(|home| in_common(home)).max();
    let mut homes: Vec<_> = homes
        .into_iter()
        .filter(|home| Some(in_common(home)) == nearest)
        .collect();
    homes.truncate(MAX_HOMES);
    homes
}

/// Of the places where a key belongs no more are named.
const MAX_HOMES: usize = 3;
