// Asks every two seconds how the processes fare, and shows it. Whatever comes is text, never HTML.

const INTERVAL = 2000, PATIENCE = 10000, POINTS = 60, FAILURES = 20;

const find = (selector, inside = document) => inside.querySelector(selector);
const main = find("#monitor"), summary = find("#summary"), trouble = find("#trouble"), pause = find("#pause");
const texts = JSON.parse(main.dataset.texts), language = document.documentElement.lang, title = document.title;
const past = new Map(); // of each process: what it told last, and its pace at the last polls

function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // a live region speaks at every change
}

const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);
const known = (write) => (value) => (value === null || value === undefined ? "–" : write(value));
const format = (value, options) => new Intl.NumberFormat(language, options).format(value);
const unit = (value, name) =>
  format(value, { style: "unit", unit: name, unitDisplay: "short", maximumSignificantDigits: 3 });

const number = known((value) => format(value, { maximumFractionDigits: value < 10 ? 1 : 0 }));
const percent = known((value) => format(value, { style: "percent", maximumFractionDigits: 0 }));

const bytes = known((value) => {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
  return unit(value / 1000 ** power, ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"][power]);
});

const latency = known((seconds) => {
  if (seconds < 1e-3) return unit(seconds * 1e6, "microsecond");
  return seconds < 1 ? unit(seconds * 1e3, "millisecond") : unit(seconds, "second");
});

const age = known((seconds) => {
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const first = Math.max(0, steps.findIndex(([, size]) => seconds >= size));
  const whole = (n, rest) => unit(Math.floor(rest / steps[n][1]), steps[n][0]);
  if (seconds < 60) return whole(3, seconds);
  return `${whole(first, seconds)} ${whole(first + 1, seconds % steps[first][1])}`;
});

const clock = (date) => date.toLocaleTimeString(language);
const moment = (date) =>
  date.toDateString() === new Date().toDateString() ? clock(date) : date.toLocaleString(language);

function rowsOf(table, template, count) {
  const body = find("tbody", table);
  while (body.children.length > count) body.lastElementChild.remove();
  while (body.children.length < count) {
    body.append(find(template).content.firstElementChild.cloneNode(true));
  }
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
    const { time, name, type, times, error } = shown[n], date = new Date(time * 1000);
    say(find("time", row), time === null ? "–" : moment(date));
    find("time", row).dateTime = time === null ? "" : date.toISOString();
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

async function ask() {
  const response = await fetch(main.dataset.url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  const isJSON = response.headers.get("Content-Type")?.startsWith("application/json");
  if ([401, 403].includes(response.status) || (response.ok && !isJSON)) return texts.forbidden;
  if (!response.ok) return texts.lost;
  show(await response.json());
  say(find("#updated"), fill(texts.updated, { time: clock(new Date()) }));
  return "";
}

let timer;

async function poll() {
  clearTimeout(timer);
  if (document.hidden || pause.ariaPressed === "true") return;
  showTrouble(await ask().catch(() => texts.lost));
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
