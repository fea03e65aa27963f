/** Two layers, one over the other, and a divider between them: by pointer, by finger, by keys. */

import { make } from "./make.js";

/**
 * Return an element that shows `left` and, right of the divider, `right` over it; `left` may be null.
 * size: [width, height] of the picture. probe(x, y): is called with places from 0 to 1 under the pointer, or null.
 * what: names of the two for those who do not see them.
 */
export function compare(left, right, size, { probe = () => {}, what = ["Photo", "Depth"] } = {}) {
  const handle = make("div", {
    class: "handle", role: "slider", tabindex: "0", "aria-label": `${what[0]} left, ${what[1].toLowerCase()} right`, "aria-orientation": "horizontal", "aria-valuemin": "0", "aria-valuemax": "100",
  }, make("span"));
  const cross = make("div", { class: "cross", hidden: true });
  const frame = make("div", { class: "frame", role: "group", tabindex: "0", "aria-label": "Depth under a cross: the arrow keys move it" });
  if (left) frame.append(left);
  frame.append(right, cross);
  if (left) frame.append(handle);
  frame.style.setProperty("--ratio", size[0] / size[1]);
  const stage = make("div", { class: "compare" }, frame);
  let at = 50, place = [0.6, 0.5], held = false;

  const divide = (percent) => {
    at = Math.max(0, Math.min(100, percent));
    frame.style.setProperty("--at", `${at}%`);
    handle.setAttribute("aria-valuenow", String(Math.round(at)));
    handle.setAttribute("aria-valuetext", `${what[0]} ${Math.round(at)} percent`);
  };
  divide(left ? 50 : 0);

  const placeOf = (event) => {
    const box = frame.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const look = ([x, y]) => {
    const inside = x >= 0 && x <= 1 && y >= 0 && y <= 1;
    if (inside) probe(x, y);
    else if (!held) probe(null);
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    held = true;
    cross.hidden = true;
    frame.setPointerCapture(event.pointerId);
    if (left && event.target !== handle) divide(100 * placeOf(event)[0]);
    look(placeOf(event));
  });
  frame.addEventListener("pointermove", (event) => {
    if (held && left) divide(100 * placeOf(event)[0]);
    cross.hidden = true;
    look(placeOf(event));
  });
  const lift = () => { held = false; };
  frame.addEventListener("pointerup", lift);
  frame.addEventListener("pointercancel", lift);
  // A finger leaves when it lifts; its number stays.
  frame.addEventListener("pointerleave", (event) => { if (!held && event.pointerType !== "touch") probe(null); });
  frame.addEventListener("dragstart", (event) => event.preventDefault());

  handle.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowRight: 2, ArrowDown: -2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    divide(at + steps[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.target !== frame || !(event.key in ways) || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = event.shiftKey ? 0.1 : 0.01;
    if (!cross.hidden) place = place.map((one, i) => Math.max(0, Math.min(1, one + step * ways[event.key][i])));
    mark();
    event.preventDefault();
  });
  frame.addEventListener("blur", () => { cross.hidden = true; });
  const mark = () => {
    cross.hidden = false;
    cross.style.left = `${100 * place[0]}%`;
    cross.style.top = `${100 * place[1]}%`;
    probe(...place);
  };
  return Object.assign(stage, { frame });
}
