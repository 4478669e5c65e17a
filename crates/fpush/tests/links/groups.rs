//! Replies whose link has gone meanwhile.

use crate::rig::{LONG, ONE, RESULT, Rig, SECOND, link, member, server};

#[test]
fn another_link_of_the_group_sends_the_replies_of_one_that_is_gone() {
    let [first, second, third] = [server(ONE), server(ONE), server(ONE)];
    let mut rig = Rig::start(&[
        member("first", "a", &first),
        member("second", "a", &second),
        member("third", "b", &third),
    ]);
    let [one, mut two, mut three] = [&first, &second, &third].map(|server| rig.accept(server));
    let id = rig.publish_slowly(&one, 2 * SECOND);
    first.close_port();
    one.drop_tcp();
    assert_eq!(two.reply_to(&id, LONG).verdict(), RESULT);
    three.expect_silence(SECOND / 5);
    rig.expect_metrics(&[
        // It counts where the request came from.
        "fpush_replies_total{link=\"first\",type=\"result\"} == 1",
        "fpush_replies_total{type=\"dropped\"} absent",
    ]);
    // When it is back, it sends its own.
    first.open_port();
    let mut one = rig.accept(&first);
    assert_eq!(rig.push(ONE, &mut one), RESULT);
    two.expect_silence(SECOND / 5);
}

#[test]
fn without_a_group_replies_wait_for_their_own_link() {
    let [first, second] = [server(ONE), server(ONE)];
    let mut rig = Rig::start(&[link("first", ONE, &first), link("second", ONE, &second)]);
    let [one, mut two] = [&first, &second].map(|server| rig.accept(server));
    let id = rig.publish_slowly(&one, SECOND / 2);
    first.close_port();
    one.drop_tcp();
    two.expect_silence(2 * SECOND);
    first.open_port();
    assert_eq!(rig.accept(&first).reply_to(&id, LONG).verdict(), RESULT);
}

/// 25 s after the request nobody waits for the reply.
#[test]
fn a_reply_that_no_link_could_send_in_time_is_dropped_and_counted() {
    let [first, second] = [server(ONE), server(ONE)];
    let mut rig = Rig::start(&[member("first", "a", &first), member("second", "a", &second)]);
    let [one, two] = [&first, &second].map(|server| rig.accept(server));
    let id = rig.publish_slowly(&one, SECOND / 2);
    for server in [&first, &second] {
        server.close_port();
    }
    one.drop_tcp();
    two.drop_tcp();
    rig.expect_metrics(&["fpush_replies_total{link=\"first\",type=\"dropped\"} == 1"]);
    first.open_port();
    let mut one = rig.accept(&first);
    assert_eq!(rig.push(ONE, &mut one), RESULT);
    assert!(one.pending().iter().all(|stanza| !stanza.contains(&id)));
}
