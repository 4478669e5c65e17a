//! What the guard costs for each push: the text of its endpoint is judged anew. Here the list of what is allowed is made each time,
//! too, so that this is more than in the daemon. Addresses are judged when a connection is made, not for each push.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use fpush_webpush::fuzz;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let endpoint = format!("https://push.example.org/wpush/v2/{}", "g".repeat(190));
    assert!(fuzz::receiver(&endpoint).is_some());
    criterion.bench_function("guard/endpoint", |bencher| {
        bencher.iter(|| fuzz::receiver(black_box(&endpoint)));
    });
    criterion.final_summary();
}
