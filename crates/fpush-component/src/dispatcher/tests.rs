//! Who gets a place and a turn, while no time passes.

use std::sync::Mutex;

use fpush_push::{Command, Executing, Scope, TokenHasher};
use tokio::{
    sync::Semaphore,
    time::{Duration, sleep},
};

use super::*;
use crate::stream::Stanza;

/// A registry whose database answers when the test says so.
#[derive(Clone)]
struct Registry {
    /// Who asked it, in this order.
    asked: Arc<Mutex<Vec<String>>>,
    /// Open for as long as the database does not answer.
    held: Arc<Semaphore>,
}

impl Devices for Registry {
    fn find(&self, _node: &str, _secret: Option<&str>, sender: &str) -> Lookup {
        let (registry, sender) = (self.clone(), sender.to_owned());
        Lookup::Asking(Box::pin(async move {
            registry.asked.lock().unwrap().push(sender);
            assert!(registry.held.acquire().await.is_err());
            Ok(Found::Ended)
        }))
    }

    fn commands(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    fn features(&self, _scope: &Scope) -> Vec<String> {
        Vec::new()
    }

    fn execute(&self, _command: Command) -> Result<Executing, CommandError> {
        Err(CommandError::UnknownCommand)
    }
}

/// Time goes on only when there is nothing left to do.
const TICK: Duration = Duration::from_millis(1);

/// The error of the reply to what has this id, if it is there.
fn reply(written: &[u8], id: &str) -> Option<Condition> {
    let text = std::str::from_utf8(written).unwrap();
    let (_, reply) = text.split_once(&format!(" id='{id}'>"))?;
    let (reply, _) = reply.split_once("</iq>").unwrap();
    Some(if reply.contains("<item-not-found ") {
        Condition::Ended
    } else {
        assert!(reply.contains("<internal-server-error "), "{reply}");
        Condition::Unavailable
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Ended,
    Unavailable,
}

/// An owner of many domains has half of the places at most.
#[tokio::test(start_paused = true)]
async fn a_domain_that_had_a_push_accepted_gets_a_place_while_others_wait() {
    let registry = Registry {
        asked: Arc::default(),
        held: Arc::new(Semaphore::new(0)),
    };
    let devices: Arc<dyn Devices> = Arc::new(registry.clone());
    let senders = Senders::new(TokenHasher::new().unwrap());
    senders.note_accepted(&senders.domain("a.good.org"));
    let dispatcher = Dispatcher::new(Arc::default(), Some(devices), senders, Drain::default());
    let link = Link::made_up();
    let publish = |domain: &str| {
        let stanza = format!(
            "<iq type='set' from='{domain}' to='push.example' id='{domain}'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'><publish node='n'/><publish-options><x xmlns='jabber:x:data'>\
             <field var='secret'><value>s</value></field></x></publish-options></pubsub></iq>"
        );
        let incoming = Incoming::read(Stanza::cut(stanza.as_bytes()).unwrap()).unwrap();
        dispatcher.dispatch(&link, incoming, Instant::now());
    };
    let flood = SMALL_LOOKUPS.under_way + SMALL_LOOKUPS.waiting;
    for number in 0..flood {
        publish(&format!("evil{number}.org"));
    }
    publish("stranger.org");
    publish("b.good.org");
    sleep(TICK).await;
    let early = link.outbox().take().await;
    assert_eq!(reply(early.bytes(), "stranger.org"), Some(Condition::Unavailable));
    assert_eq!(reply(early.bytes(), "b.good.org"), None);
    early.written();
    registry.held.close();
    sleep(TICK).await;
    let late = link.outbox().take().await;
    assert_eq!(reply(late.bytes(), "b.good.org"), Some(Condition::Ended));
    let asked = registry.asked.lock().unwrap();
    assert_eq!(asked[SMALL_LOOKUPS.under_way], "b.good.org", "its turn is next");
    assert_eq!(
        asked.len(),
        SMALL_LOOKUPS.under_way + SMALL_LOOKUPS.waiting / 2 + 1
    );
}
