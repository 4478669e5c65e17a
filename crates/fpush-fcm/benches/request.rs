//! What a request to Google costs before it goes out.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use fpush_fcm::hot::Requests;
use fpush_push::{Class, Form, Push, Token};
use tokio::time::Instant;
use uuid::Uuid;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let push = Push {
        token: Token::new(&format!("dCXr7fTpTm2yXGVYTXJb6r:APA91b{}", "x".repeat(134))),
        class: Class::High,
        form: Form::Full,
        extra: None,
        notification: None,
        count: None,
        id: Uuid::new_v4(),
        deadline: Instant::now().into_std(),
    };
    let requests = Requests::new().expect("a machine with ca-certificates");
    criterion.bench_function("request/FCM", |bencher| {
        bencher.iter(|| requests.build(black_box(&push)));
    });
    criterion.final_summary();
}
