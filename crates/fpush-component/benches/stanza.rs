//! What the stream costs: cutting a stanza, reading a publish, writing a reply.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use fpush_component::hot::{Stream, Whole};
use fpush_push::Outcome;
use fpush_testkit::publish::{ejabberd_publish, prosody_publish};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (server, publish) in publishes() {
        let mut group = criterion.benchmark_group("stanza");
        group.throughput(Throughput::Bytes(publish.len() as u64));
        let mut stream = Stream::open();
        group.bench_function(format!("cut, {server}"), |bencher| {
            bencher.iter(|| stream.cut(black_box(publish.as_bytes())));
        });
        let stanza = Whole::new(&publish).expect("it is whole");
        assert!(stanza.is_publish());
        group.bench_function(format!("read a publish, {server}"), |bencher| {
            bencher.iter(|| black_box(&stanza).is_publish());
        });
        group.finish();
    }

    let (_, publish) = &publishes()[0];
    let sender = Whole::new(publish).and_then(|stanza| stanza.sender());
    let sender = sender.expect("a publish wants an answer");
    let mut out = Vec::new();
    for (name, outcome) in [
        ("result", Outcome::Accepted),
        ("error", Outcome::ProviderUnavailable),
    ] {
        criterion.bench_function(&format!("reply/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&sender).reply(outcome, &mut out);
                black_box(out.as_slice());
            });
        });
    }
    criterion.final_summary();
}

/// With ids and tokens as long as those of the servers, and of Apple.
fn publishes() -> [(&'static str, String); 2] {
    let token = "c0ffee42".repeat(8);
    let prosody = prosody_publish(&"1".repeat(64), &token, Some("apple"), true);
    let ejabberd = ejabberd_publish(&"1".repeat(20), &token, Some("apple"), true);
    [
        ("Prosody", prosody.to_string()),
        ("ejabberd", ejabberd.to_string()),
    ]
}
