/** Requests to the service: with the token, again when it was busy or away, and its problems as errors. */

import { make } from "./make.js";

const KEY = "depth-token", MOST_TRIES = 40;
let token = sessionStorage.getItem(KEY) || "";
let asked = null, away = null;

/** An error of the service: `message` and `hint` are its words. */
export class Problem extends Error {
  constructor(title, hint = "", status = 0) {
    super(title);
    Object.assign(this, { hint, status });
  }
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

export const pause = (seconds, signal) => new Promise((done, failed) => {
  const timer = setTimeout(done, seconds * 1000);
  if (signal) signal.addEventListener("abort", () => { clearTimeout(timer); failed(signal.reason); }, { once: true });
});

/**
 * Return the answer to a request. Raises Problem, and AbortError if `signal` says so.
 * waiting(seconds): see wait.
 */
export async function call(path, { method = "GET", body, signal, waiting, ...more } = {}) {
  for (let tries = 1, lost = 0; ; tries++) {
    let answer;
    const used = token;
    try {
      answer = await fetch(path, { method, body, signal, cache: "no-store", headers: { ...headers(), ...more.headers } });
    } catch (error) {
      if (signal && signal.aborted) throw error;
      const was = await back(signal);
      // It is there and yet does not take this: not again and again.
      if (was === "here" && ++lost > 1) throw new Problem("The connection was lost while sending", "the file may be too large for this service");
      continue;
    }
    if (answer.status === 401) {
      if (used === token) await askToken(Boolean(used));
      continue;
    }
    if (answer.status === 503 && tries < MOST_TRIES && answer.headers.has("Retry-After")) {
      await wait(answer.headers.get("Retry-After"), signal, waiting);
      continue;
    }
    if (!answer.ok) throw await problemOf(answer);
    return answer;
  }
}

/**
 * Wait as long as a busy service asks for. waiting(seconds): is called each second with those that are left, and with 0
 * when the service is asked again; without it, a notice tells them.
 */
async function wait(after, signal, waiting = notice) {
  const seconds = Math.min(30, Number(after) || 1) * (0.8 + 0.4 * Math.random()), steps = Math.ceil(seconds);
  try {
    for (let left = steps; left; left--) {
      waiting(left);
      await pause(seconds / steps, signal);
    }
  } finally {
    waiting(0);
  }
}

function notice(seconds) {
  const place = document.getElementById("gone");
  if (!away) busyIn(place, "")(seconds);
  if (!away) place.hidden = !seconds;
}

/** Return a `waiting` that tells the seconds in an element, whose text is `usual` otherwise. Only "busy" is read aloud. */
export const busyIn = (place, usual) => (seconds) => place.replaceChildren(...(seconds ? ["The service is busy. Asking again ", make("span", { "aria-hidden": "true", text: `in ${seconds} s …` })] : [usual]));

export const ask = async (path, options) => (await call(path, options)).json();

async function problemOf(answer) {
  try {
    const { title, hint, status } = await answer.json();
    return new Problem(title, hint, status);
  } catch {
    return new Problem(`The service answered with ${answer.status}`, "", answer.status);
  }
}

/** Wait until the service answers. Return "here" if it did at once. */
async function back(signal) {
  if (await lives()) return "here";
  if (!away) {
    away = (async () => {
      const notice = document.getElementById("gone");
      notice.textContent = "The service does not answer. This page goes on as soon as it is back.";
      notice.hidden = false;
      do await pause(1.5); while (!(await lives()));
      notice.textContent = "The service is back.";
      setTimeout(() => { if (!away) notice.hidden = true; }, 3000);
      away = null;
    })();
  }
  await Promise.race([away, new Promise((_, failed) => { if (signal) signal.addEventListener("abort", () => failed(signal.reason), { once: true }); })]);
  return "back";
}

async function lives() {
  try {
    return (await fetch("livez", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** Let a person type the token. All requests that miss it wait for the same answer. Raises Problem without one. */
function askToken(wrong) {
  if (asked) return asked;
  const dialog = document.getElementById("ask"), input = document.getElementById("token");
  document.getElementById("ask-title").textContent = wrong ? "This is not the token of the service" : "This service wants its token";
  input.value = dialog.returnValue = "";
  dialog.showModal();
  asked = new Promise((done, failed) => {
    dialog.addEventListener("close", () => {
      asked = null;
      // Escape and Cancel close it, too: what was typed is not meant then.
      if (!dialog.returnValue) return failed(new Problem("This service wants its token", "it answers nothing without it"));
      token = input.value.trim();
      sessionStorage.setItem(KEY, token);
      done();
    }, { once: true });
  });
  return asked;
}

/** Send a file. progress(part): from 0 to 1. Raises as call. A connection that breaks is not taken up again. */
export async function send(path, file, { signal, progress, waiting }) {
  for (;;) {
    const used = token, answer = await new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open("POST", path);
      for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.total ? event.loaded / event.total : 0);
      request.onload = () => done(request);
      request.onerror = () => failed(new Problem("The connection was lost while sending", "send the file again"));
      request.onabort = () => failed(signal.reason);
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(file);
    });
    const said = new Response(answer.responseText || "{}", { status: Math.max(200, answer.status) });
    if (answer.status === 401) {
      if (used === token) await askToken(Boolean(used));
    } else if (answer.status === 503 && answer.getResponseHeader("Retry-After")) {
      await wait(answer.getResponseHeader("Retry-After"), signal, waiting);
    } else if (answer.status >= 300) throw await problemOf(said);
    else return said.json();
  }
}

/** Follow a job until it has ended or `signal` says so: take(job) for each event. */
export async function follow(job, signal, take) {
  let last = "";
  for (;;) {
    try {
      const answer = await call(`${job.url}/events`, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (text + value).split("\n\n");
        text = events.pop();
        for (const event of events) {
          const line = (name) => (event.split("\n").find((one) => one.startsWith(`${name}: `)) || "").slice(name.length + 2);
          last = line("id") || last;
          if (!line("data")) continue;
          job = JSON.parse(line("data"));
          take(job);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem) throw error;
    }
    if (!["queued", "running"].includes(job.state)) return;
    await pause(1);
  }
}

/** Return an address that an <img> or <video> can show: they send no token. */
export async function shown(path, signal) {
  return token ? URL.createObjectURL(await (await call(path, { signal })).blob()) : path;
}

/** Save an answer as a file under the name that the service gives it. */
export async function save(path, options) {
  const answer = await call(path, options), named = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("Content-Disposition") || "");
  const url = URL.createObjectURL(await answer.blob());
  make("a", { href: url, download: named ? decodeURIComponent(named[1]) : "depth" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
