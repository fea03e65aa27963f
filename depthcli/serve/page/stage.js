/** The stage: a picture and its depth compared, and the same in three dimensions, in the viewer of `-f html`. */

import { compare } from "./compare.js";
import { byTouch, check, field, hint, make, press, problemBox, range, segments, steering } from "./make.js";
import { colorTable, ends, nearColor, paint, paintScale, worded } from "./numbers.js";
import { call } from "./service.js";

const SOURCES = { given: "as given", exif: "from EXIF", "exif-cropped": "from EXIF, of a cropped photo", predicted: "predicted", assumed: "assumed" };

/** Return the data of the viewer in a page of `-f html`. */
export function viewerData(page) {
  const start = page.indexOf('id="data">') + 10; // its JSON holds no <
  return JSON.parse(page.slice(start, page.indexOf("</script>", start)));
}

/**
 * Return the stage and what belongs beside it, as { stage, readout, controls, close(), recolor(name), show(view), focus() }.
 * map: of readNumbers. photo: address of the picture, or null. solid(): promise of the address of a page of `-f html`;
 * null if there is none. cuts: whether solid takes more of a query. changed(view) is called if another view is shown. cover: lies over both, or null; probed(x, y) is
 * called as probe of compare.
 */
export function makeStage({ map, photo, name, colors, solid, cuts = false, changed = () => {}, cover = null, probed = () => {} }) {
  const { meta } = map;
  const number = make("span", { class: "number" }), said = make("output", { class: "unseen" }), unit = make("span", { class: "unit" });
  const far = make("span"), near = make("span"), strip = make("canvas", { class: "strip", role: "img", "aria-label": "Scale from far to near" });
  const needle = make("i", { hidden: true });
  const readout = make("section", { class: "readout", "aria-label": "Depth under the pointer" },
    make("p", { "aria-hidden": "true" }, number, unit), said, make("div", { class: "scale" }, strip, needle), make("p", { class: "ends" }, far, near));
  [far.textContent, near.textContent] = ends(meta).map((text, i) => `${["far", "near"][i]} ${text}`);

  const canvas = make("canvas", { class: "layer over", role: "img",  });
  const idle = () => {
    number.textContent = said.textContent = "";
    unit.textContent = byTouch() ? "Touch the picture for its depth" : "Point at the picture for its depth";
    needle.hidden = true;
  };
  const probe = (x, y) => {
    probed(x, y);
    if (x === null) return idle();
    const column = Math.min(map.width - 1, Math.floor(x * map.width)), row = Math.min(map.height - 1, Math.floor(y * map.height));
    const value = map.values[row * map.width + column];
    [number.textContent, unit.textContent] = worded(value, meta);
    said.textContent = Number.isNaN(value) ? unit.textContent : `depth ${number.textContent} ${unit.textContent}`.replace(" relative", "");
    const t = (value - meta.min) / (meta.max - meta.min || 1);
    needle.hidden = Number.isNaN(value);
    needle.style.left = `${100 * Math.max(0, Math.min(1, meta.near_is === "high" ? t : 1 - t))}%`;
  };
  idle();
  const recolor = async (chosen) => {
    const table = await colorTable(chosen);
    paint(canvas, map, table);
    paintScale(strip, table);
    canvas.setAttribute("aria-label", `Depth of ${name}, ${nearColor(table)} is near`);
  };
  recolor(colors);

  const flat = compare(photo ? make("img", { class: "layer", src: photo, alt: name, draggable: "false" }) : null, canvas, [map.width, map.height], { probe });
  if (cover) canvas.after(cover);
  const room = make("div", { class: "solid", hidden: true });
  const note = make("p", { class: "caption" });
  const views = solid ? [["flat", photo ? "Compare" : "Depth"], ["mesh", "Mesh"], ["points", "Points"]] : [["flat", "Depth"]];
  const choose = segments("View", views, "flat", (view) => show(view));
  const below = make("div", { class: "over-stage" }, solid ? choose : null, note);
  const START = 0.7; // of log2 of the point size: points that touch
  const stage = make("div", { class: "stage" }, flat, room, below);
  stage.style.setProperty("--ratio", map.width / map.height);
  const controls = make("section", { class: "group", "aria-label": "View in three dimensions", hidden: true });
  const away = new AbortController();
  const edges = make("input", { type: "checkbox", checked: true, onchange: async () => {
    viewer.close();
    viewer = opening = null;
    await show(shownNow);
    edges.focus();
  } });
  let viewer = null, opening = null, shownNow = "flat";

  async function open() {
    const wait = make("p", { class: "wait", role: "status", text: "Making the mesh …" });
    room.replaceChildren(wait);
    const data = viewerData(await (await call(await solid(edges.checked ? "" : "&edges=off"), { signal: away.signal })).text());
    const view = make("canvas", { tabindex: "0", role: "application", "aria-label": `${name} in three dimensions. Arrow keys turn, with Shift they move, plus and minus go nearer and farther, R goes back.` });
    room.replaceChildren(view);
    viewer = depthViewer(view, data, {
      padding: () => [14, 14, below.offsetHeight + 26, 14],
      onchange: heed,
      onerror: (text) => room.replaceChildren(problemBox(new Error(text))),
    });
    if (!viewer) return;
    if (shownNow !== "flat") viewer.show(shownNow);
    makeControls(data);
  }

  /** Follow what the keys of the viewer have changed. */
  function heed() {
    if (!viewer) return;
    const box = controls.querySelector(".fills input");
    if (box) box.checked = viewer.filled;
    if (shownNow === "flat" || viewer.shown === shownNow || viewer.shown === "depth") return;
    shownNow = viewer.shown;
    choose.set(shownNow);
    put();
  }

  function makeControls(data) {
    const size = range(-1.5, 2, 0.1, START, { oninput: () => viewer.dots(2 ** size.value) });
    viewer.dots(2 ** START);
    const parts = [field("Point size", size, { class: "field dots" })];
    if (cuts) parts.push(check("Cut edges", edges, { title: "Leave out what lies between two surfaces" }));
    if (data.fill) {
      const fills = make("input", { type: "checkbox", checked: true, onchange: () => viewer.fill(fills.checked) });
      parts.push(check("Fill gaps", fills, { class: "check fills", title: "Stretch the photo over what the camera did not see" }));
    }
    if (!data.views) {
      const wide = (Math.atan(data.size[0] / 2 / data.camera.fx) * 360) / Math.PI;
      const tangent = (degrees) => Math.tan((degrees * Math.PI) / 360), shows = make("span", { text: `${Math.round(wide)}°` });
      const angle = range(15, 120, 1, Math.round(wide));
      angle.addEventListener("input", () => {
        shows.textContent = `${angle.value}°`;
        viewer.widen(tangent(Number(angle.value)) / tangent(wide));
      });
      parts.push(field(["Field of view ", shows], angle),
        hint(`Camera ${SOURCES[data.camera.source] || data.camera.source}. ${steering()}`));
    }
    parts.push(press("Back to the photo", () => viewer.reset()));
    controls.replaceChildren(...parts);
    put();
  }

  function put() {
    flat.hidden = shownNow !== "flat";
    room.hidden = shownNow === "flat";
    controls.hidden = shownNow === "flat" || !viewer;
    for (const [part, view] of [[".dots", "points"], [".fills", "mesh"]]) {
      const found = controls.querySelector(part);
      if (found) found.hidden = shownNow !== view;
    }
    readout.hidden = shownNow !== "flat";
    note.textContent = shownNow === "flat" || meta.kind === "metric_depth" ? "" : "Relative depth: the shape is a guess";
    changed(shownNow);
  }

  async function show(view) {
    shownNow = view;
    choose.set(view);
    put();
    if (view === "flat") return;
    try {
      await (opening = opening || open());
      if (viewer && shownNow !== "flat") viewer.show(shownNow);
    } catch (error) {
      opening = null;
      if (!away.signal.aborted) room.replaceChildren(problemBox(error, () => show(shownNow)));
    }
  }

  function close() {
    away.abort();
    if (viewer) viewer.close();
    stage.remove();
  }
  return { stage, readout, controls, close, recolor, show, focus: () => flat.frame.focus({ preventScroll: true }) };
}
