// How a sample looks. Whatever comes from data becomes text or the address of a picture, never HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const LARGEST = 10; // times as large as it is: what is very small is not known better when it is very large

export const percent = (share) => `${(100 * share).toFixed(share > 0.995 || share < 0.1 ? 1 : 0)} %`;
const cut = (text, longest) => (text.length > longest ? `${text.slice(0, longest)} ...` : text);

function row(item, most = Infinity) {
  const pairs = Object.entries(item.row);
  const lines = pairs.slice(0, most).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row", dir: "auto" }, name), el("td", { dir: "auto" }, cut(value, most === Infinity ? 2000 : 60))));
  return el("table", { class: "values" }, el("tbody", {}, ...lines));
}

const inline = (values) => Object.entries(values ?? {}).map((pair) => pair.join(": ")).join(", ");

// A sample, as large as there is room.
export class Stage {
  level = 1;

  constructor(root, near) {
    this.root = root;
    this.near = near; // where the neighbours are shown
    new ResizeObserver(() => this.fit()).observe(root);
  }

  show(item, prefetched) {
    this.level = 1;
    this.item = item;
    this.picture = this.sound = null;
    this.box = el("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "Sample" });
    if (item.kind === "image") this.box.append(this.#image(item, prefetched));
    else if (item.kind === "audio") this.box.append(this.#audio(item));
    else if (item.kind === "text") this.box.append(el("p", { class: "text", dir: "auto" }, item.text));
    else if (item.kind === "row") this.box.append(row(item));
    else this.box.append(el("p", { class: "missing" }, "Nothing can be shown of this sample; skip it if its name does not tell."));
    if (item.kind === "image") this.box.classList.add("picture");
    const caption = item.caption ? el("p", { class: "caption", dir: "auto" }, item.caption) : null;
    this.root.replaceChildren(...[this.box, caption, this.#facts(item)].filter(Boolean));
    this.#neighbours(item);
    this.fit();
  }

  // What is not seen yet cannot be labelled.
  get ready() {
    return !this.picture || this.picture.complete;
  }

  #image(item, prefetched) {
    this.picture = prefetched ?? el("img", { src: item.media });
    this.picture.alt = item.key;
    this.picture.addEventListener("load", () => this.fit());
    this.picture.addEventListener("error", () => this.box.append(el("p", { class: "missing" }, "The picture cannot be loaded.")));
    this.picture.onclick = (event) => this.zoom(this.level === 1 ? 2 : 1, event);
    return this.picture;
  }

  #audio(item) {
    this.sound = el("audio", { controls: true, preload: "auto", src: item.media, "aria-label": item.key });
    return this.sound;
  }

  play() {
    if (!this.sound) return;
    if (this.sound.paused) this.sound.play().catch(() => {});
    else this.sound.pause();
  }

  #facts(item) {
    const guess = item.guess === null ? null : el("span", { class: "chip guess" }, "The model's guess: ",
      el("b", { dir: "auto" }, item.guess), item.confidence === null ? null : ` ${percent(item.confidence)}`);
    return el("p", { class: "facts" }, guess, el("span", { class: "chip" }, item.why), el("span", { class: "key", dir: "auto" }, item.key));
  }

  #neighbours(item) {
    const near = item.neighbours.map((one) => el("li", {}, small(one, one.label), el("span", { dir: "auto" }, one.label)));
    this.near.replaceChildren(el("h2", {}, "Labelled, and most like it for the model"), el("ul", {}, ...near));
  }

  fit() {
    const picture = this.picture;
    if (!picture?.naturalWidth) return;
    const width = this.box.clientWidth, height = this.box.clientHeight;
    const scale = Math.min(width / picture.naturalWidth, height / picture.naturalHeight, LARGEST) * this.level;
    picture.style.width = `${Math.max(1, Math.floor(picture.naturalWidth * scale))}px`;
    picture.classList.toggle("coarse", this.level > 1 && scale >= 4); // pixels are for a close look
    this.box.classList.toggle("zoomed", this.level > 1);
  }

  zoom(level, event) {
    if (!this.picture?.naturalWidth) return;
    const box = this.picture.getBoundingClientRect();
    const x = event ? (event.clientX - box.left) / box.width : 0.5, y = event ? (event.clientY - box.top) / box.height : 0.5;
    this.level = Math.min(8, Math.max(1, level));
    this.fit();
    this.box.scrollLeft = x * this.picture.offsetWidth - this.box.clientWidth / 2;
    this.box.scrollTop = y * this.picture.offsetHeight - this.box.clientHeight / 2;
  }
}

// A sample, small: of a neighbour, or of a line of the history.
export function small(one, name) {
  const kind = one.sight ?? one.kind;
  if (kind === "image" && one.media) return el("img", { class: "small", src: one.media, alt: name, loading: "lazy" });
  if (kind === "audio" && one.media) return el("audio", { class: "small", controls: true, preload: "none", src: one.media, "aria-label": name });
  return el("span", { class: "small", dir: "auto" }, cut(one.text || inline(one.row) || "nothing to show", 120));
}

// A sample of the grid.
export function card(item, place) {
  let sight;
  if (item.kind === "image") sight = el("img", { src: item.media, alt: "", draggable: "false" });
  else if (item.kind === "audio") sight = playButton(item);
  else if (item.kind === "row") sight = row(item, 5);
  else sight = el("span", { class: "text", dir: "auto" }, cut(item.text || item.caption || "nothing to show", 200));
  const guess = item.guess === null ? null
    : el("span", { class: "guess" }, el("b", { dir: "auto" }, item.guess), item.confidence === null ? null : ` ${percent(item.confidence)}`);
  const said = `${item.key}${item.guess === null ? "" : `, guess ${item.guess}`}`;
  return el("div", { role: "option", class: "card", tabindex: "-1", "aria-selected": "false", "aria-label": said, "data-place": place },
    el("span", { class: "tick", "aria-hidden": "true" }), sight, guess, item.caption && item.kind === "image"
      ? el("span", { class: "caption", dir: "auto" }, cut(item.caption, 80)) : null);
}

function playButton(item) {
  let sound = null;
  return el("span", { class: "play", onclick: (event) => {
    event.stopPropagation();
    sound ??= new Audio(item.media);
    if (sound.paused) sound.play().catch(() => {});
    else sound.pause();
  } }, "Play");
}
