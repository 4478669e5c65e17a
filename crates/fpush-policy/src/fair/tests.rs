use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn sender(share: u32, name: u32, standing: Standing) -> Sender<u32> {
    Sender {
        share,
        name,
        standing,
    }
}

fn known(share: u32) -> Sender<u32> {
    sender(share, 0, Standing::Known)
}

fn enter(queue: &mut FairQueue<u32, u32>, sender: Sender<u32>, item: u32) -> Option<Ticket<u32>> {
    match queue.enter(sender, item) {
        Entered::Waiting(ticket) | Entered::Displacing(ticket, _) => Some(ticket),
        Entered::Full(_) => None,
    }
}

fn served<T>(queue: &mut FairQueue<u32, T>) -> Vec<T> {
    std::iter::from_fn(|| queue.serve()).collect()
}

#[test]
fn shares_are_served_in_turn_and_names_inside_them() {
    let mut queue = FairQueue::new(100);
    for item in 0..4 {
        enter(&mut queue, sender(1, 1, Standing::Known), item);
    }
    enter(&mut queue, sender(1, 2, Standing::Known), 10);
    enter(&mut queue, known(2), 20);
    enter(&mut queue, known(3), 30);
    assert_eq!(served(&mut queue), [0, 20, 30, 10, 1, 2, 3]);
}

#[test]
fn a_newcomer_takes_the_place_of_the_last_in_the_longest_line() {
    let mut queue = FairQueue::new(4);
    for item in 0..4 {
        enter(&mut queue, known(1), item);
    }
    assert!(matches!(queue.enter(known(2), 20), Entered::Displacing(_, 3)));
    assert!(matches!(queue.enter(known(2), 21), Entered::Displacing(_, 2)));
    assert!(matches!(queue.enter(known(2), 22), Entered::Full(22)));
    assert_eq!(served(&mut queue), [0, 20, 1, 21]);
}

#[test]
fn names_are_not_shares() {
    let mut queue = FairQueue::new(100);
    for item in 0..100 {
        enter(&mut queue, sender(1, item, Standing::Known), item);
    }
    for item in 200..250 {
        assert!(enter(&mut queue, known(2), item).is_some(), "{item}");
    }
    assert!(enter(&mut queue, known(2), 250).is_none());
    // Inside the share the newest names have lost their places, and no name has two.
    let left: Vec<_> = served(&mut queue)
        .into_iter()
        .filter(|item| *item < 100)
        .collect();
    assert_eq!(left.len(), 50);
}

#[test]
fn inside_a_full_share_a_name_takes_the_place_of_another() {
    let mut queue = FairQueue::new(4);
    for item in 0..4 {
        enter(&mut queue, sender(1, 1, Standing::Known), item);
    }
    assert!(matches!(
        queue.enter(sender(1, 2, Standing::Known), 10),
        Entered::Displacing(_, 3)
    ));
}

#[test]
fn half_of_the_places_is_kept_for_known_domains() {
    let mut queue = FairQueue::new(10);
    for share in 0..5 {
        assert!(enter(&mut queue, sender(share, 0, Standing::Unknown), share).is_some());
    }
    assert!(enter(&mut queue, sender(9, 0, Standing::Unknown), 9).is_none());
    for share in 10..15 {
        assert!(enter(&mut queue, known(share), share).is_some());
    }
    // Both are served, however many there are of the others.
    assert_eq!(served(&mut queue), [10, 0, 11, 1, 12, 2, 13, 3, 14, 4]);
}

#[test]
fn known_domains_have_all_places_only_until_another_one_comes() {
    let mut queue = FairQueue::new(4);
    for item in 0..4 {
        enter(&mut queue, known(1), item);
    }
    for item in 20..22 {
        assert!(enter(&mut queue, sender(2, 0, Standing::Unknown), item).is_some());
    }
    assert!(enter(&mut queue, sender(2, 0, Standing::Unknown), 22).is_none());
    assert_eq!(served(&mut queue), [0, 20, 1, 21]);
}

#[test]
fn who_leaves_is_not_served() {
    let mut queue = FairQueue::new(10);
    let tickets: Vec<_> = (0..5).map(|item| enter(&mut queue, known(1), item)).collect();
    let leave = |queue: &mut FairQueue<_, _>, at: usize| {
        queue.leave(tickets[at].as_ref().expect("there was a place"))
    };
    assert_eq!(leave(&mut queue, 0), Some(0));
    assert_eq!(leave(&mut queue, 2), Some(2));
    assert_eq!(leave(&mut queue, 2), None);
    assert_eq!(queue.len(), 3);
    assert_eq!(served(&mut queue), [1, 3, 4]);
    assert_eq!(leave(&mut queue, 1), None);
}

#[test]
fn a_gate_gives_permits_to_whose_turn_it_is() {
    let mut gate = Gate::new(1, 10);
    assert_eq!(gate.enter(known(1), 0), Passed::Now(0));
    for item in 1..4 {
        assert!(matches!(
            gate.enter(known(1), item),
            Passed::Entered(Entered::Waiting(_))
        ));
    }
    assert!(matches!(
        gate.enter(known(2), 20),
        Passed::Entered(Entered::Waiting(_))
    ));
    assert_eq!((gate.give_back(), gate.give_back()), (Some(1), Some(20)));
    assert_eq!(gate.lengths(), (1, 2));
    assert_eq!(
        [gate.give_back(), gate.give_back(), gate.give_back()],
        [Some(2), Some(3), None]
    );
    assert_eq!(gate.lengths(), (0, 0));
}

/// What a queue is asked to do.
#[derive(Clone, Debug)]
enum Step {
    Enter { share: u32, name: u32, known: bool },
    Next,
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u32, 0..4_u32, any::<bool>()).prop_map(|(share, name, known)| Step::Enter { share, name, known }),
        2 => Just(Step::Next),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Leave(index.index(64))),
    ]
}

proptest! {
    /// Whatever is done: nobody is lost or served twice, the bounds hold, and no line is longer than another one by more
    /// than one place that was taken from somebody.
    #[test]
    fn nobody_is_lost(steps in prop::collection::vec(step(), 1..400)) {
        const PLACES: usize = 16;
        let mut queue = FairQueue::new(PLACES);
        let mut waiting: HashMap<u32, Ticket<u32>> = HashMap::new();
        for (item, step) in (0_u32..).zip(steps) {
            match step {
                Step::Enter { share, name, known } => {
                    let standing = if known { Standing::Known } else { Standing::Unknown };
                    match queue.enter(sender(share, name, standing), item) {
                        Entered::Waiting(ticket) => {
                            waiting.insert(item, ticket);
                        }
                        Entered::Displacing(ticket, displaced) => {
                            prop_assert!(waiting.remove(&displaced).is_some());
                            waiting.insert(item, ticket);
                        }
                        Entered::Full(refused) => prop_assert_eq!(refused, item),
                    }
                }
                Step::Next => match queue.serve() {
                    Some(next) => prop_assert!(waiting.remove(&next).is_some()),
                    None => prop_assert!(waiting.is_empty()),
                },
                Step::Leave(at) => {
                    let mut items: Vec<_> = waiting.keys().copied().collect();
                    items.sort_unstable();
                    if let Some(item) = items.get(at % items.len().max(1)) {
                        let ticket = waiting.remove(item).expect("it is one of them");
                        prop_assert_eq!(queue.leave(&ticket), Some(*item));
                        prop_assert_eq!(queue.leave(&ticket), None);
                    }
                }
            }
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert!(queue.len() <= PLACES);
            prop_assert!(queue.unknown.len() <= PLACES / 2);
        }
        let mut left = served(&mut queue);
        left.sort_unstable();
        let mut expected: Vec<_> = waiting.into_keys().collect();
        expected.sort_unstable();
        prop_assert_eq!(left, expected);
    }
}
