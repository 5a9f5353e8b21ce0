// SPDX-License-Identifier: Apache-2.0
// Drives the released Node clients of Segment and RudderStack: node node.cjs <package> <host> <writeKey> <scenario>.
const [, , name, host, writeKey, scenario] = process.argv;

const EVENTS = {
  all: (send) => {
    send("identify", { userId: "node-1", traits: { city: "서울", emoji: "🍊", none: null } });
    send("track", { userId: "node-1", event: "Order Completed", properties: { revenue: 12900.5, none: null } });
    send("track", { anonymousId: "node-a", event: "Viewed" });
    send("page", { userId: "node-1", name: "Home", category: "shop" });
    send("screen", { userId: "node-1", name: "Cart" });
    send("group", { userId: "node-1", groupId: "g-1", traits: { plan: "pro" } });
    send("alias", { userId: "node-1", previousId: "node-a" });
  },
  many: (send) => {
    for (let i = 0; i < 501; i++) send("track", { userId: `node-${i}`, event: "Counted" });
  },
};

async function segment() {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey, host, maxRetries: 2, flushInterval: 100 });
  const errors = [];
  client.on("error", (error) => errors.push(String(error.reason ?? error.code)));
  EVENTS[scenario]((kind, message) => client[kind](message));
  await client.closeAndFlush();
  return errors;
}

async function rudder() {
  const Analytics = require("@rudderstack/rudder-sdk-node");
  const errors = [];
  const client = new Analytics(writeKey, {
    dataPlaneUrl: host,
    flushInterval: 100,
    retryCount: 0,
    errorHandler: (error) => errors.push(String(error)),
  });
  const delivered = [];
  EVENTS[scenario]((kind, message) => {
    delivered.push(new Promise((resolve) => client[kind](message, resolve)));
  });
  await Promise.all(delivered);
  return errors;
}

(name === "segment" ? segment() : rudder()).then((errors) => {
  process.stdout.write(JSON.stringify(errors));
  process.exit(0);
});
