//! Links that come and go while the others stay.

use fpush_testkit::fake_xmpp::AcceptError;

use crate::rig::{LONG, ONE, OTHER, RESULT, Rig, SECOND, link, member, server};

#[test]
fn links_come_and_go_without_touching_the_others() {
    let [first, second, other] = [server(ONE), server(ONE), server(OTHER)];
    let one = link("first", ONE, &first);
    let two = link("second", ONE, &second);
    let three = link("other", OTHER, &other);
    let mut rig = Rig::start(std::slice::from_ref(&one));
    let mut up = rig.accept(&first);
    rig.reload(&[two.clone(), three.clone(), one.clone()]);
    let mut added = [rig.accept(&second), rig.accept(&other)];
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    assert_eq!(rig.push(ONE, &mut added[0]), RESULT);
    assert_eq!(rig.push(OTHER, &mut added[1]), RESULT);
    rig.reload(&[one.clone(), three]);
    let [mut removed, mut kept] = added;
    assert!(removed.expect_end(LONG).stream_closed);
    assert_eq!(rig.push(ONE, &mut up), RESULT);
    assert_eq!(rig.push(OTHER, &mut kept), RESULT);
    rig.expect_metrics(&[
        "fpush_component_up{link=\"second\"} absent",
        // What was counted stays.
        "fpush_component_connects_total{link=\"second\"} == 1",
        "fpush_component_connects_total{link=\"first\"} == 1",
        "fpush_component_connects_total{link=\"other\"} == 1",
    ]);

    // It takes a group without being opened anew.
    rig.reload(&[member("first", "a", &first), member("second", "a", &second)]);
    let mut two = rig.accept(&second);
    let id = rig.publish_slowly(&up, 2 * SECOND);
    first.close_port();
    up.drop_tcp();
    assert_eq!(two.reply_to(&id, LONG).verdict(), RESULT);
    rig.expect_metrics(&["fpush_component_connects_total{link=\"first\"} == 1"]);
}

#[test]
fn what_is_under_way_is_answered_before_a_link_that_was_removed_is_closed() {
    let [first, other] = [server(ONE), server(OTHER)];
    let (one, two) = (link("first", ONE, &first), link("other", OTHER, &other));
    let mut rig = Rig::start(&[one, two.clone()]);
    let [mut up, mut stays] = [&first, &other].map(|server| rig.accept(server));
    let in_time = rig.publish_slowly(&up, SECOND);
    let late = rig.publish_slowly(&up, 10 * SECOND);
    rig.reload(std::slice::from_ref(&two));
    assert_eq!(up.reply_to(&in_time, LONG).verdict(), RESULT);
    assert!(up.expect_end(LONG).stream_closed);
    up.close();
    // Nobody is left who could send it.
    rig.expect_metrics(&["fpush_replies_total{link=\"first\",type=\"dropped\"} == 1"]);
    assert!(up.pending().iter().all(|stanza| !stanza.contains(&late)));
    stays.expect_silence(SECOND / 5);
    assert_eq!(rig.push(OTHER, &mut stays), RESULT);
}

/// Prosody allows one connection of a name: the new login waits for the end of the old one.
#[test]
fn a_link_that_is_called_otherwise_or_goes_elsewhere_takes_the_place_of_the_old_one() {
    let [first, second] = [server(ONE), server(ONE)];
    let mut rig = Rig::start(&[link("first", ONE, &first)]);
    let mut up = rig.accept(&first);
    for (name, to, late_verdict) in [
        // The server that asked.
        ("renamed", &first, Ok(RESULT.to_owned())),
        // Another server, which did not ask.
        ("moved", &second, Err("dropped")),
    ] {
        let id = rig.publish_slowly(&up, 2 * SECOND);
        rig.reload(&[link(name, ONE, to)]);
        let early = to.try_accept(SECOND / 2).map(drop);
        assert_eq!(early, Err(AcceptError::Timeout));
        assert_eq!(up.reply_to(&id, LONG).verdict(), RESULT);
        assert!(up.expect_end(LONG).stream_closed);
        let late = rig.publish_slowly(&up, SECOND / 10);
        up.close();
        let mut next = rig.accept(to);
        match late_verdict {
            Ok(verdict) => assert_eq!(next.reply_to(&late, LONG).verdict(), verdict),
            Err(counted) => {
                let count = format!("fpush_replies_total{{link=\"renamed\",type=\"{counted}\"}} == 1");
                rig.expect_metrics(&[&count]);
            }
        }
        // A reply for another server would be the first that comes.
        assert_eq!(rig.push(ONE, &mut next), RESULT);
        up = next;
    }
}
