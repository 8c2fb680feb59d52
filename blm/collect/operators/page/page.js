"use strict";
/* Sends where the gripper should be and what is said about episodes; shows what comes back. */

const element = (id) => document.getElementById(id);
const view = new View(element("view"));
/* Which key means which control; the session says so. */
let keys = { space: "emergency-stop" };
const KEY_NAMES = {
  ArrowRight: "right", ArrowLeft: "left", ArrowUp: "up", ArrowDown: "down", Escape: "escape", " ": "space", Enter: "enter",
  Tab: "tab", Backspace: "backspace", Insert: "insert", Delete: "delete", Home: "home", End: "end", PageUp: "page-up",
  PageDown: "page-down",
};
const KEY_SIGNS = { right: "→", left: "←", up: "↑", down: "↓", escape: "Esc", space: "Space", enter: "Enter", backspace: "⌫" };
const MEANINGS = {
  advance: "start, end, keep", "re-record": "record again", success: "success", failure: "failure", pause: "pause",
  "take-over": "take over, give back", "next-task": "next task", "discard-last": "take the last episode out", stop: "finish",
  "emergency-stop": "stop the robot",
};
const ALLOWED = {
  ready: ["advance", "discard-last", "next-task", "stop", "emergency-stop"],
  recording: ["advance", "re-record", "success", "failure", "pause", "take-over", "stop", "emergency-stop"],
  paused: ["advance", "re-record", "success", "failure", "pause", "stop", "emergency-stop"],
  review: ["advance", "re-record", "success", "failure", "stop", "emergency-stop"],
  halted: ["re-record", "stop"],
};
const MAIN_LABEL = { ready: "Start", recording: "End episode", paused: "End episode", review: "Keep" };
const SPEED_M_S = 0.12, TURN_DEG_S = 70, WHEEL_M = 0.005;
let socket = null, epoch = 0, phase = "connecting", drag = null, tool = null, lastSent = 0, fresh = true;
let policyDrives = false, shownKeys = "";
let wish = { position: [0.2, 0, 0.15], tilt: 0, turn: 0, opening: 1 };
const held = new Set();

function connect() {
  const token = new URLSearchParams(location.search).get("token") || "";
  socket = new WebSocket(`ws://${location.host}/socket?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => (typeof event.data === "string" ? receive(JSON.parse(event.data)) : receiveBytes(event.data));
  socket.onclose = (event) => {
    if (phase === "done" || phase === "failed") return;
    const replaced = event.code === 4001;
    setPhase(replaced ? "elsewhere" : "away");
    element("note").textContent = replaced ? "Another page has taken over." : "No connection. The arm holds still.";
    if (!replaced) setTimeout(connect, 1000);
  };
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) { socket.send(JSON.stringify(message)); lastSent = performance.now(); }
}
/* While the policy drives the handle is not shown, and nothing that is done here moves the arm. */
const sendWish = () => { if (!policyDrives) send({ type: "wish", epoch, ...wish }); };
const press = (control) => send({ type: "control", control });

function receive(message) {
  if (message.type === "scene") { view.setScene(message); setHeightRange(); }
  else if (message.type === "wish") { epoch = message.epoch; adopt(message); drag = null; }
  else if (message.type === "tool") tool = message.pose;
  else if (message.type === "status") showStatus(message);
}

function receiveBytes(data) {
  const head = new Uint8Array(data);
  if (head[0] === 1) { view.poses = new Float32Array(data.slice(4)); fresh = true; return; }
  const name = new TextDecoder().decode(head.subarray(2, 2 + head[1]));
  showImage(name, new Blob([head.subarray(2 + head[1])], { type: "image/jpeg" }));
}

function adopt(message) {
  wish = { position: message.position, tilt: message.tilt, turn: message.turn, opening: message.opening };
  showWish();
}

function showImage(name, blob) {
  let figure = document.querySelector(`figure[data-camera="${CSS.escape(name)}"]`);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.camera = name;
    const caption = document.createElement("figcaption");
    caption.textContent = name;
    figure.append(document.createElement("img"), caption);
    element("cameras").append(figure);
  }
  const image = figure.firstChild, before = image.src;
  image.onload = () => { if (before) URL.revokeObjectURL(before); };
  image.src = URL.createObjectURL(blob);
}

function setPhase(name) {
  phase = name;
  document.body.dataset.phase = name;
  element("phase").textContent = name === "away" ? "no connection" : name;
  const allowed = ALLOWED[name] || [];
  for (const button of document.querySelectorAll("[data-control]")) button.disabled = !allowed.includes(button.dataset.control);
  label("advance", MAIN_LABEL[name] || "Start");
  label("pause", name === "paused" ? "Go on" : "Pause");
  label("re-record", name === "halted" ? "Release the stop" : "Re-record");
}

const buttonOf = (control) => document.querySelector(`[data-control="${control}"]`);
function label(control, text) { buttonOf(control).firstChild.textContent = text; }

/* Each button and the table show the keys that the session was given. */
function showKeys() {
  const known = JSON.stringify(keys);
  if (known === shownKeys) return;
  shownKeys = known;
  const rows = [];
  for (const [control, meaning] of Object.entries(MEANINGS)) {
    const signs = Object.keys(keys).filter((key) => keys[key] === control).map((key) => KEY_SIGNS[key] || key.toUpperCase());
    const button = buttonOf(control), row = document.createElement("tr");
    button.querySelectorAll("kbd").forEach((old) => old.remove());
    if (!signs.length || button.hidden) continue;
    button.append(keySign(signs[0], true));
    const [first, second] = [document.createElement("td"), document.createElement("td")];
    first.append(...signs.map((sign) => keySign(sign, false)));
    second.textContent = meaning;
    row.append(first, second);
    rows.push(row);
  }
  element("control-keys").replaceChildren(...rows);
}

function keySign(sign, hidden) {
  const shown = document.createElement("kbd");
  shown.textContent = sign;
  if (hidden) shown.setAttribute("aria-hidden", "true");
  return shown;
}

function showDriver(status) {
  const driven = status.can_take_over && ["recording", "paused"].includes(status.phase);
  policyDrives = Boolean(driven && !status.intervening);
  document.body.classList.toggle("intervening", status.intervening);
  element("driver").textContent = driven ? (status.intervening ? "you drive" : "the policy drives") : "";
  element("hint").textContent = policyDrives
    ? "Take over to move the gripper yourself. Drag to look around."
    : "Drag the handle to move the gripper; with Shift, up and down. Drag elsewhere to look around.";
  label("take-over", status.intervening ? "Give back" : "Take over");
  for (const id of Object.keys(SLIDERS)) element(id).disabled = policyDrives;
  showWish();
}

function showStatus(status) {
  if (status.phase !== phase) setPhase(status.phase);
  if (phase === "failed") { element("note").textContent = status.note; return; }
  keys = status.keys || keys;
  element("instruction").textContent = status.instruction;
  element("count").textContent = `${status.kept} of ${status.wanted} kept`;
  element("elapsed").textContent = ["recording", "paused", "review"].includes(phase) ? `${status.elapsed_s.toFixed(1)} s` : "";
  element("late").textContent = status.late_ticks ? `${status.late_ticks} late ${status.late_ticks === 1 ? "tick" : "ticks"}` : "";
  element("note").textContent = status.note;
  const mark = (control, on) => buttonOf(control).classList.toggle("chosen", on);
  mark("success", phase === "review" && status.success === true);
  mark("failure", phase === "review" && status.success === false);
  mark("take-over", status.intervening);
  for (const [control, shown] of [["take-over", status.can_take_over], ["next-task", status.several_tasks]])
    buttonOf(control).hidden = !shown;
  showKeys();
  showDriver(status);
}

const SLIDERS = {
  height: { get: () => wish.position[2] - view.table, set: (v) => { wish.position[2] = v + view.table; }, text: (v) => `${(100 * v).toFixed(1)} cm` },
  turn: { get: () => (180 * wish.turn) / Math.PI, set: (v) => { wish.turn = (v * Math.PI) / 180; }, text: (v) => `${Math.round(v) || 0}°` },
  tilt: { get: () => (180 * wish.tilt) / Math.PI, set: (v) => { wish.tilt = (v * Math.PI) / 180; }, text: (v) => `${Math.round(v) || 0}°` },
  opening: { get: () => 100 * wish.opening, set: (v) => { wish.opening = v / 100; }, text: (v) => `${v.toFixed(0)} %` },
};

function showWish() {
  for (const [id, slider] of Object.entries(SLIDERS)) {
    element(id).value = slider.get();
    element(id).nextElementSibling.textContent = slider.text(slider.get());
  }
  const outward = Math.atan2(wish.position[1], wish.position[0]);
  const out = [Math.cos(outward), Math.sin(outward), 0], side = [-Math.sin(outward), Math.cos(outward), 0];
  const approach = [Math.sin(wish.tilt) * out[0], Math.sin(wish.tilt) * out[1], -Math.cos(wish.tilt)];
  const angle = wish.turn - outward, across = Vector.cross(approach, side);
  const opening = Vector.add(side.map((v) => v * Math.cos(angle)), across, -Math.sin(angle));
  view.handle = policyDrives ? null : { position: wish.position, approach, opening, width: 0.012 + 0.05 * wish.opening };
}

function change() {
  wish.position[2] = Math.max(wish.position[2], view.table + 0.004);
  wish.opening = Math.min(1, Math.max(0, wish.opening));
  wish.tilt = Math.min(1.5, Math.max(-0.5, wish.tilt));
  wish.turn = Math.atan2(Math.sin(wish.turn), Math.cos(wish.turn));
  showWish();
  sendWish();
}

function setHeightRange() { element("height").max = Math.min(0.6, 0.55 * view.distance).toFixed(2); }

function pointOf(event) {
  const box = view.canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function nearHandle(event) {
  if (!view.handle) return false;
  const [x, y] = pointOf(event), [hx, hy] = view.project(wish.position);
  return Math.hypot(x - hx, y - hy) < 24;
}

function dragTo(event) {
  const [x, y] = pointOf(event);
  if (!drag.handle) {
    view.azimuth = drag.azimuth - (x - drag.x) * 0.006;
    view.elevation = Math.min(1.5, Math.max(0.05, drag.elevation + (y - drag.y) * 0.006));
    return;
  }
  if (event.shiftKey !== drag.vertical) startDrag(event, true);
  const met = view.meet(x, y, drag.from, drag.normal);
  if (!met) return;
  const moved = Vector.sub(met, drag.grip);
  wish.position = drag.vertical
    ? [drag.from[0], drag.from[1], drag.from[2] + moved[2]]
    : [drag.from[0] + moved[0], drag.from[1] + moved[1], drag.from[2]];
  change();
}

/* With Shift the handle moves up and down in an upright plane that faces the eye, otherwise in a level one. */
function startDrag(event, handle) {
  const [x, y] = pointOf(event), vertical = handle && event.shiftKey, away = Vector.sub(view.eye, wish.position);
  const normal = vertical ? Vector.unit([away[0], away[1], 0]) : [0, 0, 1], from = [...wish.position];
  drag = { handle, vertical, x, y, azimuth: view.azimuth, elevation: view.elevation, from, normal };
  if (handle) drag.grip = view.meet(x, y, from, normal) || from;
}

view.canvas.addEventListener("pointerdown", (event) => {
  view.canvas.focus();
  view.canvas.setPointerCapture(event.pointerId);
  startDrag(event, nearHandle(event));
  view.grabbed = drag.handle;
});
view.canvas.addEventListener("pointermove", (event) => {
  if (drag) dragTo(event);
  else view.canvas.classList.toggle("handle", nearHandle(event));
});
for (const name of ["pointerup", "pointercancel"]) view.canvas.addEventListener(name, () => { drag = null; view.grabbed = false; });
view.canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const notch = -Math.sign(event.deltaY);
  if (nearHandle(event) || (drag && drag.handle)) {
    wish.position[2] += notch * WHEEL_M;
    change();
    if (drag) startDrag(event, true);
  } else view.distance = Math.min(4, Math.max(0.25, view.distance * Math.exp(-0.1 * notch)));
}, { passive: false });

for (const [id, slider] of Object.entries(SLIDERS))
  element(id).addEventListener("input", () => { slider.set(Number(element(id).value)); change(); });
for (const button of document.querySelectorAll("[data-control]"))
  button.addEventListener("click", () => { press(button.dataset.control); button.blur(); });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const sliding = event.target.matches && event.target.matches("input");
  const control = keys[KEY_NAMES[key] || key.toLowerCase()];
  if (control && !(sliding && key.startsWith("Arrow"))) {
    event.preventDefault();
    if (!event.repeat) press(control);
  } else if (key === "g" && !event.repeat) {
    wish.opening = wish.opening > 0.5 ? 0 : 1;
    change();
  } else held.add(key);
});
addEventListener("keyup", (event) => held.delete(event.key.length === 1 ? event.key.toLowerCase() : event.key));
addEventListener("blur", () => held.clear());

/* Held keys move the gripper as seen on the screen: W is away from the viewer. */
function moveByKeys(seconds) {
  const axis = (plus, minus) => Number(held.has(plus)) - Number(held.has(minus));
  const forward = axis("w", "s"), left = axis("a", "d"), up = axis("i", "k"), turn = axis("j", "l"), tilt = axis("u", "o");
  if (!(forward || left || up || turn || tilt)) return;
  const away = [-Math.cos(view.azimuth), -Math.sin(view.azimuth)], step = SPEED_M_S * seconds;
  const norm = Math.hypot(forward, left) || 1;
  wish.position = [
    wish.position[0] + (step * (forward * away[0] - left * away[1])) / norm,
    wish.position[1] + (step * (forward * away[1] + left * away[0])) / norm,
    wish.position[2] + step * up,
  ];
  wish.turn += (turn * TURN_DEG_S * seconds * Math.PI) / 180;
  wish.tilt += (tilt * TURN_DEG_S * seconds * Math.PI) / 180;
  change();
}

/* Drawn only where something has changed: the machine may be busy with a robot. */
let before = performance.now(), drawn = "";
function frame(now) {
  moveByKeys(Math.min(0.1, (now - before) / 1000));
  before = now;
  const shown = JSON.stringify([wish, policyDrives, view.azimuth, view.elevation, view.distance, view.grabbed, view.canvas.clientWidth, view.canvas.clientHeight]);
  if (fresh || shown !== drawn) view.draw();
  fresh = false;
  drawn = shown;
  requestAnimationFrame(frame);
}
setInterval(() => { if (!document.hidden && performance.now() - lastSent > 40) send({ type: "here" }); }, 50);
setPhase("connecting");
showWish();
connect();
requestAnimationFrame(frame);
