/** Clips: send one, watch it being done, play it beside its depth, take the files home. */

import { compare } from "./compare.js";
import { downloads, jobList, jobOptions, jobQuery, SOURCE } from "./jobs.js";
import { action, bytes, byTouch, choice, hint, make, picker, press, range, segments } from "./make.js";
import { colorChoices } from "./numbers.js";
import { shown } from "./service.js";

const FILM = "mp4";

/** Return the view of clips: { element, take(files), refresh() }. about: of GET /v1. */
export async function clipView(about) {
  const colors = await colorChoices(), models = about.models.filter(({ task }) => task !== "scene");
  const usual = (models.find(({ task }) => task === "clip") || models[0]).name;
  const state = { model: usual, size: "", colors: colors[0][0], formats: new Set([FILM]) };
  const jobs = jobList({ kind: "clip", limit: about.limits.max_clip_bytes, nothing: "Clips that were sent stand here, also after this page was closed.", results: (job) => results(job, about.clip_formats) });

  const options = jobOptions(state, models, about.clip_formats, choice("Colours", colors, state.colors, (name) => { state.colors = name; }));
  const start = picker({
    what: "a clip", hint: `${byTouch() ? "" : "or choose one, "}up to ${bytes(about.limits.max_clip_bytes)}. It is done in the background: this page may be closed.`,
    button: "Choose a clip", accept: "video/*,.mkv,.avi,.mts,.gif", take: ([file]) => take(file),
  }, options);
  const element = make("div", { class: "clips" }, jobs.trouble, start, jobs.list);

  async function take(file) {
    await jobs.sent("v1/clips", jobQuery(file.name, state, { colormap: state.colors }), file, file.name);
  }
  await jobs.refresh();
  return { element, take: ([file]) => take(file), refresh: jobs.refresh };
}

/** Return the films and the files of a job that has ended. formats: of GET /v1. */
function results(job, formats) {
  const photo = job.files.find(({ format }) => format === SOURCE), film = job.files.find(({ format, media_type: type }) => format === FILM && type.startsWith("video/"));
  const side = job.files.find(({ format, media_type: type }) => format === "side" && type.startsWith("video/"));
  const place = make("div");
  const play = film && photo ? action("Play with its depth", place, async () => {
    const [one, other] = await Promise.all([shown(photo.url), shown(film.url)]);
    place.replaceChildren(makePlayer(one, other, job.name, side && (() => shown(side.url))));
    place.querySelector(".play").focus();
    play.remove();
  }, { class: "main" }) : null;
  return make("div", { class: "results" }, place, make("div", { class: "chips" }, play), downloads(job, formats));
}

/**
 * Return a player of two films at one time: one over the other with a divider, or side by side. together(): promise of the
 * address of a film that shows the two, for browsers that cannot play the clip itself.
 */
function makePlayer(source, depth, name, together) {
  const film = (src, what, layer) => make("video", { src, class: layer, muted: true, playsinline: true, loop: true, preload: "auto", "aria-label": `${what}: ${name}` });
  const first = film(source, "Clip", "layer"), second = film(depth, "Depth", "layer over"), both = [first, second];
  for (const one of both) one.muted = true;
  const place = make("div", { class: "screen" });
  const seek = range(0, 1, 0.001, 0, { "aria-label": "Time" });
  const time = make("span", { class: "time", text: "0:00" });
  const button = press("Play", () => (second.paused ? start() : stop()), { class: "play" });
  const shape = segments("View", [["over", "Compare"], ["beside", "Side by side"]], "over", (view) => lay(view));
  const player = make("div", { class: "player" }, place, make("div", { class: "transport" }, button, seek, time, shape));

  function lay(view) {
    place.className = `screen ${view}`;
    if (alone) [place.className, view] = ["screen alone", "alone"];
    for (const [one, kind] of [[first, ""], [second, " over"]]) one.className = view === "over" ? `layer${kind}` : "";
    place.replaceChildren(...(view === "over" ? [compare(first, second, [second.videoWidth || 16, second.videoHeight || 9], { what: ["Clip", "Depth"] })] : alone ? [second] : both));
    if (!wanted) return;
    start(); // moving an element in the page pauses its film
  }
  let wanted = false, alone = false;
  const start = () => {
    wanted = true;
    button.textContent = "Pause";
    first.currentTime = second.currentTime;
    for (const one of both) one.play().catch(() => {});
    requestAnimationFrame(keep);
  };
  const stop = () => {
    wanted = false;
    button.textContent = "Play";
    for (const one of both) one.pause();
    first.currentTime = second.currentTime;
  };
  // The depth leads. The other follows: gently by its speed, and with a jump if it is far off.
  function keep() {
    if (!player.isConnected) return stop();
    const off = alone ? 0 : second.currentTime - first.currentTime;
    if (Math.abs(off) > 0.25 && !first.seeking) first.currentTime = second.currentTime;
    else first.playbackRate = Math.abs(off) > 0.02 ? 1 + Math.max(-0.3, Math.min(0.3, 2 * off)) : 1;
    if (!seek.matches(":active")) show();
    if (wanted) requestAnimationFrame(keep);
  }
  const show = () => {
    const whole = second.duration || 0, now = second.currentTime, text = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;
    seek.value = whole ? now / whole : 0;
    seek.setAttribute("aria-valuetext", `${text(now)} of ${text(whole)}`);
    time.textContent = `${text(now)} / ${text(whole)}`;
  };
  seek.addEventListener("input", () => { for (const one of both) one.currentTime = seek.value * (second.duration || 0); });
  second.addEventListener("loadedmetadata", () => { lay("over"); show(); });
  first.addEventListener("error", async () => {
    alone = true;
    shape.hidden = true;
    place.after(hint(`This browser cannot play the clip itself: ${together ? "here is the film that shows both." : "its depth plays alone. Also write “side” to see both."}`));
    lay("alone");
    if (together) second.src = await together();
  }, { once: true });
  second.addEventListener("error", () => place.after(make("p", { class: "problem", text: "This browser cannot play the film of the depth. It can be downloaded." })), { once: true });
  player.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.matches("button, input")) return;
    event.preventDefault();
    button.click();
  });
  lay("over");
  return player;
}
