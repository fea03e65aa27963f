
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const canvas = find("view"), header = document.querySelector("header"), footer = document.querySelector("footer");
  const SOURCES = {
    given: "camera as given", exif: "camera from EXIF", "exif-cropped": "camera from EXIF, of a cropped photo",
    predicted: "camera predicted", assumed: "camera assumed: 60° wide",
  };
  const number = (value) => Number(value.toPrecision(value < 100 ? 2 : 3)).toString();
  const depth = (value) => number(value) + (data.unit === "m" ? " m" : "");

  find("name").textContent = data.name;
  const unit = data.unit === "m" ? "unit m" : data.kind === "metric_depth" ? "no unit: the camera is not known" : "relative depth, no unit";
  for (const text of [unit, SOURCES[data.camera.source] || data.camera.source, data.model].filter(Boolean)) {
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
  const buttons = [...document.querySelectorAll("[data-show]")];
  const update = () => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === viewer.shown));
    find("scale").hidden = viewer.shown !== "depth";
  };
  const beside = matchMedia("(max-height: 480px) and (orientation: landscape)");
  // The bar alone counts, not the scale above it: the photo must not jump when the scale appears.
  const padding = () => {
    const bar = footer.querySelector(".bar").getBoundingClientRect();
    if (beside.matches) return [8, header.offsetLeft + header.offsetWidth + 8, innerHeight - bar.top + 8, header.offsetLeft + header.offsetWidth + 8];
    return [header.offsetTop + header.offsetHeight + 12, 12, innerHeight - bar.top + 12, 12];
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
  find("reset").addEventListener("click", viewer.reset);
  find("help").addEventListener("click", () => help(find("keys").hidden));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") help(false);
    else if ((event.key === "h" || event.key === "H") && !event.ctrlKey && !event.metaKey && !event.altKey) help(find("keys").hidden);
  });
  if (!data.fill) find("fill-key").hidden = find("fill-does").hidden = true;
  update();
  canvas.focus({ preventScroll: true });
})();
