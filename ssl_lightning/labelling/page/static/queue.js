// What this tab holds: samples to label, and answers that are not saved yet. An answer counts as saved when the server
// has said so, never before; until then it is kept here, over a reload, too, and sent again and again.

export class Trouble extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind; // lost: try again; refused: never; locked: the secret or the run is another
  }
}

export const memory = (store) => ({
  get(key) {
    try { return store().getItem(`labelling:${key}`); } catch { return null; }
  },
  set(key, value) {
    try { store().setItem(`labelling:${key}`, value); } catch { /* a browser may forbid it */ }
  },
});
export const browser = memory(() => localStorage);
export const tab = memory(() => sessionStorage);

let run = null;

export async function call(path, body) {
  const options = { signal: AbortSignal.timeout(20000) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify({ ...body, run });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Trouble("lost", "The page's program cannot be reached.");
  }
  let found = null;
  try { found = await response.json(); } catch { /* not ours */ }
  if (response.ok && found !== null) return found;
  const kinds = { 401: "locked", 403: "locked", 409: "locked", 400: "refused", 413: "refused" };
  throw new Trouble(kinds[response.status] ?? "lost", found?.error ?? `The page's program answered ${response.status}.`);
}

// A tab that was duplicated brings the identifier of the first along: whoever has it already says so.
async function identify() {
  const draw = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  let id = tab.get("session");
  const channel = new BroadcastChannel("labelling");
  if (id) {
    const taken = await new Promise((resolve) => {
      channel.onmessage = (event) => event.data.taken === id && resolve(true);
      channel.postMessage({ ask: id });
      setTimeout(() => resolve(false), 60);
    });
    if (taken) {
      tab.set("unsaved", "[]"); // they are the first one's, which sends them
      id = null;
    }
  }
  id ??= draw();
  tab.set("session", id);
  channel.onmessage = (event) => event.data.ask === id && channel.postMessage({ taken: id });
  return id;
}

export class Queue {
  items = []; // the first is shown
  unsaved = []; // {sent, annotator, item}
  undoable = []; // the last answers that were saved: [{query, answer}], those given at once together
  trouble = null;
  #answered = new Set(); // that the server may still give us as pending
  #changes = 0; // how often samples came back: an answer of before does not know of them
  #sending = false;
  #inFlight = 0;
  #request = null; // that carries what is in flight
  #given = 0; // how often somebody answered here
  #undos = Promise.resolve(); // one after the other
  #single = false;
  #taking = false;
  #wait = 0;
  #retry = null;

  constructor(told) {
    this.told = told; // functions: changed, saved, conflict, refused
  }

  async begin(state) {
    run = state.run;
    this.session = await identify();
    try {
      const kept = JSON.parse(tab.get("unsaved") ?? "[]");
      this.unsaved = kept.filter((one) => one.run === run).map((one) => ({ ...one, item: null }));
    } catch { /* damaged */ }
    this.unsaved.forEach((one) => this.#answered.add(one.sent.query));
    if (this.unsaved.length) this.send();
  }

  // Ask for samples; this also holds those that are here for longer.
  async take(wanted) {
    if (this.#taking) return;
    this.#taking = true;
    const before = this.#changes;
    try {
      const count = Math.min(200, wanted + this.unsaved.length);
      const { items } = await call("/api/take", { session: this.session, count });
      if (before === this.#changes) this.#merge(items);
      this.#well();
    } catch (trouble) {
      this.#ill(trouble);
    } finally {
      this.#taking = false;
      this.told.changed();
    }
  }

  #merge(items) {
    const there = new Set(items.map((item) => item.id));
    const here = new Set(this.items.map((item) => item.id));
    this.items = this.items.filter((item) => there.has(item.id));
    this.items.push(...items.filter((item) => !here.has(item.id) && !this.#answered.has(item.id)));
  }

  // Answer samples; `together` are undone together.
  answer(annotator, answers) {
    const group = { number: ++this.#given };
    for (const { item, kind, label, new_class, milliseconds, replaces } of answers) {
      const sent = { query: item.id, key: item.key, kind, milliseconds: Math.min(Math.round(milliseconds), 2 ** 31 - 1) };
      if (kind === "class") Object.assign(sent, { label, new_class: Boolean(new_class) });
      if (replaces) sent.replaces = replaces;
      this.unsaved.push({ sent, annotator, item, group, run });
      this.#answered.add(item.id);
    }
    const gone = new Set(answers.map(({ item }) => item.id));
    this.items = this.items.filter((item) => !gone.has(item.id));
    this.#keep();
    this.told.changed();
    this.send();
  }

  #keep() {
    tab.set("unsaved", JSON.stringify(this.unsaved.map(({ sent, annotator, run }) => ({ sent, annotator, run }))));
  }

  #batch() {
    const some = [];
    let size = 0;
    for (const one of this.unsaved) {
      size += 200 + 6 * (one.sent.key.length + (one.sent.label ?? "").length);
      const other = some.length && one.annotator !== some[0].annotator;
      const twice = some.some(({ sent }) => sent.query === one.sent.query);
      if (other || twice || (some.length && (size > 150000 || some.length >= 100 || this.#single))) break;
      some.push(one);
    }
    return some;
  }

  async send() {
    if (this.#sending) return;
    this.#sending = true;
    clearTimeout(this.#retry);
    while (this.unsaved.length) {
      const batch = this.#batch();
      this.#inFlight = batch.length;
      try {
        const sent = batch.map((one) => one.sent);
        this.#request = call("/api/answer", { annotator: batch[0].annotator, answers: sent });
        const { saved, conflict } = await this.#request;
        this.#well();
        this.#settled(batch);
        this.#note(batch, saved);
        this.told.saved(saved.length);
        if (conflict.length) this.told.conflict(conflict, batch);
      } catch (trouble) {
        if (trouble.kind !== "refused") {
          this.#ill(trouble);
          this.#retry = setTimeout(() => this.send(), this.#wait);
          break;
        }
        if (batch.length > 1) {
          this.#single = true; // all or none: find the one that is refused
          continue;
        }
        this.#settled(batch);
        if (batch[0].item && !batch[0].sent.replaces) this.giveBack([batch[0].item]);
        this.told.refused(trouble.message);
      }
    }
    if (!this.unsaved.length) this.#single = false;
    this.#inFlight = 0;
    this.#sending = false;
    this.told.changed();
  }

  #settled(batch) {
    this.unsaved.splice(0, batch.length);
    this.#inFlight = 0;
    this.#keep();
  }

  #note(batch, saved) {
    const numbers = new Map(saved.map((one) => [one.query, one.answer]));
    for (const one of batch) {
      const answer = numbers.get(one.sent.query);
      if (!answer) continue;
      const last = this.undoable.at(-1);
      if (last && one.group && last.group === one.group) last.answers.push(answer);
      else this.undoable.push({ group: one.group, answers: [answer] });
    }
    this.undoable.splice(0, this.undoable.length - 200);
  }

  // Take back what was answered last when this was asked for: here, if it was not sent yet, or at the server. What is on its
  // way is waited for: whether the server has it is not known before.
  undo(annotator) {
    const given = this.#given;
    const done = this.#undos.then(() => this.#undo(annotator, given));
    this.#undos = done.catch(() => {});
    return done;
  }

  async #undo(annotator, given) {
    const meant = ({ group }) => (group?.number ?? 0) <= given;
    let last = this.unsaved.findLastIndex(meant);
    while (last >= 0 && last < this.#inFlight) {
      await this.#request.catch(() => {});
      last = this.unsaved.findLastIndex(meant);
    }
    if (last >= 0) {
      const { group } = this.unsaved[last];
      const first = this.unsaved.findIndex((one, place) => place >= this.#inFlight && one.group === group);
      const back = group ? this.unsaved.splice(first, last - first + 1) : this.unsaved.splice(last, 1);
      back.forEach((one) => this.#answered.delete(one.sent.query));
      this.#keep();
      this.giveBack(back.filter((one) => one.item && !one.sent.replaces).map((one) => one.item));
      return back.length;
    }
    const saved = this.undoable.findLast(meant);
    const answers = saved?.answers ?? [];
    const { items } = await call("/api/undo", { session: this.session, annotator, answers: [...answers].reverse() });
    this.undoable = this.undoable.filter((one) => one !== saved);
    this.giveBack(items.filter((item) => !item.answer));
    return items.length;
  }

  giveBack(items) {
    this.#changes += 1;
    items.forEach((item) => this.#answered.delete(item.id));
    const ids = new Set(items.map((item) => item.id));
    this.items = [...items, ...this.items.filter((item) => !ids.has(item.id))];
    this.told.changed();
  }

  // The tab is left, or loaded anew: what is not saved is sent without waiting (twice does no harm), and others may have
  // what it holds, a few seconds from now.
  leave() {
    const part = (path, fields) =>
      navigator.sendBeacon(path, new Blob([JSON.stringify({ ...fields, run })], { type: "application/json" }));
    const batch = this.#batch();
    if (batch.length) part("/api/answer", { annotator: batch[0].annotator, answers: batch.map((one) => one.sent) });
    part("/api/release", { session: this.session });
  }

  #well() {
    this.trouble = null;
    this.#wait = 0;
  }

  #ill(trouble) {
    this.trouble = trouble;
    this.#wait = Math.min(10000, this.#wait ? 2 * this.#wait : 500);
    this.told.changed();
  }
}
