// The second look: the history, labels that are likely wrong, samples that somebody was unsure of or skipped.

import { call } from "./queue.js";
import { el, percent, small } from "./show.js";

const PAGE = 40;
const WORDS = { class: "", skip: "skipped", unsure: "unsure", undo: "took an answer back", audit: "second opinion" };
const SAID = {
  history: "What was answered, the last first. An answer that is changed stays in the history.",
  doubts: "The newest model expects another class. Confirm the label or correct it.",
  unsure: "Somebody was unsure of these. Can you tell?",
  skip: "These were skipped: they could not be labelled.",
};

export class Panel {
  #before = null;
  #asked = 0;

  constructor(dialog, told) {
    this.dialog = dialog;
    this.told = told; // functions: visit(item), confirm(item, label), trouble(error)
    this.lines = dialog.querySelector("#lines");
    this.more = dialog.querySelector("#more");
    this.more.onclick = () => this.#history();
    this.tabs = [...dialog.querySelectorAll("[data-which]")];
    this.tabs.forEach((button) => (button.onclick = () => this.open(button.dataset.which)));
  }

  async open(which = "history") {
    this.tabs.forEach((button) => button.setAttribute("aria-pressed", button.dataset.which === which));
    this.dialog.querySelector("#panel-title").textContent = this.tabs.find((button) => button.dataset.which === which).textContent;
    this.dialog.querySelector("#panel-what").textContent = SAID[which];
    this.lines.replaceChildren();
    this.more.hidden = true;
    this.#before = null;
    if (!this.dialog.open) this.dialog.showModal();
    const asked = ++this.#asked;
    if (which === "history") return this.#history();
    const found = await this.#get(`/api/review?which=${which}`);
    if (!found || asked !== this.#asked) return;
    this.lines.append(...found.items.map((item) => this.#look(item, which)));
    if (!found.items.length) this.lines.append(el("li", { class: "none" }, "There is none."));
  }

  async #get(path) {
    try {
      return await call(path);
    } catch (trouble) {
      this.told.trouble(trouble);
      return null;
    }
  }

  async #history() {
    const asked = ++this.#asked;
    const after = this.#before === null ? "" : `&before=${this.#before}`;
    const found = await this.#get(`/api/history?limit=${PAGE}${after}`);
    if (!found || asked !== this.#asked) return;
    this.lines.append(...found.events.map((event) => this.#event(event)));
    this.more.hidden = found.events.length < PAGE;
    this.#before = found.events.at(-1)?.id ?? this.#before;
    if (!this.lines.children.length) this.lines.append(el("li", { class: "none" }, "Nothing was answered yet."));
  }

  #event(event) {
    const said = el("p", {}, event.label === null ? WORDS[event.kind] : el("b", { dir: "auto" }, event.label),
      event.kind === "audit" ? " (second opinion)" : "", " by ", el("span", { dir: "auto" }, event.annotator || "nobody named"));
    const when = new Date(event.answered_at).toLocaleString();
    const about = el("p", { class: "about", dir: "auto" }, `${when} · round ${event.round} · ${event.key}`);
    const change = event.holds ? el("button", { onclick: () => this.#visit(event.query) }, "Change") : el("span", { class: "old" }, "earlier");
    return el("li", {}, small(event, event.key), el("div", {}, said, about), change);
  }

  #look(item, which) {
    const doubt = which === "doubts";
    const said = doubt
      ? el("p", {}, "labelled ", el("b", { dir: "auto" }, item.answer.label), "; the model expects ", el("b", { dir: "auto" }, item.guess ?? "another"),
        item.confidence === null ? null : ` (${percent(item.confidence)})`)
      : el("p", {}, WORDS[item.answer.kind]);
    const line = el("li", {});
    const done = (label) => {
      line.remove();
      this.told.confirm(item, label);
    };
    const buttons = el("div", { class: "choose" });
    if (doubt) {
      buttons.append(el("button", { onclick: () => done(item.answer.label) }, "Keep ", el("b", { dir: "auto" }, item.answer.label)));
      if (item.guess !== null) buttons.append(el("button", { onclick: () => done(item.guess) }, "Make it ", el("b", { dir: "auto" }, item.guess)));
    }
    buttons.append(el("button", { onclick: () => this.#visit(item.id) }, doubt ? "Look closer" : "Answer"));
    line.append(small({ ...item, text: item.text ?? item.caption }, item.key), el("div", {}, said, el("p", { class: "about", dir: "auto" }, item.key)), buttons);
    return line;
  }

  async #visit(number) {
    const found = await this.#get(`/api/item/${number}`);
    if (!found) return;
    this.dialog.close();
    this.told.visit(found.item);
  }
}
