"use strict";
/* Curves over time on a canvas, with a cursor that follows the video and takes clicks. */

const COLOURS = ["#2b5d8a", "#c2653a", "#3a8a5f", "#8a5fa8", "#b09020", "#5a6470", "#b04a6a", "#4a9aa8"];
const BAND_COLOURS = ["#4878a8", "#c7744a", "#4f9a72", "#9573b3", "#b39a35", "#717b87", "#bb6480", "#5da3b0"];
const MARGIN = { left: 46, right: 8, top: 8, bottom: 18 };

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Where a frame stands on an axis of `frames` frames, 0 to 1. */
function share(frame, frames) {
  return frames > 1 ? Math.min(1, Math.max(0, frame / (frames - 1))) : 0;
}

/** Call `seek(frame)` while the pointer is pressed on `element`. */
function seekByPointer(element, frames, seek) {
  const go = (event) => {
    const box = element.getBoundingClientRect();
    const place = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    seek(Math.round(place * (frames - 1)));
  };
  element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); go(event); });
  element.addEventListener("pointermove", (event) => { if (event.buttons & 1) go(event); });
}

/** Round numbers within [low, high], at most `wanted` + 1 of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return { values: found, digits: digitsOf(step) };
}

/** How many digits after the point `step` has. */
function digitsOf(step) {
  let digits = 0;
  while (digits < 9 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
  return digits;
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 3);
}

class Plot {
  /** `spec`: title, unit, series of {name, values, colour, dashed}; `episode` gives frames, fps and bands. */
  constructor(spec, episode, fps, seek) {
    this.spec = spec;
    this.episode = episode;
    this.fps = fps;
    this.element = make("div", "plot");
    const heading = this.element.appendChild(make("h3", "", spec.title));
    if (spec.unit) heading.appendChild(make("span", "unit", spec.unit));
    const values = heading.appendChild(make("span", "values"));
    this.readings = spec.series.map((series) => {
      const reading = values.appendChild(make("span"));
      reading.style.color = series.colour;
      return reading;
    });
    const area = this.element.appendChild(make("div", "area"));
    this.canvas = area.appendChild(make("canvas"));
    const inner = area.appendChild(make("div", "inner"));
    this.cursor = inner.appendChild(make("div", "cursor"));
    seekByPointer(inner, episode.frames, seek);
    [this.low, this.high] = this.range();
  }

  range() {
    let low = Infinity, high = -Infinity;
    for (const series of this.spec.series) {
      for (const value of series.values) {
        if (value !== null && value < low) low = value;
        if (value !== null && value > high) high = value;
      }
    }
    if (low > high) return [0, 1];
    const pad = high > low ? 0.06 * (high - low) : Math.max(Math.abs(high) * 0.05, 0.5);
    return [low - pad, high + pad];
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width < 60) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * scale);
    this.canvas.height = Math.round(box.height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const width = box.width - MARGIN.left - MARGIN.right, height = box.height - MARGIN.top - MARGIN.bottom;
    const x = (frame) => MARGIN.left + share(frame, this.episode.frames) * width;
    const y = (value) => MARGIN.top + (1 - (value - this.low) / (this.high - this.low)) * height;
    this.drawBands(pen, x, height);
    this.drawGrid(pen, x, y, width, height);
    for (const series of this.spec.series) this.drawSeries(pen, series, x, y);
  }

  drawBands(pen, x, height) {
    for (const band of this.episode.bands) {
      pen.fillStyle = BAND_COLOURS[band.number % BAND_COLOURS.length] + "1c";
      pen.fillRect(x(band.from), MARGIN.top, x(band.to) - x(band.from), height);
    }
  }

  drawGrid(pen, x, y, width, height) {
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.fillStyle = "#6a6f7a";
    pen.strokeStyle = "#e2e0da";
    pen.lineWidth = 1;
    const across = ticks(this.low, this.high, 4);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of across.values) {
      const place = Math.round(y(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(MARGIN.left, place);
      pen.lineTo(MARGIN.left + width, place);
      pen.stroke();
      pen.fillText(value.toFixed(across.digits), MARGIN.left - 6, place);
    }
    const seconds = Math.max((this.episode.frames - 1) / this.fps, 1 / this.fps);
    const along = ticks(0, seconds, 5);
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const value of along.values) {
      pen.fillText(value.toFixed(along.digits) + (value ? "" : " s"), x(value * this.fps), MARGIN.top + height + 5);
    }
  }

  drawSeries(pen, series, x, y) {
    pen.strokeStyle = series.colour;
    pen.lineWidth = series.dashed ? 1.4 : 1.8;
    pen.setLineDash(series.dashed ? [5, 3] : []);
    pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    series.values.forEach((value, frame) => {
      if (value === null) { down = false; return; }
      if (down) pen.lineTo(x(frame), y(value)); else pen.moveTo(x(frame), y(value));
      down = true;
    });
    pen.stroke();
    pen.setLineDash([]);
  }

  setFrame(frame) {
    this.cursor.style.left = 100 * share(frame, this.episode.frames) + "%";
    this.spec.series.forEach((series, place) => {
      this.readings[place].textContent = (series.name ? series.name + " " : "") + shown(series.values[frame]);
    });
  }
}

/** One plot per axis (state solid, action dashed), then one per group of curves. */
function plotsOf(episode, fps, seek) {
  const specs = episode.axes.map((axis) => ({
    title: axis.name,
    unit: axis.unit,
    series: [["state", COLOURS[0], false], ["action", COLOURS[1], true]]
      .filter(([kind]) => axis[kind])
      .map(([kind, colour, dashed]) => ({ name: "", values: axis[kind], colour, dashed })),
  }));
  for (const group of episode.groups) {
    specs.push({
      title: group.title,
      unit: group.unit,
      series: group.series.map((series, place) => ({
        name: series.name, values: series.values, colour: COLOURS[place % COLOURS.length], dashed: place >= COLOURS.length,
      })),
    });
  }
  return specs.map((spec) => new Plot(spec, episode, fps, seek));
}
