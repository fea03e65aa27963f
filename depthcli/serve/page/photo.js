/** Photos: choose one, see its depth, turn it, take it home. */

import { action, bytes, byTouch, choice, hint, make, picker, press, problemBox, sizeChoice } from "./make.js";
import { colorChoices, meaning, readNumbers } from "./numbers.js";
import { ask, busyIn, call, Problem, save, shown } from "./service.js";
import { makeStage } from "./stage.js";

const EXAMPLES = [["coffee.jpg", "A cup of coffee"], ["rocket.jpg", "A rocket on its pad"]];
const MESH = 640; // vertices along the longer side: every pixel of a small photo, every second of a larger one
// What is asked for most stands first, in this order.
const NAMES = { color: "Colour PNG", gray: "16-bit PNG", npz: "NumPy", ply: "Point cloud", glb: "Mesh, GLB", html: "3D page" };

/** Return the view of photos: { element, take(files) }. about: of GET /v1. */
export async function photoView(about) {
  const { objectsPart } = about.objects ? await import("./objects.js") : {};
  const colors = await colorChoices(), models = about.models.filter(({ task }) => task === "picture");
  const state = { model: models[0].name, size: "", colors: colors[0][0], file: null, result: null, view: "flat", objects: false };
  const element = make("div", { class: "photo" });
  let work = null, stage = null, local = "";

  const examples = make("ul", { class: "examples", "aria-label": "Examples" }, ...EXAMPLES.map(([file, title]) => make("li", {}, make("button", {
    type: "button", title, "aria-label": `Example: ${title}`,
    onclick: async () => take(new File([await (await fetch(`page/${file}`)).blob()], file, { type: "image/jpeg" })),
  }, make("img", { src: `page/${file}`, alt: "", width: "168", height: "112" })))));
  const start = picker({
    icon: true, what: "a photo", hint: `${byTouch() ? "" : "or paste it, or choose one. "}It goes to this service and nowhere else.`,
    button: "Choose a photo", accept: "image/*,.heic,.avif,.tif,.tiff,.exr,.hdr", take: ([file]) => take(file),
  }, make("p", { class: "or", text: "or try one of these" }), examples);
  element.append(start);

  /** Ask the service for the depth of the file again and again until it is kept. */
  async function estimate(signal, waiting) {
    const query = new URLSearchParams({ keep: "1", name: state.file.name, model: state.model });
    if (state.size) query.set("input_size", state.size);
    const answer = await call(`v1/depth?${query}`, { method: "POST", body: state.file, signal, waiting });
    const took = /network;dur=([\d.]+)/.exec(answer.headers.get("Server-Timing"));
    return { ...await answer.json(), took: took ? `, which took ${+(took[1] / 1000).toPrecision(2)} s` : "" };
  }

  /** Return an address below the kept result; it is estimated again if the service has forgotten it. */
  async function kept(signal) {
    try {
      await ask(state.result.url, { signal });
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404) throw error;
      state.result = await estimate(signal);
    }
    return state.result.url;
  }

  async function take(file) {
    if (file.size > about.limits.max_bytes) {
      return fail(new Problem(`${file.name} has ${bytes(file.size)}`, `this service takes pictures up to ${bytes(about.limits.max_bytes)}`));
    }
    state.file = file;
    [state.view, state.objects] = ["flat", false];
    URL.revokeObjectURL(local);
    local = URL.createObjectURL(file);
    await run();
  }

  async function run() {
    if (work) work.abort();
    const mine = (work = new AbortController());
    if (stage) stage.close();
    stage = null;
    const status = make("p", { class: "wait", role: "status", text: "Estimating the depth …" });
    const preview = make("img", { class: "preview", src: local, alt: "", onerror: () => { preview.hidden = true; } });
    const stop = press("Cancel", home);
    element.replaceChildren(make("div", { class: "stage busy" }, preview, make("div", { class: "over-stage" }, make("div", { class: "working" }, status, stop))), make("aside", {}, heading()));
    try {
      state.result = await estimate(mine.signal, busyIn(status, status.textContent));
      status.textContent = "Fetching the numbers …";
      const map = await readNumbers(state.result.url, mine.signal);
      const photo = (await sameShape(preview, map)) ? local : `${state.result.url}/photo?max_side=2048`;
      await showResult(map, photo, mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) fail(error, run);
    }
  }

  async function showResult(map, photo, signal) {
    if (photo !== local) photo = await shown(photo, signal);
    const objects = objectsPart && objectsPart({
      formats: about.objects.formats, size: [map.width, map.height], place: () => kept(signal), colors: () => state.colors, signal,
      changed: (seen) => { state.objects = seen; },
    });
    stage = makeStage({
      ...(objects && { cover: objects.cover, probed: objects.point }), map, photo, name: state.file.name, colors: state.colors, changed: (view) => { state.view = view; },
      cuts: true, solid: map.meta.panorama ? null : async (more) => `${await kept()}/html?mesh_size=${MESH}${more}`,
    });
    const view = state.view;
    element.replaceChildren(stage.stage, make("aside", {}, heading(map.meta), stage.readout, stage.controls, objects && objects.panel, settings(), downloads(), facts(map.meta)));
    if (state.objects) objects.find();
    if (view !== "flat") stage.show(view);
    else if (document.activeElement === document.body) stage.focus();
  }

  function heading(meta) {
    const size = meta ? hint(`${meta.size[0]} × ${meta.size[1]} pixels`) : null;
    return make("div", { class: "heading" }, make("div", {}, make("h1", { text: state.file.name }), size), press("Another photo", home));
  }

  function settings() {
    const group = make("section", { class: "group", "aria-label": "Settings" });
    if (models.length > 1) {
      group.append(choice("Model", models.map(({ name, title }) => [name, title]), state.model, (name) => { state.model = name; state.size = ""; run(); }));
    }
    group.append(sizeChoice(models.find(({ name }) => name === state.model), state.size, (size) => { state.size = size; run(); }));
    group.append(choice("Colours", colors, state.colors, (name) => { state.colors = name; stage.recolor(name); }));
    return group;
  }

  function downloads() {
    const status = make("div", { role: "status" });
    const get = async (name) => save(`${await kept()}/${name}?${new URLSearchParams({ colormap: state.colors })}`);
    const button = (name) => action(NAMES[name] || name, status, () => get(name), { title: about.formats[name] });
    const first = Object.keys(NAMES).filter((name) => about.formats[name]), rest = Object.keys(about.formats).filter((name) => !NAMES[name]);
    return make("section", { class: "group", "aria-labelledby": "take" }, make("h2", { id: "take", text: "Download" }), make("div", { class: "chips" }, ...first.map(button)),
      make("details", {}, make("summary", { text: `${rest.length} more formats` }), make("ul", { class: "formats" }, ...rest.map((name) => make("li", {}, button(name), make("span", { text: about.formats[name] }))))), status);
  }

  function facts(meta) {
    const notes = [...(meta.warnings || []), ...(meta.notes || [])].map(hint);
    return make("section", { class: "group facts", "aria-label": "About this result" }, make("p", { text: meaning(meta) }), ...notes,
      hint(`${meta.model_title || meta.model}, ${meta.model_size.join(" × ")} in the network${state.result.took}`));
  }

  function fail(error, again) {
    home();
    start.prepend(problemBox(error, again));
  }

  function home() {
    if (work) work.abort();
    if (stage) stage.close();
    stage = null;
    start.querySelector(".problem")?.remove();
    element.replaceChildren(start);
    start.querySelector("button.main").focus();
  }
  return { element, take: ([file]) => take(file) };
}

/** Whether the browser shows the picture as the service read it: upright, all of it. */
async function sameShape(image, { width, height }) {
  try {
    await image.decode();
  } catch {
    return false;
  }
  return Math.abs(image.naturalWidth / image.naturalHeight / (width / height) - 1) < 0.01;
}
