// A web app that gets pushes by fpush: it subscribes at its browser's push service, and registers the subscription.

// Where fpush's HTTP API is, which push type is that of web apps, and the component's address.
const { api, type } = await (await fetch("config.json")).json();

// One name for this browser, kept: who registers under it again renews.
const node = (localStorage.node ??= crypto.randomUUID());

const worker = await navigator.serviceWorker.register("worker.js");
const button = (id) => document.getElementById(id);

function log(text) {
  button("log").append(`${text}\n`);
}

// Browsers give out other endpoints now and then, so this is to be done at each start once push is on.
async function subscribe() {
  const vapid = await (await fetch(`${api}vapid/${type}`)).text();
  const options = { userVisibleOnly: true, applicationServerKey: vapid };
  await navigator.serviceWorker.ready;
  let subscription;
  try {
    subscription = await worker.pushManager.subscribe(options);
  } catch (error) {
    // It has one that was made with another key, which this server cannot use.
    const other = await worker.pushManager.getSubscription();
    if (!other) throw error;
    await other.unsubscribe();
    subscription = await worker.pushManager.subscribe(options);
  }
  const { endpoint, keys } = subscription.toJSON();
  const form = new URLSearchParams({ type, node, endpoint, ...keys, vapid });
  const answer = await fetch(`${api}register`, { method: "POST", body: form });
  const [status, ...rest] = (await answer.text()).split("\n");
  if (status !== "OK") throw new Error(rest.join(" "));
  // With node and secret an XMPP client enables push at its user's server (XEP-0357).
  return { node: rest[0], secret: rest[1] };
}

button("subscribe").onclick = async () => {
  try {
    if ((await Notification.requestPermission()) !== "granted") throw new Error("notifications are not allowed");
    const device = await subscribe();
    log(`Registered. An XMPP client now sends to its server:

<iq type='set' id='push'>
  <enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='${device.node}'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='secret'><value>${device.secret}</value></field>
    </x>
  </enable>
</iq>
`);
    button("push").disabled = false;
    button("push").onclick = async () => {
      // In the place of an XMPP server that has a message: the demo publishes.
      const answer = await fetch("publish", { method: "POST", body: new URLSearchParams(device) });
      log(`fpush answers the publish: ${await answer.text()}`);
    };
  } catch (error) {
    log(`Push cannot be turned on: ${error.message}`);
  }
};

navigator.serviceWorker.onmessage = ({ data }) => log(`The service worker has got a push: ${JSON.stringify(data)}`);
