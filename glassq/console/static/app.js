// What the console does beside the forms of its pages: live parts, keys, choosing rows, times, copying.
// Every page works without it. Nothing here makes HTML of a text: parts come from the server, words go in as text.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const stored = {
  get: (name) => { try { return localStorage.getItem(`glassq-${name}`); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(`glassq-${name}`, value); } catch { /* then it is forgotten */ } },
};
// The one place that a screen reader listens to: live parts themselves are silent, as numbers change all the time.
const tell = (words) => { put($("#told"), words); };

// -- times: how long ago, kept true; in UTC, or as the clock here shows them ------------------------------------------

let here = stored.get("zone") === "here";
const two = (number) => String(number).padStart(2, "0");
const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];

// As `span` of operations/words.py has it: two units.
function span(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1).replace(".0", "")}s`;
  let left = Math.floor(seconds);
  const parts = [];
  for (const [size, unit] of UNITS) if (left >= size) { parts.push(`${Math.floor(left / size)}${unit}`); left %= size; }
  return parts.slice(0, 2).join(" ");
}

const part = (date, name) => date[`get${here ? "" : "UTC"}${name}`]();
const minutes = (date) => `${two(part(date, "Hours"))}:${two(part(date, "Minutes"))}`;
const day = (date) => `${part(date, "FullYear")}-${two(part(date, "Month") + 1)}-${two(part(date, "Date"))}`;

function showTime(time, now) {
  const date = new Date(time.dateTime);
  if (isNaN(date)) return;
  if ("ago" in time.dataset) {
    // what is in the future keeps the server's words
    if (date <= now) put(time.firstElementChild, span((now - date) / 1000));
    if ($(".utc", time)) put($(".utc", time), minutes(date));
  } else if ("clock" in time.dataset) {
    put(time, `${minutes(date)}:${two(part(date, "Seconds"))}${here ? "" : " UTC"}`);
  } else if ("exact" in time.dataset) {
    const clock = `${minutes(date)}:${two(part(date, "Seconds"))}.${String(date.getUTCMilliseconds()).padStart(3, "0")}`;
    put(time, day(date) === day(now) ? clock : `${day(date)} ${clock}`);
  }
}

function put(element, words) { if (element.textContent !== words) element.textContent = words; }

// The difference between the server's clock and ours: an age is counted by the server's.
let ahead = 0;
const clockOf = (page) => new Date($(".foot time", page)?.dateTime ?? Date.now()).getTime();
function showTimes() {
  if (frozen()) return;
  const now = new Date(Date.now() + ahead);
  for (const time of $$("main time, #verdict time, #paused time")) showTime(time, now);
  for (const button of $$("[data-zone]")) {
    button.hidden = false;
    put(button.lastElementChild, here ? "local time" : "UTC");
    button.title = here ? "times are those of this machine; switch to UTC" : "times are in UTC; switch to those of this machine";
  }
}

// -- live parts: the page is fetched again, and what changed of its [data-live] sections is put in ----------------------

let held = stored.get("held") === "1";
let waiting = null;
const tags = new Map();
let asked = Date.now();
let fetching = false;

function selected() {
  const selection = getSelection();
  return selection && !selection.isCollapsed && selection.toString().trim() !== "";
}

// Nothing moves while something is chosen, text is marked, a dialog or menu is open, or a field is being filled in.
function frozen() {
  const field = document.activeElement;
  const typing = field?.matches("input:not([type=checkbox],[type=radio]), textarea, select") && field.closest("[data-live]");
  return held || selected() || typing || $("dialog[open], .menu[open]") || $("[data-live] :checked:is([type=checkbox])");
}

// The page is asked as often as its own live parts are to be new. In between, and of a page that has none, as a search,
// the page of health has the verdict.
const shortest = (parts) => Math.min(...parts.map((part) => Number(part.dataset.live) || Infinity));
const interval = () => shortest($$("[data-live]"));
function source(now) {
  const own = shortest($$("main [data-live]"));
  if (own === Infinity || (!now && Date.now() - asked < own * 1000 - 500)) return $("[data-go=h]")?.href;
  asked = Date.now();
  return location.href;
}
const ROWS = "[data-key]:is(tr, li)";
const keysOf = (root) => $$(`[data-live] ${ROWS}`, root).map((row) => row.dataset.key);

async function refresh(now = false) {
  const from = !fetching && !document.hidden && source(now);
  if (!from) return;
  fetching = true;
  try {
    const headers = { "Glassq-Live": "1", ...(tags.has(from) && { "If-None-Match": tags.get(from) }) };
    const answer = await fetch(from, { headers, redirect: "error", cache: "no-store" });
    if (answer.status === 200) {
      tags.set(from, answer.headers.get("ETag") ?? "");
      waiting = new DOMParser().parseFromString(await answer.text(), "text/html");
    }
    lost(answer.status !== 200 && answer.status !== 304);
  } catch { lost(true); } finally { fetching = false; }
  show();
}

function lost(now) {
  document.body.classList.toggle("lost", now);
  put($("#lost"), now ? "the console does not answer, or your session is over: what you see may be old" : "");
}

const WRONG = /^(WRONG: |! )?/;
function show(anyway = false) {
  if (waiting && (anyway || !frozen())) {
    const page = waiting;
    waiting = null;
    ahead = clockOf(page) - Date.now();
    const same = page.documentElement.dataset.path === document.documentElement.dataset.path;
    for (const fresh of $$(same ? "[data-live]" : "#verdict, #paused", page)) {
      const old = document.getElementById(fresh.id);
      if (old) replace(old, fresh);
    }
    // of another page's title only whether something is wrong
    document.title = same ? page.title : page.title.match(WRONG)[0] + document.title.replace(WRONG, "");
    const icon = $("link[rel=icon]"), next = $("link[rel=icon]", page);
    if (icon && next && icon.href !== next.href) icon.href = next.getAttribute("href");
    prepare();
  }
  showFrozen();
}

// The section stays the same element; open details, what is scrolled and the focus stay. What it has to say aloud is said
// if that changed, but for numbers.
function replace(old, fresh) {
  const source = fresh.innerHTML;
  if (old.source === source) return;
  const opened = new Set($$("details[data-key][open]", old).map((each) => each.dataset.key));
  const focus = old.contains(document.activeElement) ? pathTo(document.activeElement, old) : null;
  const scrolled = $$("pre, .wide", old).map((each) => [each.scrollTop, each.scrollLeft]);
  const said = spoken(old), says = spoken(fresh);
  old.source = source;
  for (const name of ["class", "data-live"]) if (fresh.hasAttribute(name)) old.setAttribute(name, fresh.getAttribute(name));
  old.replaceChildren(...fresh.childNodes);
  for (const each of $$("details[data-key]", old)) each.open = opened.has(each.dataset.key);
  $$("pre, .wide", old).forEach((each, index) => scrolled[index] && each.scrollTo(scrolled[index][1], scrolled[index][0]));
  if (focus) refocus(focus, old);
  if (says && says.replace(/[\d,]+/g, "") !== said.replace(/[\d,]+/g, "")) tell(says);
}
const spoken = (root) => $$("[data-told]", root).map((each) => each.textContent.replace(/\s+/g, " ").trim()).join(". ");

// What had the focus is found again by its row and its name. What is no longer there leaves it to its row, to the row that
// took its place, or to the section: it never goes to another button.
const FOCUSED = "a[href], button, input, select, textarea, summary";
const nameOf = (element) => element.href ?? [element.tagName, element.name, element.value, element.textContent.trim()].join();
function pathTo(element, section) {
  const row = element.closest(ROWS);
  return { row: row?.dataset.key, at: $$(ROWS, section).indexOf(row), name: element === row ? "" : nameOf(element) };
}
function refocus({ row, at, name }, section) {
  const all = $$(ROWS, section);
  const found = all.find((each) => each.dataset.key === row);
  const named = name && $$(FOCUSED, found ?? section).find((each) => nameOf(each) === name);
  const next = (row === undefined || found) && named ? named : found ?? all[Math.min(at, all.length - 1)];
  if (next?.matches("[data-row]")) goTo(next);
  else if (next) next.focus({ preventScroll: true });
  else { section.tabIndex = -1; section.focus({ preventScroll: true }); }
}

let counted = 0;
function showFrozen() {
  let box = $(".frozen");
  const why = interval() < Infinity && frozen();
  if (!why) { box?.remove(); return; }
  if (!box) {
    box = document.createElement("div");
    box.className = "frozen";
    const words = document.createElement("span");
    const more = document.createElement("button");
    more.type = "button";
    more.addEventListener("click", () => { setHeld(false); getSelection()?.removeAllRanges(); show(true); });
    box.append(words, more);
    document.body.append(box);
  }
  const known = new Set(keysOf(document));
  const newer = waiting ? keysOf(waiting).filter((key) => !known.has(key)).length : 0;
  if (newer && newer !== counted) tell(`frozen: ${newer} newer`);
  counted = newer;
  put(box.firstChild, held ? "frozen by you" : "frozen while you choose or read");
  put(box.lastChild, newer ? `${newer} newer: show` : held || waiting ? "show what is new" : "");
  box.lastChild.hidden = !box.lastChild.textContent;
}

function setHeld(value) {
  if (held !== value) tell(value ? "frozen: what is live stands still" : "live again");
  held = value;
  stored.set("held", value ? "1" : "");
  showFrozen();
}

// -- choosing rows ------------------------------------------------------------------------------------------------------

let last = null;
function choose(box, range) {
  const boxes = $$("[data-chooser] input[name=id]");
  const from = boxes.indexOf(last), to = boxes.indexOf(box);
  if (range && from >= 0) for (const each of boxes.slice(Math.min(from, to), Math.max(from, to) + 1)) each.checked = box.checked;
  last = box;
  const many = boxes.filter((each) => each.checked).length;
  for (const every of $$("[data-all]")) { every.checked = many > 0 && many === boxes.length; every.indeterminate = many > 0 && many < boxes.length; }
  for (const words of $$("[data-marked]")) put(words, many ? `${many} chosen` : "None chosen");
  showFrozen();
}

// -- keys ---------------------------------------------------------------------------------------------------------------

let went = 0;
const rows = () => $$("[data-row]");
const current = () => document.activeElement?.closest("[data-row]");

function step(by) {
  const all = rows(), at = all.indexOf(current() ?? $("[data-row][aria-current]"));
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + by))];
  if (next) goTo(next);
}

// The row itself has the focus, so that a screen reader reads all of it; Tab goes on to what is in it.
function goTo(row) {
  for (const each of $$("[data-row][aria-current]")) each.removeAttribute("aria-current");
  row.tabIndex = -1;
  row.setAttribute("aria-current", "true");
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

// The button of this key: that for the rows that are chosen, else in the row that has the focus, else the first of the
// page, else that of the verdict.
function press(key) {
  const chooser = $("[data-chooser] input[name=id]:checked")?.closest("[data-chooser]");
  const places = [chooser, current(), $("main"), $("#verdict")].filter(Boolean);
  places.map((place) => $(`[data-key="${key}"]:is(button, a)`, place)).find(Boolean)?.click();
}

function tick(range) {
  const box = current() && $("input[type=checkbox]", current());
  if (box) { box.checked = !box.checked || range; choose(box, range); }
}

const KEYS = {
  "/": () => { $(".find")?.classList.add("here"); $("#find")?.focus(); $("#find")?.select(); },
  j: () => step(1), k: () => step(-1), x: () => tick(false), X: () => tick(true),
  a: () => $("[data-all]")?.click(), "?": help, g: () => { went = Date.now(); },
};

function onKey(event) {
  const field = event.target;
  if (event.key === "Escape" && field.matches?.("input, textarea, select")) { field.blur(); return; }
  if (event.ctrlKey || event.altKey || event.metaKey || $("dialog[open]") || stored.get("keys") === "off") return;
  if (field.matches?.("textarea, select, input:not([type=checkbox],[type=radio])") || field.isContentEditable) return;
  if (event.key === "Enter") {
    if (!field.matches?.("[data-row]")) return;
    ($("[data-open]", field) ?? $("a", field))?.click();
  } else if (went && Date.now() - went < 1500) {
    went = 0;
    $(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  } else if (event.key === " ") {
    // on a button or a box it is theirs
    if (field.matches?.("button, input, summary, a")) return;
    if (interval() < Infinity) { setHeld(!held); show(); }
  } else if (KEYS[event.key]) KEYS[event.key]();
  else if ("tplesu[]".includes(event.key)) press(event.key);
  else return;
  event.preventDefault();
}

const HELP = [["g o, g b, g q, g l, g a ...", "overview, buried, queues, live, activity ..."], ["/", "find"], ["j k", "next, previous row"],
  ["x, shift-x, a", "choose a row, all to here, or all that are listed"], ["[ ]", "newer, older part of a list"], ["Enter", "open, or press what has the focus"], ["l", "look at what the verdict, or a run, is about"], ["t", "try one"], ["p", "plan"], ["e", "archive"],
  ["s", "stop a run"], ["u", "undo a run"], ["Space", "freeze what is live"], ["Esc", "out of a field"], ["?", "this"]];

function help() {
  let box = $("#help");
  if (!box) {
    box = document.createElement("dialog");
    box.id = "help";
    box.setAttribute("aria-labelledby", "help-title");
    const title = Object.assign(document.createElement("h2"), { id: "help-title", textContent: "Keys" });
    const list = Object.assign(document.createElement("dl"), { className: "keys" });
    for (const [key, words] of HELP) {
      list.append(document.createElement("dt"), Object.assign(document.createElement("dd"), { textContent: words }));
      list.lastChild.previousSibling.append(Object.assign(document.createElement("kbd"), { textContent: key }));
    }
    const form = Object.assign(document.createElement("form"), { method: "dialog", className: "row" });
    form.append(setting("keys", "keys", [["", "on"], ["off", "off"]]), setting("theme", "colours", [["", "as the system"], ["light", "light"], ["dark", "dark"]]));
    form.append(Object.assign(document.createElement("button"), { textContent: "Close" }));
    box.append(title, list, form);
    box.addEventListener("close", showFrozen);
    document.body.append(box);
  }
  box.showModal();
}

function setting(name, words, values) {
  const label = document.createElement("label"), select = document.createElement("select");
  for (const [value, text] of values) select.add(new Option(text, value, false, (stored.get(name) ?? "") === value));
  select.addEventListener("change", () => { stored.set(name, select.value); theme(); });
  label.append(`${words} `, select);
  return label;
}

function theme() { document.documentElement.dataset.theme = stored.get("theme") ?? ""; }

// -- copying: over plain http to another name there is no clipboard but the old one ----------------------------------------

async function copy(button) {
  const text = document.getElementById(button.dataset.copy)?.textContent.trim() ?? "";
  try { await navigator.clipboard.writeText(text); } catch { oldCopy(text); }
  put(button.firstElementChild, "copied");
  tell("copied");
  setTimeout(() => { put(button.firstElementChild, "copy"); tell(""); }, 2000);
}

function oldCopy(text) {
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// -- beginning ----------------------------------------------------------------------------------------------------------

function prepare() {
  for (const each of $$("[data-copy], [data-scripted]")) each.hidden = false;
  showTimes();
}

document.addEventListener("keydown", onKey);
document.addEventListener("change", (event) => {
  const box = event.target;
  if (!box.closest?.("[data-chooser]") || box.type !== "checkbox") return;
  if ("all" in box.dataset) for (const each of $$("[data-chooser] input[name=id]")) each.checked = box.checked;
  choose(box, false);
});
document.addEventListener("click", (event) => {
  const target = event.target;
  if (event.shiftKey && target.matches("[data-chooser] input[name=id]")) choose(target, true);
  const button = target.closest?.("button");
  if (button?.dataset.copy) copy(button);
  if (button && "zone" in button.dataset) { here = !here; stored.set("zone", here ? "here" : ""); showTimes(); }
  if (button && "help" in button.dataset) help();
  for (const menu of $$(".menu[open]")) if (!menu.contains(target)) menu.open = false;
});
// A form is sent once: a second click would ask for a second plan.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
});
addEventListener("pageshow", () => { for (const form of $$("form[data-sent]")) delete form.dataset.sent; });
document.addEventListener("selectionchange", showFrozen);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(true); });

theme();
// on a phone the names of the pages are wider than the screen
const nav = $(".nav"), page = $(".nav [aria-current]");
if (page) nav.scrollLeft = page.offsetLeft - (nav.clientWidth - page.offsetWidth) / 2;
ahead = clockOf(document) - Date.now();
for (const section of $$("[data-live]")) section.source = section.innerHTML;
prepare();
showFrozen();
setInterval(showTimes, 5000);
(function poll() {
  const seconds = interval();
  setTimeout(async () => { await refresh(); poll(); }, (seconds < Infinity ? seconds : 60) * 1000);
})();
