// The grid: many samples at once; click, Shift and arrow keys select, and one answer goes to all that are selected.

import { card } from "./show.js";

export class Grid {
  selected = new Set(); // numbers of queries
  #items = [];
  #cursor = 0;
  #anchor = 0;
  #drawn = "";

  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    root.addEventListener("click", (event) => this.#click(event));
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  show(items) {
    this.#items = items;
    const there = new Set(items.map((item) => item.id));
    this.selected.forEach((id) => there.has(id) || this.selected.delete(id));
    this.#cursor = Math.max(0, Math.min(this.#cursor, items.length - 1));
    this.root.classList.toggle("wide", items.some((item) => item.kind === "text" || item.kind === "row"));
    const drawn = items.map((item) => item.id).join();
    if (drawn !== this.#drawn) {
      const focused = this.root.contains(document.activeElement);
      const old = new Map([...this.root.children].map((node) => [node.dataset.id, node]));
      this.root.replaceChildren(...items.map((item, place) => {
        const node = old.get(String(item.id)) ?? card(item, place);
        node.dataset.id = item.id;
        node.dataset.place = place;
        return node;
      }));
      this.#drawn = drawn;
      if (focused) this.#node()?.focus();
    }
    this.#mark();
  }

  // What an answer goes to: the selected, or the one that has the focus.
  get chosen() {
    const some = this.#items.filter((item) => this.selected.has(item.id));
    if (some.length || !this.root.contains(document.activeElement)) return some;
    return this.#items.slice(this.#cursor, this.#cursor + 1);
  }

  selectAll() {
    this.#items.forEach((item) => this.selected.add(item.id));
    this.#mark();
  }

  selectNone() {
    this.selected.clear();
    this.#mark();
  }

  play() {
    this.#node()?.querySelector(".play")?.click();
  }

  focus() {
    this.#node()?.focus();
  }

  #node(place = this.#cursor) {
    return this.root.children[place];
  }

  #mark() {
    [...this.root.children].forEach((node, place) => {
      node.setAttribute("aria-selected", this.selected.has(this.#items[place].id));
      node.tabIndex = place === this.#cursor ? 0 : -1;
    });
    this.changed();
  }

  #range(to) {
    const [from, until] = [Math.min(this.#anchor, to), Math.max(this.#anchor, to)];
    this.#items.slice(from, until + 1).forEach((item) => this.selected.add(item.id));
  }

  #toggle(place) {
    const { id } = this.#items[place];
    if (!this.selected.delete(id)) this.selected.add(id);
    this.#anchor = place;
  }

  #click(event) {
    const node = event.target.closest(".card");
    if (!node) return;
    const place = Number(node.dataset.place);
    if (event.shiftKey) this.#range(place);
    else this.#toggle(place);
    this.#cursor = place;
    this.#node().focus();
    this.#mark();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const across = getComputedStyle(this.root).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -this.#cursor, End: this.#items.length };
    if (event.key in steps) {
      const to = Math.max(0, Math.min(this.#cursor + steps[event.key], this.#items.length - 1));
      if (event.shiftKey) this.#range(to);
      else this.#anchor = to;
      this.#cursor = to;
    } else if (event.key === " ") {
      if (event.shiftKey) this.#range(this.#cursor);
      else this.#toggle(this.#cursor);
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.#mark();
    this.#node()?.focus();
  }
}
