"use strict";
/* The list of episodes with its filters; only rows in sight are in the page, so thousands cost nothing. */

const ROW_HEIGHT = 46;
const MARGIN_ROWS = 8;

/** Whether each value lies more than 3.5 robust standard deviations from the median of its group. */
function unusual(values, groups) {
  const members = new Map();
  values.forEach((value, place) => {
    if (!members.has(groups[place])) members.set(groups[place], []);
    members.get(groups[place]).push(value);
  });
  const limits = new Map();
  for (const [group, of] of members) {
    const middle = median(of);
    const spread = 1.4826 * median(of.map((value) => Math.abs(value - middle)));
    limits.set(group, of.length < 8 ? [-Infinity, Infinity] : [middle - 3.5 * Math.max(spread, 0.05 * middle), middle + 3.5 * Math.max(spread, 0.05 * middle)]);
  }
  return values.map((value, place) => value < limits.get(groups[place])[0] || value > limits.get(groups[place])[1]);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

class EpisodeList {
  constructor(dataset, choose) {
    this.dataset = dataset;
    this.columns = dataset.episodes;
    this.choose = choose;
    this.noun = dataset.noun || "episode";
    this.odd = unusual(this.columns.seconds, this.columns.task);
    this.places = [];
    this.chosen = null;
    this.frame = document.getElementById("list");
    this.inner = document.getElementById("list-height");
    this.frame.addEventListener("scroll", () => this.show());
    new ResizeObserver(() => this.show()).observe(this.frame);
    this.fillFilters();
    this.filter();
  }

  fillFilters() {
    const { task, success, operator } = this.columns;
    this.options("by-task", "all tasks", task);
    this.options("by-operator", "all operators", operator.filter((value) => value !== null));
    const said = [...new Set(success)];
    const names = new Map([[true, "succeeded"], [false, "failed"], [null, "not stated"]]);
    this.options("by-success", "any outcome", said.map((value) => names.get(value)));
    if (this.columns.split) {
      this.options("by-split", "all splits", this.columns.split);
      this.options("by-robot", "all robots", this.columns.robot);
      document.getElementById("of-build").hidden = false;
    }
    for (const id of ["search", "by-task", "by-success", "by-operator", "by-length", "by-split", "by-robot"]) {
      document.getElementById(id).addEventListener("input", () => this.filter());
    }
  }

  options(id, all, values) {
    const select = document.getElementById(id);
    select.replaceChildren(new Option(all, ""), ...[...new Set(values)].sort().map((value) => new Option(value, "=" + value)));
    select.disabled = select.options.length <= 2;
  }

  filter() {
    const chosen = (id) => document.getElementById(id).value;
    const words = chosen("search").toLowerCase().split(/\s+/).filter(Boolean);
    const { instruction, task, success, operator, late, repeated, index, split, robot, source } = this.columns;
    const outcome = { "=succeeded": true, "=failed": false, "=not stated": null }[chosen("by-success")];
    this.places = index.map((_, place) => place).filter((place) =>
      words.every((word) => `${index[place]} ${instruction[place]} ${task[place]} ${source ? source[place] : ""}`.toLowerCase().includes(word)) &&
      (!chosen("by-task") || "=" + task[place] === chosen("by-task")) &&
      (!chosen("by-success") || success[place] === outcome) &&
      (!chosen("by-operator") || "=" + operator[place] === chosen("by-operator")) &&
      (!chosen("by-split") || "=" + split[place] === chosen("by-split")) &&
      (!chosen("by-robot") || "=" + robot[place] === chosen("by-robot")) &&
      (chosen("by-length") !== "odd" || this.odd[place]) &&
      (chosen("by-length") !== "late" || late[place] > 0 || repeated[place] > 0));
    this.count();
    this.inner.style.height = this.places.length * ROW_HEIGHT + "px";
    this.frame.scrollTop = 0;
    this.show();
  }

  count() {
    const { seconds, success } = this.columns;
    const total = this.places.reduce((sum, place) => sum + seconds[place], 0);
    const judged = this.places.filter((place) => success[place] !== null);
    const good = judged.filter((place) => success[place]).length;
    const minutes = total >= 120 ? `${(total / 60).toFixed(1)} min` : `${total.toFixed(1)} s`;
    const rate = judged.length ? `, ${good} of ${judged.length} succeeded` : "";
    const number = this.places.length === this.columns.index.length
      ? `${this.places.length} ${this.noun}s` : `${this.places.length} of ${this.columns.index.length} ${this.noun}s`;
    document.getElementById("counted").textContent = `${number}, ${minutes}${rate}`;
  }

  show() {
    const first = Math.max(0, Math.floor(this.frame.scrollTop / ROW_HEIGHT) - MARGIN_ROWS);
    const last = Math.min(this.places.length, first + Math.ceil(this.frame.clientHeight / ROW_HEIGHT) + 2 * MARGIN_ROWS);
    const rows = [];
    for (let row = first; row < last; row++) rows.push(this.item(row));
    this.inner.replaceChildren(...rows);
  }

  item(row) {
    const place = this.places[row];
    const { index, instruction, task, seconds, success, operator, seed, split, source } = this.columns;
    const item = make("div", "item" + (index[place] === this.chosen ? " chosen" : ""));
    item.style.top = row * ROW_HEIGHT + "px";
    item.setAttribute("role", "option");
    item.append(make("span", "number", index[place]));
    const what = item.appendChild(make("span", "what"));
    const dot = what.appendChild(make("span", "dot" + (success[place] === null ? "" : success[place] ? " yes" : " no")));
    dot.title = success[place] === null ? "outcome not stated" : success[place] ? "succeeded" : "failed";
    what.append(instruction[place] || "(no instruction)");
    what.title = instruction[place];
    item.append(make("span", "seconds" + (this.odd[place] ? " odd" : ""), seconds[place].toFixed(1) + " s"));
    const more = [task[place] !== instruction[place] ? task[place] : "", operator[place] || "", split ? split[place] : "", source ? source[place] : "", split || seed[place] === null ? "" : `seed ${seed[place]}`];
    item.append(make("span", "more", more.filter(Boolean).join(" · ")));
    item.addEventListener("click", () => this.choose(index[place]));
    return item;
  }

  mark(episode) {
    this.chosen = episode;
    const row = this.places.findIndex((place) => this.columns.index[place] === episode);
    if (row >= 0) {
      const top = row * ROW_HEIGHT, height = this.frame.clientHeight;
      if (top < this.frame.scrollTop) this.frame.scrollTop = top;
      if (top + ROW_HEIGHT > this.frame.scrollTop + height) this.frame.scrollTop = top + ROW_HEIGHT - height;
    }
    this.show();
  }

  /** The episode `step` rows from the chosen one in the filtered list; null at its ends. */
  neighbour(step) {
    const row = this.places.findIndex((place) => this.columns.index[place] === this.chosen);
    const place = row < 0 ? this.places[0] : this.places[row + step];
    return place === undefined ? null : this.columns.index[place];
  }
}
