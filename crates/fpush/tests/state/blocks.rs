//! The block list.

use fpush_testkit::Answer;

use crate::rig::{BLOCKS, DEAD, RESULT, Rig, TRUSTED, token};

#[test]
fn a_dead_token_stays_dead_and_its_provider_is_not_asked_again() {
    let mut rig = Rig::start("20s");
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    assert_eq!(rig.push(&token(2)), RESULT);
    for _ in 0..2 {
        rig.stop();
        let written = rig.read(BLOCKS);
        assert_eq!(written.lines().count(), 2, "{written}");
        assert!(
            !written.contains(&token(1)),
            "a token stands in the block list: {written}"
        );
        rig.start_again();
        assert_eq!(rig.push(&token(1)), DEAD);
        assert_eq!(rig.apns.count(), TRUSTED + 2, "nobody was asked");
    }
    assert_eq!(rig.push(&token(3)), RESULT, "others are not blocked");
}

/// What the provider could not explain is not a death, after a restart either.
#[test]
fn a_blocked_token_stays_blocked_for_the_same_reason() {
    let mut rig = Rig::start("20s");
    rig.apns.queue([Answer::reason(400, "SomethingNew")]);
    let verdict = rig.push(&token(1));
    assert!(verdict.starts_with("wait/"), "{verdict}");
    rig.stop();
    rig.start_again();
    assert_eq!(rig.push(&token(1)), verdict);
    assert_eq!(rig.apns.count(), 1);
}

/// The key of the fingerprints is in the file: in another folder it is another one.
#[test]
fn without_the_file_the_provider_is_asked_once_more() {
    let mut rig = Rig::start("20s");
    rig.earn_trust();
    rig.apns.queue([Answer::reason(410, "Unregistered")]);
    assert_eq!(rig.push(&token(1)), DEAD);
    rig.stop();
    std::fs::remove_file(rig.file(BLOCKS)).unwrap();
    rig.start_again();
    assert_eq!(rig.push(&token(1)), RESULT);
    assert_eq!(rig.apns.count(), TRUSTED + 2);
}
