/** Objects of a photo: found by the service, outlined over the photo and its depth, listed from near to far. */

import { action, field, make, press, problemBox, range } from "./make.js";
import { ask, save } from "./service.js";

const COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [0, 114, 178], [213, 94, 0], [204, 121, 167]]; // as of the overlay
const USUAL = 0.5, WAIT = 250; // threshold, and ms until a slider that moved is asked for

/** Return the mask (1 inside) of run lengths as the JSON has them, COCO's, in width x height of its pixels. */
export function maskOf({ size: [rows, columns], counts }, width, height) {
  const runs = [], whole = new Uint8Array(rows * columns), mask = new Uint8Array(width * height);
  for (let i = 0; i < counts.length;) {
    let value = 0, place = 1, bits;
    do {
      bits = counts.charCodeAt(i++) - 48;
      value += (bits & 31) * place;
      place *= 32;
    } while (bits & 32);
    if (bits & 16) value -= place;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  runs.reduce((at, run, i) => { if (i % 2) whole.fill(1, at, at + run); return at + run; }, 0);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * rows) / height);
    for (let x = 0; x < width; x++) mask[y * width + x] = whole[Math.floor(((x + 0.5) * columns) / width) * rows + row];
  }
  return mask;
}

function ordinal(number) {
  return number + ((number % 100 - number % 10 !== 10 && ["", "st", "nd", "rd"][number % 10]) || "th");
}

/** Return how far an object is, for people. */
function farOf({ distance, rank }) {
  if (distance !== null) return `${distance.toFixed(distance < 10 ? 2 : 1)} m`;
  return rank === null ? "no depth" : `${ordinal(rank + 1)}${rank ? "" : ", nearest"}`;
}

/**
 * Return the part for objects, as { panel, cover, point(x, y), find() }. cover: lies over the picture. formats: of GET /v1.
 * size: [width, height] of the map. place(): promise of the address of the kept result. colors(): name of the colour map.
 * changed(shown): called when objects are shown or hidden.
 */
export function objectsPart({ formats, size: [width, height], place, colors, signal, changed }) {
  const canvas = make("canvas", { class: "layer", role: "img", width, height }), tags = make("div", { class: "tags", "aria-hidden": "true" });
  const cover = make("div", { class: "objects", hidden: true }, canvas, tags);
  const status = make("p", { class: "hint", role: "status" }), list = make("ul", { class: "found" }), failed = make("div");
  const start = press("Find objects", () => (cover.hidden ? find() : hide()));
  const shows = make("span", { text: USUAL }), slider = range(0.05, 0.95, 0.05, USUAL);
  const more = make("div", { class: "group", hidden: true }, list,
    field(["Least score ", shows], slider),
    make("div", { class: "chips" }, ...Object.keys(formats).map((name) => action(name, failed, () => take(name), { title: formats[name] }))), failed);
  const panel = make("section", { class: "group", "aria-labelledby": "found" }, make("div", { class: "field" }, make("h2", { id: "found", text: "Objects" }), start), status, more);
  let found = [], owner = new Int16Array(width * height), lit = null, pinned = null, timer = 0, asked = 0;

  slider.addEventListener("input", () => {
    shows.textContent = slider.value;
    clearTimeout(timer);
    timer = setTimeout(find, WAIT);
  });

  async function find() {
    const mine = ++asked;
    status.textContent = "Looking …";
    failed.replaceChildren();
    try {
      const { objects } = await ask(`${await place()}/objects?threshold=${slider.value}`, { signal });
      if (mine === asked) show(objects);
    } catch (error) {
      if (signal.aborted || mine !== asked) return;
      status.textContent = "";
      failed.replaceChildren(problemBox(error, find));
      more.hidden = false;
    }
  }

  function hide() {
    asked++;
    cover.hidden = more.hidden = true;
    status.textContent = "";
    start.textContent = "Find objects";
    changed(false);
  }

  function show(objects) {
    [lit, pinned] = [null, null];
    found = objects.map((one) => ({ ...one, name: one.label || "object", far: farOf(one), mask: maskOf(one.mask, width, height) }));
    owner.fill(-1);
    [...found.keys()].reverse().forEach((i) => found[i].mask.forEach((inside, at) => { if (inside) owner[at] = i; }));
    status.textContent = found.length ? `${found.length} found, the nearest first` : "No object is this sure";
    canvas.setAttribute("aria-label", `Outlines: ${found.map(({ name, far }) => `${name} ${far}`).join("; ")}`);
    tags.replaceChildren(...found.map(tagOf));
    list.replaceChildren(...found.map(rowOf));
    cover.hidden = more.hidden = false;
    start.textContent = "Hide";
    draw();
    changed(true);
  }

  const dye = (made, { id }) => { made.style.setProperty("--dye", `rgb(${COLORS[id % COLORS.length]})`); return made; };

  /** Return the label of an object, in the middle of the widest row that is seen of it. */
  function tagOf(one, i) {
    let most = 0, middle = 0;
    for (let at = 0, wide = 0; at < owner.length; at++) {
      wide = owner[at] === i ? (at % width ? wide + 1 : 1) : 0;
      if (wide > most) [most, middle] = [wide, at - wide / 2];
    }
    const made = dye(make("span", { text: `${one.name} ${one.far}`, hidden: !most }), one);
    made.style.left = `${(100 * (middle % width)) / width}%`;
    made.style.top = `${(100 * middle) / width / height}%`;
    made.style.zIndex = found.length - i;
    return made;
  }

  function rowOf(one, i) {
    const score = one.score === null ? "" : `${Math.round(100 * one.score)} %`;
    return make("li", {}, dye(make("button", {
      type: "button", "aria-pressed": "false", onclick: () => { pinned = pinned === i ? null : i; light(i); },
      onpointerenter: () => light(i), onpointerleave: () => light(null), onfocus: () => light(i), onblur: () => light(null),
    }, make("i"), make("span", { text: one.name }), make("small", { text: score }), make("b", { text: one.far })), one));
  }

  /** Show one object before the others; null: the one that was chosen, or all alike. */
  function light(i) {
    const now = i === null ? pinned : i;
    found.forEach((_, each) => {
      const button = list.children[each].firstChild;
      button.classList.toggle("on", each === now);
      button.setAttribute("aria-pressed", String(each === pinned));
      tags.children[each].classList.toggle("on", each === now);
      tags.children[each].classList.toggle("off", now !== null && each !== now);
    });
    if (now !== lit) draw(now);
  }

  function draw(now = null) {
    lit = now;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height), line = Math.max(1, Math.round(width / 400));
    const paint = (i) => {
      const { mask, id } = found[i], fill = now === null ? 70 : i === now ? 120 : 20, edge = now === null || i === now ? 255 : 90;
      const color = COLORS[id % COLORS.length];
      for (let y = 0, at = 0; y < height; y++) for (let x = 0; x < width; x++, at++) {
        if (!mask[at] || (i !== now && owner[at] !== i)) continue;
        const inner = mask[at - Math.min(x, line)] && mask[at + Math.min(width - 1 - x, line)] && mask[at - width * Math.min(y, line)] && mask[at + width * Math.min(height - 1 - y, line)];
        const [r, g, b] = i === now && !inner ? [255, 255, 255] : color;
        image.data.set([r, g, b, inner ? fill : edge], 4 * at);
      }
    };
    [...found.keys()].reverse().forEach(paint);
    if (now !== null) paint(now);
    context.putImageData(image, 0, 0);
  }

  function point(x, y) {
    if (cover.hidden) return;
    const at = x === null ? -1 : owner[Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))];
    light(at < 0 ? null : at);
  }

  const take = async (name) => save(`${await place()}/objects/${name}?${new URLSearchParams({ threshold: slider.value, colormap: colors() })}`);
  return { panel, cover, point, find };
}
