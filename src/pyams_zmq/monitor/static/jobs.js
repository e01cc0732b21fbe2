// The jobs of one process: lists them, and lets those who may cancel and retry them.

import { age, ask, clock, copyOf, fill, find, latency, main, number, percent, say, showTime, texts } from "./common.js";

const STATES = ["queued", "running", "done", "failed", "cancelled"], LIMITS = [50, 200, 1000];
const section = find("#jobs"), body = find("tbody", section), told = find("#jobs-told");
const choice = find("#jobs-process"), filters = find("#jobs-states"), more = find("#more-jobs");
const rows = new Map();
let state = "", limit = 0, refresh = () => {};

function makeFilter(name) {
  const button = document.createElement("button"), count = document.createElement("span");
  button.type = "button";
  button.dataset.state = name;
  count.className = "count";
  button.append(texts[name || "all"], " ", count);
  button.addEventListener("click", () => choose(name));
  filters.append(button);
}

function choose(name) {
  [state, limit] = [name, 0];
  for (const button of filters.children) button.ariaPressed = String(button.dataset.state === name);
  return refresh();
}

function showFilters(counts) {
  for (const button of filters.children) {
    const name = button.dataset.state;
    const known = name ? counts[name] : Object.values(counts).reduce((sum, one) => sum + one, 0);
    say(find(".count", button), number(known));
  }
}

function showChoice(processes) {
  const names = processes.map(({ name }) => name);
  if (names.join() !== [...choice.options].map((option) => option.value).join()) {
    const chosen = names.includes(choice.value) ? choice.value : names[0];
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
    choice.value = chosen;
  }
  choice.closest("label").hidden = names.length < 2;
}

function makeRow(id) {
  const row = copyOf("#job-row");
  say(find(".id", row), id);
  find("progress", row).ariaLabel = fill(texts.progress_of, { job: id });
  for (const action of ["cancel", "retry"]) {
    const button = find(`.${action}`, row);
    button.ariaLabel = fill(texts[`${action}_job`], { job: id });
    button.addEventListener("click", () => act(row, button, action, id));
  }
  rows.set(id, row);
  return row;
}

function showProgress(row, { done, total, message }, running) {
  const bar = find("progress", row);
  bar.hidden = !running;
  if (total > 0) [bar.max, bar.value] = [total, Math.min(done, total)];
  else bar.removeAttribute("value");
  const share = total > 0 ? percent(done / total) : done === null ? "" : number(done);
  say(find(".progress", row), running ? [share, message].filter(Boolean).join(" · ") : "");
}

// Whoever uses the keyboard goes on where the button was.
function showButton(row, action, wanted) {
  const button = find(`.${action}`, row);
  if (!wanted && button === document.activeElement) row.focus();
  if (button.hidden && wanted) button.ariaDisabled = null;
  button.hidden = !wanted;
}

function showJob(job, now, mayAct) {
  const row = rows.get(job.job) ?? makeRow(job.job), running = job.state === "running";
  const shown = running && job.cancelling ? "cancelling" : job.state;
  row.dataset.state = shown;
  say(find(".type", row), job.type);
  say(find(".state", row), texts[shown]);
  showProgress(row, job.progress, running);
  showTime(find("time", row), job.submitted);
  const end = running ? now : job.ended;
  const took = job.started === null || end === null ? null : Math.max(0, end - job.started);
  say(find(".took", row), took < 60 ? latency(took) : age(took));
  say(find(".attempts", row), number(job.attempts));
  const next = job.retry_at && fill(texts.retry_at, { time: clock(new Date(job.retry_at * 1000)) });
  say(find(".error", row), job.unknown ? texts.unknown : [job.error, next].filter(Boolean).join(" – "));
  showButton(row, "cancel", mayAct && ["queued", "running"].includes(shown));
  showButton(row, "retry", mayAct && ["failed", "cancelled"].includes(shown));
  return row;
}

function showList({ jobs, more: isMore, may_act, reason, now }) {
  const wanted = new Set(jobs.map(({ job }) => job));
  for (const [id, row] of rows) {
    if (!wanted.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  // Rows that are where they belong are not moved: that would take the focus away.
  jobs.map((job) => showJob(job, now, may_act)).forEach((row, n) => {
    if (body.children[n] !== row) body.insertBefore(row, body.children[n] ?? null);
  });
  section.classList.toggle("may-act", may_act);
  find("table", section).hidden = !jobs.length;
  find("#no-jobs").hidden = jobs.length > 0 || reason !== "";
  more.hidden = !isMore || limit === LIMITS.length - 1;
  if (reason) say(told, reason);
}

async function act(row, button, action, job) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true"; // not disabled: it would lose the focus
  const { status, answer } = await ask(main.dataset.actUrl, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": main.dataset.token },
    body: JSON.stringify({ process: choice.value, action, job }),
  }).catch(() => ({ status: 0, answer: {} }));
  button.ariaDisabled = null;
  if ([200, 202].includes(status)) say(told, fill(texts[`${action}_told`], { job }));
  else say(told, answer.message ? fill(texts.refused_act, { job, reason: answer.message }) : texts.reload);
  await refresh();
}

const query = () => new URLSearchParams({ process: choice.value, state, limit: LIMITS[limit] }).toString();

/** Show the jobs of the processes that have some; `again` shows everything anew. */
export async function showJobs(processes, again) {
  refresh = again;
  const having = processes.filter(({ figures }) => figures.jobs);
  section.hidden = !having.length;
  if (!having.length) return;
  showChoice(having);
  showFilters(having.find(({ name }) => name === choice.value).figures.jobs);
  const asked = query(), { status, answer } = await ask(`${main.dataset.jobsUrl}?${asked}`);
  if (status === 200 && asked === query()) showList(answer);
}

["", ...STATES].forEach(makeFilter);
choose("");
choice.addEventListener("change", () => choose(state));
more.addEventListener("click", () => {
  limit += 1;
  refresh();
});
