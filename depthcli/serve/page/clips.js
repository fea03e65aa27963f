/** Clips: send one, watch it being done, play it beside its depth, take the files home. */

import { compare } from "./compare.js";
import { bytes, choice, duration, make, marked, picker, problemBox, segments, sizeChoice } from "./make.js";
import { colorChoices } from "./numbers.js";
import { ask, call, follow, Problem, save, send, shown } from "./service.js";

const FILM = "mp4", SOURCE = "source";
const ENDED = ["done", "failed", "cancelled"];

/** Return the view of clips: { element, take(file) }. about: of GET /v1. */
export async function clipView(about) {
  const colors = await colorChoices(), models = about.models;
  const usual = (models.find(({ task }) => task === "clip") || models[0]).name;
  const state = { model: usual, size: "", colors: colors[0][0], formats: new Set([FILM]) };
  const cards = new Map(), list = make("div", { class: "jobs" }), trouble = make("div");

  const extra = Object.entries(about.clip_formats).filter(([name]) => name !== FILM);
  const boxes = extra.map(([name, what]) => make("label", { class: "check" }, make("input", {
    type: "checkbox", onchange: (event) => (event.target.checked ? state.formats.add(name) : state.formats.delete(name)),
  }), make("span", {}, make("b", { text: name }), ` ${what}`)));
  const size = make("div"), sized = () => {
    state.size = "";
    size.replaceChildren(sizeChoice(models.find(({ name }) => name === state.model), "", (chosen) => { state.size = chosen; }));
  };
  sized();
  const options = make("div", { class: "options" },
    models.length > 1 ? choice("Model", models.map(({ name, title }) => [name, title]), state.model, (name) => { state.model = name; sized(); }) : null,
    size,
    choice("Colours", colors, state.colors, (name) => { state.colors = name; }),
    make("details", {}, make("summary", { text: "Also write …" }), make("div", { class: "checks" }, ...boxes)));
  const start = picker({
    title: "Drop a clip", hint: `or choose one, up to ${bytes(about.limits.max_clip_bytes)}. It is done in the background: this page may be closed.`,
    button: "Choose a clip", accept: "video/*,.mkv,.avi,.mts,.gif", take,
  }, options);
  const element = make("div", { class: "clips" }, trouble, start, list);

  async function take(file) {
    trouble.replaceChildren();
    if (file.size > about.limits.max_clip_bytes) {
      return trouble.replaceChildren(problemBox(new Problem(`${file.name} has ${bytes(file.size)}`, `this service takes clips up to ${bytes(about.limits.max_clip_bytes)}`)));
    }
    const stop = new AbortController(), bar = make("progress", { max: "1", value: 0, "aria-label": `Sending ${file.name}` });
    const status = make("p", { class: "hint", role: "status", text: "Sending …" });
    const card = make("article", { class: "job" }, make("header", {}, make("h2", { text: file.name }), make("button", { type: "button", text: "Cancel", onclick: () => stop.abort() })), bar, status);
    list.prepend(card);
    const query = new URLSearchParams({ name: file.name, model: state.model, colormap: state.colors, format: [...state.formats].join(",") });
    if (state.size) query.set("input_size", state.size);
    try {
      const job = await send(`v1/clips?${query}`, file, {
        signal: stop.signal,
        progress: (part) => {
          bar.value = part;
          status.textContent = part < 1 ? `Sending: ${Math.round(100 * part)} % of ${bytes(file.size)}` : "The service reads the clip …";
        },
        waiting: (seconds) => { status.textContent = `The service is busy. Sending again in ${seconds} s …`; },
      });
      card.remove();
      add(job);
    } catch (error) {
      card.remove();
      if (!stop.signal.aborted) trouble.replaceChildren(problemBox(error, () => take(file)));
    }
  }

  function add(job) {
    if (cards.has(job.id)) return;
    const card = jobCard(job, () => { cards.delete(job.id); empty(); });
    cards.set(job.id, card);
    list.prepend(card);
    empty();
  }

  const nothing = make("p", { class: "hint nothing", text: "Clips that were sent stand here, also after this page was closed." });
  const empty = () => { if (cards.size) nothing.remove(); else list.append(nothing); };
  /** Show jobs that came from elsewhere, too. */
  const refresh = async () => {
    for (const job of (await ask("v1/jobs")).jobs.reverse()) add(job); // the newest first
    empty();
  };
  await refresh();
  return { element, take, refresh };
}

/** Return the card of a job, which follows it. forgotten(): it is gone. */
function jobCard(job, forgotten) {
  const card = make("article", { class: "job", "aria-label": job.name });
  const watch = new AbortController();
  const bar = make("progress", { max: "1", "aria-label": `Progress of ${job.name}` }), status = make("p", { class: "hint" });
  const said = make("p", { class: "unseen", role: "status" }), body = make("div"), actions = make("div", { class: "actions" });
  card.append(make("header", {}, make("h2", { text: job.name }), actions), bar, status, said, body);
  let drawn = "";

  async function remove() {
    try {
      const answer = await call(job.url, { method: "DELETE" });
      if (answer.status === 204) {
        watch.abort();
        card.remove();
        forgotten();
      } else draw(await answer.json());
    } catch (error) {
      if (error.status === 404) {
        card.remove();
        forgotten();
      } else body.replaceChildren(problemBox(error));
    }
  }

  function draw(now) {
    if (drawn === "cancelled" && !ENDED.includes(now.state)) return; // it ends with its frame
    job = now;
    const works = !ENDED.includes(job.state);
    bar.hidden = !works;
    if (job.frames && job.state === "running") bar.value = job.frames_done / job.frames;
    else bar.removeAttribute("value");
    status.textContent = textOf(job);
    if (drawn === job.state) return;
    drawn = job.state;
    said.textContent = `${job.name}: ${job.state}`;
    card.dataset.state = job.state;
    actions.replaceChildren(make("button", { type: "button", text: works ? "Cancel" : "Remove", "aria-label": `${works ? "Cancel" : "Remove"} ${job.name}`, onclick: remove }));
    body.replaceChildren();
    if (job.error) body.append(make("p", { class: "problem" }, ...marked(job.error)));
    for (const text of [...job.warnings, ...job.notes]) body.append(make("p", { class: "hint" }, ...marked(text)));
    if (job.files.length && !works) body.append(results(job));
  }
  draw(job);
  if (!ENDED.includes(job.state)) {
    follow(job, watch.signal, draw).catch((error) => {
      body.replaceChildren(problemBox(error));
      if (error.status === 404) forgotten();
    });
  }
  return card;
}

function textOf({ state, stage, frames_done: done, frames, fps, eta_s: eta, model, files, expires }) {
  if (state === "queued") return "Waits for its turn";
  if (state === "cancelled") return "Cancelled";
  if (state === "running") {
    if (stage === "write") return "Writing the files …";
    if (!done) return "Starting …";
    const parts = [frames ? `frame ${done} of ${frames}` : `frame ${done}`];
    if (fps) parts.push(`${fps.toFixed(1)} a second`);
    if (eta !== null) parts.push(`${duration(eta)} left`);
    return parts.join(" · ");
  }
  const size = files.filter(({ format }) => format !== SOURCE).reduce((sum, file) => sum + file.size, 0);
  const parts = [state === "done" ? "Done" : "Failed", `${done} frames`, model];
  if (size) parts.push(bytes(size));
  if (expires) parts.push(`kept until ${new Date(expires * 1000).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" })}`);
  return parts.join(" · ");
}

/** Return the films and the files of a job that has ended. */
function results(job) {
  const photo = job.files.find(({ format }) => format === SOURCE), film = job.files.find(({ format, media_type: type }) => format === FILM && type.startsWith("video/"));
  const side = job.files.find(({ format, media_type: type }) => format === "side" && type.startsWith("video/"));
  const place = make("div"), status = make("div", { role: "status" });
  const chips = job.files.filter(({ format }) => format !== SOURCE).map((file) => {
    const made = make("button", {
      type: "button", title: bytes(file.size), text: file.name,
      onclick: async () => {
        made.disabled = true;
        status.replaceChildren();
        await save(file.url).catch((error) => status.replaceChildren(problemBox(error)));
        made.disabled = false;
      },
    });
    return made;
  });
  const play = film && photo ? make("button", {
    type: "button", class: "main", text: "Play with its depth",
    onclick: async () => {
      play.disabled = true;
      try {
        const [one, other] = await Promise.all([shown(photo.url), shown(film.url)]);
        place.replaceChildren(makePlayer(one, other, job.name, side && (() => shown(side.url))));
        place.querySelector(".play").focus();
        play.remove();
      } catch (error) {
        status.replaceChildren(problemBox(error));
        play.disabled = false;
      }
    },
  }) : null;
  return make("div", { class: "results" }, place, make("div", { class: "chips" }, play, ...chips), status);
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
  const seek = make("input", { type: "range", min: "0", max: "1", step: "0.001", value: "0", "aria-label": "Time" });
  const time = make("span", { class: "time", text: "0:00" });
  const button = make("button", { type: "button", class: "play", text: "Play", onclick: () => (second.paused ? start() : stop()) });
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
    place.after(make("p", { class: "hint", text: together ? "This browser cannot play the clip itself: here is the film that shows both." : "This browser cannot play the clip itself: its depth plays alone. Also write “side” to see both." }));
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
