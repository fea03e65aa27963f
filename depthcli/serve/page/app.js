/** The page: what the service offers as tabs, and files that are dropped or pasted. */

import { make, problemBox } from "./make.js";
import { ask } from "./service.js";

const find = (id) => document.getElementById(id);
// What is not looked at is not loaded.
const makers = {
  photo: async () => (await import("./photo.js")).photoView(about),
  clips: async () => (await import("./clips.js")).clipView(about),
  scenes: async () => (await import("./scenes.js")).sceneView(about),
  gallery: async () => (await import("./gallery.js")).galleryView(about),
};
const main = find("main"), views = {};
let about = null;

// What is looked at gives the window its title, whichever part of the page puts it there.
new MutationObserver(() => {
  const seen = document.querySelector("dialog[open] h1, .photo > aside h1") || document.querySelector("#tabs [aria-current]");
  document.title = `${seen ? `${seen.textContent} – ` : ""}depth`;
}).observe(main, { childList: true, subtree: true });

async function start() {
  try {
    about = await ask("v1");
  } catch (error) {
    main.replaceChildren(problemBox(error, start));
    return;
  }
  const offered = { photo: true, clips: Object.keys(about.clip_formats).length > 0, scenes: Object.keys(about.scene_formats).length > 0, gallery: about.galleries.length > 0 };
  for (const tab of document.querySelectorAll("#tabs a")) tab.hidden = !offered[tab.hash.slice(1)];
  find("tabs").hidden = !offered.clips && !offered.gallery; // scenes come with clips

  async function show() {
    const asked = location.hash.slice(1), name = offered[asked] ? asked : "photo";
    for (const tab of document.querySelectorAll("#tabs a")) {
      if (tab.hash === `#${name}`) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    try {
      await (await views[name])?.refresh?.();
      views[name] = views[name] || makers[name]();
      main.replaceChildren((await views[name]).element);
    } catch (error) {
      delete views[name];
      main.replaceChildren(problemBox(error, show));
    }
  }
  addEventListener("hashchange", show);
  await show();
  takeFiles(offered);
}

function takeFiles(offered) {
  const take = async (files) => {
    const here = location.hash.slice(1), [{ type }] = files;
    let name = type.startsWith("video/") && offered.clips ? "clips" : type.startsWith("image/") || here !== "clips" ? "photo" : "clips";
    if (offered.scenes && (here === "scenes" || (name === "photo" && files.length > 1))) name = "scenes";
    views[name] = views[name] || makers[name]();
    (await views[name]).take(files);
    if (here !== name) location.hash = name;
  };
  let depth = 0; // dragenter of a child comes before dragleave of its parent
  const files = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => { if (files(event)) find("drop").hidden = ++depth < 1; });
  addEventListener("dragleave", (event) => { if (files(event) && --depth < 1) find("drop").hidden = true; });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    find("drop").hidden = true;
    if (event.dataTransfer.files[0]) take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const pasted = event.clipboardData ? [...event.clipboardData.files] : [];
    if (pasted[0]) take(pasted);
  });
}

main.append(make("p", { class: "wait", text: "…" }));
start();
