
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const canvas = find("view"), header = document.querySelector("header"), footer = document.querySelector("footer");
  const SOURCES = {
    given: "camera as given", clip: "camera from the clip", exif: "camera from EXIF", "exif-cropped": "camera from EXIF, of a cropped photo",
    predicted: "camera predicted", assumed: "camera assumed: 60° wide",
  };
  const number = (value) => Number(value.toPrecision(value < 100 ? 2 : 3)).toString();
  const depth = (value) => number(value) + (data.unit === "m" ? " m" : "");

  find("name").textContent = data.name;
  const unit = data.unit === "m" ? "unit m" : data.kind === "metric_depth" ? "no unit: the camera is not known" : "relative depth, no unit";
  const source = (data.camera || data.views[0].camera).source;
  const several = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const count = data.views ? several(data.views.length, "view")
    : !data.frames ? "" : data.frames.length < data.of ? `${data.frames.length} of ${data.of} frames` : several(data.of, "frame");
  for (const text of [count, unit, SOURCES[source] || source, data.model].filter(Boolean)) {
    const part = document.createElement("span");
    part.textContent = text;
    find("about").append(part);
  }
  find("near").textContent = "near " + depth(data.near);
  find("far").textContent = "far " + depth(data.far);
  const colors = find("colors").getContext("2d"), strip = colors.createImageData(256, 1);
  [...atob(data.colors)].forEach((letter, i) => { strip.data[4 * ((i / 3) | 0) + (i % 3)] = letter.charCodeAt(0); });
  for (let i = 3; i < 1024; i += 4) strip.data[i] = 255;
  colors.putImageData(strip, 0, 0);

  const say = (text) => {
    find("message").textContent = text;
    find("message").hidden = false;
  };
  const many = Boolean(data.views), clip = data.frames;
  for (const part of document.querySelectorAll(many ? ".one, .clip" : clip ? ".many, .still" : ".many, .clip")) part.hidden = true;
  const buttons = [...document.querySelectorAll("[data-show]")];
  const update = () => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === viewer.shown));
    find("scale").hidden = viewer.shown !== "depth";
    if (clip) {
      find("play").textContent = viewer.playing ? "Pause" : "Play";
      find("frame").value = viewer.frame;
      find("time").textContent = clock(clip[viewer.frame].time - clip[0].time) + " / " + clock(data.length);
    }
    if (!many) return;
    viewer.views.forEach((view, i) => {
      rows[i].box.checked = view.on;
      rows[i].button.setAttribute("aria-pressed", String(viewer.through === i));
    });
    find("overview").setAttribute("aria-pressed", String(viewer.through < 0));
    find("cameras").checked = viewer.framed;
    find("least").value = viewer.least;
    find("percent").textContent = viewer.least + " %";
    if (viewer.through !== seen && viewer.through >= 0) rows[viewer.through].button.scrollIntoView({ block: "nearest" });
    seen = viewer.through;
  };
  const clock = (seconds) => {
    const tenths = Math.round(10 * seconds), whole = Math.floor(tenths / 10);
    return Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0") + "." + (tenths % 10);
  };
  let seen = null;
  const beside = matchMedia("(max-height: 480px) and (orientation: landscape)");
  // The bar counts, and the time of a clip, not the scale above them: the photo must not jump when the scale appears.
  const padding = () => {
    const bar = (clip ? find("film") : footer.querySelector(".bar")).getBoundingClientRect();
    if (beside.matches) return [8, header.offsetLeft + header.offsetWidth + 8, innerHeight - bar.top + 8, header.offsetLeft + header.offsetWidth + 8];
    // On a wide screen the list of the views stands beside the scene, on others above it.
    const list = find("views").hidden || innerWidth <= 720 ? 0 : find("views").offsetWidth + 12;
    return [header.offsetTop + header.offsetHeight + 12, 12 + list, innerHeight - bar.top + 12, 12];
  };
  const viewer = depthViewer(canvas, data, { padding, keys: document, onchange: update, onerror: say });
  if (!viewer) {
    footer.hidden = true;
    return;
  }
  const help = (open) => {
    find("keys").hidden = !open;
    find("help").setAttribute("aria-expanded", String(open));
  };
  for (const button of buttons) button.addEventListener("click", () => viewer.show(button.dataset.show));
  if (clip) {
    canvas.setAttribute("aria-label", "The clip in three dimensions");
    Object.assign(find("frame"), { min: 0, max: clip.length - 1, step: 1 });
    find("play").addEventListener("click", () => viewer.play(!viewer.playing));
    find("frame").addEventListener("input", (event) => viewer.seek(Number(event.target.value)));
  }
  find("reset").addEventListener("click", viewer.reset);
  find("help").addEventListener("click", () => help(find("keys").hidden));
  const list = (open) => {
    find("views").hidden = !open;
    find("list").setAttribute("aria-expanded", String(open));
    viewer.changed();
  };
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") help(false);
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "h" || event.key === "H") help(find("keys").hidden);
    else if (many && (event.key === "v" || event.key === "V")) list(find("views").hidden);
  });
  const rows = many ? viewer.views.map(row) : [];
  if (many) {
    canvas.setAttribute("aria-label", "The scene in three dimensions");
    find("reset").title = "Back to the view as it was (R)";
    find("sureness").hidden = !viewer.views.some((view) => view.sure);
    find("overview").addEventListener("click", () => viewer.look(-1));
    for (const [id, on] of [["all", true], ["none", false]])
      find(id).addEventListener("click", () => viewer.views.forEach((view, i) => viewer.put(i, on)));
    find("cameras").addEventListener("change", (event) => viewer.cameras(event.target.checked));
    find("least").addEventListener("input", (event) => viewer.floor(Number(event.target.value)));
    find("list").addEventListener("click", () => list(find("views").hidden));
    list(innerWidth > 720 && innerHeight > 480);
  }

  /** Add a view to the list: a box that shows and hides it, and a button to look through its camera. */
  function row({ name, tint }, i) {
    const item = document.createElement("li"), label = document.createElement("label");
    const box = document.createElement("input"), button = document.createElement("button"), mark = document.createElement("i");
    Object.assign(box, { type: "checkbox", ariaLabel: "show " + name });
    box.addEventListener("change", () => viewer.put(i, box.checked));
    Object.assign(button, { type: "button", title: "Look through the camera of " + name });
    button.addEventListener("click", () => viewer.look(i));
    mark.style.background = `rgb(${tint.map((part) => Math.round(255 * part))})`;
    button.append(mark, name);
    label.append(box);
    item.append(label, button);
    find("each").append(item);
    return { box, button };
  }

  if (!data.fill) find("fill-key").hidden = find("fill-does").hidden = true;
  update();
  canvas.focus({ preventScroll: true });
})();
