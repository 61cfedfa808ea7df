// The classes: a list to click, with keys for the first nine, and a field that finds any by typing.

import { el } from "./show.js";

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

export class Classes {
  names = [];
  #counts = new Map();
  #active = 0;
  #drawn = "";

  constructor(list, field, told) {
    this.list = list;
    this.field = field;
    this.told = told; // functions: choose(name), add(text), leave()
    field.addEventListener("input", () => {
      this.#active = 0;
      this.#draw();
    });
    field.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const node = event.target.closest("[role=option]");
      if (node) this.#choose(Number(node.dataset.place));
    });
  }

  show(classes) {
    this.names = classes.map((one) => one.name);
    this.#counts = new Map(classes.map((one) => [one.name, one.count]));
    this.#draw();
  }

  bump(name, by) {
    this.#counts.set(name, Math.max(0, (this.#counts.get(name) ?? 0) + by));
    this.#draw();
  }

  // The class that one of the keys 1 to 9 stands for.
  byKey(digit) {
    return this.names[digit - 1];
  }

  // A class that looks the same, whatever the case and however its accents are coded.
  same(name) {
    const found = this.names.find((one) => one === name) ?? this.names.find((one) => one.normalize("NFC").toLowerCase() === name.normalize("NFC").toLowerCase());
    return found ?? null;
  }

  #found() {
    const wanted = plain(this.field.value.trim());
    if (!wanted) return this.names;
    const some = this.names.filter((name) => plain(name).includes(wanted));
    const rank = (name) => (plain(name) === wanted ? 0 : plain(name).startsWith(wanted) ? 1 : 2);
    return some.sort((one, other) => rank(one) - rank(other));
  }

  #draw() {
    const found = this.#found();
    const key = JSON.stringify(found);
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.list.replaceChildren(...found.map((name, place) => this.#option(name, place)));
      if (!found.length) {
        const text = this.field.value.trim();
        const hint = text ? `There is no class "${text}"; Enter adds it.` : "There are no classes yet; add the first.";
        this.list.append(el("p", { class: "none", dir: "auto" }, hint));
      }
    }
    const typing = document.activeElement === this.field && this.field.value.trim() !== "";
    [...this.list.querySelectorAll("[role=option]")].forEach((node, place) => {
      node.querySelector(".count").textContent = this.#counts.get(found[place]) ?? 0;
      node.setAttribute("aria-selected", typing && place === this.#active);
    });
    const active = typing && found.length ? `class-${this.#active}` : "";
    this.field.setAttribute("aria-activedescendant", active);
    if (active) document.getElementById(active)?.scrollIntoView({ block: "nearest" });
  }

  #option(name, place) {
    const number = this.names.indexOf(name);
    const key = number < 9 ? el("kbd", {}, String(number + 1)) : el("span", { class: "nokey" });
    return el("div", { role: "option", id: `class-${place}`, "data-place": place, "aria-selected": "false", class: "class" },
      key, el("span", { class: "name", dir: "auto" }, name), el("span", { class: "count" }));
  }

  #choose(place) {
    const name = this.#found()[place];
    const typed = this.field.value !== "";
    this.clear();
    if (name !== undefined) this.told.choose(name);
    if (typed) this.told.leave();
  }

  clear() {
    this.field.value = "";
    this.#active = 0;
    this.#draw();
  }

  #key(event) {
    const count = this.#found().length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (count) this.#active = (this.#active + step + count) % count;
      this.#draw();
    } else if (event.key === "Enter" && !event.isComposing && !event.repeat) {
      const text = this.field.value.trim();
      if (!text) return;
      if (count) this.#choose(this.#active);
      else {
        this.clear();
        this.told.add(text);
      }
    } else if (event.key === "Escape") {
      this.clear();
      this.told.leave();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
