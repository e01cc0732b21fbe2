// What the parts of the page share. Whatever comes is text, never HTML.

export const find = (selector, inside = document) => inside.querySelector(selector);
export const main = find("#monitor"), texts = JSON.parse(main.dataset.texts);
export const language = document.documentElement.lang;

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // a live region speaks at every change
}

export const copyOf = (template) => find(template).content.firstElementChild.cloneNode(true);
export const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);
export const known = (write) => (value) => (value === null || value === undefined ? "–" : write(value));

const format = (value, options) => new Intl.NumberFormat(language, options).format(value);
const unit = (value, name) =>
  format(value, { style: "unit", unit: name, unitDisplay: "short", maximumSignificantDigits: 3 });

export const number = known((value) => format(value, { maximumFractionDigits: value < 10 ? 1 : 0 }));
export const percent = known((value) => format(value, { style: "percent", maximumFractionDigits: 0 }));

export const bytes = known((value) => {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
  return unit(value / 1000 ** power, ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"][power]);
});

export const latency = known((seconds) => {
  if (seconds < 1e-3) return unit(seconds * 1e6, "microsecond");
  return seconds < 1 ? unit(seconds * 1e3, "millisecond") : unit(seconds, "second");
});

export const age = known((seconds) => {
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const first = Math.max(0, steps.findIndex(([, size]) => seconds >= size));
  const whole = (n, rest) => unit(Math.floor(rest / steps[n][1]), steps[n][0]);
  if (seconds < 60) return whole(3, seconds);
  return `${whole(first, seconds)} ${whole(first + 1, seconds % steps[first][1])}`;
});

export const clock = (date) => date.toLocaleTimeString(language);

/** Show a moment, which is told in seconds since 1970. */
export function showTime(element, seconds) {
  const date = new Date((seconds ?? 0) * 1000), today = date.toDateString() === new Date().toDateString();
  say(element, seconds === null ? "–" : today ? clock(date) : date.toLocaleString(language));
  element.dateTime = seconds === null ? "" : date.toISOString();
}

/** What is not text in an answer that nobody was let in for. */
export async function ask(url, options = {}) {
  const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(10000), ...options });
  const isJSON = response.headers.get("Content-Type")?.startsWith("application/json");
  return { status: response.ok && !isJSON ? 403 : response.status, answer: isJSON ? await response.json() : {} };
}
