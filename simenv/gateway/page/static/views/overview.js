// Pools, slots in use, the queue with expected starts, throughput over time, faults.

import { get } from "../api.js";
import { card, clock, count, duration, expected, figure, gauge, h, many, mark, own, progress, progressOf, table, taskLink } from "../dom.js";
import { actions, live, refresh, render } from "../shell.js";
import { begin, history } from "../series.js";
import "../plots.js";

const FAULTS = ["worker.lost", "worker.killed", "node.lost", "node.drained", "pool.quarantined", "pool.backoff", "task.requeued",
  "task.unplaceable", "task.preempted", "journal.damaged", "journal.dropped", "task.damaged",
  "result.damaged"];
const range = own("time-range");
const plots = { throughput: own("time-plot"), queue: own("time-plot"), slots: own("time-plot") };
const SERIES = ["done_per_s", "unsuccessful_per_s", "queue", "running", "slots_used"];
const RATE_S = 10; // over which rates are
const MAX_LIVE = 600; // states that are kept for the ends of plots
let last = null, now = null, faults = [], stored = null;
const states = []; // live ones, the oldest first

const slots = (info) => now?.slots_used ?? info.slots_granted;

const tile = (name, value, note, kind) => h("div", { class: `tile ${kind ?? ""}` },
  h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "note" }, note));

function tiles(info) {
  const up = info.pools.reduce((sum, pool) => sum + pool.workers, 0);
  const target = info.pools.reduce((sum, pool) => sum + pool.target, 0);
  return h("div", { class: "tiles" },
    tile("Tasks a second", now?.done_per_s === null || !now ? "–" : figure(now.done_per_s + now.unsuccessful_per_s), `${count(info.done)} done`),
    tile("Waiting", count(info.queued), info.queued ? `oldest ${duration(info.oldest_s)}` : "nothing waits"),
    tile("Running", count(info.running), `${many(info.lost_attempts, "attempt")} lost`),
    tile("Slots in use", `${figure(slots(info), 2)} of ${info.slots}`, [`mean of ${RATE_S} s`, gauge(slots(info), info.slots)]),
    tile("Workers", `${up} of ${target}`, many(info.pools.length, "pool"), up < target ? "bad" : ""),
    tile("Failed", count(info.failed), `${count(info.cancelled)} cancelled, ${count(info.expired)} expired`));
}

// Of a pool that is paused or drains, and has a fault, too.
const beside = (pool) => (pool.closed && pool.closed !== pool.state ? [" ", mark(pool.closed), ` ${pool.closed_reason}`] : []);

const pools = (info) => table("Pools", [
  { name: "Pool", of: (pool) => h("strong", null, pool.name), by: (pool) => pool.name },
  { name: "Engine", of: (pool) => pool.engine, by: (pool) => pool.engine, wide: true },
  { name: "State", of: (pool) => [mark(pool.state), pool.reason ? ` ${pool.reason}` : "", ...beside(pool)], by: (pool) => pool.state },
  { name: "Workers", of: (pool) => `${pool.workers} of ${pool.target}`, by: (pool) => pool.workers, number: true },
  { name: "Busy", of: (pool) => [`${pool.busy} `, gauge(pool.busy, pool.workers)], by: (pool) => pool.busy, number: true },
  { name: "Waiting", of: (pool) => count(pool.waiting), by: (pool) => pool.waiting, number: true },
  { name: "A new task begins", of: (pool) => expected(pool.wait_us, pool.wait_off_by), by: (pool) => pool.wait_us, line: "named" },
  { name: "Width", of: (pool) => (pool.max_qubits ? `≤ ${pool.max_qubits}` : "–"), by: (pool) => pool.max_qubits, number: true, wide: true },
], info.pools, { key: (pool) => pool.name, empty: "There are no pools.", redraw: draw });

// When a task begins, or how far it is.
const advance = (task) => (task.state === "QUEUED" ? expected(task.wait_us, task.wait_off_by)
  : progressOf(task).left_s === null && progressOf(task).part === null ? task.reason || `running, ${duration(task.time_s)} since it was submitted` : progress(task));

const queue = (tasks) => table("Queue", [
  { name: "Task", of: (task) => taskLink(task.id), by: (task) => task.id },
  { name: "Name", of: (task) => task.name, by: (task) => task.name, wide: true },
  { name: "User", of: (task) => task.owner || "–", by: (task) => task.owner, wide: true },
  { name: "Device", of: (task) => task.device, by: (task) => task.device },
  { name: "Engine", of: (task) => task.engine, by: (task) => task.engine, wide: true },
  { name: "Pool", of: (task) => task.pool, by: (task) => task.pool, wide: true },
  { name: "State", of: (task) => mark(task.state), by: (task) => task.state },
  { name: "Start or progress", of: advance, by: (task) => (task.state === "QUEUED" ? task.wait_us : -1), line: "named" },
  { name: "Worker, or why it waits", of: (task) => (task.state === "QUEUED" ? task.reason : task.worker), line: true },
], tasks, { key: (task) => task.id, empty: "Nothing waits or runs.", redraw: draw });

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

// The stored samples, and after the last one the live states: plots move on every second.
function drawPlots() {
  if (!stored) return;
  const [from, to] = range.isLive ? [stored.from, Date.now() / 1000] : range.bounds;
  const zoom = (begin, end) => range.choose(range.last, [begin, end]);
  const newest = stored.times.at(-1) ?? 0;
  const fresh = range.isLive ? states.filter((each) => each.at_s > newest && each.done_per_s !== null) : [];
  const times = [...stored.times, ...fresh.map((each) => each.at_s)];
  const line = (label, name, format, whole) => ({ label, format, whole, values: [...stored.values[name], ...fresh.map((each) => each[name])] });
  const integer = (value) => count(Math.round(value));
  plots.throughput.set("Tasks ended a second", times, [line("done", "done_per_s", figure), line("failed, cancelled, expired", "unsuccessful_per_s", figure)], [from, to], zoom);
  plots.queue.set("Tasks", times, [line("waiting", "queue", integer, true), line("running", "running", integer, true)], [from, to], zoom);
  plots.slots.set("Slots", times, [{ ...line("in use", "slots_used", figure), least: 1 }], [from, to], zoom);
}

async function series() {
  const [from, to] = range.bounds;
  const found = await history(SERIES, from, to, { regular: true });
  const start = range.isLive ? await begin("queue", from, found.times) : from;
  const oldest = states[0]?.at_s ?? Infinity;
  stored = { ...found, from: found.times.length || !range.isLive ? start : Math.max(from, Math.min(oldest, to - 60)) };
  drawPlots();
  faults = (await get("/events/range", { kind: FAULTS, since_s: from, until_s: range.isLive ? 0 : to, limit: 15 })).events;
  draw();
}

// A live state as the series are stored. Rates are differences over RATE_S: of what has happened
// since, not of what is seen at this moment.
function state({ at_s, info }) {
  const totals = { done: info.done, unsuccessful: info.failed + info.cancelled + info.expired, slot_s: info.slot_s, epoch: info.epoch };
  const before = states.findLast((each) => each.at_s <= at_s - RATE_S) ?? states[0];
  const seconds = before && before.totals.epoch === totals.epoch ? at_s - before.at_s : 0;
  const rate = (name) => (seconds > 0 ? Math.max(0, totals[name] - before.totals[name]) / seconds : null);
  return { at_s, totals, done_per_s: rate("done"), unsuccessful_per_s: rate("unsuccessful"), slots_used: rate("slot_s"), queue: info.queued, running: info.running };
}

actions(range);
range.addEventListener("range", () => refresh(series));
live((data) => {
  now = state(data);
  states.push(now);
  if (states.length > MAX_LIVE) states.shift();
  last = data;
  draw();
  drawPlots();
});
refresh(series, 10);
