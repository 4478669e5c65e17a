// The part of the app that runs while no page of it is open. The browser has decrypted what comes here.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  // What fpush sends is JSON: `account`, `channel`, `encrypted`, `iv` where there is such a thing, and `additionalData`.
  const data = event.data?.json() ?? {};
  const shown = self.registration.showNotification("New message", { body: data.account ?? "", tag: "message", data });
  const pages = self.clients.matchAll({ type: "window" });
  event.waitUntil(Promise.all([shown, pages.then((all) => all.forEach((page) => page.postMessage(data)))]));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.openWindow("./"));
});
