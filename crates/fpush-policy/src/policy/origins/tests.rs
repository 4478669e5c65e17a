use super::*;
use crate::{
    known::LastAccepted,
    testing::{fingerprint, hasher},
};

fn sender(domain: &str) -> SenderDomain {
    SenderDomain::new(domain, &hasher())
}

fn known(domain: &str) -> SenderDomain {
    sender(domain).accepted(LastAccepted::Lately)
}

fn origin(number: usize) -> Fingerprint {
    fingerprint(&format!("https://up{number}.example"))
}

/// How many of so many pushes, one to each origin, may go at once.
fn go(origins: &mut Origins<()>, sender: &SenderDomain, pushes: std::ops::Range<usize>) -> usize {
    pushes
        .filter(|number| origins.take_turn(origin(*number), sender, || ()).is_none())
        .count()
}

#[test]
fn one_origin_has_twenty_pushes_under_way_and_a_queue_of_its_own() {
    let (mut origins, sender, now) = (Origins::new(1_000, 0), known("a.org"), Instant::now());
    let turns: Vec<_> = (0..25)
        .map(|number| origins.take_turn(origin(0), &sender, || number))
        .collect();
    assert_eq!(turns.iter().filter(|turn| turn.is_none()).count(), 20);
    assert!(matches!(turns[20], Some(Entered::Waiting(_))));
    assert_eq!(origins.lengths(), (20, 5));
    assert!(origins.next().is_none());
    assert!(origins.give_back(origin(0)));
    assert!(matches!(origins.next(), Some((at, Wanting::Waiter(20))) if at == origin(0)));
    origins.take(origin(0));
    assert!(origins.next().is_none(), "one permit for one that came back");
    assert!(
        origins.take_turn(origin(1), &sender, || 0).is_none(),
        "others do not wait"
    );
    origins.accepted(origin(1), now);
}

#[test]
fn an_origin_that_is_away_is_left_alone_ever_longer_and_then_one_push_finds_out() {
    let (mut origins, sender, mut now) = (Origins::new(1_000, 0), known("a.org"), Instant::now());
    assert_eq!(go(&mut origins, &sender, 0..1), 1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let until = origins.failed(origin(0), None, now, 0.0);
        assert_eq!(
            origins.failed(origin(0), None, now, 0.0),
            until,
            "they fail together, once"
        );
        assert_eq!(origins.holds_back(origin(0), now), Some(until));
        assert_eq!(origins.holds_back(origin(1), now), None);
        pauses.push((until - now).as_secs());
        now = until;
        assert_eq!(origins.holds_back(origin(0), now), None);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    origins.give_back(origin(0));
    let turns: Vec<_> = (0..3)
        .map(|_| origins.take_turn(origin(0), &sender, || ()))
        .collect();
    assert_eq!(turns.iter().filter(|turn| turn.is_none()).count(), 1);
    origins.accepted(origin(0), now);
    origins.give_back(origin(0));
    assert!(matches!(origins.next(), Some((_, Wanting::Waiter(())))));
    let longest = origins.failed(origin(5), Some(Duration::from_secs(86_400)), now, 0.0);
    assert_eq!(longest - now, LONGEST, "whatever it asks for");
}

/// What one sender may have at servers of its own is not a bound for others who come to the same one.
#[test]
fn who_comes_to_a_server_that_is_busy_waits_for_it() {
    let (mut origins, one, other) = (Origins::new(8, 0), sender("one.org"), sender("other.org"));
    assert!(origins.take_turn(origin(0), &one, || 0).is_none());
    assert!(matches!(
        origins.take_turn(origin(1), &one, || 1),
        Some(Entered::Full(1))
    ));
    assert!(matches!(
        origins.take_turn(origin(0), &other, || 2),
        Some(Entered::Waiting(_))
    ));
    assert_eq!(origins.lengths(), (1, 1));
    assert!(origins.give_back(origin(0)));
    assert!(matches!(origins.next(), Some((_, Wanting::Waiter(2)))));
    origins.take(origin(0));
    assert_eq!(origins.lengths(), (1, 0));
    for number in 0..1_000 {
        origins.take_turn(origin(0), &other, || number);
    }
    assert_eq!(origins.lengths().1, 160, "twenty for each permit of all");
}

/// Otherwise anybody could keep all others from a server that many use, as long as a push of his own waits there.
#[test]
fn what_somebody_has_under_way_elsewhere_keeps_nobody_from_a_server_at_which_he_waits() {
    let (mut origins, stranger, other) = (Origins::new(1_000, 0), sender("evil.org"), sender("other.org"));
    assert_eq!(go(&mut origins, &stranger, 0..2_000), 125);
    origins.become_due(origin(0), &stranger, 7);
    assert!(!origins.has_room(origin(0), &other), "he pays for it");
    origins.give_back(origin(0));
    assert_eq!(go(&mut origins, &stranger, 3_000..3_001), 1);
    assert!(!origins.has_room(origin(0), &stranger));
    assert_eq!(go(&mut origins, &other, 0..1), 1);
    assert_eq!(origins.busy[&origin(0)].payer.domain, other.share);
    for number in 0..4_000 {
        origins.give_back(origin(number));
    }
    assert!(origins.out_of.is_empty());
    assert_eq!((origins.out, origins.unproven_out), (0, 0));
}

/// Somebody who always has publishes waiting there, and nothing left of his share, is served before nobody else's held push.
#[test]
fn a_held_push_waits_in_line_at_a_server_where_others_have_no_room() {
    let (mut origins, stranger, other) = (Origins::new(8, 0), sender("evil.org"), sender("other.org"));
    assert!(origins.take_turn(origin(0), &stranger, || 0).is_none());
    for number in 1..5 {
        let turn = origins.take_turn(origin(0), &stranger, || number);
        assert!(matches!(turn, Some(Entered::Waiting(_))));
    }
    origins.become_due(origin(0), &other, 7);
    let mut served = Vec::new();
    for _ in 0..3 {
        assert!(origins.next().is_none(), "one for one that came back");
        assert!(origins.give_back(origin(0)));
        match origins.next() {
            Some((_, Wanting::Waiter(number))) => served.push(number),
            Some((_, Wanting::Held(number))) => served.push(number),
            None => panic!("there is room for one"),
        }
        origins.take(origin(0));
    }
    assert!(served.contains(&7), "{served:?}");
    assert_eq!(origins.lengths(), (1, 2));
}

/// Servers that never answer cost a sender what it may have, and nobody else anything.
#[test]
fn who_sends_to_servers_that_hang_leaves_room_for_everybody_else() {
    let (mut origins, now) = (Origins::new(1_000, 0), Instant::now());
    let (stranger, other, friend) = (sender("evil.org"), known("also-evil.org"), known("good.org"));
    assert_eq!(go(&mut origins, &stranger, 0..2_000), 125);
    assert_eq!(go(&mut origins, &other, 2_000..4_000), 250);
    assert_eq!(
        go(&mut origins, &sender("third.org"), 4_000..8_000),
        125,
        "half of all is unproven"
    );
    assert_eq!(
        go(&mut origins, &friend, 9_000..9_001),
        0,
        "it has never answered"
    );
    origins.accepted(origin(9_001), now);
    assert_eq!(go(&mut origins, &friend, 9_001..9_002), 1, "it has");
    for number in 0..2_000 {
        origins.give_back(origin(number));
    }
    assert_eq!(go(&mut origins, &friend, 9_000..9_001), 1, "there is room again");
    let proven = 20_000..30_000;
    proven
        .clone()
        .for_each(|number| origins.accepted(origin(number), now));
    let all = go(&mut origins, &known("b.org"), proven.clone());
    assert_eq!(all, 500, "half of all for one sender");
    assert!(origins.lengths().0 <= 1_000);
}

#[test]
fn origins_by_the_hundred_thousand_are_bounded_in_bytes() {
    let (mut origins, sender, now) = (Origins::<()>::new(1_000, 0), known("a.org"), Instant::now());
    for number in 0..100_000 {
        let origin = origin(number);
        if origins.take_turn(origin, &sender, || ()).is_none() {
            match number % 3 {
                0 => origins.accepted(origin, now),
                1 => drop(origins.failed(origin, None, now, 0.0)),
                _ => origins.answered(origin),
            }
            origins.give_back(origin);
        }
    }
    assert_eq!(origins.known.len() as u32, MAX_KNOWN);
    let entry = 28 + size_of::<Known>();
    assert!(MAX_KNOWN as usize * entry < 1 << 20, "{entry} bytes each");
    assert!(origins.busy.is_empty() && origins.out_of.is_empty() && origins.ready.is_empty());
    assert_eq!((origins.out, origins.unproven_out), (0, 0));
    assert_eq!(
        origins.holds_back(origin(1), now),
        None,
        "the first ones are forgotten"
    );
}
