// SPDX-License-Identifier: Apache-2.0
// Dangol in the browser: tells the gateway who does what on a page, and asks what to recommend.
//
// Depends on nothing, sets no cookies, uses no eval. Every comment stands on a line of its own and no literal spans
// lines: `script.py` takes comments and indentation away before this is served.
//
// Delivery is at least once: an event lies in localStorage under a key of its own (so tabs cannot overwrite each
// other's) until the gateway has answered 200, and the server knows repetitions by their `messageId`.
(() => {
  "use strict";

  const VERSION = "1.0.0";
  const MAX_EVENT_BYTES = 32768;
  // Browsers let at most 64 KiB be under way when a page goes.
  const MAX_BATCH_BYTES = 60000;
  const MAX_QUEUED = 1000;
  const MAX_HELD = 100;
  const MAX_WAIT_MS = 300000;
  const CONSENT_EVENT = "Segment Consent Preference Updated";

  const tag = document.currentScript;
  const stub = window.dangol;
  if (stub && stub.version) return;

  // Null until init.
  let options = null;
  let prefix = "";
  // What cannot or must not be stored on the device.
  const memory = {};
  // Events from before the visitor has answered.
  let held = [];
  // Calls from before init.
  let early = [];
  const inFlight = new Set();
  // What a beacon has taken along as this page went.
  const gone = new Set();
  let timer = 0;
  let due = Infinity;
  let sending = false;
  let failures = 0;
  let count = 0;
  let referrer = document.referrer;

  const warn = (...words) => console.warn("dangol:", ...words);
  const bytes = (text) => new Blob([text]).size;

  const uuid = () => {
    const random = crypto.getRandomValues(new Uint8Array(16));
    random[6] = (random[6] & 15) | 64;
    random[8] = (random[8] & 63) | 128;
    const digits = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return digits.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };
  const tab = uuid();

  // --- What is kept on the device ---

  const read = (name) => {
    const key = prefix + name;
    if (key in memory) return memory[key];
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const drop = (name) => {
    delete memory[prefix + name];
    try {
      localStorage.removeItem(prefix + name);
    } catch {}
  };
  const write = (name, value) => {
    delete memory[prefix + name];
    try {
      localStorage.setItem(prefix + name, value);
    } catch {
      memory[prefix + name] = value;
    }
  };
  // Names of what waits to be sent, oldest first.
  const queued = () => {
    let keys = Object.keys(memory);
    try {
      keys = keys.concat(Object.keys(localStorage));
    } catch {}
    const start = prefix + "q:";
    return keys.filter((key) => key.startsWith(start)).map((key) => key.slice(prefix.length)).sort();
  };

  // --- Consent and identity ---

  const preferences = () => {
    try {
      return JSON.parse(read("consent")) || {};
    } catch {
      return {};
    }
  };
  const isSignalled = () => navigator.globalPrivacyControl === true || navigator.doNotTrack === "1";
  // True: events are sent. False: refused. Undefined: not answered yet, so nothing is sent and nothing is stored.
  const analytics = () => {
    const answer = preferences().analytics;
    if (answer !== undefined) return answer;
    if (options.respectSignals && isSignalled()) return false;
    return options.requireConsent ? undefined : true;
  };
  const keepId = (name, value) => {
    if (analytics()) write(name, value);
    else memory[prefix + name] = value;
  };
  const forget = () => {
    drop("anonymousId");
    drop("userId");
  };
  const visitor = () => {
    let id = read("anonymousId");
    if (!id) keepId("anonymousId", (id = uuid()));
    return id;
  };
  // Another tab may have stored its own first: then that one counts.
  const storeIds = () => {
    for (const name of ["anonymousId", "userId"]) {
      const value = memory[prefix + name];
      delete memory[prefix + name];
      if (value && !read(name)) write(name, value);
    }
  };
  // Acts on an answer, whichever tab it was given in.
  const settle = () => {
    const answer = analytics();
    if (answer === undefined) return;
    const released = held;
    held = [];
    if (answer === false) return forget();
    const mine = memory[prefix + "anonymousId"];
    storeIds();
    for (const event of released) {
      if (event.anonymousId === mine) event.anonymousId = visitor();
      event.context.consent = { categoryPreferences: preferences() };
      enqueue(event);
    }
  };

  // --- Events ---

  const pageOf = () => ({
    path: location.pathname,
    referrer,
    search: location.search,
    title: document.title,
    url: location.href,
  });
  const campaign = () => {
    const found = {};
    for (const [name, value] of new URLSearchParams(location.search)) {
      if (name.startsWith("utm_")) found[name === "utm_campaign" ? "name" : name.slice(4)] = value;
    }
    return Object.keys(found).length ? found : undefined;
  };
  const context = () => {
    const answer = preferences();
    return {
      campaign: campaign(),
      consent: Object.keys(answer).length ? { categoryPreferences: answer } : undefined,
      library: { name: "dangol.js", version: VERSION },
      locale: navigator.language,
      page: pageOf(),
      screen: { width: screen.width, height: screen.height, density: devicePixelRatio },
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      userAgent: navigator.userAgent,
    };
  };
  const make = (type, members) => ({
    type,
    messageId: uuid(),
    timestamp: new Date().toISOString(),
    anonymousId: visitor(),
    userId: read("userId") || undefined,
    context: context(),
    ...members,
  });
  const record = (type, members) => {
    const answer = analytics();
    if (answer) enqueue(make(type, members));
    else if (answer === undefined && held.length < MAX_HELD) held.push(make(type, members));
  };

  // --- Queue ---

  const enqueue = (event) => {
    const text = JSON.stringify(event);
    if (bytes(text) > MAX_EVENT_BYTES) return warn(event.type, "is larger than 32 KiB and not sent");
    const names = queued();
    names.slice(0, Math.max(0, names.length - MAX_QUEUED + 1)).forEach(drop);
    const order = Date.now().toString(36).padStart(9, "0") + (count++).toString(36).padStart(5, "0");
    write(`q:${order}:${tab}`, text);
    schedule(options.flushInterval);
  };
  const batchOf = (names) => {
    const batch = { names: [], body: "" };
    const texts = [];
    let size = 0;
    for (const name of names) {
      const text = read(name);
      if (!text) continue;
      size += bytes(text) + 1;
      if (size > MAX_BATCH_BYTES && texts.length) break;
      batch.names.push(name);
      texts.push(text);
    }
    // The key goes in the body and the body as plain text, so that browsers need no pre-flight and beacons work.
    const head = JSON.stringify({ writeKey: options.writeKey, sentAt: new Date().toISOString() });
    batch.body = `${head.slice(0, -1)},"batch":[${texts.join()}]}`;
    return batch;
  };
  const schedule = (delay) => {
    const when = Date.now() + delay;
    if (when >= due) return;
    clearTimeout(timer);
    due = when;
    timer = setTimeout(flush, delay);
  };
  // A wait longer than any that is ever written comes from a clock that was set back.
  const waiting = () => {
    const left = read("wait") - Date.now();
    return left > 0 && left <= MAX_WAIT_MS ? left : 0;
  };
  const flush = async () => {
    clearTimeout(timer);
    due = Infinity;
    if (!options || sending) return;
    sending = true;
    try {
      // One tab at a time sends.
      await navigator.locks.request(`${prefix}send`, { ifAvailable: true }, (lock) => (lock ? drain() : schedule(1000)));
    } catch {
      // No locks here (plain HTTP, a sandbox): the server knows what came twice.
      await drain();
    } finally {
      sending = false;
    }
  };
  const drain = async () => {
    for (;;) {
      const left = waiting();
      const batch = batchOf(queued().filter((name) => !gone.has(name)));
      if (!batch.names.length) return;
      if (left) return schedule(left);
      if (!(await deliver(batch))) return schedule(waiting());
    }
  };
  const deliver = async ({ names, body }) => {
    names.forEach((name) => inFlight.add(name));
    try {
      const answer = await post(body);
      if (!answer || answer.status === 429 || answer.status === 408 || answer.status >= 500) {
        backOff(answer && Number(answer.headers.get("retry-after")));
        return false;
      }
      // Read in any case: until then the browser counts the request among those under way.
      const text = await answer.text().catch(() => "");
      if (!answer.ok) warn("events refused", answer.status, text);
      failures = 0;
      names.forEach(drop);
      return true;
    } finally {
      names.forEach((name) => inFlight.delete(name));
    }
  };
  const post = (body) =>
    fetch(`${options.host}/v1/batch`, {
      method: "POST",
      body,
      keepalive: true,
      credentials: "omit",
      signal: AbortSignal.timeout && AbortSignal.timeout(20000),
    }).catch(() => null);
  const backOff = (seconds) => {
    const growing = 1000 * 2 ** failures++ * (0.5 + Math.random() / 2);
    write("wait", Math.round(Date.now() + Math.min(MAX_WAIT_MS, seconds > 0 ? seconds * 1000 : growing)));
  };
  // The page goes: what this tab has not sent yet goes along, and stays stored until an answer was seen.
  const leave = () => {
    if (!options || waiting()) return;
    const mine = (name) => name.endsWith(tab) && !inFlight.has(name) && !gone.has(name);
    const batch = batchOf(queued().filter(mine));
    if (!batch.names.length) return;
    batch.names.forEach((name) => gone.add(name));
    if (!navigator.sendBeacon || !navigator.sendBeacon(`${options.host}/v1/batch`, batch.body)) post(batch.body);
  };

  // --- What pages call ---

  const isObject = (value) => typeof value === "object" && value !== null;
  const calls = {
    init(given) {
      if (options) return;
      if (!given || !given.writeKey) return warn("init needs a writeKey");
      const home = tag && tag.src ? new URL(tag.src).origin : location.origin;
      options = { host: home, ...given };
      options.flushInterval = Number(given.flushInterval || 200);
      options.host = options.host.replace(/\/+$/, "");
      prefix = `dangol:${options.writeKey}:`;
      addEventListener("online", () => {
        drop("wait");
        flush();
      });
      addEventListener("pagehide", leave);
      addEventListener("pageshow", (event) => {
        gone.clear();
        if (event.persisted) flush();
      });
      document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && flush());
      addEventListener("storage", (event) => event.key === `${prefix}consent` && settle());
      const replayed = early;
      early = [];
      if (options.autoPage) followHistory();
      replayed.forEach(run);
      // What an earlier page could not deliver.
      if (queued().length) schedule(0);
    },
    identify(userId, traits) {
      if (isObject(userId)) [userId, traits] = [undefined, userId];
      if (userId !== undefined && userId !== null && analytics() !== false) {
        const known = read("userId");
        // Somebody else: a new visitor from here on.
        if (known && known !== String(userId)) forget();
        keepId("userId", String(userId));
      }
      record("identify", { traits: traits || {} });
    },
    track(event, properties) {
      record("track", { event, properties: properties || {} });
    },
    page(...given) {
      const properties = isObject(given[given.length - 1]) ? given.pop() : {};
      const [category, name] = given.length > 1 ? given : [undefined, given[0]];
      record("page", { category, name, properties: { ...pageOf(), ...properties } });
    },
    group(groupId, traits) {
      record("group", { groupId: String(groupId), traits: traits || {} });
    },
    alias(userId, previousId) {
      record("alias", { userId: String(userId), previousId: String(previousId || read("userId") || visitor()) });
    },
    reset() {
      forget();
    },
    consent(answers) {
      const before = preferences();
      if (!answers) return before;
      const now = { ...before, ...answers };
      // Consent banners tell the same answer on every page.
      if (JSON.stringify(now) === JSON.stringify(before)) return now;
      const isRefused = now.analytics === false;
      if (isRefused) queued().forEach(drop);
      else if (now.analytics) {
        // Before the answer, which other tabs hear of, so that all go on as one visitor.
        visitor();
        storeIds();
      }
      write("consent", JSON.stringify(now));
      if (analytics() === undefined) record("track", { event: CONSENT_EVENT, properties: {} });
      else if (analytics() || isRefused) enqueue(make("track", { event: CONSENT_EVENT, properties: {} }));
      settle();
      return now;
    },
    async recommendations({ limit, category } = {}) {
      const isPersonal = analytics() && preferences().personalization !== false;
      // Somebody whom nobody has heard of gets what is popular.
      const reference = encodeURIComponent(`anonymous_id:${isPersonal ? visitor() : uuid()}`);
      const query = new URLSearchParams();
      if (limit) query.set("pageSize", limit);
      if (category) query.set("category", category);
      const answer = await fetch(`${options.host}/v1/profiles/${reference}/recommendations?${query}`, {
        headers: { "X-API-Key": options.writeKey },
        credentials: "omit",
      });
      if (!answer.ok) throw new Error(`dangol: no recommendations (${answer.status})`);
      return (await answer.json()).recommendations;
    },
    flush,
  };
  const followHistory = () => {
    const here = () => location.pathname + location.search;
    let [last, lastUrl] = [here(), location.href];
    // A moment later, when the application has set the title.
    const moved = () =>
      setTimeout(() => {
        const [before, beforeUrl] = [last, lastUrl];
        [last, lastUrl] = [here(), location.href];
        if (last === before) return;
        referrer = beforeUrl;
        calls.page();
      });
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function (...given) {
        original.apply(this, given);
        moved();
      };
    }
    addEventListener("popstate", moved);
    calls.page();
  };

  // Runs a call [name, arguments, resolve, reject]; a mistake in it never breaks the page.
  const run = (call) => {
    const [name, given, resolve, reject] = call;
    if (!options && name !== "init") return void early.push(call);
    try {
      resolve(calls[name](...given));
    } catch (error) {
      warn(error);
      reject(error);
    }
  };
  const api = { version: VERSION };
  for (const name of Object.keys(calls)) {
    api[name] = (...given) => {
      const done = new Promise((resolve, reject) => run([name, given, resolve, reject]));
      // Who asks hears of it; who does not must not see it as an unhandled error.
      done.catch(() => {});
      return done;
    };
  }
  api.anonymousId = () => (options && analytics() !== false ? visitor() : null);
  api.user = () => ({ userId: (options && read("userId")) || null, anonymousId: api.anonymousId() });
  window.dangol = api;

  if (tag && tag.dataset.writeKey) {
    const given = { ...tag.dataset };
    for (const name of ["requireConsent", "respectSignals", "autoPage"]) given[name] = name in given && given[name] !== "false";
    api.init(given);
  }
  // Calls of the snippet, and of whoever still holds on to its stub.
  if (Array.isArray(stub)) {
    const waitingCalls = stub.splice(0);
    stub.push = run;
    waitingCalls.forEach(run);
  }
})();
