//! What a request to Apple costs before it goes out.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use fpush_apns::hot::Requests;
use fpush_push::{Class, Form, Push, Token};
use fpush_testkit::ApnsKey;
use tokio::time::Instant;
use uuid::Uuid;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let push = Push {
        token: Token::new(&"c0ffee42".repeat(8)),
        class: Class::High,
        form: Form::Full,
        extra: None,
        notification: None,
        count: None,
        id: Uuid::new_v4(),
        deadline: Instant::now().into_std(),
    };
    let p8 = ApnsKey::generate().p8();
    for (name, requests) in [
        ("APNs, certificate", Requests::with_certificate()),
        ("APNs, provider token", Requests::with_provider_token(&p8)),
    ] {
        let requests = requests.expect("a machine with ca-certificates");
        assert!(requests.build(&push).is_some());
        criterion.bench_function(&format!("request/{name}"), |bencher| {
            bencher.iter(|| requests.build(black_box(&push)));
        });
    }
    criterion.final_summary();
}
