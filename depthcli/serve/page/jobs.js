/** Jobs of the service: sent, listed, followed, cancelled; each kind shows its own results. */

import { action, bytes, choice, duration, hint, make, marked, press, problemBox, sizeChoice } from "./make.js";
import { ask, busyIn, call, follow, Problem, save, send } from "./service.js";

export const SOURCE = "source"; // format of what was sent
const ENDED = ["done", "failed", "cancelled"];

/**
 * Return the jobs of a kind: { list, trouble, sent(path, query, body, name), refresh() }. limit: bytes of a body. nothing:
 * text of the empty list. results(job): an element for a job that has ended, of its files.
 */
export function jobList({ kind, limit, nothing: words, results }) {
  const cards = new Map(), list = make("div", { class: "jobs" }), trouble = make("div");
  const nothing = make("p", { class: "hint nothing", text: words });
  const empty = () => { if (cards.size) nothing.remove(); else list.append(nothing); };

  function add(job) {
    if (job.kind !== kind || cards.has(job.id)) return;
    const card = jobCard(job, () => { cards.delete(job.id); empty(); }, results);
    cards.set(job.id, card);
    list.prepend(card);
    empty();
  }

  /** Send a body and list its job. Whether it was taken. */
  async function sent(path, query, body, name) {
    trouble.replaceChildren();
    if (body.size > limit) {
      trouble.replaceChildren(problemBox(new Problem(`${name} has ${bytes(body.size)}`, `this service takes up to ${bytes(limit)}`)));
      return false;
    }
    const stop = new AbortController(), bar = make("progress", { max: "1", value: 0, "aria-label": `Sending ${name}` });
    const status = make("p", { class: "hint", role: "status", text: "Sending …" });
    const card = make("article", { class: "job" }, make("header", {}, make("h2", { text: name }), press("Cancel", () => stop.abort())), bar, status);
    list.prepend(card);
    try {
      const job = await send(`${path}?${query}`, body, {
        signal: stop.signal,
        progress: (part) => {
          bar.value = part;
          status.textContent = part < 1 ? `Sending: ${Math.round(100 * part)} % of ${bytes(body.size)}` : "The service reads it …";
        },
        waiting: busyIn(status, "Sending …"),
      });
      card.remove();
      add(job);
      return true;
    } catch (error) {
      card.remove();
      if (!stop.signal.aborted) trouble.replaceChildren(problemBox(error, () => sent(path, query, body, name)));
      return false;
    }
  }

  /** Show jobs that came from elsewhere, too. */
  const refresh = async () => {
    for (const job of (await ask("v1/jobs")).jobs.reverse()) add(job); // the newest first
    empty();
  };
  return { list, trouble, sent, refresh };
}

/**
 * Return the options of a kind of jobs: model, size, further ones, and formats beside those of the state. What is chosen
 * is kept in it: { model, size, formats }. formats: of GET /v1.
 */
export function jobOptions(state, models, formats, ...more) {
  const size = make("div"), sized = () => {
    state.size = "";
    size.replaceChildren(sizeChoice(models.find(({ name }) => name === state.model), "", (chosen) => { state.size = chosen; }));
  };
  sized();
  const boxes = Object.entries(formats).filter(([name]) => !state.formats.has(name)).map(([name, what]) => make("label", { class: "check" }, make("input", {
    type: "checkbox", onchange: ({ target }) => (target.checked ? state.formats.add(name) : state.formats.delete(name)),
  }), make("span", {}, make("b", { text: name }), ` ${what}`)));
  return make("div", { class: "options" },
    models.length > 1 ? choice("Model", models.map(({ name, title }) => [name, title]), state.model, (name) => { state.model = name; sized(); }) : null,
    size, ...more, make("details", {}, make("summary", { text: "Also write …" }), make("div", { class: "checks" }, ...boxes)));
}

/** Return the parameters of a job with such options. name: of what is sent. */
export function jobQuery(name, { model, size, formats }, more = {}) {
  return new URLSearchParams({ name, model, format: [...formats].join(","), ...(size ? { input_size: size } : {}), ...more });
}

/** Return buttons that download results, with what each is. formats: of GET /v1. What only notes how they came about is last. */
export function downloads({ files }, formats) {
  const status = make("div", { role: "status" });
  const list = (some) => make("ul", { class: "formats files" }, ...some.map(({ name, format, url, size }) => make("li", {}, action(name, status, () => save(url), { title: name }),
    make("span", { text: [...(formats[format] ? [formats[format]] : []), bytes(size)].join(" · ") }))));
  const notes = files.filter(({ format }) => format === "json");
  return make("div", { class: "group" }, list(files.filter((file) => file.format !== SOURCE && !notes.includes(file))),
    notes.length ? make("details", {}, make("summary", { text: "How they were made" }), list(notes)) : null, status);
}

/** Return the card of a job, which follows it. forgotten(): it is gone. results(job): of one that has ended. */
function jobCard(job, forgotten, results) {
  const card = make("article", { class: "job", "aria-label": job.name });
  const watch = new AbortController();
  const bar = make("progress", { max: "1", "aria-label": `Progress of ${job.name}` }), status = make("p", { class: "hint" });
  const said = make("p", { class: "unseen", role: "status" }), body = make("div"), actions = make("div");
  card.append(make("header", {}, make("h2", { text: job.name }), actions), bar, status, said, body);
  let drawn = "";

  function gone() {
    watch.abort();
    card.remove();
    forgotten();
  }

  async function remove() {
    try {
      const answer = await call(job.url, { method: "DELETE" });
      if (answer.status === 204) gone();
      else draw(await answer.json());
    } catch (error) {
      if (error.status === 404) gone();
      else body.replaceChildren(problemBox(error));
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
    const end = works ? "Cancel" : "Remove";
    actions.replaceChildren(press(end, remove, { "aria-label": `${end} ${job.name}` }));
    body.replaceChildren();
    if (job.error) body.append(make("p", { class: "problem" }, ...marked(job.error)));
    for (const text of [...job.warnings, ...job.notes]) body.append(hint(text));
    if (job.files.length && !works) body.append(results(job));
  }
  draw(job);
  if (!ENDED.includes(job.state)) {
    const go = () => follow(job, watch.signal, draw).catch((error) => {
      body.replaceChildren(problemBox(error, () => { drawn = ""; draw(job); go(); }));
      if (error.status === 404) forgotten();
    });
    go();
  }
  return card;
}

function textOf({ kind, state, stage, frames_done: done, frames, fps, eta_s: eta, model, files, expires, ahead }) {
  if (state === "queued") return ahead ? `Waits for its turn, ${ahead} before it` : "Waits for its turn";
  if (state === "cancelled") return "Cancelled";
  if (state === "running") {
    if (stage === "write") return "Writing the files …";
    if (kind === "scene") return stage === "read" ? `Reading picture ${done} of ${frames}` : stage ? "The network sees all views …" : "Starting …";
    if (!done) return "Starting …";
    const parts = [frames ? `frame ${done} of ${frames}` : `frame ${done}`];
    if (fps) parts.push(`${fps.toFixed(1)} a second`);
    if (eta !== null) parts.push(`${duration(eta)} left`);
    return parts.join(" · ");
  }
  const size = files.filter(({ format }) => format !== SOURCE).reduce((sum, file) => sum + file.size, 0);
  const parts = [state === "done" ? "Done" : "Failed", ...(kind === "scene" ? [] : [`${done} frames`]), model];
  if (size) parts.push(bytes(size));
  if (expires) parts.push(`kept until ${new Date(expires * 1000).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" })}`);
  return parts.join(" · ");
}
