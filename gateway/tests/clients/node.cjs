// SPDX-License-Identifier: Apache-2.0
// Drives a released Node client of Segment or RudderStack: package, host, write key, scenario, options as JSON.
// Prints what the client could not deliver.
const [, , name, host, writeKey, called, given] = process.argv;
const [scenario, ...more] = called.split(":");
const options = JSON.parse(given);

// Each scenario may wait for what it has sent with `flush`.
const SCENARIOS = {
  everything: async (send) => {
    send("identify", { userId: "known-1", traits: { city: "서울", emoji: "🍊", none: null } });
    // Segment's refuses a number here itself.
    send("track", { userId: name === "segment" ? "42" : 42, event: "주문 완료", properties: { revenue: 12900.5, none: null } });
    send("track", { anonymousId: "visitor-1", event: "Viewed", timestamp: new Date("2026-11-01T12:00:00Z") });
    send("page", { userId: "known-1", name: "Home", category: "shop" });
    send("screen", { userId: "known-1", name: "Cart" });
    send("group", { userId: "known-1", groupId: 7, traits: { plan: "pro" } });
    send("alias", { userId: "known-1", previousId: "visitor-1" });
  },
  order: async (send, flush, userId) => {
    send("identify", { userId, traits: { city: "서울" } });
    send("track", { userId, event: "Order Completed", properties: { revenue: 29000 } });
  },
  many: async (send, flush, count = 501) => {
    for (let i = 0; i < count; i++) send("track", { userId: `customer-${i}`, event: "Counted" });
  },
  too_many: (send, flush) => SCENARIOS.many(send, flush, 2501),
  large: async (send) => {
    send("track", { userId: "customer-1", event: "Large", properties: { text: "y".repeat(33000) } });
    send("track", { userId: "customer-1", event: "Small" });
  },
  paced: async (send, flush) => {
    for (let i = 0; i < 3; i++) {
      send("track", { userId: `customer-${i}`, event: "Paced" });
      await flush();
    }
  },
};

async function segment() {
  const { Analytics } = require("@segment/analytics-node");
  const client = new Analytics({ writeKey, host, maxRetries: 10, flushInterval: 50, ...options });
  const errors = [];
  client.on("error", (error) => errors.push(String(error.reason ?? error.code)));
  await SCENARIOS[scenario]((kind, message) => client[kind](message), () => client.flush(), ...more);
  await client.closeAndFlush({ timeout: 60000 });
  return [require("@segment/analytics-node/package.json").version, errors];
}

async function rudder() {
  const Analytics = require("@rudderstack/rudder-sdk-node");
  const errors = [];
  const client = new Analytics(writeKey, {
    dataPlaneUrl: host,
    flushInterval: 50,
    retryCount: 10,
    errorHandler: (error) => errors.push(String(error)),
    ...options,
  });
  const delivered = [];
  const send = (kind, message) => {
    delivered.push(new Promise((resolve) => client[kind](message, resolve)));
  };
  await SCENARIOS[scenario](send, () => Promise.all(delivered), ...more);
  await Promise.all(delivered);
  return [require("@rudderstack/rudder-sdk-node/package.json").version, errors];
}

(name === "segment" ? segment() : rudder()).then(([version, errors]) => {
  // RudderStack's client writes there too.
  process.stdout.write("\n" + JSON.stringify({ version, errors }));
  process.exit(0);
});
