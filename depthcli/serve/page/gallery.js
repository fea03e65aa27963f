/** Galleries: folders of results as a grid; one opens on the stage. */

import { downloads } from "./jobs.js";
import { choice, hint, make, press, problemBox, segments } from "./make.js";
import { colorChoices, readNumbers } from "./numbers.js";
import { ask, call, shown } from "./service.js";
import { makeStage, viewerData } from "./stage.js";

const LIMIT = 60;

/** Return the view of galleries: { element }. about: of GET /v1. */
export async function galleryView(about) {
  const [[colors]] = await colorChoices(), state = { gallery: 0, status: "", next: "", items: [] };
  const grid = make("ul", { class: "grid" }), count = make("p", { class: "hint", role: "status" });
  const more = press("Show more", () => load(false), { hidden: true });
  const filter = segments("Which", [["", "All"], ["failed", "Failed"]], "", (status) => { state.status = status; load(true); });
  const pick = about.galleries.length > 1 ? choice("Folder", about.galleries.map((name, i) => [String(i), name]), "0", (i) => { state.gallery = Number(i); load(true); }) : null;
  const trouble = make("div"), dialog = make("dialog", { class: "viewer" });
  const element = make("div", { class: "gallery" }, make("header", {}, make("h1", { text: about.galleries.length > 1 ? "Galleries" : about.galleries[0] }), pick, filter, count), trouble, grid, more, dialog);
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      shown(target.dataset.src).then((url) => { target.src = url; }, () => target.replaceWith(make("span", { class: "blank", text: "no picture" })));
    }
  }, { rootMargin: "300px" });

  let asked = 0;
  async function load(afresh) {
    const mine = ++asked;
    if (afresh) Object.assign(state, { next: "", items: [] });
    trouble.replaceChildren();
    const query = new URLSearchParams({ gallery: state.gallery, status: state.status, cursor: state.next || "", limit: LIMIT });
    try {
      const page = await ask(`v1/gallery?${query}`);
      if (mine !== asked) return; // another filter was chosen meanwhile
      if (afresh) grid.replaceChildren();
      for (const item of page.items) grid.append(card(item, state.items.push(item) - 1));
      state.next = page.next;
      more.hidden = !page.next;
      count.textContent = page.total ? `${page.total} ${page.total === 1 ? "result" : "results"}` : state.status ? "None has failed" : "This folder has no results yet";
    } catch (error) {
      trouble.replaceChildren(problemBox(error, () => load(afresh)));
    }
  }

  function card(item, number) {
    const failed = item.status === "failed";
    const image = item.thumb ? make("img", { alt: "", "data-src": `${item.thumb}?max_side=400` }) : make("span", { class: "blank", text: failed ? "failed" : "no picture" });
    if (item.thumb) seen.observe(image);
    const name = make("span", { class: "name", text: item.name, title: item.name });
    if (failed) return make("li", { class: "failed" }, make("div", { class: "card" }, image, name, make("span", { class: "why", text: item.error })));
    return make("li", {}, make("button", { type: "button", class: "card", onclick: () => open(number) }, image, name));
  }

  let stage = null;
  const shut = () => {
    if (stage) stage.close();
    stage = null;
  };
  dialog.addEventListener("close", () => { shut(); dialog.replaceChildren(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "PageDown" && event.key !== "PageUp") return;
    const step = event.key === "PageDown" ? 1 : -1;
    for (let i = number + step; state.items[i]; i += step) if (state.items[i].status !== "failed") return open(i);
  });
  let number = 0;

  async function open(chosen) {
    number = chosen;
    shut();
    const item = state.items[chosen], place = make("div", { class: "photo" }, make("p", { class: "wait", role: "status", text: "Opening …" }));
    const close = press("Close", () => dialog.close());
    const step = (by, text) => {
      let i = chosen + by;
      while (state.items[i] && state.items[i].status === "failed") i += by;
      return press(text, () => open(i), { disabled: !state.items[i] });
    };
    dialog.setAttribute("aria-label", item.name);
    dialog.replaceChildren(make("div", { class: "heading" }, make("h1", { text: item.name }), step(-1, "Previous"), step(1, "Next"), close), place);
    if (!dialog.open) dialog.showModal();
    close.focus();
    try {
      const parts = item.depth ? await solidStage(item) : await pictures(item);
      if (number === chosen && dialog.open) place.replaceChildren(...parts);
    } catch (error) {
      place.replaceChildren(problemBox(error, () => open(chosen)));
    }
  }

  async function solidStage(item) {
    const page = item.files.find(({ format }) => format === "html"), map = await readNumbers(`v1/gallery/${item.id}`);
    const data = page ? viewerData(await (await call(page.url)).text()) : null;
    const side = item.files.find(({ format, media_type: type }) => format === "side" && type.startsWith("image/"));
    const photo = data && data.texture ? `data:image/jpeg;base64,${data.texture}` : side ? await leftOf(await shown(side.url), map.meta.size) : null;
    shut();
    stage = makeStage({ map, photo, name: item.name, colors, solid: page ? async () => page.url : null });
    return [stage.stage, make("aside", {}, stage.readout, stage.controls, files(item), model(item))];
  }

  async function pictures(item) {
    const images = item.files.filter(({ media_type: type }) => type.startsWith("image/"));
    const figures = await Promise.all(images.map(async ({ url, name }) => make("figure", {}, make("img", { src: await shown(url), alt: name }), make("figcaption", { text: name }))));
    return [make("div", { class: "pictures" }, ...(figures.length ? figures : [hint("It has no picture to show.")])), make("aside", {}, files(item), model(item))];
  }

  /** Return the address of the photo in a picture that shows it left of its depth. */
  async function leftOf(src, [width, height]) {
    const image = new Image(), canvas = make("canvas", { width, height });
    image.src = src;
    await image.decode();
    canvas.getContext("2d").drawImage(image, 0, 0, (image.naturalHeight * width) / height, image.naturalHeight, 0, 0, width, height);
    return URL.createObjectURL(await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92)));
  }

  const model = (item) => (item.model ? hint(`Made by ${item.model}`) : "");

  const files = (item) => make("section", { class: "group" }, make("h2", { text: "Download" }), downloads(item, about.formats));
  await load(true);
  return { element, refresh: () => load(true) };
}
