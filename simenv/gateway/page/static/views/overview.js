// Pools, slots in use, the queue with expected starts, throughput over time, faults.

import { get } from "../api.js";
import { card, clock, count, duration, expected, figure, gauge, h, many, mark, own, table, taskLink } from "../dom.js";
import { actions, live, refresh, render } from "../shell.js";
import { history } from "../series.js";
import "../plots.js";

const FAULTS = ["worker.lost", "worker.killed", "node.lost", "node.drained", "pool.quarantined", "pool.backoff", "task.requeued",
  "task.unplaceable", "task.preempted", "journal.damaged", "result.damaged"];
const range = own("time-range");
const plots = { throughput: own("time-plot"), queue: own("time-plot"), slots: own("time-plot") };
let last = null, rate = null, faults = [];
const samples = []; // of the last ten seconds: time, number of ended tasks

const tile = (name, value, note, kind) => h("div", { class: `tile ${kind ?? ""}` },
  h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "note" }, note));

function tiles(info) {
  const up = info.pools.reduce((sum, pool) => sum + pool.workers, 0);
  const target = info.pools.reduce((sum, pool) => sum + pool.target, 0);
  return h("div", { class: "tiles" },
    tile("Tasks a second", rate === null ? "–" : figure(rate), `${count(info.done)} done`),
    tile("Waiting", count(info.queued), info.queued ? `oldest ${duration(info.oldest_s)}` : "nothing waits"),
    tile("Running", count(info.running), `${many(info.lost_attempts, "attempt")} lost`),
    tile("Slots in use", `${info.slots_granted} of ${info.slots}`, gauge(info.slots_granted, info.slots)),
    tile("Workers", `${up} of ${target}`, many(info.pools.length, "pool"), up < target ? "bad" : ""),
    tile("Failed", count(info.failed), `${count(info.cancelled)} cancelled, ${count(info.expired)} expired`));
}

const pools = (info) => table("Pools", [
  { name: "Pool", of: (pool) => h("strong", null, pool.name) },
  { name: "Engine", of: (pool) => pool.engine, wide: true },
  { name: "State", of: (pool) => [mark(pool.state), pool.reason ? ` ${pool.reason}` : ""] },
  { name: "Workers", of: (pool) => `${pool.workers} of ${pool.target}`, number: true },
  { name: "Busy", of: (pool) => [`${pool.busy} `, gauge(pool.busy, pool.workers)], number: true },
  { name: "Waiting", of: (pool) => count(pool.waiting), number: true },
  { name: "A new task begins", of: (pool) => expected(pool.wait_us, pool.wait_off_by), line: "named" },
  { name: "Qubits", of: (pool) => (pool.max_qubits ? `≤ ${pool.max_qubits}` : "–"), number: true, wide: true },
], info.pools, { key: (pool) => pool.name, empty: "There are no pools." });

export const begins = (task) => (task.state === "QUEUED" ? expected(task.wait_us, task.wait_off_by)
  : `running for ${duration(task.time_s)}${rest(task)}`);

// The rest of a run, as forecast now; a run far beyond its first forecast has a new one, and says so.
const rest = (task) => (task.left_us > 0
  ? `, about ${duration(task.left_us / 1e6)} left${task.outrun ? `: ${Math.round(task.outrun)} × its forecast` : ""}` : "");

const queue = (tasks) => table("Queue", [
  { name: "Task", of: (task) => taskLink(task.id) },
  { name: "Name", of: (task) => task.name, wide: true },
  { name: "User", of: (task) => task.owner || "–", wide: true },
  { name: "Pool", of: (task) => task.pool },
  { name: "State", of: (task) => mark(task.state) },
  { name: "Expected start", of: begins },
  { name: "Worker, or why it waits", of: (task) => (task.state === "QUEUED" ? task.reason : task.worker), line: true },
], tasks, { key: (task) => task.id, empty: "Nothing waits or runs." });

function draw() {
  if (!last) return;
  const { info, queue: { total, tasks } } = last;
  render(
    ...info.warnings.map((text) => h("p", { class: "warning" }, text)),
    tiles(info),
    card("Pools", pools(info)),
    h("div", { class: "two" },
      card("Tasks ended a second", plots.throughput), card("Tasks waiting and running", plots.queue)),
    card("Queue", queue(tasks), total > tasks.length
      ? h("p", null, h("a", { href: "/ui/tasks" }, `all ${count(total)} tasks that wait or run`)) : null),
    h("div", { class: "two" }, card("Slots in use", plots.slots),
      card("Faults", table("Faults", [
        { name: "Time", of: (event) => clock(event.time_s) },
        { name: "Kind", of: (event) => event.kind },
        { name: "Subject", of: (event) => event.subject },
        { name: "What", of: (event) => event.message, line: true },
      ], faults, { key: (event) => event.seq, empty: "None in this range." }))));
}

async function series() {
  const [from, to] = range.bounds;
  const zoom = (begin, end) => range.choose(range.last, [begin, end]);
  const { times, values } = await history(["done_per_s", "unsuccessful_per_s", "queue", "running", "slots_granted"], from, to);
  const integer = (value) => count(Math.round(value));
  plots.throughput.set("Tasks ended a second", times, [{ label: "done", values: values.done_per_s, format: figure }, { label: "failed, cancelled, expired", values: values.unsuccessful_per_s, format: figure }], [from, to], zoom);
  plots.queue.set("Tasks", times, [{ label: "waiting", values: values.queue, format: integer, whole: true }, { label: "running", values: values.running, format: integer }], [from, to], zoom);
  plots.slots.set("Slots", times, [{ label: "in use", values: values.slots_granted, format: figure, whole: true }], [from, to], zoom);
  faults = (await get("/events/range", { kind: FAULTS, since_s: from, until_s: range.isLive ? 0 : to, limit: 15 })).events;
  draw();
}

actions(range);
range.addEventListener("range", () => refresh(series));
live((data) => {
  const ended = data.info.done + data.info.failed;
  samples.push([data.at_s, ended]);
  while (samples[0][0] < data.at_s - 10) samples.shift();
  const [[at_s, before]] = samples;
  rate = data.at_s > at_s ? Math.max(0, ended - before) / (data.at_s - at_s) : null;
  last = data;
  draw();
});
refresh(series, 10);
