/** Scenes: several pictures of one place, or a clip, become one cloud with cameras. */

import { downloads, jobList, jobOptions, jobQuery } from "./jobs.js";
import { check, choice, field, hint, make, picker, press, problemBox, range, segments, steering } from "./make.js";
import { call } from "./service.js";
import { viewerData } from "./stage.js";

const FIRST = ["html", "npz", "glb"], FEWEST = 2;
const CLIP = /\.(mp4|m4v|mov|mkv|webm|avi|mts|m2ts|ts|mpg|mpeg|wmv|flv|3gp)$/i;

/** Return the view of scenes: { element, take(files), refresh() }. about: of GET /v1. */
export async function sceneView(about) {
  const models = about.models.filter(({ task }) => task === "scene");
  const state = { model: models[0].name, size: "", formats: new Set(FIRST), pictures: [] };
  const dialog = make("dialog", { class: "viewer" });
  const jobs = jobList({
    kind: "scene", limit: about.limits.max_clip_bytes, nothing: "Scenes that were sent stand here, also after this page was closed.",
    results: (job) => results(job, about.scene_formats, dialog),
  });
  const options = jobOptions(state, models, about.scene_formats);
  const chosen = make("div", { class: "chosen", hidden: true });
  const start = picker({
    what: "pictures of one place", hint: "two or more, or a clip that walks through it. It is done in the background: this page may be closed.",
    button: "Choose pictures", accept: "image/*,video/*,.heic,.avif,.tif,.tiff,.mkv", several: true, take,
  }, chosen, options);
  const element = make("div", { class: "clips scenes" }, jobs.trouble, start, jobs.list, dialog);

  function take(files) {
    const clip = files.find(({ type, name }) => type.startsWith("video/") || CLIP.test(name));
    if (clip) return jobs.sent("v1/scenes", jobQuery(clip.name, state), clip, clip.name);
    for (const file of files) state.pictures.push({ file, url: URL.createObjectURL(file) });
    show();
    chosen.querySelector("button.main").focus();
  }

  /** Show the pictures that are chosen, in their order. */
  function show() {
    const count = state.pictures.length;
    chosen.hidden = !count;
    const thumbs = state.pictures.map(({ file, url }, i) => {
      const image = make("img", { src: url, alt: file.name, title: file.name });
      image.addEventListener("error", () => image.replaceWith(make("span", { class: "blank", text: file.name })));
      return make("li", {}, image, press("×", () => drop([i]), { title: "Leave out", "aria-label": `Leave out ${file.name}` }));
    });
    const send = press(count < FEWEST ? "One more is needed" : `Make a scene of ${count} pictures`, sendAll, { class: "main", disabled: count < FEWEST });
    chosen.replaceChildren(make("ol", { class: "thumbs" }, ...thumbs), make("div", { class: "chips" }, send, press("Clear", () => drop(state.pictures.map((_, i) => i)))));
  }

  function drop(numbers) {
    for (const i of numbers) URL.revokeObjectURL(state.pictures[i].url);
    state.pictures = state.pictures.filter((_, i) => !numbers.includes(i));
    show();
    start.querySelector("button.main").focus();
  }

  async function sendAll() {
    const files = state.pictures.map(({ file }) => file), name = `${files[0].name} and ${files.length - 1} more`;
    chosen.hidden = true;
    if (await jobs.sent("v1/scenes", jobQuery(name.replace(/[\\/]/g, "_"), state), await packed(files), name)) drop(files.map((_, i) => i));
    else chosen.hidden = false;
  }
  await jobs.refresh();
  return { element, take, refresh: jobs.refresh };
}

/** Return pictures as a tar, each with a name of its own. */
async function packed(files) {
  const parts = [], names = new Set(), text = new TextEncoder();
  for (const file of files) {
    const at = file.name.lastIndexOf("."), end = at > 0 ? file.name.slice(at) : "";
    let stem = (at > 0 ? file.name.slice(0, at) : file.name).replace(/[\\/]/g, "_");
    while (text.encode(stem).length > 80) stem = [...stem].slice(0, -1).join("");
    let name = stem + end;
    for (let i = 2; names.has(name); i++) name = `${stem}-${i}${end}`;
    names.add(name);
    parts.push(head(text.encode(name), file.size), file, new Uint8Array(-file.size & 511));
  }
  return new Blob([...parts, new Uint8Array(1024)]);
}

/** Return the 512 bytes before a file in a tar. name: in bytes, at most 100. */
function head(name, size) {
  const made = new Uint8Array(512), put = (place, text) => { for (let i = 0; i < text.length; i++) made[place + i] = text.charCodeAt(i); };
  made.set(name);
  for (const place of [100, 108, 116]) put(place, "0000644");
  put(124, size.toString(8).padStart(11, "0"));
  put(136, "0".repeat(11));
  put(148, "        0");
  put(257, "ustar");
  put(263, "00");
  put(148, `${made.reduce((sum, one) => sum + one, 0).toString(8).padStart(6, "0")}\0`);
  return made;
}

/** Return the files of a scene that has ended, and what shows it. formats: of GET /v1. */
function results(job, formats, dialog) {
  const page = job.files.find(({ format }) => format === "html");
  const look = page ? press("Look at the scene", () => open(job, page, formats, dialog), { class: "main" }) : null;
  return make("div", { class: "results" }, make("div", { class: "chips" }, look), downloads(job, formats));
}

async function open(job, page, formats, dialog) {
  const away = new AbortController(), room = make("div", { class: "solid" }, make("p", { class: "wait", role: "status", text: "Opening …" }));
  const below = make("div", { class: "over-stage" }), aside = make("aside"), close = press("Close", () => dialog.close());
  let viewer = null;
  dialog.setAttribute("aria-label", job.name);
  dialog.replaceChildren(make("div", { class: "heading" }, make("h1", { text: job.name }), close), make("div", { class: "photo" }, make("div", { class: "stage" }, room, below), aside));
  dialog.addEventListener("close", () => { away.abort(); if (viewer) viewer.close(); dialog.replaceChildren(); }, { once: true });
  dialog.showModal();
  try {
    const data = viewerData(await (await call(page.url, { signal: away.signal })).text());
    const canvas = make("canvas", { tabindex: "0", role: "application", "aria-label": `${job.name} in three dimensions. Arrow keys turn, with Shift they move, plus and minus go nearer and farther, N and P look through the next and the previous camera, 0 shows all.` });
    room.replaceChildren(canvas);
    const shape = segments("View", [["points", "Points"], ["mesh", "Mesh"], ["depth", "Depth"]], "points", (name) => viewer.show(name));
    below.replaceChildren(shape);
    viewer = depthViewer(canvas, data, { padding: () => [14, 14, below.offsetHeight + 26, 14], onchange: heed, onerror: (text) => room.replaceChildren(problemBox(new Error(text))) });
    if (!viewer) return;
    const through = choice("Look through", [["-1", "Overview"], ...data.views.map(({ name }, i) => [String(i), name])], "-1", (i) => viewer.look(Number(i)));
    const cameras = make("input", { type: "checkbox", checked: true, onchange: () => viewer.cameras(cameras.checked) });
    const least = range(0, 95, 1, viewer.least, { oninput: () => viewer.floor(Number(least.value)) }), percent = make("span");
    const dots = range(-1.5, 2, 0.1, 0, { oninput: () => viewer.dots(2 ** dots.value) });
    const sure = data.views.some((view) => view.sure) ? field(["Least sure left out ", percent], least) : null;
    aside.replaceChildren(
      make("section", { class: "group", "aria-label": "The scene" }, through, field("Point size", dots), sure,
        check("Show the cameras", cameras), press("Back to the first view", () => viewer.reset())),
      make("section", { class: "group" }, make("h2", { text: "Download" }), downloads(job, formats)),
      hint(`${data.views.length} views, ${data.unit === "m" ? "in metres" : "in a unit of its own"}, ${job.model}. ${steering()}`));
    heed();
    canvas.focus({ preventScroll: true });

    /** Follow what the keys of the viewer have changed. */
    function heed() {
      if (!viewer || !percent) return;
      shape.set(viewer.shown);
      through.querySelector("select").value = String(viewer.through);
      cameras.checked = viewer.framed;
      least.value = viewer.least;
      percent.textContent = `${viewer.least} %`;
    }
  } catch (error) {
    if (!away.signal.aborted) room.replaceChildren(problemBox(error));
  }
}
