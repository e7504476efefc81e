// What workers did when, and how far each kind of task is: of the newest tasks of a filter.

import { clock, count, duration, h, many, table } from "./dom.js";

const LASTS = { "1 min": 60, "10 min": 600, "1 h": 3600, "24 h": 86400 };
const KINDS = 5; // that have colours of their own, the most frequent ones
const [MAX_LANES, MAX_KINDS] = [32, 12];
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

export const progressByKind = (rows, redraw, kinds = kindsOf(rows.map(task))) => [table("Progress by kind", [
  { name: "Kind", of: (row) => [h("i", { class: `swatch shade-${row.shade}` }), row.kind], by: (row) => row.kind, line: true },
  { name: "Progress", of: (row) => h("div", { class: "parts" }, part("done", row.done, row.all), part("bad", row.bad, row.all), part("busy", row.running, row.all)), by: (row) => (row.all - row.waiting - row.running) / row.all, line: true },
  ...["done", "bad", "running", "waiting"].map((name) => ({ name: { bad: "Failed" }[name] ?? name[0].toUpperCase() + name.slice(1), of: (row) => count(row[name]), number: true })),
], kinds.slice(0, MAX_KINDS), { key: (row) => row.kind, empty: "There are no such tasks.", redraw }),
h("p", { class: "muted" }, `Of ${many(rows.length, "task")}: the newest, and up to 500 older ones each that wait, run or have ended; by name, else by engine.${kinds.length > MAX_KINDS ? ` The ${MAX_KINDS} largest of ${count(kinds.length)} kinds.` : ""}`)];

// The stream: one lane a worker. It is a picture of what the table of tasks has.
export class TaskStream extends HTMLElement {
  #last = 0; // seconds; 0: those of the shortest range that has all ended tasks

  set(rows) { this.rows = rows.map(task); this.draw(); }

  draw() {
    const now = Date.now() / 1000, every = this.rows.filter((each) => each.begin_s);
    const oldest = Math.min(...every.filter((each) => each.state !== "RUNNING").map((each) => each.begin_s), now);
    const last = this.#last || Object.values(LASTS).find((length) => now - oldest <= length) || 86400, from = now - last;
    const shades = new Map(kindsOf(this.rows).map(({ kind, shade }) => [kind, shade]));
    const ran = every.filter((each) => each.begin_s + each.run_s >= from);
    const lanes = [...Map.groupBy(ran, (each) => each.worker)].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
    const share = (time) => (100 * (Math.max(from, Math.min(now, time)) - from)) / last;
    const focused = this.contains(document.activeElement) ? document.activeElement.textContent : null;
    const bar = (each) => h("span", { class: `shade-${BAD.includes(each.state) ? "bad" : shades.get(each.kind)}${each.state === "RUNNING" ? " now" : ""}`,
      css: { left: `min(${share(each.begin_s)}%, 100% - 2px)`, width: `${share(each.begin_s + each.run_s) - share(each.begin_s)}%` },
      title: `${each.id} ${each.kind}: ${each.state}, ${duration(each.run_s)} from ${clock(each.begin_s)} on ${each.worker}`,
      onclick: () => { location.href = `/ui/tasks/${encodeURIComponent(each.id)}`; } });
    this.replaceChildren(
      h("div", { class: "segments", role: "group", "aria-label": "Length of the stream" }, Object.entries(LASTS).map(([name, length]) => h("button", { type: "button", "aria-pressed": String(length === last), onclick: () => { this.#last = length; this.draw(); } }, name))),
      lanes.length ? h("div", { class: "stream", role: "img", "aria-label": `Task stream: ${many(ran.length, "task")} on ${many(lanes.length, "worker")}` },
        lanes.slice(0, MAX_LANES).map(([worker, tasks]) => [h("span", null, worker), h("div", { class: "lane" }, tasks.map(bar))]),
        h("span"), h("div", { class: "times" }, [from, (from + now) / 2, now].map((time) => h("span", null, clock(time))))) : h("p", { class: "muted" }, "No task ran in this time."),
      lanes.length > MAX_LANES ? h("p", { class: "muted" }, `The first ${MAX_LANES} of ${count(lanes.length)} workers.`) : "");
    if (focused) [...this.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
  }
}
customElements.define("task-stream", TaskStream);
