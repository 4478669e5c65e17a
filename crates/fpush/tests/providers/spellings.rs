//! One token has many spellings at Apple, and is one token whatever was published.

use std::collections::HashSet;

use fpush_testkit::{Answer, FakeApns, TestCa};
use serde_json::json;

use crate::{
    apns::{apple, token},
    rig::{LONG, REFUSED, RESULT, Rig, modules, unlimited},
};

const MANY: usize = 300;

/// So many spellings of one token, the one in lower case among them.
fn spellings() -> Vec<String> {
    let token = token(7);
    let letters: Vec<_> = token
        .char_indices()
        .filter(|(_, c)| c.is_ascii_alphabetic())
        .map(|(at, _)| at)
        .collect();
    let spelling = |number: usize| {
        let upper = |(at, c): (usize, char)| match letters.iter().position(|letter| *letter == at) {
            Some(bit) if bit < 16 && number >> bit & 1 == 1 => c.to_ascii_uppercase(),
            Some(_) | None => c,
        };
        token.char_indices().map(upper).collect()
    };
    (0..MANY).map(spelling).collect()
}

#[test]
fn all_spellings_of_a_token_have_one_window_and_one_queued_push() {
    let spellings = spellings();
    assert_eq!(spellings.iter().collect::<HashSet<_>>().len(), MANY);
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let hour = json!({ "ratelimit": { "ratelimitTime": "1h" } });
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, hour))]), &[]);
    let verdicts: Vec<_> = spellings
        .iter()
        .rev()
        .map(|spelling| rig.push("m", spelling))
        .collect();
    assert_eq!(verdicts[..2], [RESULT, RESULT]);
    assert!(
        verdicts[2..].iter().all(|verdict| verdict == REFUSED),
        "{verdicts:?}"
    );
    rig.daemon.terminate();
    rig.link.close();
    assert!(rig.daemon.wait(LONG).success());
    let requests = apns.requests();
    assert_eq!(requests.len(), 2, "at once, and what was queued");
    assert!(requests.iter().all(|request| request.token == token(7)));
    rig.assert_discreet(&spellings);
}

#[test]
fn a_token_that_the_provider_refused_is_asked_for_once_whatever_its_spelling() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let mut rig = Rig::start(&ca, modules([("m", apple(&apns, unlimited()))]), &[]);
    apns.answer_with(|_| Answer::reason(410, "Unregistered"));
    for spelling in spellings().iter().rev() {
        assert_ne!(rig.push("m", spelling), RESULT);
    }
    assert_eq!(apns.count(), 1);
}
