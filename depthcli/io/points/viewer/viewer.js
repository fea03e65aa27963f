
"use strict";
/*
 * depthViewer(canvas, data, options) draws the mesh of a depth map, those of the views of a scene, or those of the
 * frames of a clip, one at a time, and returns what a page needs to steer it:
 *   show("mesh" | "points" | "depth"), reset(), sway(), fill(on), changed(), close(), shown, filled;
 *   dots(times): size of the points, from 1; widen(times): the tangents of a picture's angle of view, from 1;
 *   of a scene also look(view), only(), views (name, on, tint), put(view, on), cameras(on), floor(percent), and what is
 *   now: through (the view that is looked through, or -1), framed, least;
 *   of a clip also play(on), seek(frame), and what is now: playing, frame.
 * data: see page_data in depthcli/io/points/page.py, scene_page_data in depthcli/io/scenes/page.py for a scene, and
 * PageWriter in depthcli/io/video/clip_page.py for a clip.
 * options: padding() gives [top, right, bottom, left] in CSS pixels around the photo in the first view; keys: the
 * element whose keys steer, by default the canvas; onchange() is called if another thing is shown; onerror(text).
 *
 * Space is that of a camera: x right, y down, z forward. A picture is seen first as its camera saw it: a vertex lies on
 * its pixel's ray. Turning is about a point on the axis, at the middle depth. A scene is seen first from outside. While a
 * clip plays, the place to look from stays.
 */
function depthViewer(canvas, data, options = {}) {
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: false, powerPreference: "low-power" });
  const fail = (text) => (options.onerror || console.error)(text);
  if (!gl) {
    fail("This browser offers no WebGL 2, which the view needs.");
    return null;
  }
  gl.clearColor(22 / 255, 22 / 255, 23 / 255, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const SAME = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]; // rows of a pose
  const HOME = { yaw: 0, pitch: 0, x: 0, y: 0, distance: 1 };
  const PAUSE = 900, SWAY = 7000; // milliseconds
  const frames = data.frames || null;
  const views = (data.views || [frames ? { ...data, ...frames[0] } : data]).map((from, i, all) => ({
    ...from, pose: from.pose || SAME, grid: makeGrid(from, frames ? from : data), on: true, tint: tintOf((i + 0.5) / all.length),
  }));
  // A place to look from: `from` takes the space of the first view to that of the place's camera. `unit` is a length.
  const places = views.map((view) => {
    const pivot = middleDepth(view);
    return { from: inverse(view.pose), camera: view.camera, size: view.size, pivot, rest: pivot, unit: pivot[2], home: HOME };
  });
  if (data.views) places[-1] = outside(data);
  let through = data.views ? -1 : 0, place = places[through], framed = true, least = data.least || 0;
  let goal = { ...place.home }, now = { ...goal };
  let dotted = 1, wide = 1;
  let current = 0, wanted = 0, playing = false, clock = 0;
  let shown = data.views ? "points" : "mesh", filled = data.fill, swayFrom = null, asked = 0, last = 0, ready = null;

  // --- The picture -----------------------------------------------------------------------------------------------

  const VERTEX = `#version 300 es
    precision highp float;
    layout(location = 0) in vec2 ray;
    layout(location = 1) in vec2 uv;
    layout(location = 2) in float z;
    layout(location = 3) in float sure;
    uniform mat4 projection, pose;
    uniform mat3 turn;
    uniform vec3 pivot, shift;
    uniform float dot, wide;
    out vec2 place;
    out float depth, known;
    void main() {
      vec3 there = (pose * vec4(ray * z * wide, z, 1.0)).xyz;
      vec3 seen = turn * (there - pivot) + shift;
      gl_Position = projection * vec4(seen, 1.0);
      gl_PointSize = clamp(dot * z / max(seen.z, 1e-6), 1.5, 48.0);
      place = uv;
      depth = there.z;
      known = sure;
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec2 place;
    in float depth, known;
    uniform sampler2D photo, colors;
    uniform vec2 range;
    uniform vec3 tint;
    uniform float least;
    uniform int look;
    uniform bool inverse;
    out vec4 color;
    void main() {
      if (look == 3) {
        color = vec4(tint, 1.0);
        return;
      }
      if (known < least) discard;
      if (look == 1 && length(gl_PointCoord - 0.5) > 0.5) discard;
      if (look == 2) {
        float t = inverse ? (1.0 / depth - 1.0 / range.y) / (1.0 / range.x - 1.0 / range.y)
                          : (range.y - depth) / (range.y - range.x);
        color = vec4(texture(colors, vec2(clamp(t, 0.0, 1.0) * 255.0 / 256.0 + 0.5 / 256.0, 0.5)).rgb, 1.0);
      } else {
        color = vec4(texture(photo, place).rgb, 1.0);
      }
      if (look != 1 && !gl_FrontFacing) color.rgb *= 0.4;
    }`;

  function setUp(images) {
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      if (!gl.isContextLost()) fail("The graphics driver refuses the view: " + gl.getProgramInfoLog(program));
      return;
    }
    gl.useProgram(program);
    const at = {};
    for (const name of ["projection", "pose", "turn", "pivot", "shift", "dot", "wide", "photo", "colors", "range", "tint", "least",
      "look", "inverse"]) at[name] = gl.getUniformLocation(program, name);
    gl.uniform1i(at.photo, 0);
    gl.uniform1i(at.colors, 1);
    gl.uniform1i(at.inverse, data.inverse ? 1 : 0);
    gl.uniform2f(at.range, data.near, Math.max(data.far, data.near * (1 + 1e-6)));
    setTexture(1, null);
    ready = { at, views: views.map((view, i) => layersOf(view, images[frames ? current : i])) };
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.clearColor(22 / 255, 22 / 255, 23 / 255, 1);
    changed();
  }

  function layersOf(view, image) {
    const texture = setTexture(0, image), { grid } = view;
    const sure = grid.sure && buffer(gl.ARRAY_BUFFER, grid.sure);
    const layer = ({ rays, places, depths }, indices, sure = null) => {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      [[rays, 2], [places, 2], [depths, 1]].forEach(([from, size], location) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, from);
        gl.enableVertexAttribArray(location);
        gl.vertexAttribPointer(location, size, gl.FLOAT, false, 0, 0);
      });
      if (sure) {
        gl.bindBuffer(gl.ARRAY_BUFFER, sure);
        gl.enableVertexAttribArray(3);
        gl.vertexAttribPointer(3, 1, gl.UNSIGNED_BYTE, false, 0, 0);
      }
      buffer(gl.ELEMENT_ARRAY_BUFFER, indices);
      return { array, count: indices.length };
    };
    const buffers = (from) => Object.fromEntries(["rays", "places", "depths"].map((name) => [name, buffer(gl.ARRAY_BUFFER, from[name])]));
    const own = buffers(grid);
    const made = { own, texture, mesh: layer(own, grid.triangles, sure), points: layer(own, grid.vertices, sure) };
    const gaps = data.fill ? makeGaps(grid, data) : null;
    if (gaps) {
      made.behind = buffer(gl.ARRAY_BUFFER, gaps.depths);
      made.gaps = layer({ ...own, depths: made.behind }, gaps.triangles);
    }
    if (data.frustum) {
      const lines = makeFrustum(view, data.frustum);
      made.frustum = layer(buffers(lines), lines.segments);
    }
    return made;
  }

  /** Put another frame of a clip into the layers of its view: all frames have the rays and places of one grid. */
  function refill(made, grid, image) {
    const fill = (target, content) => gl.bufferData(target, content, gl.DYNAMIC_DRAW);
    const put = (layer, indices) => {
      gl.bindVertexArray(layer.array);
      fill(gl.ELEMENT_ARRAY_BUFFER, indices);
      layer.count = indices.length;
    };
    gl.bindBuffer(gl.ARRAY_BUFFER, made.own.depths);
    fill(gl.ARRAY_BUFFER, grid.depths);
    put(made.mesh, grid.triangles);
    put(made.points, grid.vertices);
    if (made.gaps) {
      const gaps = makeGaps(grid, data);
      gl.bindBuffer(gl.ARRAY_BUFFER, made.behind);
      fill(gl.ARRAY_BUFFER, gaps.depths);
      put(made.gaps, gaps.triangles);
    }
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, made.texture);
    upload(image);
  }

  function buffer(target, content) {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, content, gl.STATIC_DRAW);
    return made;
  }

  function setTexture(unit, image) {
    gl.activeTexture(gl.TEXTURE0 + unit);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    if (!image) {
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, bytesOf(data.colors));
      return texture;
    }
    upload(image);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    const sharp = gl.getExtension("EXT_texture_filter_anisotropic");
    if (sharp)
      gl.texParameterf(gl.TEXTURE_2D, sharp.TEXTURE_MAX_ANISOTROPY_EXT,
        Math.min(8, gl.getParameter(sharp.MAX_TEXTURE_MAX_ANISOTROPY_EXT)));
    return texture;
  }

  function upload(image) {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, fitting(image));
    gl.generateMipmap(gl.TEXTURE_2D);
  }

  function fitting(image) {
    const scale = gl.getParameter(gl.MAX_TEXTURE_SIZE) / Math.max(image.naturalWidth, image.naturalHeight);
    if (scale >= 1) return image;
    const smaller = document.createElement("canvas");
    smaller.width = Math.floor(image.naturalWidth * scale);
    smaller.height = Math.floor(image.naturalHeight * scale);
    smaller.getContext("2d").drawImage(image, 0, 0, smaller.width, smaller.height);
    return smaller;
  }

  // --- Views -----------------------------------------------------------------------------------------------------

  /** Pixels of the screen for one of the photo, and where the photo's middle is. */
  function frame() {
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    const wide = Math.max(1, Math.round(canvas.clientWidth * ratio)), high = Math.max(1, Math.round(canvas.clientHeight * ratio));
    let [top, right, bottom, left] = (options.padding ? options.padding() : [0, 0, 0, 0]).map((side) => side * ratio);
    const [width, height] = place.size;
    if (left + right > 0.7 * wide || top + bottom > 0.7 * high) top = right = bottom = left = 0; // no room to spare
    const scale = Math.max(1e-6, Math.min((wide - left - right) / width, (high - top - bottom) / height));
    return { wide, high, ratio, scale, x: (left + wide - right) / 2, y: (top + high - bottom) / 2 };
  }

  function draw(time) {
    asked = 0;
    const step = last ? Math.min(time - last, 100) : 16;
    let moving = false;
    const ease = still.matches ? 1 : 1 - Math.exp(-step / 70);
    for (const key in goal) {
      now[key] += (goal[key] - now[key]) * ease;
      if (Math.abs(goal[key] - now[key]) > 1e-4) moving = true;
      else now[key] = goal[key];
    }
    let yaw = now.yaw, pitch = now.pitch;
    if (swayFrom !== null) {
      const t = (time - swayFrom) / SWAY;
      if (t >= 1) swayFrom = null;
      else if (t >= 0) {
        const strength = Math.sin(Math.PI * t);
        yaw += 0.16 * strength * Math.sin(4 * Math.PI * t);
        pitch += 0.05 * strength * Math.sin(2 * Math.PI * t);
      }
      moving = true;
    }
    if (playing) {
      advance(last ? Math.min(time - last, 1000) / 1000 : 0);
      moving = true;
    }
    if (ready && !gl.isContextLost()) paint(yaw, pitch);
    last = moving ? time : 0;
    if (moving) changed();
  }

  function paint(yaw, pitch) {
    const { at } = ready, box = frame(), { camera, size: [width, height], pivot, rest, unit } = place;
    if (canvas.width !== box.wide || canvas.height !== box.high) [canvas.width, canvas.height] = [box.wide, box.high];
    gl.viewport(0, 0, box.wide, box.high);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [fx, fy] = [camera.fx * box.scale, camera.fy * box.scale];
    const cx = box.x + (camera.cx + 0.5 - width / 2) * box.scale, cy = box.y + (camera.cy + 0.5 - height / 2) * box.scale;
    const distance = unit * now.distance, poses = views.map((view) => chained(place.from, view.pose));
    const apart = Math.max(...poses.map((pose) => Math.hypot(pose[3], pose[7], pose[11])));
    const near = Math.max(0.02 * data.near, 0.002 * distance), far = 2 * (data.far * 2 + distance + apart);
    gl.uniformMatrix4fv(at.projection, false, [
      (2 * fx) / box.wide, 0, 0, 0,
      (2 * camera.skew * box.scale) / box.wide, (-2 * fy) / box.high, 0, 0,
      (2 * cx) / box.wide - 1, 1 - (2 * cy) / box.high, (far + near) / (far - near), 1,
      0, 0, (-2 * far * near) / (far - near), 0,
    ]);
    const [cosY, sinY, cosX, sinX] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const turned = [cosY, sinX * sinY, -cosX * sinY, 0, cosX, sinX, sinY, -sinX * cosY, cosX * cosY]; // by column
    const shift = [rest[0] + now.x * unit, rest[1] + now.y * unit, distance];
    const eye = pivot.map((x, i) => x - turned[3 * i] * shift[0] - turned[3 * i + 1] * shift[1] - turned[3 * i + 2] * shift[2]);
    gl.uniformMatrix3fv(at.turn, false, turned);
    gl.uniform3f(at.pivot, ...pivot);
    gl.uniform3f(at.shift, ...shift);
    gl.uniform1f(at.least, least);
    gl.uniform1f(at.wide, wide);
    gl.activeTexture(gl.TEXTURE0);
    views.forEach((view, i) => {
      const layers = ready.views[i], [a, b, c, x, d, e, f, y, g, h, k, z] = poses[i];
      gl.uniformMatrix4fv(at.pose, false, [a, d, g, 0, b, e, h, 0, c, f, k, 0, x, y, z, 1]);
      gl.uniform1f(at.dot, dotted * view.step[2] * box.scale * (camera.fx / view.camera.fx));
      gl.uniform1i(at.look, { mesh: 0, points: 1, depth: 2 }[shown]);
      if (view.on) {
        gl.bindTexture(gl.TEXTURE_2D, layers.texture);
        if (shown === "points") drawLayer(gl.POINTS, layers.points);
        else drawLayer(gl.TRIANGLES, layers.mesh);
        if (shown === "mesh" && filled && layers.gaps) drawLayer(gl.TRIANGLES, layers.gaps);
      }
      if (!framed || !layers.frustum || Math.hypot(x - eye[0], y - eye[1], z - eye[2]) < 2 * data.frustum) return; // in the face
      gl.uniform1i(at.look, 3);
      gl.uniform3f(at.tint, ...view.tint);
      drawLayer(gl.LINES, layers.frustum);
    });
  }

  function drawLayer(kind, layer) {
    gl.bindVertexArray(layer.array);
    gl.drawElements(kind, layer.count, gl.UNSIGNED_INT, 0);
  }

  function changed() {
    if (!asked) asked = requestAnimationFrame(draw);
  }

  function move(change) {
    swayFrom = null;
    goal = { ...goal, ...change };
    goal.pitch = Math.max(-1.5, Math.min(1.5, goal.pitch));
    goal.distance = Math.max(0.1, Math.min(6, goal.distance));
    goal.x = Math.max(-3, Math.min(3, goal.x));
    goal.y = Math.max(-3, Math.min(3, goal.y));
    changed();
  }

  function turn(dx, dy) {
    move({ yaw: goal.yaw - dx, pitch: goal.pitch + dy });
  }

  /** Move by pixels of the page, so that the middle stays under the hand. */
  function slide(dx, dy) {
    const { scale, ratio } = frame(), by = (ratio * goal.distance) / scale;
    move({ x: goal.x + (dx * by) / place.camera.fx, y: goal.y + (dy * by) / place.camera.fy });
  }

  function reset() {
    const turns = Math.round(now.yaw / (2 * Math.PI)) * 2 * Math.PI; // the short way home
    now.yaw -= turns;
    move({ ...place.home });
  }

  /** Look as a view's camera did, or from outside: -1. */
  function look(view) {
    if (!places[view]) return;
    through = view;
    place = places[view];
    now = { ...place.home };
    move({ ...place.home });
    if (options.onchange) options.onchange();
  }

  function change(alter) {
    alter();
    if (options.onchange) options.onchange();
    changed();
  }

  /** Let a clip run on, from its end to its beginning; a frame whose picture is not decoded yet is waited for. */
  function advance(seconds) {
    const end = frames[0].time + data.length, next = clock + seconds < end ? clock + seconds : frames[0].time;
    const later = frames.findIndex(({ time }) => time > next), index = later < 0 ? frames.length - 1 : Math.max(0, later - 1);
    if (!images[index].complete) return;
    clock = next;
    turnTo(index);
  }

  function turnTo(index) {
    if (index === current || !images[index].complete) return;
    current = wanted = index;
    const from = { ...data, ...frames[index] };
    views[0].grid = makeGrid(from, from);
    if (ready && !gl.isContextLost()) refill(ready.views[0], views[0].grid, images[index]);
    if (options.onchange) options.onchange();
  }

  function play(on) {
    if (!frames) return;
    swayFrom = null;
    clock = frames[current].time;
    change(() => { playing = on; });
  }

  /** Stop at a frame of a clip; its number is held within the clip. */
  function seek(index) {
    if (!frames) return;
    playing = false;
    wanted = Math.max(0, Math.min(frames.length - 1, index));
    const held = wanted;
    images[held].decode().then(
      () => held === wanted && !playing && change(() => turnTo(held)),
      () => fail("A photo in this page cannot be read."),
    );
  }

  /** The frame that is shown, or the one that is on its way. */
  const reached = () => (playing ? current : wanted);

  const put = (view, on) => change(() => { views[view].on = on; });
  const cameras = (on) => change(() => { framed = on; });
  const floor = (percent) => change(() => { least = percent; });

  const dots = (times) => change(() => { dotted = times; });

  /** See a picture as a camera with another angle of view would have seen it: the first view stays the photo. */
  function widen(times) {
    if (data.views) return;
    const [view] = views, { fx, fy, skew } = data.camera, [x, y, z] = middleDepth({ ...view, camera: data.camera });
    view.camera = { ...data.camera, fx: fx / times, fy: fy / times, skew: skew / times };
    const pivot = [x * times, y * times, z];
    place = places[0] = { ...place, camera: view.camera, pivot, rest: pivot };
    change(() => { wide = times; });
  }

  /** Free the graphics memory. The view shows nothing from now on. */
  function close() {
    ready = null;
    const context = gl.getExtension("WEBGL_lose_context");
    if (context) context.loseContext();
  }

  /** Show only the view that is looked through; all, if it is alone already. */
  function only() {
    const alone = views.every((view, i) => view.on === (i === Math.max(0, through)));
    change(() => views.forEach((view, i) => { view.on = alone || i === Math.max(0, through); }));
  }

  function show(name) {
    change(() => { shown = name; });
  }

  function fill(on) {
    change(() => { filled = on && data.fill; });
  }

  function sway(pause = 0) {
    if (still.matches) return;
    swayFrom = performance.now() + pause;
    changed();
  }

  // --- Hands -----------------------------------------------------------------------------------------------------

  const hands = new Map();
  let tap = { time: 0, x: 0, y: 0 }, travelled = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    hands.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (hands.size === 1) travelled = 0;
    swayFrom = null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = hands.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.x, dy = event.clientY - before.y;
    travelled += Math.abs(dx) + Math.abs(dy);
    if (hands.size > 1) {
      const [other] = [...hands].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = (x, y) => Math.max(20, Math.hypot(x - other.x, y - other.y));
      move({ distance: (goal.distance * apart(before.x, before.y)) / apart(event.clientX, event.clientY) });
      slide(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) slide(dx, dy);
    else {
      const quarter = Math.min(canvas.clientWidth, canvas.clientHeight);
      turn((dx / quarter) * 1.5, (dy / quarter) * 1.5);
    }
    hands.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  const lift = (event) => {
    if (!hands.delete(event.pointerId) || event.type !== "pointerup" || event.pointerType === "mouse" || travelled > 12) return;
    const close = Math.hypot(event.clientX - tap.x, event.clientY - tap.y) < 30;
    if (close && event.timeStamp - tap.time < 350) reset();
    tap = { time: event.timeStamp, x: event.clientX, y: event.clientY };
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    move({ distance: goal.distance * Math.exp(Math.max(-200, Math.min(200, event.deltaY * lines)) * 0.0015) });
  }, { passive: false });
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  (options.keys || canvas).addEventListener("keydown", (event) => {
    const slider = event.target.type === "range";
    if (event.key === " " && event.target !== canvas && !(frames && slider)) return; // presses a button
    if (event.ctrlKey || event.altKey || event.metaKey || (slider && event.key !== " ")) return;
    const key = event.key, way = KEYS[key];
    if (way && event.shiftKey) slide(way[0] * 24, way[1] * 24);
    else if (way) turn(way[0] * 0.08, way[1] * 0.08);
    else if (key === "+" || key === "=") move({ distance: goal.distance / 1.12 });
    else if (key === "-" || key === "_") move({ distance: goal.distance * 1.12 });
    else if (data.views && (key === "Home" || key === "0")) look(-1);
    else if (key === "r" || key === "R" || key === "Home" || key === "0") reset();
    else if (data.views && (key === "n" || key === "N" || key === "PageDown")) look((through + 1) % views.length);
    else if (data.views && (key === "p" || key === "P" || key === "PageUp")) look(through > 0 ? through - 1 : views.length - 1);
    else if (data.views && (key === "o" || key === "O")) only();
    else if (data.views && (key === "c" || key === "C")) cameras(!framed);
    else if (key === "1" || key === "2" || key === "3") show(["mesh", "points", "depth"][key - 1]);
    else if (key === "f" || key === "F") fill(!filled);
    else if (frames && (key === " " || key === "k" || key === "K")) play(!playing);
    else if (frames && (key === "," || key === "p" || key === "P" || key === "PageUp")) seek(reached() - (key === "PageUp" ? 10 : 1));
    else if (frames && (key === "." || key === "n" || key === "N" || key === "PageDown")) seek(reached() + (key === "PageDown" ? 10 : 1));
    else if (frames && (key === "s" || key === "S")) swayFrom === null ? sway() : (swayFrom = null);
    else if (key === " ") swayFrom === null ? sway() : (swayFrom = null);
    else return;
    event.preventDefault();
  });

  // --- Start -----------------------------------------------------------------------------------------------------

  const images = (frames || views).map((view) => {
    const image = new Image();
    image.src = "data:image/jpeg;base64," + view.texture;
    return image;
  });
  Promise.all((frames ? images.slice(0, 1) : images).map((image) => new Promise((done, failed) => Object.assign(image, { onload: done, onerror: failed })))).then(
    () => {
      setUp(images);
      sway(PAUSE);
    },
    () => fail("A photo in this page cannot be read."),
  );
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    ready = null;
  });
  canvas.addEventListener("webglcontextrestored", () => setUp(images));
  new ResizeObserver(changed).observe(canvas);
  return {
    show, reset, sway, fill, changed, close, dots, widen, look, only, put, cameras, floor, views, play, seek,
    get shown() { return shown; }, get filled() { return filled; }, get through() { return through; },
    get framed() { return framed; }, get least() { return least; }, get playing() { return playing; }, get frame() { return current; },
  };

  // --- Data ------------------------------------------------------------------------------------------------------

  function bytesOf(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  /** Return rays, places in the photo and depths of the grid's vertices, and the triangles between them. */
  function makeGrid({ step: [columns, rows, step], z, cells, rays, sure, size: [width, height], camera }, { near, far }) {
    const codes = new Uint16Array(bytesOf(z).buffer), packed = bytesOf(cells), count = columns * rows;
    const bent = rays && new Float32Array(bytesOf(rays).buffer);
    const made = { columns, rows, codes, rays: new Float32Array(2 * count), places: new Float32Array(2 * count) };
    made.depths = Float32Array.from(codes, (code) => (code ? near * Math.pow(far / near, (code - 1) / 65534) : 0));
    for (let row = 0, i = 0; row < rows; row++)
      for (let column = 0; column < columns; column++, i++) {
        const u = Math.min(column * step, width - 1), v = Math.min(row * step, height - 1), y = (v - camera.cy) / camera.fy;
        made.rays[2 * i] = bent ? bent[2 * i] : (u - camera.cx - camera.skew * y) / camera.fx;
        made.rays[2 * i + 1] = bent ? bent[2 * i + 1] : y;
        made.places[2 * i] = (u + 0.5) / width;
        made.places[2 * i + 1] = (v + 0.5) / height;
      }
    // The corners of a cell are 0 1 over 2 3; a triangle is known by the corner that it lacks.
    const WITHOUT = [[1, 2, 3], [0, 2, 3], [0, 3, 1], [0, 2, 1]];
    const triangles = [], whole = new Uint8Array(count);
    for (let row = 0, cell = 0; row + 1 < rows; row++)
      for (let column = 0; column + 1 < columns; column++, cell++) {
        const code = (packed[cell >> 1] >> (4 * (cell & 1))) & 15, corner = row * columns + column;
        for (let lacks = 0; lacks < 4; lacks++)
          if ((code >> lacks) & 1)
            for (const k of WITHOUT[lacks]) triangles.push(corner + (k & 1) + (k >> 1) * columns);
        whole[corner] = code === 6 || code === 9;
      }
    made.whole = whole;
    made.triangles = Uint32Array.from(triangles);
    made.vertices = Uint32Array.from([...codes.keys()].filter((i) => codes[i]));
    made.sure = sure ? bytesOf(sure) : null;
    return made;
  }

  /**
   * Return the cells that the mesh leaves open, behind it: those along an edge at the depth of its farther side, larger
   * ones, such as the sky, far away. In the first view the photo is whole; turned, nothing stretches from near to far.
   */
  function makeGaps({ columns, rows, codes, depths, whole }, { far }) {
    const WIDE = 8; // vertices; what is wider is no edge
    const open = [...codes.keys()].filter((i) => !codes[i]);
    const largest = (from, i) => {
      const x = i % columns, y = (i / columns) | 0;
      let z = 0;
      for (let v = Math.max(0, y - 1); v <= Math.min(rows - 1, y + 1); v++)
        for (let u = Math.max(0, x - 1); u <= Math.min(columns - 1, x + 1); u++) z = Math.max(z, from[v * columns + u]);
      return z;
    };
    const spread = (from, places, times) => {
      for (; times > 0; times--) {
        const found = places.map((i) => largest(from, i));
        places.forEach((i, k) => { from[i] = found[k]; });
      }
      return from;
    };
    const behind = spread(depths.slice(), open, WIDE), wide = new Float32Array(codes.length);
    for (const i of open) wide[i] = behind[i] ? 0 : far;
    spread(wide, open, WIDE + 1);
    for (const i of open) behind[i] = Math.max(behind[i], wide[i]);
    const triangles = [], corners = new Set();
    for (let row = 0; row + 1 < rows; row++)
      for (let column = 0; column + 1 < columns; column++) {
        const a = row * columns + column, [b, c, d] = [a + 1, a + columns, a + columns + 1];
        if (whole[a]) continue;
        triangles.push(a, c, b, b, c, d);
        for (const i of [a, b, c, d]) corners.add(i);
      }
    spread(behind, [...corners], 2);
    return triangles.length || frames ? { depths: behind, triangles: Uint32Array.from(triangles) } : null;
  }

  /** Return the point to turn about: on the ray through the photo's middle, at the median depth. */
  function middleDepth({ grid: { depths, vertices }, size: [width, height], camera }) {
    const sorted = Float32Array.from(vertices, (i) => depths[i]).sort(), z = sorted.length ? sorted[sorted.length >> 1] : data.far;
    return [((width - 1) / 2 - camera.cx) / camera.fx * z, ((height - 1) / 2 - camera.cy) / camera.fy * z, z];
  }

  /** Return the place from which a scene is seen as a whole: beside and above the first camera, as it stands upright. */
  function outside({ middle, extent, views: [{ size }] }) {
    const reach = Math.max(...views.map(({ pose }) => Math.hypot(pose[3] - middle[0], pose[7] - middle[1], pose[11] - middle[2])));
    const focal = Math.max(...size), camera = { fx: focal, fy: focal, cx: (size[0] - 1) / 2, cy: (size[1] - 1) / 2, skew: 0 };
    const home = { ...HOME, yaw: 0.5, pitch: 0.35, distance: Math.max(1.1, Math.min(2, (1.6 * reach) / extent)) };
    return { from: SAME, camera, size, pivot: middle, rest: [0, 0], unit: extent, home };
  }

  /** Return the lines around a view: from its camera to the corners of its picture, at a depth, and around these. */
  function makeFrustum({ size: [width, height], camera }, depth) {
    const y = (v) => (v - camera.cy) / camera.fy, x = (u, v) => (u - camera.cx - camera.skew * y(v)) / camera.fx;
    const corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]];
    return {
      rays: Float32Array.from([0, 0, ...corners.flatMap(([u, v]) => [x(u, v), y(v)])]),
      places: new Float32Array(10),
      depths: Float32Array.from([0, depth, depth, depth, depth]),
      segments: Uint32Array.from([0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1]),
    };
  }

  /** Return the pose that applies `second` and then `first`; both are three rows of four numbers. */
  function chained(first, second) {
    const out = [];
    for (let row = 0; row < 12; row += 4)
      for (let column = 0; column < 4; column++) {
        let sum = column === 3 ? first[row + 3] : 0;
        for (let k = 0; k < 3; k++) sum += first[row + k] * second[4 * k + column];
        out.push(sum);
      }
    return out;
  }

  function inverse([a, b, c, x, d, e, f, y, g, h, k, z]) {
    return [a, d, g, -(a * x + d * y + g * z), b, e, h, -(b * x + e * y + h * z), c, f, k, -(c * x + f * y + k * z)];
  }

  /** Return a colour of a hue from 0 to 1, as (red, green, blue) from 0 to 1. */
  function tintOf(hue) {
    return [5, 3, 1].map((from) => {
      const k = (from + hue * 6) % 6;
      return 0.95 - 0.95 * 0.85 * Math.max(0, Math.min(k, 4 - k, 1));
    });
  }
}
