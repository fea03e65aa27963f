/** Depth as numbers: read from f16 and f32, coloured, and worded. Never from an 8-bit picture. */

import { ask, call, Problem } from "./service.js";

const SIDE = 1024; // pixels of the longer side: 1.6 MB
let colors = null;

/** Return the colour maps as [name, text], the default one first. */
export async function colorChoices() {
  const { usual, tables } = await (colors = colors || ask("page/colors.json"));
  const others = Object.keys(tables).flatMap((name) => [name, `${name}_r`]).filter((name) => name !== usual);
  return [usual, ...others].map((name) => [name, name.replace(/_r$/, ", reversed") + (name === usual ? " (usual)" : "")]);
}

/** Return 256 RGB colours from far to near. */
export async function colorTable(name) {
  const { tables } = await colors, reversed = name.endsWith("_r"), bytes = atob(tables[reversed ? name.slice(0, -2) : name]);
  return Uint8Array.from({ length: 768 }, (_, i) => bytes.charCodeAt(reversed ? 765 - i + 2 * (i % 3) : i));
}

/** Return the end for what is near of a table of colorTable, as people call it. */
export function nearColor(table) {
  const [far, near] = [0, 765].map((at) => 0.3 * table[at] + 0.6 * table[at + 1] + 0.1 * table[at + 2]);
  if (Math.abs(near - far) > 80) return near > far ? "bright" : "dark";
  return table[765] > table[767] ? "red" : "blue";
}

/** Return a map: width, height, values (Float32Array, NaN without depth) and meta. path: of a result, before /f16. */
export async function readNumbers(path, signal) {
  let answer, wide = false;
  try {
    answer = await call(`${path}/f16?max_side=${SIDE}`, { signal });
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 400) throw error;
    answer = await call(`${path}/f32?max_side=${SIDE}`, { signal }); // numbers that f16 cannot hold
    wide = true;
  }
  const meta = JSON.parse(answer.headers.get("Depth-Meta")), content = new DataView(await answer.arrayBuffer());
  const values = new Float32Array(meta.width * meta.height);
  for (let i = 0; i < values.length; i++) values[i] = wide ? content.getFloat32(4 * i, true) : half(content.getUint16(2 * i, true));
  return { width: meta.width, height: meta.height, values, meta };
}

function half(code) {
  const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, rest = code & 1023;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest * 2 ** -24);
}

/** Paint a map: as to_color of the command line, from its smallest to its largest number. */
export function paint(canvas, { width, height, values, meta }, table) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), span = meta.max - meta.min;
  for (let i = 0; i < values.length; i++) {
    const t = span > 0 ? (values[i] - meta.min) / span : 0, near = meta.near_is === "high" || !(span > 0) ? t : 1 - t;
    if (Number.isNaN(near)) continue; // stays clear
    const code = 3 * Math.max(0, Math.min(255, Math.floor(near * 255)));
    [image.data[4 * i], image.data[4 * i + 1], image.data[4 * i + 2], image.data[4 * i + 3]] = [table[code], table[code + 1], table[code + 2], 255];
  }
  context.putImageData(image, 0, 0);
}

export function paintScale(canvas, table) {
  [canvas.width, canvas.height] = [256, 1];
  const context = canvas.getContext("2d"), image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
  context.putImageData(image, 0, 0);
}

const digits = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toString() : value.toPrecision(3));

/** Return [number, unit] of a value for people. */
export function worded(value, meta) {
  if (Number.isNaN(value)) return ["–", "no depth here"];
  return [digits(value), meta.kind === "metric_depth" ? meta.units || "m" : `relative, larger is ${meta.near_is === "high" ? "nearer" : "farther"}`];
}

/** Return what a map's numbers mean, in a sentence. */
export function meaning(meta) {
  if (meta.kind === "metric_depth") return "Distance from the camera plane, in metres.";
  if (meta.kind === "relative_disparity") return "Relative inverse depth: it orders what is near and far, without a unit. Shapes made of it are a guess.";
  return "Relative depth: right up to one unknown factor, without a unit. Shapes made of it are a guess.";
}

/** Return the numbers at the ends of the colours: [far, near]. */
export function ends(meta) {
  const short = meta.kind === "metric_depth" ? " m" : "", both = [digits(meta.min) + short, digits(meta.max) + short];
  return meta.near_is === "high" ? both : both.reverse();
}
