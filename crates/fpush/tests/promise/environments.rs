//! One module for both of Apple's environments: while one of them does not answer, no word of the other one counts.

use fpush_testkit::Moves;
use serde_json::json;

use super::rig::{DAY, Provider, World, assert_all_kept};

/// Production rejects every token for days, as it does those of builds from Xcode, and the sandbox is out of reach.
#[test]
fn no_word_counts_while_the_other_environment_is_away() {
    let apple = Provider::Apple;
    for word in [apple.words_beyond_doubt(), apple.words_about_us()].concat() {
        let mut world = World::with(
            |settings| {
                let apns = &mut settings["pushModules"]["ios"]["apns"];
                apns["environment"] = json!("both");
                apns["sandboxEndpoint"] = json!("https://127.0.0.1:1");
            },
            Moves::Time,
        );
        let mut devices = world.devices(apple, 30);
        world.expect_all_arrive(&mut devices);
        world.everybody_gets(Some(word.clone()));
        for _ in 0..4 {
            world.publish(&mut devices);
            world.pass(DAY);
        }
        assert_all_kept(&devices, &format!("{word:?}"));
        world.everybody_gets(None);
        world.publish(&mut devices);
        world.pass(DAY);
        world.expect_all_arrive(&mut devices);
    }
}
