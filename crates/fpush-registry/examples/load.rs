//! Measures the registry: `cargo run --release -p fpush-registry --example load [DEVICES]`.

#![expect(clippy::unwrap_used, reason = "a measurement, not a program")]
#![expect(clippy::disallowed_macros, reason = "a measurement, not a program")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use fpush_push::{Command, Devices as _, Found, Lookup};
use fpush_registry::{Device, Dialect, NoModules, Registry, RegistrySettings, StoreSettings, Time};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let devices: usize = std::env::args()
        .nth(1)
        .map_or(1_000_000, |number| number.parse().unwrap());
    let folder = std::env::temp_dir().join(format!("fpush-load-{}", std::process::id()));
    let settings = RegistrySettings {
        store: StoreSettings::Sqlite {
            path: folder.join("devices.db"),
        },
        cache: false,
        types: BTreeMap::from([("fcm".to_owned(), "android".to_owned())]),
        providers: BTreeMap::new(),
        rate_limit: Duration::from_secs(5),
        max_per_owner: 32,
        max_devices: 2_000_000,
        max_devices_per_domain: 1_000_000,
        trusted_domains: BTreeSet::from(["example.org".to_owned()]),
        expire_after: Duration::from_secs(400 * 86_400),
    };

    let (registry, writer) = Registry::open(settings.clone(), Arc::new(NoModules), None)
        .await
        .unwrap();
    let writer = tokio::spawn(writer);
    let began = Instant::now();
    for chunk in 0..devices.div_ceil(1_000) {
        let range = chunk * 1_000..devices.min((chunk + 1) * 1_000);
        registry.import(range.map(device).collect()).await.unwrap();
    }
    println!(
        "import: {:.0} devices/s",
        devices as f64 / began.elapsed().as_secs_f64()
    );
    registry.close().await;
    writer.await.unwrap();

    let before = resident();
    let began = Instant::now();
    let settings = RegistrySettings {
        cache: true,
        ..settings
    };
    let (registry, writer) = Registry::open(settings, Arc::new(NoModules), None).await.unwrap();
    let writer = tokio::spawn(writer);
    let first = device(devices - 1);
    let (mut asked, mut longest, mut opened) = (0, Duration::ZERO, None);
    while registry.is_loading() {
        let asking = Instant::now();
        let found = match registry.find(&first.node, Some(&first.secret), "a.example") {
            Lookup::Settled(found) => found,
            Lookup::Asking(asking) => asking.await.unwrap(),
        };
        assert!(matches!(found, Found::Device(_)), "it is registered");
        asked += 1;
        longest = longest.max(asking.elapsed());
        opened.get_or_insert_with(|| began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "open to the first device that was found: {opened:?}, longest look-up of {asked} while loading: {longest:?}"
    );
    println!(
        "load: {devices} devices in {:.1} s, {} MB more than before, {} bytes each",
        began.elapsed().as_secs_f64(),
        (resident() - before) / 1_000_000,
        (resident() - before) / devices.max(1)
    );

    let nodes: Vec<_> = (0..100_000)
        .map(|number| device(number * 7_919 % devices))
        .collect();
    let began = Instant::now();
    for device in &nodes {
        let Lookup::Settled(Found::Device(_)) =
            registry.find(&device.node, Some(&device.secret), "a.example")
        else {
            panic!("not found");
        };
    }
    println!(
        "lookups: {:.0}/s",
        nodes.len() as f64 / began.elapsed().as_secs_f64()
    );

    for at_once in [1, 64, 512] {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..at_once {
            let registry = Arc::clone(&registry);
            tasks.spawn(async move {
                let mut done = 0_usize;
                while began.elapsed() < Duration::from_secs(5) {
                    let sender = format!("user{at_once}-{task}-{}@example.org", done / 8);
                    let command = Command {
                        name: "register-push-fcm".to_owned(),
                        written: sender.clone(),
                        sender,
                        service: "push.example.org".to_owned(),
                        scope: Arc::default(),
                        fields: vec![("token", "t".repeat(163)), ("device-id", format!("{done}"))],
                        has_other_fields: false,
                    };
                    registry.execute(command).unwrap().await.unwrap();
                    done += 1;
                }
                done
            });
        }
        let done: usize = tasks.join_all().await.into_iter().sum();
        println!(
            "registrations, {at_once} at once: {:.0}/s",
            done as f64 / began.elapsed().as_secs_f64()
        );
    }
    registry.close().await;
    writer.await.unwrap();
    fs::remove_dir_all(folder).unwrap();
}

/// A device of p2's dialect, with a token as FCM's are.
fn device(number: usize) -> Device {
    Device {
        dialect: Dialect::P2,
        kind: "fcm".to_owned(),
        node: format!("{:064x}", number as u128 * 0x9e37_79b9_7f4a_7c15_f39c),
        secret: format!("{:064x}", number as u128 * 0x1234_5678_9abc_def1_2345),
        token: format!("{number:022}:{}", "APA91b-_Z".repeat(16).split_at(140).0),
        voip_token: None,
        owner: Some(format!("user{}@chat.example.org", number / 2)),
        account: Some(format!("{:040x}", number as u128 * 0x9e37_79b9_7f4a_7c15)),
        channel: None,
        registered: Time::now(),
        renewed: None,
        delivered: None,
        failed: None,
        former: Vec::new(),
        imported: true,
        in_second: false,
    }
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}
