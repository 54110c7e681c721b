"use strict";

// A box for each run hides its line in every chart.
for (const box of document.querySelectorAll("[data-run][type=checkbox]")) {
  box.addEventListener("change", () => {
    for (const line of document.querySelectorAll(`[data-series="${box.dataset.run}"]`)) {
      line.classList.toggle("hidden", !box.checked);
    }
  });
}

// Under the pointer, or a finger: the values of the nearest epoch.
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const cursor = chart.querySelector(".cursor");
  const readout = chart.querySelector(".readout");
  const lines = [...chart.querySelectorAll(".series")].map((element) => ({
    element,
    values: JSON.parse(element.dataset.values),
    places: [...element.querySelectorAll("circle")].map((dot) => Number(dot.getAttribute("cx"))),
  }));
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * 400;
    const shown = lines.filter((line) => !line.element.classList.contains("hidden"));
    const places = shown.flatMap((line) => line.places);
    if (!places.length) return;
    const place = places.reduce((best, x) => (Math.abs(x - at) < Math.abs(best - at) ? x : best));
    const found = shown
      .map((line) => line.values[line.places.indexOf(place)])
      .filter((pair) => pair !== undefined);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.setAttribute("visibility", "visible");
    readout.textContent = `epoch ${found[0][0]}: ${found.map((pair) => Number(pair[1].toPrecision(4))).join(" · ")}`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
}

// A film can be played, stopped, and turned by hand.
for (const film of document.querySelectorAll(".film")) {
  const frames = JSON.parse(film.dataset.frames);
  const image = film.querySelector("img");
  const range = film.querySelector("input");
  const button = film.querySelector("button");
  let timer = 0;
  const turn = (frame) => {
    range.value = frame;
    image.src = frames[frame];
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const play = () => {
    if (Number(range.value) === frames.length - 1) turn(0);
    button.textContent = "Stop";
    timer = setInterval(() => {
      const next = Number(range.value) + 1;
      if (next < frames.length) turn(next);
      else stop();
    }, 125);
  };
  range.addEventListener("input", () => {
    stop();
    turn(Number(range.value));
  });
  button.addEventListener("click", () => (timer ? stop() : play()));
}
