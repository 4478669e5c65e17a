use fpush_testkit::Redis;

use crate::{names::Names, script::Scripts};

/// What is told waits for more to be told; a claim does not.
#[test]
fn that_a_lane_is_as_usual_is_heard_also_after_a_later_claim() {
    let (engine, names, scripts) = (Redis::start_new(), Names::new("fpush", "m", 0), Scripts::new());
    let claim = |instance: &str, version: &str, count: &str| {
        let arguments = [instance, "1", version, count, "10", "1000000", "0"];
        scripts.die.run_at(&engine, &[&names.deaths], &arguments)
    };
    let tell = |version: &str, count: &str, calm: &str| {
        let common = ["here", "1", "1000", "1000", "10", "10", "10", "10"];
        let change = ["d", "", count, version, calm];
        let arguments = [&common[..], &change].concat();
        scripts.tell.run_at(&engine, &names.of_tell(), &arguments)
    };
    assert_eq!(claim("here", "2", "1"), "1");
    assert_eq!(claim("gone", "9", "9"), "1");
    assert_eq!(claim("here", "3", "2"), "0", "there are ten");
    tell("1", "0", "0");
    assert_eq!(claim("here", "3", "2"), "0", "an earlier count says nothing");
    tell("1", "0", "1");
    assert_eq!(claim("here", "3", "2"), "1", "who is gone counts no more");
    let deaths = std::str::from_utf8(&names.deaths).unwrap();
    assert_eq!(engine.ask(&["HVALS", deaths]), "3 2 1");
}
