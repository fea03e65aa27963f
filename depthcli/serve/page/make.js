/** Elements, and texts for people. */

/** Return an element. `on...` are listeners, `class` and `text` its class and text, booleans are put or left out. */
export function make(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (name === "value") made.value = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Return a button. */
export const press = (text, onclick, given) => make("button", { type: "button", text, onclick, ...given });

/** Return a choice from options [value, text], with its label. */
export function choice(label, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) }, ...options.map(([name, text]) => make("option", { value: name, text })));
  select.value = value;
  return field(label, select);
}

/** Return a choice of input sizes for a model of GET /v1: its usual one, and a few around it. */
export function sizeChoice({ input_size: usual }, value, change) {
  const sizes = [...new Set([0.6, 1, 1.5, 2, 3].map((times) => Math.round((usual * times) / 14) * 14))].filter((size) => size !== usual && size <= 2072);
  const options = sizes.map((size) => [String(size), `${size < usual ? "Quicker" : "Finer, slower"} (${size} px)`]);
  return choice("Network detail", [["", `Usual (${usual} px)`], ...options], value, change);
}

/** Return buttons of which one is pressed: options [name, text]. `set(name)` presses one without calling `change`. */
export function segments(label, options, value, change) {
  const buttons = options.map(([name, text]) => press(text, () => { set(name); change(name); }));
  const set = (chosen) => options.forEach(([name], i) => buttons[i].setAttribute("aria-pressed", String(name === chosen)));
  set(value);
  return Object.assign(make("div", { class: "segments", role: "group", "aria-label": label }, ...buttons), { set });
}

/** Return a message with the names in backticks as code. */
export function marked(text) {
  return text.split("`").map((part, i) => (i % 2 ? make("code", { text: part }) : part));
}

/** Return a remark. */
export const hint = (text) => make("p", { class: "hint" }, ...marked(text));

export const byTouch = () => matchMedia("(hover: none)").matches;
/** Return how a view in three dimensions is steered. */
export const steering = () => (byTouch() ? "Drag turns, two fingers zoom and move." : "Drag turns, the wheel or two fingers zoom, Shift and drag move.");

/** Return a slider. */
export const range = (min, max, step, value, given) => make("input", { type: "range", min, max, step, value, ...given });

/** Return what a person sets, with its label: text, or parts of it. */
export const field = (label, input, given) => make("label", { class: "field", ...given }, make("span", {}, ...[label].flat()), input);

/** Return what is on or off, with its label. */
export const check = (label, input, given) => make("label", { class: "check", ...given }, input, make("span", { text: label }));

/** Return a problem as the service words it. again(): tries once more; not offered for what would fail again. */
export function problemBox(problem, again) {
  const box = make("div", { class: "problem", role: "alert" }, make("p", {}, ...marked(problem.message)));
  if (problem.hint) box.append(hint(problem.hint));
  if (again && !(problem.status >= 400 && problem.status < 500)) box.append(press("Try again", again));
  return box;
}

/** Return a button that is off while act() is under way, whose problems are shown in `status`. */
export function action(text, status, act, given = {}) {
  const button = press(text, async () => {
    button.disabled = true;
    status.replaceChildren();
    await act().catch((error) => status.replaceChildren(problemBox(error)));
    button.disabled = false;
  }, given);
  return button;
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let i = 0;
  for (; count >= 1000 && i < 3; i++) count /= 1000;
  return `${i && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[i]}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Return a place to drop, paste or choose files at: take(files). what: is wanted. several: more than one. */
export function picker({ icon, what, hint, button, accept, take, several = false }, ...more) {
  const input = make("input", { type: "file", accept, multiple: several, class: "unseen", tabindex: "-1", "aria-hidden": "true", onchange: () => { const files = [...input.files]; input.value = ""; if (files[0]) take(files); } });
  const choose = press(button, () => input.click(), { class: "main" });
  return make("section", { class: "picker" }, icon ? make("img", { class: "icon", src: "page/icon.svg", alt: "" }) : null, make("h1", { text: `${byTouch() ? "Choose" : "Drop"} ${what}` }), make("p", { text: hint }), choose, input, ...more);
}
