use fpush_testkit::Redis;

use crate::{names::Names, script::Scripts};

/// An engine, of which one instance is told and asked.
struct Engine(Redis);

impl Engine {
    fn run(&self, script: &str, keys: &[&[u8]], arguments: &[&str]) -> String {
        let keys = keys.iter().map(|key| std::str::from_utf8(key).unwrap());
        let (number, keys) = (keys.len().to_string(), keys.collect::<Vec<_>>());
        let command = [&["EVAL", script, &number][..], &keys, arguments].concat();
        self.0.ask(&command)
    }
}

/// What is told waits for more to be told; a claim does not.
#[test]
fn that_a_lane_is_as_usual_is_heard_also_after_a_later_claim() {
    let (engine, names, scripts) = (
        Engine(Redis::start_new()),
        Names::new("fpush", "m", 0),
        Scripts::new(),
    );
    let claim = |instance: &str, version: &str, count: &str| {
        let arguments = [instance, "1", version, count, "10", "1000000", "0"];
        engine.run(scripts.die.text(), &[&names.deaths], &arguments)
    };
    let tell = |version: &str, count: &str, calm: &str| {
        let common = ["here", "1", "1000", "1000", "10", "10", "10", "10"];
        let change = ["d", "", count, version, calm];
        engine.run(
            scripts.tell.text(),
            &names.of_tell(),
            &[&common[..], &change].concat(),
        )
    };
    assert_eq!(claim("here", "2", "1"), "1");
    assert_eq!(claim("gone", "9", "9"), "1");
    assert_eq!(claim("here", "3", "2"), "0", "there are ten");
    tell("1", "0", "0");
    assert_eq!(claim("here", "3", "2"), "0", "an earlier count says nothing");
    tell("1", "0", "1");
    assert_eq!(claim("here", "3", "2"), "1", "who is gone counts no more");
    assert_eq!(
        engine
            .0
            .ask(&["HVALS", std::str::from_utf8(&names.deaths).unwrap()]),
        "3 2 1"
    );
}
