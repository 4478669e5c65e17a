// Fetches status.json every few seconds and shows it. Values go into the page as text only.
"use strict";

const EVERY = 5000;
const PATIENCE = 8000;
const SVG = "http://www.w3.org/2000/svg";
const MARKS = {
  ok: ["●", "works"],
  warning: ["▲", "warning"],
  error: ["■", "error"],
};

// Building

/// An element. Children are nodes, or become text; null and false are left out.
function h(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const svg = ["svg", "path", "line", "rect"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (classes.length > 0) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

/// Makes a node like another one, and keeps what is the same: nobody loses a selection, and a screen reader
/// hears only what has changed.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, [...fresh.childNodes]);
}

function morphChildren(parent, fresh) {
  const old = [...parent.childNodes];
  fresh.forEach((node, at) => (at < old.length ? morph(old[at], node) : parent.append(node)));
  old.slice(fresh.length).forEach((node) => node.remove());
}

function show(id, ...children) {
  const nodes = children.flat().filter((child) => child !== null && child !== false);
  morphChildren(
    document.getElementById(id),
    nodes.map((node) => (node instanceof Node ? node : document.createTextNode(node))),
  );
}

// Words

function number(value) {
  return value.toLocaleString("en");
}

function rate(value) {
  if (value === 0) return "0";
  return value.toLocaleString("en", value < 10 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 });
}

function count(value, one, many) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

function duration(seconds) {
  const steps = [
    [86400, "day", "days"],
    [3600, "hour", "hours"],
    [60, "min", "min"],
    [1, "s", "s"],
  ];
  const [unit, one, many] = steps.find(([unit]) => seconds >= unit * (unit === 1 ? 0 : 2)) ?? steps[3];
  return count(Math.floor(seconds / unit), one, many);
}

function two(value) {
  return String(value).padStart(2, "0");
}

function day(date) {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/// A Unix time: the clock today, and with the date otherwise.
function clock(unix, seconds = true) {
  const date = new Date(unix * 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;
  return day(date) === day(new Date()) ? time : `${day(date)} ${time}`;
}

function when(unix, text) {
  return h("time", { datetime: new Date(unix * 1000).toISOString() }, text);
}

/// When something ends.
function end(expires, wall) {
  const left = expires - wall;
  const words = left > 0 ? `in ${duration(left)}` : `ended ${duration(-left)} ago`;
  const level = left <= 7 * 86400 ? "error" : left < 30 * 86400 ? "warning" : null;
  const date = h("span.quiet", null, " ", when(expires, day(new Date(expires * 1000))));
  return [level ? mark(level, "") : null, words, left >= 2 * 86400 || left <= 0 ? date : null];
}

/// A level, told by shape, colour and word.
function mark(level, word = MARKS[level][1]) {
  const shape = h("span.shape", { "aria-hidden": "true" }, MARKS[level][0]);
  return h(`span.mark.${level}`, null, shape, word ? ` ${word} ` : h("span.unseen", null, `${MARKS[level][1]} `));
}

// Sections

function verdict({ concerns, links, modules }) {
  const errors = concerns.filter((concern) => concern.level === "error").length;
  const level = errors > 0 ? "error" : concerns.length > 0 ? "warning" : "ok";
  const unproven = modules.filter((module) => module.proof === "not_tried").map((module) => module.name);
  const all = modules.length === 1 ? "the push module works" : `all ${modules.length} push modules work`;
  const some = `it is not proven yet that the provider accepts the credentials of ${several(unproven)}`;
  const up = links.length === 1 ? `The link to ${links[0].server} is up` : `All ${links.length} links are up`;
  const fine = `${up}${unproven.length > 0 ? `; ${some}` : `, and ${all}`}.`;
  const good = unproven.length > 0 ? "No problem is known" : "All is well";
  const title = errors > 0 ? "Somebody has to act" : concerns.length > 0 ? "Works, with a warning" : good;
  document.title = `${MARKS[level][0]} fpush: ${title.toLowerCase()}`;
  return h(
    `div.verdict.${level}`,
    null,
    h("h2", null, mark(level, ""), title),
    concerns.length === 0 && h("p", null, fine),
    concerns.length > 0 &&
      h(
        "ul",
        null,
        concerns.map(({ level, about, words }) =>
          h("li", null, mark(level, ""), h("b", null, about), ": ", h("span", null, words)),
        ),
      ),
  );
}

/// A few names; of many the number.
function several(names) {
  return names.length > 3 ? `${number(names.length)} push modules` : names.join(", ");
}

function figure(name, value, more, level = null) {
  return h(
    "div.figure",
    null,
    h("dt", null, name),
    h("dd", null, level && mark(level, ""), value, more && h("span.more", null, more)),
  );
}

function figures({ links, modules, devices, cluster, hour }) {
  const sum = (key) => modules.reduce((total, module) => total + module[key], 0);
  const lost = sum("lost");
  return h(
    "dl.figures",
    null,
    linkFigure(links),
    figure("Publishes per second", hour.points.length > 0 ? rate(total(hour.points.at(-1))) : "–", "in the last 10 s"),
    figure("At the provider", number(sum("in_flight")), `${number(sum("waiting"))} in line`),
    figure("Held", number(sum("held")), "go out later"),
    figure("Lost", number(lost), "though acknowledged", lost > 0 ? "warning" : null),
    cluster !== null && figure("Instances", cluster.up ? number(cluster.instances) : "alone", ""),
    devices !== null && figure("Registered devices", number(devices), ""),
  );
}

function linkFigure(links) {
  const [{ level, down, for: seconds }] = links;
  if (links.length === 1) return figure("Link", down === null ? "up" : "down", `for ${duration(seconds)}`, level);
  const worst = ["error", "warning"].find((level) => links.some((link) => link.level === level)) ?? "ok";
  const up = links.filter((link) => link.down === null).length;
  return figure("Links", `${number(up)} up`, `of ${number(links.length)}`, worst);
}

function total(point) {
  return point ? point.slice(2).reduce((sum, rate) => sum + rate, 0) : 0;
}

function hour({ hour, wall }) {
  const everything = hour.groups.flatMap(({ outcomes }) => outcomes).reduce((sum, [, count]) => sum + count, 0);
  const plots = [plot("All", "All publishes.", hour.points, total, wall, [["publishes", everything]])];
  hour.groups.forEach((group, at) => {
    plots.push(plot(group.name, group.words, hour.points, (point) => point[2 + at], wall, group.outcomes));
  });
  return plots;
}

const WIDTH = 240;
const HEIGHT = 48;
const BIN = 30;

/// One line over the last hour, in steps of half a minute. Where nothing is known there is a gap.
function plot(name, words, points, value, wall, outcomes) {
  const bins = new Array(3600 / BIN).fill(null);
  for (const point of points) {
    const at = bins.length - 1 - Math.floor((wall - point[0]) / BIN);
    if (at < 0 || at >= bins.length) continue;
    const bin = (bins[at] ??= { pushes: 0, seconds: 0 });
    bin.pushes += value(point) * point[1];
    bin.seconds += point[1];
  }
  const rates = bins.map((bin) => (bin === null || bin.seconds === 0 ? null : bin.pushes / bin.seconds));
  const most = Math.max(0, ...rates.filter((rate) => rate !== null));
  const now = points.length > 0 ? value(points.at(-1)) : 0;
  const x = (at) => ((at / (bins.length - 1)) * WIDTH).toFixed(1);
  const y = (rate) => (HEIGHT - 1 - (most > 0 ? (rate / most) * (HEIGHT - 4) : 0)).toFixed(1);
  let line = "";
  let area = "";
  let begin = null;
  rates.forEach((rate, at) => {
    if (rate === null) return;
    const next = rates[at + 1] ?? null;
    line += `${begin === null ? "M" : "L"}${x(at)} ${y(rate)}`;
    area += `${begin === null ? `M${x(at)} ${HEIGHT}L` : "L"}${x(at)} ${y(rate)}`;
    begin ??= at;
    if (next === null) {
      area += `L${x(at)} ${HEIGHT}Z`;
      begin = null;
    }
  });
  const top = most > 0 ? `at most ${rate(most)} at ${clock(wall - (bins.length - 1 - rates.indexOf(most)) * BIN, false)}` : "none";
  const parts = outcomes.map(([outcome, count]) => `${number(count)} ${outcome}`).join(", ");
  const here = pointed === null ? null : Math.round(pointed * (bins.length - 1));
  const time = here === null ? null : clock(wall - (bins.length - 1 - here) * BIN, false);
  const there = here === null || rates[here] === null ? "–" : rate(rates[here]);
  return h(
    `figure.plot${most === 0 ? ".none" : ""}`,
    { "data-group": name },
    h(
      "figcaption",
      { title: words },
      h("span", null, name),
      h("b", null, here === null ? rate(now) : [h("span.quiet", null, time), ` ${there}`]),
    ),
    h(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `${name}: now ${rate(now)} per second, ${top}; in the last hour ${parts || "none"}`,
      },
      h("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
      h("path.area", { d: area || "M0 0" }),
      h("path.line", { d: line || "M0 0" }),
      h("line.pointer", here === null ? { y2: 0 } : { x1: x(here), x2: x(here), y1: 0, y2: HEIGHT }),
    ),
    h("p.scale", null, h("span", null, "1 h ago"), h("span", null, top)),
    h("p.parts", null, parts),
  );
}

function row(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value));
}

function modules({ modules, wall }) {
  if (modules.length === 0) return [h("p.quiet", null, "There is no push module.")];
  return modules.map((module) => {
    const { connection, outage, second } = module;
    const works = {
      ok: module.proof === "proven" ? "works" : "not proven yet",
      warning: module.proof === "proven" ? "works, with trouble" : "not proven yet",
      error: "does not work",
    }[module.level];
    const ago = (time) => (time === null ? "none yet" : `${duration(time)} ago`);
    return h(
      `article.module.${module.level}`,
      { "aria-label": `Push module ${module.name}` },
      h("h3", null, h("span.name", null, module.name), h("span.kind", null, module.kind), mark(module.level, works)),
      module.trouble && h("p.trouble", null, module.trouble),
      second && second.trouble && second.trouble !== module.trouble && h("p.trouble", null, second.trouble),
      module.clock && h("p.trouble", null, module.clock),
      module.credentials
        .filter(({ trouble }) => trouble !== null && trouble !== module.trouble)
        .map(({ trouble }) => h("p.trouble", null, trouble)),
      h(
        "dl.numbers",
        null,
        row("Per second", rate(module.rate)),
        row("At the provider", number(module.in_flight)),
        row("In line", number(module.waiting)),
        row("Held", number(module.held)),
        outage.held > 0 && row("Until the provider is back", `${number(outage.held)}, for ${duration(outage.oldest)}`),
        outage.phase === "recovering" && row("Out in", `about ${duration(outage.out_in)}`),
        row("Lost", [module.lost > 0 ? mark("warning", "") : null, number(module.lost)]),
        row("Last accepted", ago(module.last_accepted)),
        second && row(`Last accepted in the ${second.name}`, ago(second.last_accepted)),
      ),
      h(
        "dl.rows",
        null,
        row("Tokens", `${number(module.limited)} with a limit, ${number(module.blocked)} left alone, ${number(module.doubted)} doubted`),
        connection && row("Connections", connected(connection)),
        connection && connection.ping !== null && row("Ping", ping(connection)),
        second && row(`To the ${second.name}`, connected(second.connection)),
        second && second.connection.ping !== null && row(`Ping of the ${second.name}`, ping(second.connection)),
        module.credentials.map((credential) => credentialRow(credential, wall)),
      ),
    );
  });
}

function ping({ ping }) {
  return `${number(Math.round(ping * 1000))} ms`;
}

function connected({ open, streams, connects, failed }) {
  return [
    `${number(open)} open`,
    open > 0 && count(streams, "request", "requests"),
    open === 0 && `${number(connects)} before`,
    failed > 0 && `${number(failed)} failed`,
  ]
    .filter((words) => words)
    .join(", ");
}

function credentialRow({ kind, age, expires }, wall) {
  const name = kind[0].toUpperCase() + kind.slice(1);
  if (age !== null) return row(name, `${duration(age)} old`);
  return row(name, expires === null ? "does not end" : end(expires, wall));
}

function problems({ problems }) {
  if (problems.length === 0) return h("p.quiet", null, "None since the start.");
  return h(
    "ol.problems",
    null,
    problems.map(({ level, about, text, first, last, count }) =>
      h(
        "li",
        null,
        h(
          "p.head",
          null,
          mark(level),
          h("b", null, about),
          h(
            "span.times",
            null,
            count > 1 && h("span.count", null, `${number(count)} times `),
            count > 1 && when(first, clock(first, false)),
            count > 1 && " – ",
            when(last, clock(last, count === 1)),
          ),
        ),
        h("p.text", null, text),
      ),
    ),
  );
}

function ended({ ended }) {
  if (ended === null) return h("p.quiet", null, "No devices register here.");
  const { reasons, domains } = ended;
  const sum = reasons.map(([reason, count]) => `${reason} ${number(count)}`).join(", ");
  if (domains === null || domains.length === 0) return h("p.quiet", null, sum || "None has ended since the start.");
  const most = domains[0][2] || 1;
  return [
    h("p.quiet", null, sum),
    h(
      "table.senders",
      null,
      h("thead.unseen", null, h("tr", null, h("th", { scope: "col" }, "domain"), h("th", { scope: "col" }, "ended"))),
      h(
        "tbody",
        null,
        domains.map(([domain, reason, count]) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, `${domain}: ${reason}`, bar(count / most)),
            h("td", null, number(count)),
          ),
        ),
      ),
    ),
  ];
}

function senders({ senders }) {
  if (senders === null) return h("p.quiet", null, "Not shown: monitoring.senders is off.");
  if (senders.length === 0) return h("p.quiet", null, "Nobody has sent anything lately.");
  const most = senders[0][1] || 1;
  return h(
    "table.senders",
    null,
    h("thead.unseen", null, h("tr", null, h("th", { scope: "col" }, "domain"), h("th", { scope: "col" }, "publishes"))),
    h(
      "tbody",
      null,
      senders.map(([domain, publishes]) =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }, domain, bar(publishes / most)),
          h("td", null, number(publishes)),
        ),
      ),
    ),
  );
}

function bar(part) {
  return h(
    "svg.bar",
    { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { width: Math.max(0.5, part * 100).toFixed(1), height: 1 }),
  );
}

function upkeep({ links, certificates, reload, state, wall }) {
  const refused = reload !== null && reload.refused !== null;
  const reloaded =
    reload === null
      ? "none since the start"
      : [mark(refused ? "warning" : "ok", refused ? "refused" : "taken"), when(reload.at, clock(reload.at))];
  return h(
    "dl.rows",
    null,
    links.map(({ name, level, down, for: seconds }) =>
      row(`Link ${name}`, [mark(level, down === null ? "up" : "down"), `for ${duration(seconds)}`]),
    ),
    certificates.map(({ name, expires }) => row(`Certificate ${name}`, end(expires, wall))),
    row("Last reload", reloaded),
    refused && h("p.trouble", null, reload.refused),
    row("State directory", state === null ? mark("ok", "can be written") : mark("error", "cannot be written")),
  );
}

// Fetching

let last = null;
let lostSince = null;
/// Where in the last hour the pointer is, from 0 to 1.
let pointed = null;

function render(status) {
  show("component", [...new Set(status.links.map((link) => link.component))].join(", "));
  show("about", `version ${status.version}, up for ${duration(status.uptime)}, as of `, when(status.wall, clock(status.wall)));
  show("verdict", verdict(status));
  show("figures", figures(status));
  show("hour", hour(status));
  show("modules", modules(status));
  show("problems", problems(status));
  show("senders", senders(status));
  show("ended", ended(status));
  show("upkeep", upkeep(status));
  document.getElementById("main").hidden = false;
}

function lost(words) {
  const element = document.getElementById("lost");
  if (words === null) {
    element.hidden = true;
    element.textContent = "";
  } else if (element.textContent !== words) {
    element.hidden = false;
    element.textContent = words;
  }
  document.body.classList.toggle("stale", words !== null);
}

async function update() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`it says ${answer.status}`);
    last = await answer.json();
  } catch {
    lostSince ??= clock(Date.now() / 1000);
    const shown = last === null ? "" : ` What is shown is from ${clock(last.wall)}.`;
    lost(`fpush does not answer since ${lostSince}.${shown}`);
    document.title = "■ fpush: no answer";
    return;
  }
  lostSince = null;
  render(last);
  const stuck = last.age > 15;
  lost(stuck ? `fpush answers, but has had no news of itself for ${duration(last.age)}. What is shown is as old.` : null);
}

let running = false;

async function run() {
  if (running) return;
  running = true;
  await update();
  running = false;
}

/// All plots say what they were at the time that one of them is pointed at.
function point(event) {
  const plot = event.target.closest?.(".plot svg")?.getBoundingClientRect();
  const at = plot ? Math.min(1, Math.max(0, (event.clientX - plot.left) / plot.width)) : null;
  if (at === pointed || last === null) return;
  pointed = at;
  show("hour", hour(last));
}

document.getElementById("hour").addEventListener("pointermove", point);
document.getElementById("hour").addEventListener("pointerleave", point);
setInterval(run, EVERY);
// A page in the background is seldom called.
document.addEventListener("visibilitychange", () => document.hidden || run());
run();
