// All tasks that the user may see: what waits and why, and the history, by filters of the address.

import { get } from "../api.js";
import { card, clock, count, duration, h, mark, own, progress, progressOf, startOf, table, taskLink } from "../dom.js";
import { actions, refresh, render, report } from "../shell.js";
import { progressByKind } from "../stream.js";

const STATES = ["QUEUED", "RUNNING", "DONE", "FAILED", "CANCELLED", "EXPIRED"];
const PAGE = 50;
const query = new URLSearchParams(location.search);
const stream = own("task-stream");
let rows = [], cursor = "", pools = [], busy = false, streamed = [];

const filters = () => ({ state: query.get("state") ?? "", pool: query.get("pool") ?? "", owner: query.get("owner") ?? "", run_name: query.get("run_name") ?? "" });

function change(name, value) {
  if (value) query.set(name, value);
  else query.delete(name);
  history.replaceState(null, "", `?${query}`);
  refresh(load);
}

const choice = (label, name, values) => h("label", null, label, h("select", { name, onchange: (event) => change(name, event.target.value) },
  h("option", { value: "" }, "all"), values.map((value) => h("option", { value, selected: filters()[name] === value }, value))));

const entry = (label, name, note) => h("label", null, label, h("input", { name, value: filters()[name], placeholder: note,
  onchange: (event) => change(name, event.target.value.trim()) }));

const form = h("form", { "data-keep": "", onsubmit: (event) => {
  event.preventDefault();
  const id = event.target.elements.task?.value.trim();
  if (id) location.href = `/ui/tasks/${encodeURIComponent(id)}`;
} });

function drawForm() {
  form.replaceChildren(
    choice("State", "state", STATES), choice("Pool", "pool", pools),
    entry("User", "owner", "all"), entry("Run of an application", "run_name", "all"),
    h("label", null, "Task", h("input", { name: "task", placeholder: "t-8k2f" })), h("button", null, "Open"));
}

const why = (row) => {
  if (row.state === "QUEUED") return [row.reason, row.expected_start_s ? ` (begins ${startOf(row)})` : ""];
  return row.state === "RUNNING" ? row.worker : row.reason || row.worker;
};

function draw() {
  render(
    card("Filter", form),
    h("div", { class: "two", "data-key": "stream" }, card("Task stream", stream), card("Progress by kind", progressByKind(streamed, draw))),
    card("Tasks", table("Tasks", [
      { name: "Task", of: (row) => taskLink(row.id), by: (row) => row.submitted_s },
      { name: "Name", of: (row) => row.name, by: (row) => row.name, wide: true },
      { name: "State", of: (row) => mark(row.state), by: (row) => row.state },
      { name: "Progress", of: progress, by: (row) => progressOf(row)?.part, line: "named" },
      { name: "User", of: (row) => row.owner || "–", by: (row) => row.owner, wide: true },
      { name: "Device", of: (row) => row.device, by: (row) => row.device },
      { name: "Engine", of: (row) => row.engine, by: (row) => row.engine, wide: true },
      { name: "Pool", of: (row) => row.pool, by: (row) => row.pool, wide: true },
      { name: "Width", of: (row) => row.num_qubits, by: (row) => row.num_qubits, number: true, wide: true },
      { name: "Shots", of: (row) => (row.shots ? count(row.shots) : "exact"), by: (row) => row.shots, number: true, wide: true },
      { name: "Submitted", of: (row) => clock(row.submitted_s), by: (row) => row.submitted_s },
      { name: "Queued", of: (row) => duration(row.timing.queued_us / 1e6), by: (row) => row.timing.queued_us, number: true },
      { name: "Run", of: (row) => (row.timing.run_us ? duration(row.timing.run_us / 1e6) : "–"), by: (row) => row.timing.run_us || null, number: true },
      { name: "Worker, or why", of: why, line: true },
    ], rows, { key: (row) => row.id, empty: "No task has these properties.", redraw: draw }),
    cursor ? h("p", { class: "muted" }, `Sorted are the ${count(rows.length)} tasks that are loaded.`) : null,
    cursor ? h("button", { onclick: more, disabled: busy }, busy ? "Loading …" : "Older tasks") : null),
  );
}

const page = (after) => {
  return get("/tasks", { ...filters(), cursor: after, limit: PAGE });
};

async function more() {
  busy = true;
  draw();
  try {
    const { tasks, next } = await page(cursor);
    rows = [...rows, ...tasks];
    cursor = next;
  } catch (error) { report(error); }
  busy = false;
  draw();
}

async function load() {
  const [{ tasks, next }, newest] = await Promise.all([page(""), get("/stream", filters())]);
  streamed = newest;
  stream.set(newest);
  // Older pages that were opened stay.
  const shown = new Set(tasks.map((task) => task.id));
  const older = rows.slice(tasks.length).filter((row) => !shown.has(row.id));
  if (rows.length <= PAGE) [rows, cursor] = [tasks, next];
  else rows = [...tasks, ...older];
  draw();
}

actions();
drawForm();
get("/pools").then((found) => { pools = found.map((pool) => pool.name); drawForm(); }, report);
refresh(load, 3);
