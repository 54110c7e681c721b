"use strict";

// The second panel: draw a digit, and see where the trained layer looks. ONNX Runtime runs the network in the browser;
// docs/extensions/digits.py puts both into the site. tests/test_digit_panel.py compares the results with PyTorch's.
const Digits = {};

(() => {
  const SIDE = 42; // pixels of the network's images
  const SIZES = [14, 24]; // pixels of a digit's longer side in the training images
  const LARGEST = 2; // magnification of a small drawing, so that a first dot stays a dot
  const PEN = 2.6; // pixels: width of a stroke in the network's images
  const ROOM = 1.7; // the second picture shows the image from -ROOM to ROOM, in normalized coordinates
  const root = document.getElementById("digit-playground");
  if (!root) return; // a site that was built without the runtime
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const [pad, region, crop, turn, message] = ["pad", "region", "crop", "turn", "message"].map(find);
  const small = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const assets = new URL(".", document.currentScript.src);
  const EXAMPLE = [[[14, 7], [28, 7], [21, 17]], [[21, 17], [27, 20], [29, 26], [25, 32], [19, 33], [13, 30]]]; // a 3
  const state = { strokes: [], result: null, image: null, loading: null };
  let drawing = null; // the stroke below the finger
  let running = false;
  let changed = false;

  // ---- from strokes to the image of the network ----

  /** Strokes in pixels of the pad, which has SIDE x SIDE of them, turned about its center by the slider's angle. */
  function turned() {
    const angle = (Number(turn.value) * Math.PI) / 180;
    const [cos, sin, half] = [Math.cos(angle), Math.sin(angle), SIDE / 2];
    const about = ([x, y]) => [half + cos * (x - half) - sin * (y - half), half + sin * (x - half) + cos * (y - half)];
    return state.strokes.map((stroke) => stroke.map(about));
  }

  /** The drawing at a size that the network has learned, inside the image: point -> scale (point - from) + to. */
  function placed(strokes) {
    const axes = [0, 1].map((k) => strokes.flat().map((point) => point[k]));
    const [low, high] = [Math.min, Math.max].map((pick) => axes.map((values) => values.reduce((a, b) => pick(a, b))));
    const longer = Math.max(high[0] - low[0], high[1] - low[1]) + PEN;
    const scale = Math.min(Math.min(Math.max(longer, SIZES[0]), SIZES[1]) / longer, LARGEST);
    const from = [0, 1].map((k) => (low[k] + high[k]) / 2);
    const to = from.map((value, k) => {
      const reach = (scale * (high[k] - low[k]) + PEN) / 2 + 1;
      return Math.min(Math.max(value, reach), SIDE - reach);
    });
    return { scale, from, to };
  }

  /** Light strokes on black, SIDE x SIDE values in [0, 1]: 1 within the pen, falling to 0 over one pixel at its edge. */
  function imageOf(strokes, { scale, from, to }) {
    const image = new Float32Array(SIDE * SIDE);
    const lines = strokes.map((stroke) => stroke.map((point) => point.map((value, k) => scale * (value - from[k]) + to[k])));
    for (const line of lines) {
      for (let k = 0; k < Math.max(line.length - 1, 1); k++) {
        const [[ax, ay], [bx, by]] = [line[k], line[Math.min(k + 1, line.length - 1)]];
        const [dx, dy] = [bx - ax, by - ay];
        const length2 = dx * dx + dy * dy;
        const span = (a, b) => [Math.max(Math.floor(Math.min(a, b) - PEN), 0), Math.min(Math.ceil(Math.max(a, b) + PEN), SIDE - 1)];
        const [[left, right], [top, bottom]] = [span(ax, bx), span(ay, by)];
        for (let row = top; row <= bottom; row++) {
          for (let column = left; column <= right; column++) {
            const [x, y] = [column + 0.5 - ax, row + 0.5 - ay];
            const along = length2 ? Math.min(Math.max((x * dx + y * dy) / length2, 0), 1) : 0;
            const distance = Math.hypot(x - along * dx, y - along * dy);
            const value = Math.min(Math.max(PEN / 2 + 0.5 - distance, 0), 1);
            if (value > image[row * SIDE + column]) image[row * SIDE + column] = value;
          }
        }
      }
    }
    return image;
  }

  // ---- the network ----

  function script(name) {
    return new Promise((done, failed) => {
      const element = Object.assign(document.createElement("script"), { src: name, onload: done });
      element.onerror = () => failed(new Error(`${name} is missing`));
      document.head.append(element);
    });
  }

  async function load() {
    if (!location.protocol.startsWith("http")) throw new Error("browsers run it only on pages of a web server: python -m http.server");
    say("Loading the network ...");
    const place = new URL("../onnxruntime/", assets);
    await script(new URL("ort.wasm.min.js", place).href);
    ort.env.wasm.wasmPaths = place.href;
    ort.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
    const session = await ort.InferenceSession.create(new URL("digits.onnx", assets).href, { executionProviders: ["wasm"] });
    say("");
    return session;
  }

  /** Read the drawing. One run at a time: strokes that come meanwhile are read by the next. */
  async function read() {
    changed = true;
    if (running) return;
    running = true;
    try {
      while (changed) {
        changed = false;
        if (!state.strokes.length) {
          state.result = null;
          continue;
        }
        const session = await (state.loading ||= load());
        const strokes = turned();
        const place = placed(strokes);
        const image = imageOf(strokes, place);
        const input = new ort.Tensor("float32", image, [1, 1, SIDE, SIDE]);
        const found = await session.run({ [session.inputNames[0]]: input });
        const [probabilities, theta, look] = session.outputNames.map((name) => found[name].data);
        if (state.strokes.length) Object.assign(state, { image, result: { probabilities, theta, look } });
        show();
      }
    } catch (error) {
      say(`The network could not be run: ${error.message}`);
    }
    running = false;
    show();
  }

  // ---- what is shown ----

  const say = (text) => (message.textContent = text);

  function line(c, points, unit) {
    c.beginPath();
    points.forEach(([x, y]) => c.lineTo(x * unit, y * unit));
    if (points.length === 1) c.lineTo(points[0][0] * unit + 0.01, points[0][1] * unit); // a dot
    c.stroke();
  }

  /** Clear a square canvas of the size that it has on the screen, for drawing in `units` a side. */
  function cleared(canvas, units, style) {
    const side = Math.round(canvas.clientWidth * Math.min(2, window.devicePixelRatio || 1));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const c = canvas.getContext("2d", { willReadFrequently: true });
    c.fillStyle = style;
    c.fillRect(0, 0, side, side);
    return [c, side / units];
  }

  function showPad() {
    const [c, unit] = cleared(pad, SIDE, "#000");
    Object.assign(c, { lineCap: "round", lineJoin: "round", strokeStyle: "#fff", lineWidth: PEN * unit });
    turned().forEach((stroke) => line(c, stroke, unit));
  }

  function put(canvas, values) {
    const c = canvas.getContext("2d", { willReadFrequently: true });
    const pixels = c.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < values.length; i++) pixels.data.set([255 * values[i], 255 * values[i], 255 * values[i], 255], 4 * i);
    c.putImageData(pixels, 0, 0);
  }

  /** The image of the network within a margin, because the region may reach beyond the image. */
  function showRegion() {
    const [c, unit] = cleared(region, ROOM * SIDE, "#333");
    const { image, result } = state;
    put(small, result ? image : new Float32Array(SIDE * SIDE));
    const margin = ((ROOM - 1) / 2) * SIDE;
    c.imageSmoothingEnabled = false;
    c.drawImage(small, margin * unit, margin * unit, SIDE * unit, SIDE * unit);
    if (!result) return;
    const theta = result.theta;
    const at = (x, y) => [0, 3].map((k) => margin + ((theta[k] * x + theta[k + 1] * y + theta[k + 2] + 1) * SIDE) / 2);
    c.strokeStyle = "#ffe14d";
    for (let k = 0; k <= 4; k++) {
      const along = k / 2 - 1;
      c.lineWidth = (k % 4 ? 0.25 : 0.5) * unit;
      line(c, [at(along, -1), at(along, 1)], unit);
      line(c, [at(-1, along), at(1, along)], unit);
    }
    c.strokeStyle = "#ff7a1a"; // the top edge of the crop
    c.lineWidth = unit;
    line(c, [at(-1, -1), at(1, -1)], unit);
  }

  function show() {
    showPad();
    showRegion();
    put(crop, state.result ? state.result.look : new Float32Array(crop.width * crop.height));
    const values = state.result ? [...state.result.probabilities] : new Array(10).fill(0);
    const best = values.indexOf(Math.max(...values));
    find("reading").textContent = state.result ? `${best}` : "–";
    [...find("bars").children].forEach((row, digit) => {
      row.classList.toggle("best", Boolean(state.result) && digit === best);
      row.querySelector("meter").value = values[digit];
      row.querySelector("output").textContent = state.result ? `${(100 * values[digit]).toFixed(1)} %` : "";
    });
    find("turned").textContent = `${turn.value}°`;
  }

  // ---- controls ----

  function pointOf(event) {
    const box = pad.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return at.map((share) => SIDE * Math.min(Math.max(share, 0), 1));
  }

  /** A turned drawing goes on as it is seen: its strokes are kept, and the slider returns to zero. */
  function settle() {
    state.strokes = turned();
    turn.value = 0;
  }

  function update() {
    show();
    return read();
  }

  pad.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    pad.setPointerCapture(event.pointerId);
    settle();
    drawing = [pointOf(event)];
    state.strokes.push(drawing);
    update();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!drawing || !pad.hasPointerCapture(event.pointerId)) return;
    drawing.push(...(event.getCoalescedEvents?.() || []).map(pointOf), pointOf(event));
    update();
  });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (drawing = null));
  turn.addEventListener("input", update);
  find("clear").addEventListener("click", () => {
    state.strokes = [];
    state.result = null;
    turn.value = 0;
    update();
  });
  find("example").addEventListener("click", () => {
    state.strokes = EXAMPLE.map((stroke) => stroke.map((point) => [...point]));
    turn.value = 30;
    update();
  });
  for (let digit = 0; digit < 10; digit++) {
    const row = document.createElement("div");
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: 0 });
    meter.setAttribute("aria-label", `probability of ${digit}`);
    row.append(Object.assign(document.createElement("b"), { textContent: digit }), meter, document.createElement("output"));
    find("bars").append(row);
  }
  new ResizeObserver(show).observe(pad);
  Object.assign(Digits, { state, update });
})();
