"use strict";
const YELLOW = "#ffd84d";
// Takes the picture of each figure apart: red is before, green is after, blue is the mask, slice by slice.
for (const figure of document.querySelectorAll("figure.slices")) show(figure);

function show(figure) {
  const about = JSON.parse(figure.dataset.about);
  const state = { slice: about.first, low: 0, high: 0 };
  const views = element("div", "views");
  const shown = [[about.names[0], 0, false], [about.names[1], 1, false]];
  if (about.has_mask) shown.push([`${about.names[1]}, with the mask`, 1, true]);
  const drawn = shown.map(([name, channel, mask]) => {
    const cell = element("div"), canvas = element("canvas"), title = element("span");
    title.textContent = name;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    cell.append(title, canvas);
    views.append(cell);
    return { canvas, channel, mask };
  });
  const controls = element("div", "controls");
  const slice = slider(controls, "slice", 0, about.count - 1, 1);
  const level = slider(controls, "level", about.lowest_hu, about.lowest_hu + 255 * about.step_hu, 5);
  const width = slider(controls, "width", 10, 255 * about.step_hu, 5);
  const preset = element("select"), label = element("label");
  for (const name of Object.keys(about.windows_hu)) {
    const option = element("option");
    option.textContent = name;
    preset.append(option);
  }
  label.append("window", preset);
  controls.append(label);
  figure.append(views, controls);

  const image = figure.querySelector("img");
  image.decode().then(() => {
    const sheet = element("canvas");
    sheet.width = image.naturalWidth;
    sheet.height = image.naturalHeight;
    const pen = sheet.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    const draw = () => {
      const down = Math.floor(state.slice / about.across), right = state.slice % about.across;
      const pixels = pen.getImageData(right * about.columns, down * about.rows, about.columns, about.rows).data;
      for (const view of drawn) paint(view, pixels, about, state);
      slice.input.value = state.slice;
      slice.said.textContent = `${about.numbers[state.slice]}`;
      level.said.textContent = `${Math.round((state.low + state.high) / 2)} HU`;
      width.said.textContent = `${Math.round(state.high - state.low)} HU`;
    };
    const go = (number) => {
      state.slice = Math.min(Math.max(number, 0), about.count - 1);
      draw();
    };
    const windowed = ([low, high]) => {
      Object.assign(state, { low, high });
      level.input.value = (low + high) / 2;
      width.input.value = high - low;
      draw();
    };
    slice.input.addEventListener("input", () => go(Number(slice.input.value)));
    for (const one of [level, width])
      one.input.addEventListener("input", () => {
        const half = Number(width.input.value) / 2, middle = Number(level.input.value);
        Object.assign(state, { low: middle - half, high: middle + half });
        draw();
      });
    preset.addEventListener("change", () => windowed(about.windows_hu[preset.value]));
    figure.addEventListener("keydown", (event) => {
      if (event.target !== figure) return; // a slider has its own keys
      const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 } /* up is towards the head */;
      if (event.key in steps) go(state.slice + steps[event.key]);
      else if (event.key === "Home") go(0);
      else if (event.key === "End") go(about.count - 1);
      else return;
      event.preventDefault();
    });
    windowed(Object.values(about.windows_hu)[0]);
    figure.dataset.ready = "yes";
  });
}

function paint(view, pixels, about, state) {
  // Pixels become square on the canvas, twice as large, so that marks are drawn sharply.
  const small = element("canvas");
  small.width = about.columns;
  small.height = about.rows;
  const made = new ImageData(about.columns, about.rows);
  const scale = 255 / Math.max(state.high - state.low, 1);
  const row = 4 * about.columns;
  const inside = (at) => pixels[at + 2] > 127;
  for (let at = 0; at < pixels.length; at += 4) {
    const hu = about.lowest_hu + about.step_hu * pixels[at + view.channel];
    const grey = (hu - state.low) * scale;
    let colour = [grey, grey, grey];
    if (view.mask && inside(at))
      colour = [at - row, at + row, at - 4, at + 4].every(inside) ? [grey + 25, grey, grey - 10] : [255, 120, 30];
    made.data.set([...colour, 255], at);
  }
  small.getContext("2d").putImageData(made, 0, 0);
  const canvas = view.canvas, wide = 560;
  const per_mm = wide / (about.columns * about.column_mm);
  canvas.width = wide;
  canvas.height = Math.round(about.rows * about.row_mm * per_mm);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  pen.font = "bold 20px system-ui, sans-serif";
  pen.textBaseline = "middle";
  mark(pen, "A", wide / 2, 16, "center");
  mark(pen, "P", wide / 2, canvas.height - 16, "center");
  mark(pen, "R", 8, canvas.height / 2, "left");
  mark(pen, "L", wide - 8, canvas.height / 2, "right");
  const length_mm = about.columns * about.column_mm > 60 ? 20 : 10;
  for (const [colour, thick] of [["#000", 7], [YELLOW, 3]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.beginPath();
    pen.moveTo(16, canvas.height - 16);
    pen.lineTo(16 + length_mm * per_mm, canvas.height - 16);
    pen.stroke();
  }
  mark(pen, `${length_mm} mm`, 16, canvas.height - 36, "left");
}

// Yellow with a dark rim is read on any tissue.
function mark(pen, text, x, y, align) {
  pen.textAlign = align;
  pen.lineWidth = 5;
  pen.lineJoin = "round";
  pen.strokeStyle = "#000";
  pen.strokeText(text, x, y);
  pen.fillStyle = YELLOW;
  pen.fillText(text, x, y);
}

function slider(parent, name, least, most, step) {
  const label = element("label"), input = element("input"), said = element("output");
  Object.assign(input, { type: "range", min: least, max: most, step });
  label.append(name, input, said);
  parent.append(label);
  return { input, said };
}

function element(name, kind) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  return made;
}
