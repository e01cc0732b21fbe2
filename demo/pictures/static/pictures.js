"use strict";

// Asks how far the pictures are and shows what is ready: often while something is on its way, seldom otherwise.
const BUSY = 400, IDLE = 3000;
const WAITING = ["queued", "running", "cancelling"];

const find = (selector, inside = document) => inside.querySelector(selector);
const list = find("#pictures"), summary = find("#summary"), trouble = find("#trouble");
const copyOf = (id) => find(`#${id}`).content.firstElementChild.cloneNode(true);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // a live region speaks at every change
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)}\u00a0kB` : `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}

function stateText({ state, doing, renditions }) {
  const ready = renditions.filter((rendition) => rendition.ready).length;
  return {
    queued: "Waiting",
    running: `${doing || "Starting"}, ${ready} of ${renditions.length} ready`,
    cancelling: "Being cancelled",
    done: "Done",
    failed: "Failed",
    cancelled: "Cancelled",
  }[state];
}

// Whoever uses the keyboard goes on where the button was.
function show(button, wanted) {
  if (!wanted && button === document.activeElement) button.closest("article").focus();
  if (button.hidden && wanted) button.ariaDisabled = null;
  button.hidden = !wanted;
}

function newCard(picture) {
  const card = copyOf("picture");
  card.id = `picture-${picture.id}`;
  find("h3", card).textContent = picture.name;
  find("progress", card).ariaLabel = `Conversion of ${picture.name}`;
  for (const action of ["cancel", "retry"]) {
    const button = find(`.${action}`, card);
    button.setAttribute("aria-label", `${button.textContent}: ${picture.name}`);
    button.addEventListener("click", () => send(button, picture[`${action}_url`]));
  }
  for (const { label, kind } of picture.renditions) {
    const item = copyOf("rendition");
    find(".label", item).textContent = label;
    find(".hint", item).textContent = kind;
    find(".renditions", card).append(item);
  }
  return card;
}

function showRendition(item, { label, url, ready }, name) {
  const frame = find(".frame", item);
  if (!ready || frame.firstChild) return;
  const image = new Image(ready.width, ready.height);
  image.alt = `${label} of ${name}`;
  image.src = url;
  frame.href = url;
  frame.append(image);
  find(".hint", item).textContent = `${ready.width} × ${ready.height}, ${size(ready.bytes)}`;
}

function showPicture(picture) {
  const card = document.getElementById(`picture-${picture.id}`) ?? newCard(picture);
  card.dataset.state = picture.state;
  setText(find(".state", card), stateText(picture));
  const bar = find("progress", card), error = find(".error", card), renditions = find(".renditions", card);
  bar.hidden = !WAITING.includes(picture.state);
  bar.max = picture.renditions.length;
  bar.value = picture.renditions.filter((rendition) => rendition.ready).length;
  renditions.hidden = picture.state === "failed" || (!bar.value && picture.state !== "running");
  show(find(".cancel", card), ["queued", "running"].includes(picture.state));
  show(find(".retry", card), ["failed", "cancelled"].includes(picture.state));
  setText(error, picture.error);
  error.hidden = !picture.error;
  picture.renditions.forEach((rendition, n) => showRendition(renditions.children[n], rendition, picture.name));
  return card;
}

function showPictures(pictures) {
  const cards = pictures.map(showPicture);
  cards.forEach((card, n) => {
    if (list.children[n] !== card) list.insertBefore(card, list.children[n] ?? null);
  });
  while (list.children.length > cards.length) list.lastElementChild.remove();
  const count = (...states) => pictures.filter((picture) => states.includes(picture.state)).length;
  const counts = [["done", "done"], ["on the way", ...WAITING], ["failed", "failed"], ["cancelled", "cancelled"]]
    .map(([text, ...states]) => [count(...states), text]).filter(([number]) => number);
  setText(summary, counts.map((one) => one.join(" ")).join(", ") || "Nothing here yet.");
  return count(...WAITING) > 0;
}

function showTrouble(message) {
  setText(trouble, message);
  trouble.hidden = !message;
}

let timer;

async function poll() {
  clearTimeout(timer);
  let busy = false;
  try {
    const response = await fetch(list.dataset.url);
    const answer = await response.json();
    showTrouble(answer.message ?? "");
    if (response.ok) busy = showPictures(answer.pictures);
  } catch {
    showTrouble("The application does not answer. This page tries again every few seconds.");
  }
  clearTimeout(timer);
  timer = setTimeout(poll, busy ? BUSY : IDLE);
}

async function send(button, url) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true"; // not disabled: it would lose the focus
  const headers = { "X-CSRF-Token": find("[name=csrf_token]").value };
  const response = await fetch(url, { method: "POST", headers }).catch(() => null);
  if (!response?.ok) button.ariaDisabled = null;
  await poll();
  if (response?.ok === false) {
    showTrouble((await response.json().catch(() => ({}))).message ?? "Please reload this page.");
  }
}

// The server refuses files that are too big as well; here it is told before they are sent.
const files = find("#files");
files.addEventListener("change", () => {
  const big = [...files.files].filter((file) => file.size > Number(files.dataset.maxSize));
  const problems = big.map((file) => {
    const item = document.createElement("li"), name = document.createElement("strong");
    name.textContent = file.name;
    item.append(name, ` This file is bigger than ${files.dataset.limit}.`);
    return item;
  });
  find("#problems ul").replaceChildren(...problems);
  find("#problems").hidden = !big.length;
  files.setCustomValidity(big.length ? "Please choose smaller files." : "");
});

for (const form of document.forms) {
  form.addEventListener("submit", () => {
    const button = find("button", form);
    button.disabled = true;
    button.textContent = "Sending…";
  });
}

// A page that comes back from the browser's history is as it was left: with its buttons disabled.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

poll();
