//! `"shadow": true`: what an operator sees of a module that sends nothing.

use fpush_testkit::{FakeApns, TestCa, run_to_end};
use serde_json::json;

use crate::rig::{GREEN, PROGRAM, RESULT, Rig, Sight, apple, apple_token};

#[test]
fn a_shadow_is_amber_and_counts_what_it_decides() {
    let ca = TestCa::new();
    let apns = FakeApns::start(&ca);
    let module = apple(&apns.url(), json!({ "shadow": true }));
    let settings = json!({ "pushModules": { "m": module } });
    let mut rig = Rig::with(settings, |builder| builder.file("ca.pem", ca.pem()));
    let tokens = [0, 0, 0, 1].map(apple_token);
    let verdicts = rig.push_all(tokens.into_iter().chain(["no token".to_owned()]));
    assert_eq!(verdicts, [RESULT; 5]);
    let words = "a shadow (\"shadow\": true): it decides and counts, sends nothing";
    rig.expect(Sight {
        page: &[("warning", "m", &[words])],
        metrics: &[
            "fpush_module_up{module=\"m\"} == 1",
            "fpush_module_trouble{module=\"m\",kind=\"shadow\"} == 1",
            "fpush_pushes_total{module=\"m\",outcome=\"accepted\"} == 2",
            "fpush_pushes_total{module=\"m\",outcome=\"queued\"} == 1",
            "fpush_pushes_total{module=\"m\",outcome=\"refused\"} == 1",
            "fpush_pushes_total{module=\"m\",outcome=\"token_invalid\"} == 1",
            "fpush_provider_answers_total{module=\"m\"} == 0",
        ],
        log: &[("WARN", "settings=pushModules.m.shadow")],
        ..Sight::default()
    });
    assert_eq!(apns.count(), 0);

    // What the operator asks for is sent.
    let ask = |args: &[&str]| {
        let args: Vec<_> = args.iter().copied().chain(["settings.json"]).collect();
        let said = run_to_end(PROGRAM, &args, rig.daemon.dir());
        String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap()
    };
    let said = ask(&["check"]);
    assert!(said.contains("module m (apple, shadow)"), "{said}");
    assert!(
        said.contains("warning: pushModules.m.shadow: this module sends nothing"),
        "{said}"
    );
    let said = ask(&["send", "--module", "m", "--token", &apple_token(7)]);
    assert!(said.contains("accepted"), "{said}");
    assert_eq!(apns.count(), 1);

    rig.change_settings(json!({ "pushModules": { "m": { "shadow": null } } }));
    rig.expect(Sight {
        page: GREEN.page,
        metrics: &["fpush_module_trouble{module=\"m\"} absent"],
        log: &[],
        unready: &[],
    });
}
