// Usage of accounts and users, their shares and limits.

import { get } from "../api.js";
import { bytes, card, clock, count, duration, figure, gauge, h, own, slotHours, table } from "../dom.js";
import { actions, refresh, render } from "../shell.js";
import "../plots.js";

const range = own("time-range");
const KEYS = ["account", "user", "pool", "device", "engine", "qos"];
let by = new URLSearchParams(location.search).get("by")?.split(",").filter((key) => KEYS.includes(key)) ?? ["account", "user"];
let usage = null, shares = [], limits = [], budgets = {};

const part = (value) => (value ? `${figure(100 * value)} %` : "0");

function toggle(key) {
  by = by.includes(key) ? by.filter((each) => each !== key) : [...by, key];
  const query = new URLSearchParams(location.search);
  query.set("by", by.join());
  history.replaceState(null, "", `?${query}`);
  refresh(load);
}

// A budget of an account for this month: what is left of it.
function budget(row) {
  if (row.left_units < 0) return row.rank ? "–" : "no budget"; // users have that of their account
  const all = 3600 * (budgets[row.account]?.budget_slot_h ?? 0);
  return all ? [`${slotHours(row.left_units)} of ${slotHours(all)}`, gauge(row.left_units, all)] : slotHours(row.left_units);
}

// Limits that a user can see the use of; the others bound single tasks and reservations.
const USED = { queued_tasks: "Tasks", queued_bytes: "Programs", running_slots: "Running slots", kept_bytes: "Stored results", reservations: "Reservations", state_bytes: "States between parts" };
const OTHERS = { reservation_s: "a reservation", reserved_percent: "reserved of a pool", priority: "priority of a task", run_s: "run of a task", messages_per_s: "messages a second" };
const amount = (key, value) => (key.endsWith("_bytes") ? bytes(value) : key.endsWith("_percent") ? `${value} %` : key.endsWith("_s") && key !== "messages_per_s" ? duration(value) : count(value));
const inUse = (report, key) => { const used = report.use[key] ?? 0, most = report.limits[`max_${key}`]; return most ? [`${amount(key, used)} of ${amount(key, most)}`, used ? gauge(used, most) : null] : `${amount(key, used)}, no limit`; };
const bounds = (report) => Object.entries(OTHERS).filter(([key]) => report.limits[`max_${key}`]).map(([key, label]) => `${label} ≤ ${amount(key, report.limits[`max_${key}`])}`).join(", ") || "none";

function draw() {
  const most = Math.max(...usage.rows.map((row) => row.used.slot_us ?? 0), 1);
  const shown = Object.entries(USED).filter(([key]) => limits.some((report) => report.limits[`max_${key}`] || report.use[key]));
  render(
    card("Usage",
      h("div", { class: "segments", role: "group", "aria-label": "Sums by" }, KEYS.map((key) => h("button", { "aria-pressed": String(by.includes(key)), onclick: () => toggle(key) }, key))),
      h("p", { class: "muted" }, `Tasks that ended from ${clock(usage.from_s)} to ${clock(usage.to_s)}.`),
      table("Usage", [
        ...by.map((key, index) => ({ name: key, of: (row) => row.key[index] || (key === "user" ? "own user" : "–"), by: (row) => row.key[index], line: "named" })),
        { name: "Tasks", of: (row) => count(row.tasks), by: (row) => row.tasks, number: true },
        { name: "Shots", of: (row) => count(row.shots), by: (row) => row.shots, number: true, wide: true },
        { name: "Slot time", of: (row) => [duration((row.used.slot_us ?? 0) / 1e6), gauge(row.used.slot_us ?? 0, most)], by: (row) => row.used.slot_us, number: true },
        { name: "Mean wait", of: (row) => duration(row.tasks ? row.wait_us / 1e6 / row.tasks : 0), by: (row) => row.wait_us / row.tasks, number: true },
        { name: "Billed", of: (row) => slotHours(row.units), by: (row) => row.units, number: true },
      ], usage.rows, { empty: "No task ended in this range.", redraw: draw })),
    card("Shares", table("Shares", [
      { name: "Account", of: (row) => h("span", { css: { "padding-left": `${row.level}rem` } }, row.account || "–") },
      { name: "User", of: (row) => row.user || (row.rank ? "own user" : "–"), line: "named" },
      { name: "Share", of: (row) => part(row.norm_share), number: true },
      { name: "Usage", of: (row) => part(row.norm_usage), number: true },
      { name: "Rank", of: (row) => row.rank || "–", number: true },
      { name: "Budget left", of: budget, number: true },
    ], shares, { empty: "There are no accounts: all users are equal." }),
    h("p", { class: "muted" }, "A slot-hour (slot-h) is one slot for an hour, a slot-second (slot-s) for a second; memory, GPUs and devices are billed at their rates.")),
    card("Limits of users", table("Limits", [
      { name: "User", of: (report) => report.owner || "own user", by: (report) => report.owner },
      ...shown.map(([key, label]) => ({ name: label, of: (report) => inUse(report, key), by: (report) => report.use[key] ?? 0, line: "named" })),
      { name: "Bounds", of: bounds, line: "named" },
    ], limits, { empty: "There are no limits.", redraw: draw })),
  );
}

async function load() {
  const [from, to] = range.bounds;
  [usage, shares, limits, { accounts: budgets }] = await Promise.all([
    get("/usage", { by, since_s: from, until_s: to }), get("/shares"), get("/limits"), get("/accounts"),
  ]);
  draw();
}

actions(range);
range.addEventListener("range", () => refresh(load));
refresh(load, 30);
