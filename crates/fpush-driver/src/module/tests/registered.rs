//! Registered devices.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_registered_device_has_a_window_of_its_own_and_hears_of_its_pushes() {
    let f = Fixture::new();
    let device = Arc::new(Device::default());
    let recipient = recipient(&device);
    let push = || match f.module.admit(to_registered(&recipient, None), Instant::now()) {
        Admission::Admitted(admitted) => Ok(admitted),
        Admission::Answered(outcome) => Err(outcome),
    };
    f.provider.queue([Step::Fail(LATER), Step::Take]);
    let admitted = push().unwrap();
    assert_eq!(admitted.deliver().await, Outcome::Accepted);
    assert_eq!(
        (*device.failed.lock().unwrap(), *device.delivered.lock().unwrap()),
        (1, 1)
    );
    assert_eq!(push().unwrap_err(), Outcome::Queued);
    assert_eq!(push().unwrap_err(), Outcome::Refused);
    seconds(6).await;
    assert_eq!(
        f.provider.count(),
        3,
        "the queued one went out after 5 seconds, not after 20"
    );
    assert_eq!(*device.delivered.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_registered_after_its_tokens_death_is_not_dead() {
    let f = Fixture::new();
    f.earn_belief().await;
    let device = Arc::new(Device {
        registered: 1_000,
        ..Device::default()
    });
    let recipient = recipient(&device);
    for (since, outcome) in [
        (Some(999), Outcome::TokenBlocked),
        (Some(1_001), Outcome::TokenDead),
        (None, Outcome::TokenDead),
    ] {
        f.provider.queue([Step::Fail(PushError::TokenGone { since })]);
        let Admission::Admitted(admitted) = f.module.admit(to_registered(&recipient, None), Instant::now())
        else {
            panic!("it is not blocked")
        };
        assert_eq!(admitted.deliver().await, outcome, "{since:?}");
        f.module.unblock("t");
    }
}

#[tokio::test(start_paused = true)]
async fn while_its_database_is_away_no_device_is_dead_and_its_token_is_not_blocked() {
    let f = Fixture::new();
    f.earn_belief().await;
    let device = Arc::new(Device {
        unavailable: true,
        ..Device::default()
    });
    let recipient = recipient(&device);
    for _ in 0..2 {
        f.provider
            .queue([Step::Fail(PushError::TokenGone { since: None })]);
        let Admission::Admitted(admitted) = f.module.admit(to_registered(&recipient, None), Instant::now())
        else {
            panic!("it is not blocked")
        };
        let outcome = admitted.deliver().await;
        assert_eq!(outcome, Outcome::RegistryUnavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_makes_every_token_foreign_costs_no_registration() {
    let f = Fixture::new();
    let device = Arc::new(Device::default());
    let recipient = recipient(&device);
    let request = Request {
        token: "foreign",
        ..to_registered(&recipient, None)
    };
    let verdict = f.module.admit(request, Instant::now());
    assert!(
        matches!(verdict, Admission::Answered(Outcome::TokenInvalid)),
        "{verdict:?}"
    );
}

/// Anybody can register anybody's token as the second one of a device.
#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_second_token_keeps_no_push_from_a_device_whose_first_one_it_is() {
    for error in [
        PushError::TokenDoubted,
        PushError::TokenGone { since: None },
        PushError::Unexplained,
        PushError::TokenBusy,
    ] {
        let f = Fixture::new();
        let stranger = Recipient {
            voip_token: Some(Token::new("victim")),
            ..recipient(&Arc::default())
        };
        let encrypted = Encrypted {
            iv: "iv".into(),
            ciphertext: "ciphertext".into(),
        };
        let call = || Request {
            urgency: Urgency::Voip,
            count: None,
            ..to_registered(&stranger, Some(&encrypted))
        };
        f.provider.queue([Step::Fail(error)]);
        let Admission::Admitted(admitted) = f.module.admit(call(), Instant::now()) else {
            panic!("nothing is known of it")
        };
        admitted.deliver().await;
        assert_eq!(f.provider.attempts()[0].token, "victim");
        assert_eq!(f.push("victim").await, Outcome::Accepted, "{error:?}");
        if error != PushError::TokenBusy {
            // The phone shows a message: the second token is left alone.
            let Admission::Admitted(admitted) = f.module.admit(call(), Instant::now()) else {
                panic!("the first token works")
            };
            admitted.deliver().await;
            assert_eq!(f.provider.attempts()[2].token, "t", "{error:?}");
        }
    }
}
