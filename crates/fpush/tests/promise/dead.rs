//! What is really dead is unregistered: at the first word while all is calm, and otherwise in the time that it takes to be
//! sure.

use std::time::Duration;

use fpush_testkit::{Answer, Monitoring};

use super::rig::{DAY, DEAD, Device, End, HOUR, LONG, MINUTE, Provider, World, assert_all_kept, lost};

/// Publishes for all every so often until the one device is gone; returns how long that took, or `None` after `most`.
fn until_dead(
    world: &mut World,
    others: &mut [Device],
    dead: &mut [Device],
    every: Duration,
    most: Duration,
) -> Option<Duration> {
    let mut passed = Duration::ZERO;
    while passed <= most {
        world.publish(others);
        world.publish(dead);
        if dead.iter().all(|device| device.registration.is_forgotten()) {
            return Some(passed);
        }
        world.pass(every);
        passed += every;
    }
    None
}

#[test]
fn at_the_first_word_while_the_lane_is_calm() {
    for provider in [Provider::Apple, Provider::Google] {
        for word in provider.words_beyond_doubt() {
            for registered in [false, true] {
                let mut world = World::start();
                let mut others = world.devices(provider, 60);
                world.expect_all_arrive(&mut others);
                let mut dead = if registered {
                    world.registered(provider, 1)
                } else {
                    world.stateless(provider, 1)
                };
                world.token_gets(&dead[0].token, word.clone());
                world.publish(&mut dead);
                assert_eq!(dead[0].last, DEAD, "{word:?}\n{}", world.daemon.log());
                // Prosody counts to sixteen, also over a restart.
                for n in 0..15 {
                    if n == 7 {
                        world.restart(End::Stop);
                    }
                    world.publish(&mut dead);
                    assert_eq!(dead[0].last, DEAD);
                }
                world.expect_all_arrive(&mut others);
            }
        }
    }
}

/// What a stranger invents is not evidence against a lane: the cleaning goes on.
#[test]
fn strangers_tokens_keep_no_dead_device() {
    for provider in [Provider::Apple, Provider::Google] {
        for word in provider.words_beyond_doubt() {
            let mut world = World::start();
            // A quiet module, that works.
            let mut others = world.devices(provider, 20);
            world.expect_all_arrive(&mut others);
            let mut dead = world.registered(provider, 1);
            world.expect_all_arrive(&mut dead);
            let mut invented = world.stateless(provider, 60);
            for (n, device) in invented.iter_mut().enumerate() {
                device.domain = format!("host{n}.evil.org");
                world.token_gets(&device.token, word.clone());
            }
            world.publish(&mut invented);
            world.token_gets(&dead[0].token, word.clone());
            world.publish(&mut dead);
            assert_eq!(dead[0].last, DEAD, "{word:?}\n{}", world.daemon.log());
            let log = world.daemon.log();
            assert!(!log.contains("rejects too many tokens"), "{log}");
            world.expect_all_arrive(&mut others);
        }
    }
}

#[test]
fn words_that_may_be_about_us_need_a_day() {
    for provider in [Provider::Apple, Provider::Google] {
        for word in provider.words_about_us() {
            let mut world = World::start();
            let mut others = world.devices(provider, 60);
            world.expect_all_arrive(&mut others);
            let mut dead = world.stateless(provider, 1);
            dead[0].module = Some(provider.module());
            world.token_gets(&dead[0].token, word.clone());
            let took = until_dead(&mut world, &mut others, &mut dead, HOUR, 3 * DAY).expect("it is dead");
            assert!((DAY..=DAY + 2 * HOUR).contains(&took), "{took:?} by {word:?}");
            assert_all_kept(&others, "the living ones");
        }
    }
}

#[test]
fn unnamed_at_the_default_module_a_word_about_us_never_counts() {
    let provider = Provider::Google;
    for word in provider.words_about_us() {
        let mut world = World::start();
        let mut others = world.devices(provider, 60);
        let mut unnamed = world.stateless(provider, 1);
        unnamed[0].module = None;
        world.token_gets(&unnamed[0].token, word.clone());
        assert_eq!(
            until_dead(&mut world, &mut others, &mut unnamed, 5 * HOUR, 6 * DAY),
            None
        );
        assert_all_kept(&unnamed, "a token of another module, perhaps");
    }
}

#[test]
fn a_lone_device_goes_within_days() {
    for provider in [Provider::Apple, Provider::Google] {
        let word = &provider.words_beyond_doubt()[0];
        let mut world = World::start();
        let mut dead = world.stateless(provider, 1);
        world.token_gets(&dead[0].token, word.clone());
        let took = until_dead(&mut world, &mut [], &mut dead, 2 * HOUR, 6 * DAY).expect("it is dead");
        assert!((3 * DAY..=4 * DAY).contains(&took), "{took:?} by {word:?}");
    }
}

#[test]
fn an_old_population_is_clean_within_hours() {
    for provider in [Provider::Apple, Provider::Google] {
        let word = &provider.words_beyond_doubt()[0];
        let mut world = World::start();
        // Two of five are alive, and all publish as it comes.
        let mut all = world.stateless(provider, 600);
        let is_alive = |n: usize| n * 7 % 5 < 2;
        for (n, device) in all.iter().enumerate() {
            if !is_alive(n) {
                world.token_gets(&device.token, word.clone());
            }
        }
        let mut passed = Duration::ZERO;
        while lost(&all).len() < 360 {
            assert!(passed <= 6 * HOUR, "{} are left", 360 - lost(&all).len());
            world.pass(21 * MINUTE);
            passed += 21 * MINUTE;
            world.publish(&mut all);
        }
        for (n, device) in all.iter().enumerate() {
            assert_eq!(device.registration.is_kept(), is_alive(n), "{n}");
        }
    }
}

#[test]
fn a_device_that_comes_back_is_well_at_once() {
    let mut world = World::start();
    let mut others = world.devices(Provider::Apple, 60);
    world.expect_all_arrive(&mut others);
    let mut device = world.registered(Provider::Apple, 1);
    world.token_gets(&device[0].token, Answer::reason(410, "Unregistered"));
    world.publish(&mut device);
    assert_eq!(device[0].last, DEAD);
    world.token_is_well(&device[0].token);
    let mut again = world.registered(Provider::Apple, 1);
    world.expect_all_arrive(&mut again);
}

/// An app that names its token in each publish has no registration that it could renew here.
#[test]
fn a_token_that_works_again_is_served_within_an_hour() {
    for provider in [Provider::Apple, Provider::Google] {
        let mut world = World::start();
        let mut others = world.devices(provider, 60);
        world.expect_all_arrive(&mut others);
        let mut dead = world.stateless(provider, 1);
        let token = dead[0].token.clone();
        world.token_gets(&token, provider.words_beyond_doubt()[0].clone());
        for n in 0..24 {
            world.publish(&mut dead);
            assert_eq!(dead[0].last, DEAD, "{n}");
            if n == 9 {
                world.restart(End::Stop);
            }
            world.pass(10 * MINUTE);
        }
        // In four hours, of which each begins a little later than the one before ends.
        let asked = world.said(&token);
        assert!((4..=5).contains(&asked), "{asked}, with the first one");
        let scrape = Monitoring::of(&world.daemon, LONG).scrape();
        let believed = format!(
            "fpush_rejected_tokens_total{{module=\"{}\",verdict=\"believed\"}} >= 1",
            provider.module()
        );
        assert!(scrape.holds(&believed), "since the restart\n{}", scrape.text);
        world.token_is_well(&token);
        world.publish(&mut dead);
        world.pass(HOUR + MINUTE);
        world.expect_all_arrive(&mut dead);
        world.pass(MINUTE);
        world.expect_all_arrive(&mut dead);
    }
}

#[test]
fn a_time_of_death_to_come_is_doubted() {
    let mut world = World::start();
    let mut others = world.devices(Provider::Apple, 60);
    world.expect_all_arrive(&mut others);
    let mut device = world.registered(Provider::Apple, 1);
    let future = 4_000_000_000_000;
    world.token_gets(
        &device[0].token,
        Answer::reason_since(410, "Unregistered", future),
    );
    world.publish(&mut device);
    assert_all_kept(&device, "a device that has just registered");
}
