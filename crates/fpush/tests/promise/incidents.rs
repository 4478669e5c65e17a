//! A provider has an incident: for a while it calls every token dead, or wrong. However long that lasts, at most ten
//! devices may lose their registration; with words that may be about us, none.

use std::{fs, time::Duration};

use fpush_testkit::Answer;
use serde_json::json;

use super::rig::{Change, DAY, Device, End, HOUR, MINUTE, Provider, World, copy_database, lost};

/// What an incident may cost.
const MOST: usize = 10;

/// One incident.
#[derive(Clone, Copy)]
struct Incident {
    provider: Provider,
    devices: usize,
    length: Duration,
    /// Whether the daemon is started again in its middle, and once more at its end.
    restarts: Option<End>,
    /// Whether there was another one a day before, and whom this one meets first.
    second: Option<First>,
}

/// Whom a second incident meets first. Those who got a push between the two begin anew; a word against the others is the
/// second one, a day after the first.
#[derive(Clone, Copy)]
enum First {
    Pushed,
    Others,
}

const ONE: Incident = Incident {
    provider: Provider::Apple,
    devices: 60,
    length: Duration::from_secs(600),
    restarts: None,
    second: None,
};

impl Incident {
    /// Lets it happen with this answer to every push, and returns how many devices were lost.
    #[track_caller]
    fn happen(self, word: &Answer) -> usize {
        let mut world = World::start();
        let mut devices = world.devices(self.provider, self.devices);
        // The lane is calm.
        for _ in 0..3 {
            world.expect_all_arrive(&mut devices);
            world.pass(MINUTE);
        }
        if self.second.is_some() {
            self.strike(&mut world, &mut devices, word, 11 * MINUTE);
            // A part of the devices gets no push in between.
            world.pass(DAY);
            let part = devices.len() / 3;
            world.publish(&mut devices[..part]);
            expect_the_others_as_before(&world, &devices[..part]);
        }
        self.strike(&mut world, &mut devices, word, self.length);
        world.pass(21 * MINUTE);

        world.publish(&mut devices);
        expect_the_others_as_before(&world, &devices);
        lost(&devices).len()
    }

    fn strike(self, world: &mut World, devices: &mut [Device], word: &Answer, length: Duration) {
        world.everybody_gets(Some(word.clone()));
        let steps = 8;
        for step in 0..=steps {
            let (pushed, others) = devices.split_at_mut(devices.len() / 3);
            match self.second {
                None | Some(First::Pushed) => {
                    world.publish(pushed);
                    world.publish(others);
                }
                Some(First::Others) => {
                    world.publish(others);
                    world.publish(pushed);
                }
            }
            world.pass(length / steps);
            if step == steps / 2
                && let Some(end) = self.restarts
            {
                world.restart(end);
            }
        }
        if let Some(end) = self.restarts {
            world.restart(end);
        }
        world.everybody_gets(None);
    }

    /// Checks it with every word of the provider's.
    #[track_caller]
    fn costs_at_most_ten(self) {
        let most = if self.second.is_some() { 2 * MOST } else { MOST };
        for word in self.provider.words_beyond_doubt() {
            let lost = self.happen(&word);
            assert!(lost <= most, "{lost} of {} lost by {word:?}", self.devices);
        }
        for word in self.provider.words_about_us() {
            assert_eq!(self.happen(&word), 0, "of {} lost by {word:?}", self.devices);
        }
    }
}

/// Each device that was not lost got its push.
#[track_caller]
fn expect_the_others_as_before(world: &World, devices: &[Device]) {
    for device in devices.iter().filter(|device| device.registration.is_kept()) {
        assert_eq!(device.last, "result", "{}", world.daemon.log());
    }
}

#[test]
fn ten_minutes_at_apple() {
    ONE.costs_at_most_ten();
}

#[test]
fn ten_minutes_at_google() {
    Incident {
        provider: Provider::Google,
        ..ONE
    }
    .costs_at_most_ten();
}

#[test]
fn an_hour_and_a_minute() {
    for provider in [Provider::Apple, Provider::Google] {
        Incident {
            provider,
            length: 61 * MINUTE,
            ..ONE
        }
        .costs_at_most_ten();
    }
}

#[test]
fn three_days() {
    for provider in [Provider::Apple, Provider::Google] {
        Incident {
            provider,
            length: 3 * DAY + HOUR,
            ..ONE
        }
        .costs_at_most_ten();
    }
}

#[test]
fn ten_days() {
    Incident {
        length: 10 * DAY,
        ..ONE
    }
    .costs_at_most_ten();
}

#[test]
fn five_devices() {
    for provider in [Provider::Apple, Provider::Google] {
        for length in [10 * MINUTE, 61 * MINUTE, 2 * DAY] {
            Incident {
                provider,
                devices: 5,
                length,
                ..ONE
            }
            .costs_at_most_ten();
        }
    }
}

#[test]
fn restarts_in_the_middle() {
    for (provider, end, length) in [
        (Provider::Apple, End::Stop, 61 * MINUTE),
        (Provider::Apple, End::Stop, 4 * DAY),
        (Provider::Apple, End::Kill, 61 * MINUTE),
        (Provider::Apple, End::Kill, 4 * DAY),
        (Provider::Google, End::Kill, 61 * MINUTE),
    ] {
        Incident {
            provider,
            length,
            restarts: Some(end),
            ..ONE
        }
        .costs_at_most_ten();
    }
}

#[test]
fn a_second_one_a_day_later() {
    for provider in [Provider::Apple, Provider::Google] {
        Incident {
            provider,
            devices: 400,
            length: 90 * MINUTE,
            second: Some(First::Pushed),
            ..ONE
        }
        .costs_at_most_ten();
    }
}

/// Until the rise is seen, a second word that may be about us is one among few.
#[test]
fn a_second_one_that_begins_with_second_words() {
    for provider in [Provider::Apple, Provider::Google] {
        let incident = Incident {
            provider,
            devices: 400,
            length: 90 * MINUTE,
            second: Some(First::Others),
            ..ONE
        };
        for word in provider.words_about_us() {
            let lost = incident.happen(&word);
            assert!(lost <= MOST, "{lost} of 400 lost by {word:?}");
        }
    }
}

#[test]
fn two_thousand_devices() {
    for provider in [Provider::Apple, Provider::Google] {
        let word = &provider.words_beyond_doubt()[0];
        let incident = Incident {
            provider,
            devices: 2_000,
            length: 61 * MINUTE,
            ..ONE
        };
        let lost = incident.happen(word);
        assert!(lost <= MOST, "{lost} lost by {word:?}");
    }
}

/// The provider accepts pushes for most tokens meanwhile, and the operator looks for the cause in the settings.
#[test]
fn that_some_of_the_tokens_are_in() {
    for (length, change) in [
        (61 * MINUTE, None),
        (4 * DAY, None),
        (61 * MINUTE, Some(Change::Reload)),
        (4 * DAY, Some(Change::Restart)),
    ] {
        let mut world = World::start();
        let mut devices = world.devices(Provider::Google, 100);
        for _ in 0..12 {
            world.expect_all_arrive(&mut devices);
            world.pass(11 * MINUTE);
        }
        let word = &Provider::Google.words_beyond_doubt()[0];
        for device in devices.iter().step_by(3) {
            world.token_gets(&device.token, word.clone());
        }
        for step in 0..8 {
            world.publish(&mut devices);
            world.pass(length / 8);
            if let Some(how) = change.filter(|_| step == 1) {
                world.change_settings(how, |settings| {
                    settings["pushModules"]["android"]["fcm"]["target"] = json!("token");
                });
            }
        }
        for device in &devices {
            world.token_is_well(&device.token);
        }
        world.pass(21 * MINUTE);
        world.publish(&mut devices);
        let lost = lost(&devices).len();
        assert!(lost <= MOST, "{lost} lost in {length:?}, {change:?}");
    }
}

/// On the first day after a takeover most of what is published may be dead, so that a provider that calls a part of the living dead,
/// too, is nothing unusual. Who was alive is known also after the daemon has started again.
#[test]
fn on_the_day_of_a_takeover() {
    for (provider, restarts) in [
        (Provider::Apple, &[][..]),
        (Provider::Apple, &[(1, End::Kill), (10, End::Stop)]),
        (Provider::Google, &[(1, End::Stop)]),
    ] {
        let mut world = World::start();
        let word = &provider.words_beyond_doubt()[0];
        // Three of five have long gone, and their servers do not know it.
        let is_gone = |n: usize| n % 5 > 1;
        let mut devices = world.stateless(provider, 250);
        for (_, device) in devices.iter().enumerate().filter(|(n, _)| is_gone(*n)) {
            world.token_gets(&device.token, word.clone());
        }
        for round in 0..20 {
            if let Some((_, end)) = restarts.iter().find(|(at, _)| *at == round) {
                world.wait_until_known_alive(100);
                world.restart(*end);
            }
            if round == 1 {
                for device in devices
                    .iter()
                    .step_by(15)
                    .chain(devices.iter().skip(1).step_by(15))
                {
                    world.token_gets(&device.token, word.clone());
                }
            }
            world.publish(&mut devices);
            world.pass(21 * MINUTE);
        }
        let is_lost = |n: &usize| !devices[*n].registration.is_kept();
        let lost = (0..250).filter(|n| !is_gone(*n)).filter(is_lost).count();
        assert!(lost <= MOST, "{lost} of 34 lost by {word:?}, {restarts:?}");
        let gone = (0..250).filter(|n| is_gone(*n)).filter(is_lost).count();
        assert!(gone >= 140, "{gone} of 150 dead ones are forgotten, {restarts:?}");
    }
}

/// Answers are so rare that no ten minutes have enough of them to tell a rise.
#[test]
fn that_half_of_the_tokens_are_in_where_answers_are_rare() {
    for provider in [Provider::Apple, Provider::Google] {
        let mut world = World::start();
        let mut devices = world.devices(provider, 300);
        world.expect_all_arrive(&mut devices);
        let word = &provider.words_beyond_doubt()[0];
        for device in devices.iter().step_by(2) {
            world.token_gets(&device.token, word.clone());
        }
        // 800 pushes a day, for three days.
        for step in 0..3 * 144 {
            let first = step * 7_919 % 295;
            world.publish(&mut devices[first..first + 5 + step % 2]);
            world.pass(10 * MINUTE);
        }
        let lost = lost(&devices).len();
        assert!(lost <= MOST, "{lost} lost by {word:?}");
    }
}

/// What an operator does with the database in the middle of an incident, because devices disappear.
#[derive(Debug, Clone, Copy)]
enum Remedy {
    Import,
    Restore,
    RestoreAndAccept,
    /// The state directory is lost, too.
    RestoreAndForget,
}

#[test]
fn the_operator_puts_devices_back_in_the_middle() {
    for remedy in [
        Remedy::Import,
        Remedy::Restore,
        Remedy::RestoreAndAccept,
        Remedy::RestoreAndForget,
    ] {
        for length in [61 * MINUTE, 4 * DAY] {
            let word = &Provider::Apple.words_beyond_doubt()[0];
            let lost = lost_beside(remedy, length, word);
            assert!(lost <= MOST, "{lost} lost by {word:?} in {length:?}, {remedy:?}");
            let word = &Provider::Apple.words_about_us()[0];
            let lost = lost_beside(remedy, length, word);
            assert_eq!(lost, 0, "lost by {word:?} in {length:?}, {remedy:?}");
        }
    }
}

/// How many devices an incident costs while the operator does this.
#[track_caller]
fn lost_beside(remedy: Remedy, length: Duration, word: &Answer) -> usize {
    let mut world = World::start();
    let mut devices = world.registered(Provider::Apple, 60);
    for _ in 0..3 {
        world.expect_all_arrive(&mut devices);
        world.pass(MINUTE);
    }
    fs::write(world.file("devices.jsonl"), world.operate(&["export"])).unwrap();
    world.stop();
    copy_database(&world, "devices", "backup");
    world.go_on();
    world.expect_all_arrive(&mut devices);
    world.everybody_gets(Some(word.clone()));
    for step in 0..8 {
        world.publish(&mut devices);
        world.pass(length / 8);
        if step != 3 {
            continue;
        }
        if let Remedy::Import = remedy {
            world.operate(&["import", "json", "devices.jsonl"]);
            continue;
        }
        world.stop();
        copy_database(&world, "backup", "devices");
        match remedy {
            Remedy::Import | Remedy::Restore => {}
            Remedy::RestoreAndAccept => drop(world.operate(&["devices", "accept"])),
            Remedy::RestoreAndForget => fs::remove_dir_all(world.file("state")).unwrap(),
        }
        world.go_on();
    }
    world.everybody_gets(None);
    world.pass(21 * MINUTE);
    world.publish(&mut devices);
    expect_the_others_as_before(&world, &devices);
    lost(&devices).len()
}

#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn a_hundred_thousand_devices_of_apple() {
    a_hundred_thousand_devices(Provider::Apple);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test --long` runs it"]
fn a_hundred_thousand_devices_of_google() {
    a_hundred_thousand_devices(Provider::Google);
}

fn a_hundred_thousand_devices(provider: Provider) {
    let word = &provider.words_beyond_doubt()[0];
    let incident = Incident {
        provider,
        devices: 100_000,
        length: 4 * DAY,
        ..ONE
    };
    let lost = incident.happen(word);
    assert!(lost <= MOST, "{lost} lost by {word:?}");
}

#[test]
fn at_a_service_with_one_sender() {
    for provider in [Provider::Apple, Provider::Google] {
        let mut world = World::start();
        let mut devices = world.devices(provider, 60);
        for device in &mut devices {
            "home.example".clone_into(&mut device.domain);
        }
        for _ in 0..3 {
            world.expect_all_arrive(&mut devices);
            world.pass(MINUTE);
        }
        let word = &provider.words_beyond_doubt()[0];
        world.everybody_gets(Some(word.clone()));
        for _ in 0..10 {
            world.publish(&mut devices);
            world.pass(8 * HOUR);
        }
        let lost = lost(&devices).len();
        assert!(lost <= MOST, "{lost} lost by {word:?}");
    }
}
