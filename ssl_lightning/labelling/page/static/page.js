// The labelling page: what a key or a click does, and what is shown when.

import { Classes } from "./classes.js";
import { Grid } from "./grid.js";
import { Panel } from "./panel.js";
import { Queue, browser, call, tab } from "./queue.js";
import { Stage } from "./show.js";

const at = (id) => document.getElementById(id);
const ONE = 16, MANY = 48, FEW = 3; // samples that are held in the two views; while others have none
const AHEAD = 6; // pictures that are loaded before their turn
const POLL = 2500, HIDDEN = 15000; // milliseconds

let state = null;
let view = tab.get("view") === "grid" ? "grid" : "one";
let me = browser.get("annotator") ?? "";
let visited = null; // an earlier answer that is being changed
let shown = null; // the sample that is seen
let shownAt = performance.now();
let lastTaken = 0;
const pictures = new Map();

const stage = new Stage(at("sample"), at("near"));
const grid = new Grid(at("grid"), () => sayChosen());
const queue = new Queue({
  changed: () => draw(),
  saved: () => pollSoon(),
  refused: (message) => warn(message),
  conflict: (found, batch) => {
    for (const one of found) {
      const { key } = batch.find(({ sent }) => sent.query === one.query).sent;
      const what = one.kind === "class" ? `"${one.label}"` : one.kind ?? "an undone answer";
      warn(`${key} was answered by ${one.annotator ?? "somebody"} meanwhile: ${what} stays. The history lets you change it.`);
    }
    pollSoon();
  },
});
const classes = new Classes(at("classes"), at("find"), {
  choose: (name) => label("class", name),
  add: (text) => askClass(text),
  leave: () => rest(),
});
const panel = new Panel(at("panel"), {
  visit: (item) => visit(item),
  confirm: (item, name) => {
    send([item], "class", name, { replaces: item.answer.id });
    say(`${item.key}: ${name}`);
  },
  trouble: (trouble) => warn(trouble.message),
});

// ---- what is said

let silence = null;
function say(text) {
  at("say").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => (at("say").textContent = ""), 4000);
}

let calm = null;
function warn(text) {
  at("notice").textContent = text;
  at("notice").hidden = false;
  say(text);
  clearTimeout(calm);
  calm = setTimeout(() => (at("notice").hidden = true), 12000);
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const answered = (counts) => (counts.class ?? 0) + (counts.skip ?? 0) + (counts.unsure ?? 0);
const total = (counts) => answered(counts) + (counts.pending ?? 0);

// ---- what is shown

function draw() {
  const trouble = queue.trouble, waiting = queue.unsaved.length;
  at("trouble").hidden = !trouble;
  if (trouble) {
    const kept = waiting ? ` ${count(waiting, "answer")} not saved yet: kept here, and sent again.` : "";
    const lead = trouble.kind === "locked" ? "" : "Connection lost. ";
    const text = `${lead}${trouble.message}${kept}`;
    if (at("trouble").textContent !== text) at("trouble").textContent = text;
  }
  at("unsaved").hidden = !waiting;
  at("unsaved").textContent = `${count(waiting, "answer")} not saved yet`;
  if (!state) return;
  drawHead();
  drawWork();
  prefetch();
}

function drawHead() {
  const { round_counts: now, counts: all } = state;
  at("run").textContent = state.name;
  document.title = `${all.pending ? `(${all.pending}) ` : ""}${state.name}: labelling`;
  at("round").textContent = state.round === null ? "" : state.round < 0 ? "labels to begin with" : `round ${state.round} · ${state.strategy}`;
  at("bar").max = Math.max(1, total(now));
  at("bar").value = answered(now);
  at("progress").textContent = state.round === null ? "nothing is asked yet"
    : `${answered(now)} of ${total(now)} in this round · ${answered(all)} of ${total(all)} in all`;
  at("go-on").hidden = state.finished || state.closed || !now.pending || state.round === null;
  at("open-doubts").hidden = !state.doubts;
  at("open-doubts").textContent = `Likely wrong: ${state.doubts}`;
  at("who").textContent = me || "Your name";
}

function drawWork() {
  const items = visited ? [visited] : queue.items;
  const one = view === "one" || visited;
  at("rest").hidden = items.length > 0;
  at("right").hidden = !items.length;
  at("main").classList.toggle("idle", !items.length);
  at("sample").hidden = !items.length || !one;
  at("near").hidden = at("sample").hidden || !items[0].neighbours.length;
  at("grid").hidden = !items.length || Boolean(one);
  at("view").querySelector(".word").textContent = view === "one" ? "Grid" : "One by one";
  at("visit").hidden = !visited;
  if (!items.length) {
    drawRest();
    shown = null;
  } else if (one) {
    if (shown?.id !== items[0].id || shown.answer?.id !== items[0].answer?.id) {
      const focused = at("sample").contains(document.activeElement);
      shown = items[0];
      shownAt = performance.now();
      stage.show(shown, pictures.get(shown.id));
      if (focused) at("sample").focus();
    }
  } else {
    shown = null;
    grid.show(items.slice(0, MANY));
  }
  sayChosen();
}

function drawRest() {
  const [title, text] = restText();
  if (at("rest").firstElementChild.textContent !== title) at("rest").firstElementChild.textContent = title;
  if (at("rest").lastElementChild.textContent !== text) at("rest").lastElementChild.textContent = text;
}

function restText() {
  const labels = count(state.counts.class ?? 0, "label");
  const later = "This page goes on by itself.";
  if (state.finished) return ["The run is finished", `Thank you: it learned from ${labels}. Earlier answers are in the history.`];
  if (state.round === null) return ["Nothing is asked yet", `The run is training. ${later}`];
  if (queue.unsaved.length) return ["Saving", `${count(queue.unsaved.length, "answer")} on the way.`];
  if (state.counts.pending) return ["Others have the rest", `${count(state.counts.pending, "sample")} are being looked at by others. ${later}`];
  return ["Thank you", `Everything that was asked for is answered: ${labels} so far. The model is training. ${later}`];
}

function sayChosen() {
  const many = view === "grid" && !visited && queue.items.length > 0;
  at("selection").hidden = !many;
  const size = grid.selected.size;
  at("selection").textContent = size ? `${count(size, "sample")} selected: one answer labels all of them.` : "Select samples by clicks or Space, then answer once for all.";
}

function prefetch() {
  const next = queue.items.slice(0, view === "one" ? AHEAD : 0);
  for (const item of next) {
    if (item.kind !== "image" || pictures.has(item.id)) continue;
    const picture = new Image();
    picture.src = item.media;
    picture.decode?.().catch(() => {});
    pictures.set(item.id, picture);
  }
  for (const id of pictures.keys()) if (pictures.size > 4 * AHEAD && !next.some((item) => item.id === id)) pictures.delete(id);
}

// ---- answers

function send(items, kind, name, more = {}) {
  const milliseconds = Math.max(0, performance.now() - shownAt) / items.length;
  const fields = { kind, milliseconds, ...more };
  if (kind === "class") fields.label = name;
  const pending = items.filter((item) => !item.answer);
  if (pending.length && state) {
    for (const counts of [state.counts, state.round_counts]) {
      const some = counts === state.counts ? pending.length : pending.filter((item) => item.round === state.round).length;
      counts.pending = Math.max(0, (counts.pending ?? 0) - some);
      counts[kind] = (counts[kind] ?? 0) + some;
    }
    if (kind === "class") classes.bump(name, pending.length);
  }
  shownAt = performance.now();
  queue.answer(me, items.map((item) => ({ item, ...fields })));
  if (isLow()) take();
}

function label(kind, name, more = {}) {
  if (!me) return askName();
  const items = visited ? [visited] : view === "one" ? queue.items.slice(0, 1) : grid.chosen;
  if (!items.length) return say(view === "grid" ? "Select a sample first." : "There is nothing to label now.");
  if (items[0] === shown && kind === "class" && !stage.ready) return say("The picture is still loading.");
  if (visited) more = { ...more, replaces: visited.answer?.id };
  visited = null;
  send(items, kind, name, more);
  const what = kind === "class" ? name : kind === "skip" ? "skipped" : "unsure";
  const next = queue.items.length ? "" : " That was the last.";
  say(`${items.length === 1 ? what : `${count(items.length, "sample")}: ${what}`}.${next}`);
}

async function undo() {
  if (!me) return askName();
  if (visited) return leaveVisit();
  try {
    const back = await queue.undo(me);
    say(back ? `Undone: ${count(back, "answer")}.` : "There is nothing to undo.");
    pollSoon();
  } catch (trouble) {
    warn(`Not undone: ${trouble.message}`);
  }
}

function visit(item) {
  visited = item;
  const held = item.answer;
  const what = !held ? "It has no answer now." : held.kind === "class" ? `It is labelled "${held.label}".` : `It was answered: ${held.kind}.`;
  at("visit").firstElementChild.textContent = `You are changing an earlier answer. ${what}`;
  draw();
  rest();
}

function leaveVisit() {
  visited = null;
  draw();
  rest();
}

// Put the focus where the keys work.
function rest() {
  if (view === "grid" && !visited) grid.focus();
  else at("sample").focus({ preventScroll: true });
}

// ---- dialogs

function ask(id, done) {
  const dialog = at(id);
  const input = dialog.querySelector("input[type=text]"), wrong = dialog.querySelector(".wrong");
  const finish = () => {
    const refusal = done(input?.value.trim() ?? "");
    if (typeof refusal === "string") wrong.textContent = refusal;
    else dialog.close();
  };
  if (wrong) wrong.textContent = "";
  dialog.querySelector(".main").onclick = finish;
  if (input) input.onkeydown = (event) => {
    if (event.key === "Enter" && !event.isComposing && !event.repeat) {
      event.preventDefault();
      finish();
    }
  };
  if (!dialog.open) dialog.showModal();
  input?.select();
}

const unreadable = (name) => !name || /[\p{C}\p{Zl}\p{Zp}]/u.test(name) || /[^\S ]/u.test(name);

function askName() {
  at("name").value = me;
  ask("ask-name", (name) => {
    if (unreadable(name)) return "Please give a name.";
    me = name;
    browser.set("annotator", me);
    draw();
    return null;
  });
}

function askClass(text = "") {
  if (!me) return askName();
  at("class-name").value = text;
  const many = view === "grid" && !visited ? grid.chosen.length : 1;
  at("ask-class-what").textContent = many === 1 ? "The sample will be labelled with it." : `${count(many, "sample")} will be labelled with it.`;
  ask("ask-class", (given) => {
    const name = given.normalize("NFC");
    if (unreadable(name)) return "Give a name of letters, digits and spaces.";
    const same = classes.same(name);
    if (same === null && state) {
      state.classes.push({ name, count: 0 });
      classes.show(state.classes);
    }
    label("class", same ?? name, { new_class: same === null });
    return null;
  });
}

function askGoOn() {
  const { round, round_counts: now } = state;
  at("ask-go-on-what").textContent = `${answered(now)} of ${total(now)} are answered. The model learns from these now; the other ${now.pending} stay open, and count in a later round if somebody answers them.`;
  ask("ask-go-on", () => {
    call("/api/close", { round }).then(poll).then(() => say("The run goes on.")).catch((trouble) => warn(trouble.message));
    return null;
  });
}

// ---- keys and buttons

const toggleView = () => {
  view = view === "one" ? "grid" : "one";
  tab.set("view", view);
  shownAt = performance.now();
  draw();
  take();
  rest();
  say(view === "one" ? "One at a time" : "Grid");
};

function paint(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  at("dark").setAttribute("aria-pressed", dark);
}
const isDark = () => document.documentElement.dataset.theme === "dark";
const toggleDark = () => {
  paint(!isDark());
  browser.set("theme", isDark() ? "dark" : "light");
};

const actions = {
  n: () => askClass(), s: () => label("skip"), u: () => label("unsure"), z: undo, g: toggleView, h: () => panel.open(),
  d: toggleDark, "?": () => at("help").showModal(), "/": () => at("find").focus(), c: () => at("find").focus(),
  "+": () => stage.zoom(2 * stage.level), "=": () => stage.zoom(2 * stage.level), "-": () => stage.zoom(stage.level / 2),
  p: () => (view === "grid" && !visited ? grid.play() : stage.play()), a: () => view === "grid" && grid.selectAll(),
  Escape: () => (visited ? leaveVisit() : grid.selectNone()),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select"), dialog = document.querySelector("dialog[open]");
  if (event.defaultPrevented || event.isComposing || dialog || typing) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    return undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || (event.repeat && !"+-=".includes(event.key))) return;
  if (!at("keys").checked && !["?", "Escape"].includes(event.key)) return;
  const name = /^[1-9]$/.test(event.key) ? classes.byKey(Number(event.key)) : undefined;
  const action = name !== undefined ? () => label("class", name) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const clicks = {
  new: () => askClass(), skip: () => label("skip"), unsure: () => label("unsure"), undo, view: toggleView, dark: toggleDark,
  "open-history": () => panel.open(), "open-doubts": () => panel.open("doubts"), "open-help": () => at("help").showModal(),
  who: askName, "go-on": askGoOn,
};
for (const [id, action] of Object.entries(clicks)) at(id).addEventListener("click", action);
at("visit").querySelector("button").addEventListener("click", leaveVisit);
document.querySelectorAll("dialog .cancel").forEach((button) => button.addEventListener("click", () => button.closest("dialog").close()));
at("ask-name").addEventListener("cancel", (event) => me || event.preventDefault());
at("ask-name").addEventListener("close", () => me || askName());
at("keys").checked = browser.get("keys") !== "off";
at("keys").addEventListener("change", () => browser.set("keys", at("keys").checked ? "on" : "off"));
const theme = browser.get("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
paint(theme ? theme === "dark" : prefersDark.matches);
prefersDark.addEventListener("change", (event) => browser.get("theme") || paint(event.matches));

// ---- time

const want = () => (view === "grid" ? MANY : state?.scarce ? FEW : ONE);
const isLow = () => queue.items.length < Math.max(2, want() / 2);
function take() {
  lastTaken = Date.now();
  return state && !state.finished ? queue.take(want()) : undefined;
}

let next = null;
function pollSoon(delay = 300) {
  clearTimeout(next);
  next = setTimeout(poll, delay);
}

async function poll() {
  clearTimeout(next);
  try {
    const found = await call("/api/state");
    const first = state === null;
    if (!queue.unsaved.length || first) { // what is on its way is counted here already
      state = found;
      classes.show(state.classes);
    }
    if (first) await queue.begin(found);
    if (!queue.unsaved.length && queue.trouble) queue.trouble = null;
    const low = isLow() && found.counts.pending > queue.items.length;
    const share = found.scarce && view === "one" && queue.items.length > FEW;
    if (first || low || share || Date.now() - lastTaken > 1000 * found.lease / 3) await take();
    if (found.finished) queue.items = [];
  } catch (trouble) {
    queue.trouble = trouble;
  }
  draw();
  pollSoon(document.hidden ? HIDDEN : POLL);
}

document.addEventListener("visibilitychange", () => document.hidden || poll().then(take));
addEventListener("online", () => queue.send());
addEventListener("pagehide", () => queue.session && queue.leave());
addEventListener("pageshow", (event) => event.persisted && poll().then(take));
addEventListener("beforeunload", (event) => queue.trouble && queue.unsaved.length && event.preventDefault());

poll().then(() => me || askName());
