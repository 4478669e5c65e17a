//! Notifications of Push 2.0: which module passes one on, and whether it may.

use std::sync::Arc;

use fpush_driver::{Admission, Module};
use fpush_policy::{RelayLimits, SenderDomain};
use fpush_push::{Fingerprint, Outcome, Receiver, Scope, sender, sync::lock};
use tokio::time::Instant;
use tracing::{debug, field::display};

use super::Dispatcher;
use crate::{
    outbox::PendingReply,
    push2::Sent,
    reply::Reply,
    settings::{LinkSettings, Push2Settings},
};

/// A notification that is under way.
struct Relay {
    dispatcher: Arc<Dispatcher>,
    receiver: Fingerprint,
    sender: Arc<SenderDomain>,
    limits: RelayLimits,
}

impl Dispatcher {
    /// Passes a notification on, if the settings of its link want that; otherwise it is a message as any other.
    pub(super) fn notify(
        self: &Arc<Self>,
        sent: &Sent<'_>,
        domain: &str,
        link: &LinkSettings,
        pending: PendingReply,
    ) {
        let Some(push2) = &link.push2 else {
            return;
        };
        let now = pending.arrived();
        self.domains.count(domain, now);
        let (client, notification) = match sent.check() {
            Ok(checked) => checked,
            Err(fault) => return pending.send(&Reply::BadNotification(fault)),
        };
        if !pending.can_be_kept() {
            return pending.not_relayed(Outcome::Overloaded);
        }
        let Some((module, receiver)) = self.receiver(client, notification.call, push2, &link.scope) else {
            return pending.not_relayed(Outcome::UnknownModule);
        };
        let relay = Relay {
            dispatcher: Arc::clone(self),
            receiver: self.senders.hasher().fingerprint(&receiver.token),
            sender: self.senders.domain(domain),
            limits: push2.limits,
        };
        let begun = lock(&self.relaying).begin(relay.receiver, &relay.sender, relay.limits, now.into_std());
        if let Err(outcome) = begun {
            return pending.not_relayed(outcome);
        }
        let shown = sender(domain).map(display);
        debug!(publish = pending.number(), sender = shown, module = %module.name(), "notification");
        match module.notify(&receiver, &Arc::new(notification), domain, now) {
            Admission::Answered(outcome) => {
                relay.ended(outcome);
                pending.notified(outcome);
            }
            Admission::Admitted(admitted) => {
                self.drain.spawn(async move {
                    let outcome = admitted.deliver().await;
                    relay.ended(outcome);
                    pending.notified(outcome);
                });
            }
        }
    }

    /// The first of the modules that may send to this client, and whom it means there.
    fn receiver(
        &self,
        client: &str,
        call: bool,
        push2: &Push2Settings,
        scope: &Scope,
    ) -> Option<(Arc<Module>, Receiver)> {
        let names = push2.modules.iter().filter(|name| scope.allows(name));
        names
            .filter_map(|name| self.modules.named(name))
            .find_map(|module| {
                let receiver = module.receiver(client, call)?;
                Some((module, receiver))
            })
    }
}

impl Relay {
    fn ended(&self, outcome: Outcome) {
        let now = Instant::now().into_std();
        lock(&self.dispatcher.relaying).ended(self.receiver, &self.sender, outcome, self.limits, now);
    }
}
