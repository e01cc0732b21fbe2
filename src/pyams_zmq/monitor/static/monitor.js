// Asks every two seconds how the processes fare, and shows it.

import { age, ask, bytes, clock, copyOf, fill, find, latency, main, number, percent, say, showTime, texts } from "./common.js";
import { showJobs } from "./jobs.js";

const INTERVAL = 2000, POINTS = 60, FAILURES = 20;

const summary = find("#summary"), trouble = find("#trouble"), pause = find("#pause"), title = document.title;
const past = new Map(); // of each process: what it told last, and its pace at the last polls

function rowsOf(table, template, count) {
  const body = find("tbody", table);
  while (body.children.length > count) body.lastElementChild.remove();
  while (body.children.length < count) body.append(copyOf(template));
  return [...body.children];
}

/** Compare what a process tells with what it told last, unless it is another one by now. */
function follow(name, told, now) {
  const last = past.get(name);
  const same = last?.told.pid === told.pid && told.served >= last.told.served && now > last.now;
  const seconds = same ? (now - last.now) / 1000 : 0;
  const trend = same ? [...last.trend, (told.served - last.told.served) / seconds].slice(-POINTS) : [];
  const load = same ? (told.cpu - last.told.cpu) / seconds : told.cpu / told.uptime;
  past.set(name, { told, now, trend });
  return { trend, load: Number.isFinite(load) ? Math.max(0, load) : null };
}

function draw(svg, trend) {
  const most = Math.max(1, ...trend);
  const points = trend.map((value, n) => `${POINTS - trend.length + n},${(19 - (18 * value) / most).toFixed(1)}`);
  find("polyline", svg).setAttribute("points", points.join(" "));
}

function showProcess(row, { name, state, reason, figures }, now) {
  const cell = (selector, text) => say(find(selector, row), text);
  row.dataset.state = state;
  cell(".name", name);
  cell(".state", texts[state]);
  cell(".reason", texts[`${state}_why`] ?? reason);
  const up = state === "up";
  if (!up) past.delete(name);
  const { trend, load } = up ? follow(name, figures, now) : { trend: [], load: null };
  const { window: seconds, count, p50, p90, p99 } = figures.latency;
  cell(".detail", figures.pid === null ? "" : fill(texts.version, figures));
  draw(find(".trend", row), trend);
  cell(".pace", number(seconds > 0 ? (count * 60) / seconds : count));
  cell(".under-way", number(figures.in_flight));
  cell(".waiting", figures.waiting ? fill(texts.waiting, { n: number(figures.waiting) }) : "");
  cell(".p50", latency(p50));
  cell(".p90", latency(p90));
  cell(".p99", latency(p99));
  cell(".failed", number(figures.failed));
  row.classList.toggle("has-failed", figures.failed > 0);
  cell(".memory", bytes(figures.memory));
  cell(".cpu", percent(load));
  cell(".uptime", age(figures.uptime));
}

/** The failures of all processes, the newest first, with equal ones counted and not repeated. */
function gather(processes) {
  const groups = new Map();
  const failures = processes.flatMap(({ name, figures }) => figures.failures.map((one) => ({ ...one, name })));
  for (const one of failures.sort((one, other) => other.time - one.time)) {
    const key = JSON.stringify([one.name, one.type, one.error]);
    const group = groups.get(key) ?? { ...one, times: 0 };
    group.times += 1;
    groups.set(key, group);
  }
  return [...groups.values()].slice(0, FAILURES);
}

function showFailures(processes) {
  const shown = gather(processes), table = find("#failures");
  table.hidden = !shown.length;
  find("#no-failures").hidden = shown.length > 0;
  rowsOf(table, "#failure-row", shown.length).forEach((row, n) => {
    const { time, name, type, times, error } = shown[n];
    showTime(find("time", row), time);
    say(find(".process", row), name);
    say(find("code", row), type);
    say(find(".times", row), number(times));
    say(find(".error", row), error);
  });
}

function summarise(processes) {
  const down = processes.filter(({ state }) => state !== "up").map(({ name }) => name);
  const all = processes.length, up = all - down.length;
  if (!all) return texts.none;
  if (down.length) return fill(texts.some_down, { up, all, names: down.join(", ") });
  return all === 1 ? texts.one_up : fill(texts.all_up, { all });
}

function show({ processes }) {
  const down = processes.filter(({ state }) => state !== "up").length;
  document.title = down ? `(${down}) ${title}` : title;
  summary.dataset.state = down ? "down" : processes.length ? "up" : "none";
  say(summary, summarise(processes));
  const now = performance.now();
  rowsOf(find("#processes"), "#process-row", processes.length).forEach((row, n) => {
    showProcess(row, processes[n], now);
  });
  showFailures(processes);
}

function showTrouble(text) {
  say(trouble, text);
  trouble.hidden = !text;
}

async function look() {
  const { status, answer } = await ask(main.dataset.url);
  if ([401, 403].includes(status)) return texts.forbidden;
  if (status !== 200) return texts.lost;
  show(answer);
  await showJobs(answer.processes, again);
  say(find("#updated"), fill(texts.updated, { time: clock(new Date()) }));
  return "";
}

const again = async () => showTrouble(await look().catch(() => texts.lost));

let timer;

async function poll() {
  clearTimeout(timer);
  if (document.hidden || pause.ariaPressed === "true") return;
  await again();
  clearTimeout(timer);
  timer = setTimeout(poll, INTERVAL);
}

pause.addEventListener("click", () => {
  const paused = pause.ariaPressed !== "true";
  pause.ariaPressed = String(paused);
  if (paused) say(find("#updated"), texts.paused);
  else poll();
});
document.addEventListener("visibilitychange", poll);

poll();
