use fpush_testkit::Redis;

use super::*;
use crate::{names::Names, script::Script};

fn delivered(number: u64) -> HeldNews {
    HeldNews::Delivered(fpush_push::Fingerprint::from_parts([number, 0]), Uuid::nil())
}

#[tokio::test]
async fn what_is_told_anew_has_another_holder_and_leaves_nothing_to_tell_but_what_went_out() {
    let holding = Holding::new(vec![7]);
    assert!(holding.wants_all() && !holding.wants_all());
    holding.add(vec![HeldNews::Gone(1), delivered(1)], None);
    let (again, asking) = oneshot::channel();
    holding.add(vec![HeldNews::Gone(2)], Some(again));
    holding.begin_anew();
    assert!(asking.await.is_err(), "it is asked again");
    let holders = holding.holders();
    assert_eq!((holders[0], holders.len()), (7, 3));
    holding.begin_anew();
    assert_eq!(holding.holders(), holders, "nothing was told under it yet");
    assert_eq!(holding.next().unwrap().news, [delivered(1)]);
    assert!(holding.is_empty());
}

#[tokio::test]
async fn more_than_can_wait_is_told_anew() {
    let holding = Holding::new(Vec::new());
    assert!(holding.wants_all());
    for number in 0..=MOST_TO_TELL as u64 {
        holding.add(vec![HeldNews::Gone(number)], None);
    }
    assert!(holding.wants_all() && holding.is_empty());
}

#[tokio::test]
async fn groups_go_together_in_their_order_but_for_those_that_are_answered() {
    let holding = Holding::new(Vec::new());
    let (again, _asking) = oneshot::channel();
    holding.add(vec![HeldNews::Gone(1)], None);
    holding.add(vec![HeldNews::Gone(2)], None);
    holding.add(vec![HeldNews::Gone(3)], Some(again));
    holding.add(vec![HeldNews::Gone(4)], None);
    let told = std::iter::from_fn(|| holding.next().map(|group| group.news));
    let gone = |numbers: &[u64]| numbers.iter().copied().map(HeldNews::Gone).collect::<Vec<_>>();
    assert_eq!(told.collect::<Vec<_>>(), [gone(&[1, 2]), gone(&[3]), gone(&[4])]);
}

/// An engine, and what is held there for one key.
struct Held {
    engine: Redis,
    names: Vec<String>,
}

/// How it is found that two pushes are held for a key.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One was acknowledged by who holds it.
    Acknowledged,
    /// Its holder tells all that it holds.
    ToldAgain,
    /// Its holder is gone.
    TakenOver,
}

impl Held {
    fn new() -> Self {
        let names = Names::new("fpush", "m", 0);
        let names = names
            .of_held()
            .map(|name| String::from_utf8(name.to_vec()).unwrap());
        Self {
            engine: Redis::start_new(),
            names: names.to_vec(),
        }
    }

    /// Asks for something at one of the keys.
    fn at(&self, command: &str, key: usize, rest: &[&str]) -> String {
        let all = [&[command, &self.names[key]], rest].concat();
        self.engine.ask(&all)
    }

    /// Puts a push there that has come at this time.
    fn put(&self, holder: &str, id: &str, at: u64) {
        let place = format!("{holder}:1");
        self.at("HSET", HELD, &[&place, &format!("1 {at} 0 0 {id} {KEY}record")]);
        self.at("ZADD", HOLDERS, &[holder, &place]);
    }

    /// Has a holder run a script.
    fn run(&self, script: &Script, holder: &str, rest: &[&str]) {
        let keys: Vec<_> = self.names.iter().map(String::as_bytes).collect();
        let common = [holder, holder, "1000", "1000000000"];
        script.run_at(&self.engine, &keys, &[&common, rest].concat());
    }

    /// Has it found that the push `a` that has come at 5,000 is not the only one for its key. Returns the ids of those that are held, and of
    /// those that nobody has to send any more.
    fn settle(&self, way: Way) -> [String; 2] {
        let scripts = Scripts::new();
        match way {
            Way::Acknowledged | Way::ToldAgain => {
                self.put("1", "a", 5_000);
                let what = if let Way::ToldAgain = way { "r" } else { "a" };
                let change = [what, "1", KEY, "a", "-1", "-1", "0", "record"];
                self.run(
                    &scripts.hold,
                    "1",
                    &[&["10000", "1000", "1000"][..], &change].concat(),
                );
            }
            Way::TakenOver => {
                self.put("3", "a", 5_000);
                self.run(&scripts.take, "1", &["1000", "3:1", "c"]);
            }
        }
        let values = self.at("HVALS", HELD, &[]);
        let held = values.lines().filter_map(|value| value.split(' ').nth(4));
        [
            held.collect(),
            self.at("ZRANGE", TAKEN, &["0", "-1"]).replace('\n', ""),
        ]
    }
}

const HELD: usize = 0;
const KEYS: usize = 1;
const HOLDERS: usize = 2;
const TAKEN: usize = 4;
const UNREAD: usize = 6;
const KEY: &str = "0123456789abcdef";

#[test]
fn of_two_pushes_for_a_key_the_newer_one_stays_and_at_a_tie_the_one_that_was_held_before() {
    let held = Held::new();
    for way in [Way::Acknowledged, Way::ToldAgain, Way::TakenOver] {
        let (new, former) = match way {
            Way::Acknowledged | Way::ToldAgain => ("a", ""),
            Way::TakenOver => ("c", "a"),
        };
        let new_stays = [new.to_owned(), format!("{former}b")];
        let other_stays = ["b".to_owned(), "a".to_owned()];
        for (at, is_set_aside, expected) in [
            (4_999, false, &new_stays),
            (5_000, false, &other_stays),
            (5_001, false, &other_stays),
            (5_001, true, &new_stays),
        ] {
            held.engine.ask(&["FLUSHALL"]);
            held.put("2", "b", at);
            held.at("HSET", KEYS, &[KEY, "2:1"]);
            if is_set_aside {
                held.at("ZREM", HOLDERS, &["2:1"]);
                held.at("ZADD", UNREAD, &["1", "2:1"]);
            }
            assert_eq!(&held.settle(way), expected, "{way:?}, {at}, {is_set_aside}");
        }
    }
}

#[test]
fn what_was_taken_long_ago_is_forgotten_when_more_is_taken() {
    let held = Held::new();
    held.at("ZADD", TAKEN, &["1", "d", "2", "e"]);
    assert_eq!(held.settle(Way::TakenOver), ["c", "a"]);
}
