"use strict";
/* Puts the page together: the list chooses, data arrive as scripts, the player moves the cursor. */

const byId = (id) => document.getElementById(id);
let dataset = null, list = null, wanted = null, episode = null, plots = [], cursor = null;

const player = new Player(byId("videos"), showFrame, (playing) => {
  byId("play").textContent = playing ? "❚❚" : "▶";
});

window.blm = {
  showDataset(content) {
    dataset = content;
    document.title = `${content.name} – blm view`;
    byId("name").textContent = content.name;
    byId("about").textContent = content.about;
    byId("noun").textContent = content.noun || "episode";
    list = new EpisodeList(content, open);
    const asked = Number.parseInt(location.hash.slice(1), 10);
    const first = content.episodes.index.includes(asked) ? asked : content.episodes.index[0];
    if (first === undefined) problem(`There are no ${content.noun || "episode"}s here.`); else open(first);
  },

  showEpisode(content) {
    if (content.index !== wanted) return;
    episode = content;
    byId("problem").hidden = true;
    byId("episode").hidden = false;
    showHead();
    showTimeline();
    plots = plotsOf(content, content.fps, seek);
    byId("plots").replaceChildren(...plots.map((plot) => plot.element));
    byId("legend").hidden = content.axes.length === 0;
    drawPlots();
    showTables();
    player.load(content);
    document.body.dataset.shown = content.index;
  },

  showProblem(content) {
    if (content.index === wanted) problem(content.problem);
  },
};

function open(index) {
  wanted = index;
  history.replaceState(null, "", "#" + index);
  list.mark(index);
  const script = document.createElement("script");
  script.src = `episodes/${index}.js`;
  script.onload = () => script.remove();
  script.onerror = () => {
    script.remove();
    if (index === wanted) problem(`Number ${index} cannot be loaded. Is blm view still running?`);
  };
  document.head.append(script);
}

function problem(text) {
  player.pause();
  episode = null;
  byId("problem").textContent = text;
  byId("problem").hidden = false;
  byId("episode").hidden = true;
  byId("instruction").textContent = wanted === null ? "" : `${dataset.noun || "episode"} ${wanted}`;
  byId("chips").replaceChildren();
}

function showHead() {
  const columns = dataset.episodes, place = columns.index.indexOf(episode.index);
  byId("instruction").textContent = columns.instruction[place] || "(no instruction)";
  const chips = [];
  const chip = (name, value, kind) => {
    const one = make("span", "chip" + (kind ? " " + kind : ""), name);
    if (value !== undefined) one.append(" ", make("b", "", value));
    chips.push(one);
  };
  chip(dataset.noun || "episode", episode.index);
  if (columns.split) {
    chip("split", columns.split[place]);
    chip("from", columns.source[place]);
    chip("robot", columns.robot[place]);
  }
  if (columns.success[place] !== null) chip(columns.success[place] ? "succeeded" : "failed", undefined, columns.success[place] ? "yes" : "no");
  if (columns.task[place] !== columns.instruction[place]) chip("task", columns.task[place]);
  if (columns.operator[place]) chip("operator", columns.operator[place]);
  if (columns.seed[place] !== null) chip("seed", columns.seed[place]);
  chip("", columns.seconds[place].toFixed(2) + " s");
  if (list.odd[place]) chip("unusual duration for this task", undefined, "warn");
  if (columns.late[place] > 0) chip("late ticks", columns.late[place], "warn");
  if (columns.repeated[place] > 0) chip("repeated frames", columns.repeated[place], "warn");
  if (episode.interventions.length) chip("interventions", episode.interventions.length, "warn");
  byId("chips").replaceChildren(...chips);
}

function showTimeline() {
  const old = byId("timeline"), timeline = old.cloneNode(false);
  const span = (className, from, to) => {
    const part = timeline.appendChild(make("div", className));
    const begin = share(from, episode.frames);
    part.style.left = 100 * begin + "%";
    if (to !== undefined) part.style.width = 100 * (share(to, episode.frames) - begin) + "%";
    return part;
  };
  for (const band of episode.bands) {
    const part = span("band", band.from, band.to);
    part.style.background = BAND_COLOURS[band.number % BAND_COLOURS.length];
    part.textContent = part.title = band.label;
  }
  for (const [from, to] of episode.interventions) span("taken", from, to).title = "a person had taken over";
  const late = episode.success_from > 0.95 * episode.frames ? " late" : "";
  if (episode.success_from !== null) span("reached" + late, episode.success_from).title = "success from here";
  cursor = span("cursor", 0);
  seekByPointer(timeline, episode.frames, seek);
  old.replaceWith(timeline);
  const marks = [];
  if (episode.success_from !== null) marks.push(`✓ success from ${(episode.success_from / episode.fps).toFixed(2)} s`);
  if (episode.interventions.length) marks.push("striped: a person had taken over");
  byId("marks").textContent = marks.join(" · ");
}

function showTables() {
  const facts = table("Facts", [], episode.facts.map(([name, value]) => [name, value]));
  const parts = [facts];
  if (episode.objects.length) {
    const where = (place) => (place ? place.map((value) => value.toFixed(3)).join(", ") : "–");
    parts.push(table("Objects", ["name", "shape", "colour", "role", "first at x, y, z (m)", "last at"],
      episode.objects.map((one) => [one.name, one.shape, one.colour_name, one.role, where(one.first), where(one.last)])));
  }
  byId("tables").replaceChildren(...parts);
}

function table(title, heads, rows) {
  const part = make("section");
  part.append(make("h3", "", title));
  const element = part.appendChild(make("table"));
  if (heads.length) element.createTHead().insertRow().append(...heads.map((head) => make("th", "", head)));
  const body = element.createTBody();
  for (const row of rows) {
    body.insertRow().append(...row.map((cell, place) => make(place || heads.length ? "td" : "th", "", cell)));
  }
  return part;
}

function seek(frame) {
  player.pause();
  player.seek(frame);
}

function showFrame(frame) {
  if (!episode) return;
  cursor.style.left = 100 * share(frame, episode.frames) + "%";
  for (const plot of plots) plot.setFrame(frame);
  byId("clock").textContent = `${(frame / episode.fps).toFixed(2)} s · frame ${frame}`;
}

function drawPlots() {
  for (const plot of plots) plot.draw();
}

byId("play").addEventListener("click", () => player.toggle());
byId("speed").addEventListener("input", (event) => player.setSpeed(Number(event.target.value)));
window.addEventListener("resize", drawPlots);
window.addEventListener("hashchange", () => {
  const index = Number.parseInt(location.hash.slice(1), 10);
  if (dataset && index !== wanted && dataset.episodes.index.includes(index)) open(index);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !list) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (step) {
    const next = list.neighbour(step);
    if (next !== null) open(next);
  } else if (event.key === " " && event.target.tagName !== "BUTTON") player.toggle();
  else if (event.key === "," || event.key === ".") seek(player.frame + (event.key === "." ? 1 : -1));
  else if (event.key === "Home" || event.key === "End") seek(event.key === "End" ? player.frames - 1 : 0);
  else if (event.key === "/") byId("search").focus();
  else return;
  event.preventDefault();
});
