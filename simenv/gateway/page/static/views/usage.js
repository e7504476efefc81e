// Usage of accounts and users, their shares and limits.

import { get } from "../api.js";
import { card, clock, count, duration, figure, gauge, h, own, table } from "../dom.js";
import { actions, refresh, render } from "../shell.js";
import "../plots.js";

const range = own("time-range");
const KEYS = ["account", "user", "pool", "device", "engine", "qos"];
let by = new URLSearchParams(location.search).get("by")?.split(",").filter((key) => KEYS.includes(key)) ?? ["account", "user"];
let usage = null, shares = [], limits = [];

const part = (value) => (value ? `${figure(100 * value)} %` : "0");

function toggle(key) {
  by = by.includes(key) ? by.filter((each) => each !== key) : [...by, key];
  const query = new URLSearchParams(location.search);
  query.set("by", by.join());
  history.replaceState(null, "", `?${query}`);
  refresh(load);
}

function draw() {
  const most = Math.max(...usage.rows.map((row) => row.used.slot_us ?? 0), 1);
  render(
    card("Usage",
      h("div", { class: "segments", role: "group", "aria-label": "Sums by" }, KEYS.map((key) => h("button", { "aria-pressed": String(by.includes(key)), onclick: () => toggle(key) }, key))),
      h("p", { class: "muted" }, `Tasks that ended from ${clock(usage.from_s)} to ${clock(usage.to_s)}.`),
      table("Usage", [
        ...by.map((key, index) => ({ name: key, of: (row) => row.key[index] || "–", line: "named" })),
        { name: "Tasks", of: (row) => count(row.tasks), number: true },
        { name: "Shots", of: (row) => count(row.shots), number: true, wide: true },
        { name: "Slot time", of: (row) => [duration((row.used.slot_us ?? 0) / 1e6), gauge(row.used.slot_us ?? 0, most)], number: true },
        { name: "Mean wait", of: (row) => duration(row.tasks ? row.wait_us / 1e6 / row.tasks : 0), number: true },
        { name: "Billing units", of: (row) => figure(row.units), number: true },
      ], usage.rows, { empty: "No task ended in this range." })),
    card("Shares", table("Shares", [
      { name: "Account", of: (row) => h("span", { css: { "padding-left": `${row.level}rem` } }, row.account) },
      { name: "User", of: (row) => row.user || "–", line: "named" },
      { name: "Share", of: (row) => part(row.norm_share), number: true },
      { name: "Usage", of: (row) => part(row.norm_usage), number: true },
      { name: "Rank", of: (row) => row.rank || "–", number: true },
      { name: "Budget left", of: (row) => (row.left_units < 0 ? "no budget" : figure(row.left_units)), number: true },
    ], shares, { empty: "There are no accounts: all users are equal." })),
    card("Limits of users", table("Limits", [
      { name: "User", of: (report) => report.owner || "the environment's own user" },
      { name: "Limits and use", of: (report) => Object.entries(report.limits).filter(([, value]) => value).map(([key, value]) => h("div", null, `${key.replace("max_", "").replaceAll("_", " ")}: ${count(report.use[key.replace("max_", "")] ?? 0)} of ${count(value)}`)) },
    ], limits, { empty: "There are no limits." })),
  );
}

async function load() {
  const [from, to] = range.bounds;
  [usage, shares, limits] = await Promise.all([
    get("/usage", { by, since_s: from, until_s: to }), get("/shares"), get("/limits"),
  ]);
  draw();
}

actions(range);
range.addEventListener("range", () => refresh(load));
refresh(load, 30);
