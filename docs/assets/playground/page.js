"use strict";

// The page: pictures, control points, sliders and code. `warps.js` has the formulas, `canvas.js` and `webgl.js` draw.
(() => {
  const ROOM = 1.25; // the stage shows the input from -ROOM to ROOM
  const LONGEST = 512; // pixels of a side of a visitor's picture
  const root = document.getElementById("warp-playground");
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const [stage, numbers, code] = ["stage", "numbers", "code"].map(find);
  const input = stage.querySelector("canvas");
  const state = { name: "similarity", theta: [], chosen: 0, w: 0, h: 0, border: false };
  let picture; // a canvas with the input
  let output = find("output");
  let dirty = false;
  let rest; // the timer until all pixels are drawn

  const family = () => Playground.families[state.name];
  const rounded = (theta) => theta.map((value) => Math.round(value * 1000) / 1000 || 0);

  // ---- pictures ----

  /** A landscape of fine and coarse shapes, the same in each browser: no photograph to download, no font. */
  function bundled() {
    const canvas = Object.assign(document.createElement("canvas"), { width: 480, height: 360 });
    const c = canvas.getContext("2d", { willReadFrequently: true });
    const fill = (style, points) => {
      c.fillStyle = style;
      c.beginPath();
      points.forEach(([x, y]) => c.lineTo(x, y));
      c.fill();
    };
    const disc = (style, x, y, r) => {
      c.fillStyle = style;
      c.beginPath();
      c.arc(x, y, r, 0, 2 * Math.PI);
      c.fill();
    };
    const sky = c.createLinearGradient(0, 0, 0, 240);
    sky.addColorStop(0, "#5b9bd5");
    sky.addColorStop(1, "#e8eef7");
    c.fillStyle = sky;
    c.fillRect(0, 0, 480, 360);
    disc("#ffd75e", 395, 70, 34);
    fill("#8a94a8", [[0, 230], [90, 110], [160, 190], [250, 80], [360, 210], [430, 150], [480, 200], [480, 260], [0, 260]]);
    fill("#f4f7fb", [[250, 80], [224, 112], [240, 122], [252, 112], [266, 126], [278, 113]]);
    fill("#6fa35a", [[0, 230], [480, 215], [480, 360], [0, 360]]);
    for (let k = 0; k < 9; k++) fill(k % 2 ? "#7fb069" : "#5f9150", [[240 + k * 26, 360], [270 + k * 26, 360], [330 + k * 10, 226], [318 + k * 10, 226]]);
    fill("#c8553d", [[70, 190], [140, 140], [210, 190]]);
    c.fillStyle = "#f0e0c0";
    c.fillRect(82, 190, 116, 92);
    for (let y = 196; y < 282; y += 8) for (let x = 82 + (y % 16 ? 0 : 8); x < 198; x += 16) {
      c.fillStyle = "#dcc49a";
      c.fillRect(x, y, 7, 1.5);
    }
    c.fillStyle = "#3b5b7a";
    c.fillRect(96, 208, 28, 26);
    c.fillRect(156, 208, 28, 26);
    c.fillStyle = "#7a4a2b";
    c.fillRect(128, 236, 26, 46);
    c.fillStyle = "#6b4a2f";
    c.fillRect(252, 196, 12, 80);
    [[258, 172, 38], [232, 192, 24], [284, 192, 24]].forEach(([x, y, r]) => disc("#3f7d4e", x, y, r));
    for (let k = 0; k < 12; k++) {
      c.fillStyle = k % 2 ? "#ffffff" : "#444444";
      c.fillRect(20 + 24 * k, 312, 24, 14);
    }
    return canvas;
  }

  function show(canvas) {
    picture = canvas;
    [state.w, state.h] = [canvas.width, canvas.height];
    stage.style.aspectRatio = output.style.aspectRatio = `${state.w} / ${state.h}`;
    [output.width, output.height] = [state.w, state.h];
    state.pixels = canvas.getContext("2d").getImageData(0, 0, state.w, state.h).data;
    select(state.name, state.theta);
  }

  async function own(file) {
    try {
      const bitmap = await createImageBitmap(file);
      const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
      const size = [bitmap.width, bitmap.height].map((n) => Math.max(2, Math.round(scale * n)));
      const canvas = Object.assign(document.createElement("canvas"), { width: size[0], height: size[1] });
      const c = canvas.getContext("2d", { willReadFrequently: true });
      c.fillStyle = "#fff"; // below transparent pixels
      c.fillRect(0, 0, ...size);
      c.drawImage(bitmap, 0, 0, ...size);
      show(canvas);
      find("message").textContent = "";
    } catch {
      find("message").textContent = `${file.name} is not a picture that this browser can read.`;
    }
  }

  // ---- drawing ----

  /** Draw the output by "graphics" or by "canvas". A canvas keeps its first kind, so each choice gets a new one. */
  function drawBy(kind, software) {
    const fresh = Object.assign(output.cloneNode(), { width: state.w, height: state.h });
    const made = kind === "graphics" ? Playground.onGraphics(fresh, software) : Playground.onCanvas(fresh);
    if (!made) return drawBy("canvas");
    fresh.addEventListener("webglcontextlost", () => (drawBy("canvas"), render()));
    output.replaceWith(fresh);
    [output, state.drawn, state.paint] = [fresh, kind, made];
  }

  function inputNow() {
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const [w, h] = [stage.clientWidth * scale, stage.clientHeight * scale].map(Math.round);
    if (input.width !== w || input.height !== h) [input.width, input.height] = [w, h];
    const c = input.getContext("2d");
    c.clearRect(0, 0, w, h);
    const place = ([x, y]) => [((x / ROOM + 1) * w) / 2, ((y / ROOM + 1) * h) / 2];
    const [x0, y0] = place([-1, -1]);
    c.drawImage(picture, x0, y0, w - 2 * x0, h - 2 * y0);
    const [out, map] = [[0, 0], family().map(state.theta, [state.w, state.h])];
    const line = (path, from, to) => {
      for (let k = 0, first = true; k <= 48; k++) {
        map(from[0] + ((to[0] - from[0]) * k) / 48, from[1] + ((to[1] - from[1]) * k) / 48, out);
        const [x, y] = place(out);
        if (!(Math.abs(x) < 1e5 && Math.abs(y) < 1e5)) continue;
        if (first) path.moveTo(x, y);
        else path.lineTo(x, y);
        first = false;
      }
    };
    const [edge, inner] = [new Path2D(), new Path2D()];
    for (let k = 0; k <= 8; k++) {
      const at = k / 4 - 1;
      line(k % 8 ? inner : edge, [at, -1], [at, 1]);
      line(k % 8 ? inner : edge, [-1, at], [1, at]);
    }
    for (const [style, width] of [["#0009", 3], ["#ffe14d", 1.5]]) {
      c.strokeStyle = style;
      for (const [path, share] of [[inner, 0.6], [edge, 1]]) {
        c.lineWidth = scale * share * width;
        c.stroke(path);
      }
    }
    handles().forEach((handle, i) => {
      map(...family().handles[i], out);
      const inside = out.map((value) => Math.min(Math.max(value / ROOM, -0.97), 0.97));
      handle.style.left = `${50 + 50 * inside[0]}%`;
      handle.style.top = `${50 + 50 * inside[1]}%`;
      handle.classList.toggle("chosen", Boolean(family().numbers) && i === state.chosen);
    });
  }

  /** Numbers as Python floats; three decimals at most, as they are used. */
  const written = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

  function codeNow() {
    const perLine = state.theta.length > 8 ? (state.name === "tps" ? 8 : Math.sqrt(2 * state.theta.length)) : 8;
    const lines = [];
    for (let i = 0; i < state.theta.length; i += perLine) lines.push(state.theta.slice(i, i + perLine).map(written).join(", "));
    const list = lines.length > 1 ? `[\n    ${lines.join(",\n    ")},\n]` : `[${lines[0]}]`;
    const padding = state.border ? ', padding_mode="border"' : "";
    code.textContent = [
      "import torch, stn",
      "",
      `theta = torch.tensor([${list}])`,
      `warp = ${family().code([state.w, state.h])}(theta)`,
      `output = warp.sample(image${padding})  # image: (1, C, ${state.h}, ${state.w})`,
    ].join("\n");
  }

  /** Draw all. A picture that moves may be drawn with fewer pixels, and again when it rests. */
  function render(moves = false) {
    dirty = false;
    clearTimeout(rest);
    if (!state.paint(family(), state.theta, state, state.border, moves)) rest = setTimeout(render, 150);
    inputNow();
    codeNow();
    for (const slider of numbers.querySelectorAll("input")) {
      const value = state.theta[Number(slider.dataset.number)];
      slider.value = value;
      slider.nextElementSibling.textContent = value.toFixed(3);
    }
  }

  function update(theta) {
    if (!theta.every(Number.isFinite)) return;
    state.theta = rounded(theta);
    if (!dirty) requestAnimationFrame(() => render(true));
    dirty = true;
  }

  // ---- controls ----

  const handles = () => [...stage.querySelectorAll("button")];

  function pointOf(event) {
    const box = stage.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return at.map((share) => ROOM * (2 * Math.min(Math.max(share, 0), 1) - 1));
  }

  function handleOf(i) {
    const handle = Object.assign(document.createElement("button"), { type: "button" });
    handle.setAttribute("aria-label", `Control point ${i + 1}. Drag it, or use the arrow keys.`);
    const move = (q) => update(family().drag(state.theta, i, q, [state.w, state.h]));
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      choose(i);
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) move(pointOf(event));
    });
    handle.addEventListener("focus", () => choose(i));
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const out = [0, 0];
      family().map(state.theta, [state.w, state.h])(...family().handles[i], out);
      move(out.map((value, k) => value + 0.02 * step[k]));
    });
    return handle;
  }

  function sliderOf(name, number, low, high) {
    const label = document.createElement("label");
    const slider = Object.assign(document.createElement("input"), { type: "range", min: low, max: high, step: 0.001 });
    slider.dataset.number = number;
    slider.addEventListener("input", () => update(state.theta.map((v, k) => (k === number ? Number(slider.value) : v))));
    label.append(Object.assign(document.createElement("span"), { textContent: name }), slider, document.createElement("output"));
    return label;
  }

  const REACH = { angle: Math.PI, scale: 2, sx: 2, sy: 2, a: 2, b: 2, c: 2, d: 2, vx: 0.9, vy: 0.9 };

  /** Sliders for all numbers, or for those of the control point that was touched last. */
  function sliders() {
    const { names, numbers: places } = family();
    const of = names
      ? names.map((name, k) => sliderOf(name, k, -(REACH[name] || 1), REACH[name] || 1))
      : ["dx", "dy"].map((name, k) => sliderOf(`${name} of control point ${state.chosen + 1}`, 2 * places[state.chosen] + k, -2, 2));
    numbers.replaceChildren(...of);
  }

  function choose(i) {
    state.chosen = i;
    if (!family().numbers) return;
    sliders();
    update(state.theta);
  }

  function select(name, theta = []) {
    state.name = name;
    state.chosen = 0;
    find("family").value = name;
    handles().forEach((handle) => handle.remove());
    stage.append(...family().handles.map((_, i) => handleOf(i)));
    sliders();
    update(theta.length === family().identity.length ? theta : family().identity);
    render();
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // without the permission to write: Ctrl+C copies the selection
      document.execCommand("copy");
    }
    find("copy").textContent = "Copied";
    setTimeout(() => (find("copy").textContent = "Copy the code"), 1500);
  }

  for (const [key, { name }] of Object.entries(Playground.families)) find("family").add(new Option(name, key));
  find("family").addEventListener("change", (event) => select(event.target.value));
  find("padding").addEventListener("change", (event) => {
    state.border = event.target.value === "border";
    update(state.theta);
  });
  find("file").addEventListener("change", (event) => event.target.files[0] && own(event.target.files[0]));
  find("reset").addEventListener("click", () => update(family().identity));
  find("copy").addEventListener("click", copy);
  new ResizeObserver(() => update(state.theta)).observe(stage);
  const linked = location.hash.slice(1);
  if (Playground.families[linked]) state.name = linked;
  state.theta = state.name === "similarity" ? [0.6, 0.4, -0.2, 0.1] : [];
  drawBy("graphics");
  show(bundled());
  Object.assign(Playground, { state, select, update, render, show, copy, drawBy });
})();
