//! What real servers carry with fpush behind them, and whose CPU it takes: a user publishes, the server passes it on to fpush, and the
//! reply comes back the same way.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::servers::{Ejabberd, Prosody, Server};
use serde_json::json;

use super::group::Subject;
use super::load::{Amount, Kind, Link};
use super::plan::LOADS;
use super::providers::Backend;
use super::rig;
use super::target::Target;
use super::template::Template;
use super::throughput::per_push;
use super::{proc, template};

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let components = [(rig::NAME, rig::KEY)];
    let mut targets = behind(
        subject,
        &Prosody::start_at_info(&components)?,
        template::Server::Prosody,
    )?;
    let ejabberd = Ejabberd::start_at_info(&components)?;
    targets.extend(behind(subject, &ejabberd, template::Server::Ejabberd)?);
    Ok(targets)
}

fn behind(subject: &Subject<'_>, server: &dyn Server, writing: template::Server) -> Result<Vec<Target>> {
    let (plan, backend) = (subject.plan, Backend::Certificate);
    let modules = json!({ backend.name(): subject.stand_in.endpoints.module(backend) });
    let daemon = rig::behind(subject.fpush, &modules, server.component_port());
    server.register("load", "password")?;
    let user = server.login("load", "password")?;
    let publish = [Template::sent_by(
        user.jid(),
        writing,
        backend.name(),
        &backend.token(),
    )];
    let mut link = Link::of(user.into_socket());
    let in_flight = LOADS[0].in_flight;
    let start = Instant::now();
    // Until fpush is there the server itself answers.
    loop {
        let mut kind = None;
        link.run_with(&publish, 1, Amount::Publishes(1), |reply| {
            kind = Some(reply.kind);
            Ok(())
        })?;
        if kind == Some(Kind::Result) {
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "fpush does not come to {}",
            server.name()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    link.run(&publish, in_flight, Amount::Time(plan.warm_up), Kind::Result)?;
    let cpu_of_server = || {
        server
            .processes()
            .into_iter()
            .map(proc::cpu_time)
            .sum::<Result<Duration>>()
    };
    let before = (cpu_of_server()?, proc::cpu_time(daemon.pid())?);
    let done = link.run(&publish, in_flight, Amount::Time(plan.main.time), Kind::Result)?;
    let theirs = per_push(cpu_of_server()? - before.0, done.pushes);
    let ours = per_push(proc::cpu_time(daemon.pid())? - before.1, done.pushes);
    let name = server.name();
    Ok(vec![
        Target::none(
            format!("{name}: publishes there and back"),
            done.pushes as f64 / done.elapsed.as_secs_f64(),
            "/s",
        ),
        Target::none(format!("{name}: its CPU for each"), theirs, " us"),
        Target::none(format!("{name}: fpush's CPU for each"), ours, " us"),
        Target::none(
            format!("{name}: fpush's share"),
            ours / (ours + theirs) * 100.0,
            " %",
        ),
    ])
}

/// A server says within seconds that a component is not there.
const PATIENCE: Duration = Duration::from_secs(30);
