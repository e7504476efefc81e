// What workers did when, and how far each kind of task is: of the newest tasks of a filter.

import { clock, count, duration, h, many, s, table } from "./dom.js";

const LASTS = { "1 min": 60, "10 min": 600, "1 h": 3600, "24 h": 86400 };
const KINDS = 5; // that have colours of their own, the most frequent ones
const MAX_LANES = 32;
const [LANE, LEFT, WIDTH] = [22, 110, 1000];
const BAD = ["FAILED", "EXPIRED"];

// Rows of the gateway: [id, kind, state, worker, begin, seconds].
const task = ([id, kind, state, worker, begin_s, run_s]) => ({ id, kind: kind || "without a name", state, worker, begin_s, run_s });

// Tasks by kind, the most frequent first, each with its number of a colour.
function kindsOf(tasks) {
  const kinds = Map.groupBy(tasks, (each) => each.kind);
  return [...kinds].sort(([, a], [, b]) => b.length - a.length).map(([kind, members], index) => {
    const sum = (...states) => members.filter((each) => states.includes(each.state)).length;
    return { kind, shade: index < KINDS ? index : "rest", all: members.length, waiting: sum("QUEUED"), running: sum("RUNNING"), done: sum("DONE"), bad: sum(...BAD), cancelled: sum("CANCELLED") };
  });
}

const part = (name, number, all) => h("span", { class: name, css: { width: `${(100 * number) / all}%` } });

export const progressByKind = (rows, redraw) => [table("Progress by kind", [
  { name: "Kind", of: (row) => [h("i", { class: `swatch shade-${row.shade}` }), row.kind], by: (row) => row.kind, line: true },
  { name: "Progress", of: (row) => h("div", { class: "parts" }, part("done", row.done, row.all), part("bad", row.bad, row.all), part("busy", row.running, row.all)), by: (row) => (row.all - row.waiting - row.running) / row.all, line: true },
  ...["done", "bad", "running", "waiting"].map((name) => ({ name: { bad: "Failed" }[name] ?? name[0].toUpperCase() + name.slice(1), of: (row) => count(row[name]), by: (row) => row[name], number: true })),
], kindsOf(rows.map(task)), { key: (row) => row.kind, empty: "There are no such tasks.", redraw }),
h("p", { class: "muted" }, `Of the newest ${many(rows.length, "task")}, by name, else by engine.`)];

// The stream: one lane a worker. It is a picture of what the table of tasks has.
export class TaskStream extends HTMLElement {
  #last = 600;

  set(rows) { this.rows = rows.map(task); this.draw(); }

  draw() {
    const now = Date.now() / 1000, from = now - this.#last;
    const shades = new Map(kindsOf(this.rows).map(({ kind, shade }) => [kind, shade]));
    const ran = this.rows.filter((each) => each.begin_s && each.begin_s + each.run_s >= from);
    const workers = [...new Set(ran.map((each) => each.worker))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const lanes = workers.slice(0, MAX_LANES), height = lanes.length * LANE + 24;
    const x = (time) => LEFT + ((Math.max(from, Math.min(now, time)) - from) / this.#last) * (WIDTH - LEFT);
    const focused = this.contains(document.activeElement) ? document.activeElement.textContent : null;
    const bar = (each) => {
      const left = x(each.begin_s), width = Math.max(2, x(each.begin_s + each.run_s) - left);
      return s("rect", { class: `shade-${BAD.includes(each.state) ? "bad" : shades.get(each.kind)}${each.state === "RUNNING" ? " now" : ""}`, x: left, y: lanes.indexOf(each.worker) * LANE + 2, width, height: LANE - 4,
        onclick: () => { location.href = `/ui/tasks/${encodeURIComponent(each.id)}`; } },
      s("title", null, `${each.id} ${each.kind}: ${each.state}, ${duration(each.run_s)} from ${clock(each.begin_s)} on ${each.worker}`));
    };
    this.replaceChildren(
      h("div", { class: "segments", role: "group", "aria-label": "Length of the stream" }, Object.entries(LASTS).map(([name, last]) => h("button", { type: "button", "aria-pressed": String(last === this.#last), onclick: () => { this.#last = last; this.draw(); } }, name))),
      lanes.length ? h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Task stream" },
        s("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${many(ran.length, "task")} on ${many(workers.length, "worker")}` },
          lanes.map((worker, index) => s("g", null, s("rect", { class: "lane", x: LEFT, y: index * LANE + 2, width: WIDTH - LEFT, height: LANE - 4 }), s("text", { class: "quiet", x: 0, y: index * LANE + LANE / 2 }, worker.length > 16 ? `${worker.slice(0, 15)}…` : worker))),
          ran.filter((each) => lanes.includes(each.worker)).map(bar),
          [0, 0.5, 1].map((at) => s("text", { class: "quiet", x: LEFT + at * (WIDTH - LEFT), y: height - 8, "text-anchor": ["start", "middle", "end"][2 * at] }, clock(from + at * this.#last))))) : h("p", { class: "muted" }, `No task ran in the last ${Object.keys(LASTS).find((name) => LASTS[name] === this.#last)}.`),
      workers.length > lanes.length ? h("p", { class: "muted" }, `The first ${MAX_LANES} of ${count(workers.length)} workers.`) : "");
    if (focused) [...this.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
  }
}
customElements.define("task-stream", TaskStream);
