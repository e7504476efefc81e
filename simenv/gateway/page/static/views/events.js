// Events of the environment as they come, and those of a range of time.

import { get } from "../api.js";
import { card, clock, h, own, table, taskLink } from "../dom.js";
import { actions, live, refresh, render } from "../shell.js";
import "../plots.js";

const MAX_SHOWN = 300;
const GROUPS = { all: [], tasks: ["task.*"], workers: ["worker.*"], nodes: ["node.*"], pools: ["pool.*"], service: ["service.*", "journal.*"], audit: ["audit.*"] };
const range = own("time-range");
let group = new URLSearchParams(location.search).get("kind") ?? "all", rows = [];

const chosen = () => GROUPS[group] ?? [];

function draw() {
  render(card("Events",
    h("div", { class: "segments", role: "group", "aria-label": "Kinds" }, Object.keys(GROUPS).map((name) => h("button", { "aria-pressed": String(name === group), onclick: () => {
      group = name;
      const query = new URLSearchParams(location.search);
      query.set("kind", name);
      history.replaceState(null, "", `?${query}`);
      refresh(load);
    } }, name))),
    table("Events", [
      { name: "Number", of: (event) => event.seq, number: true },
      { name: "Time", of: (event) => clock(event.time_s) },
      { name: "Kind", of: (event) => event.kind },
      { name: "Subject", of: (event) => (/^t-[0-9a-z]+$/.test(event.subject) ? taskLink(event.subject) : event.subject) },
      { name: "What", of: (event) => event.message, line: true },
    ], rows, { key: (event) => event.seq, empty: "No event of these kinds in this range." }),
    rows.length >= MAX_SHOWN ? h("p", { class: "muted" }, `The newest ${MAX_SHOWN} are shown; choose a shorter range for older ones.`) : null));
}

async function load() {
  const [from, to] = range.bounds;
  rows = (await get("/events/range", { kind: chosen(), since_s: from, until_s: range.isLive ? 0 : to, limit: MAX_SHOWN })).events;
  draw();
}

const matches = (event) => !chosen().length || chosen().some((kind) => event.kind.startsWith(kind.slice(0, -1)));

actions(range);
range.addEventListener("range", () => refresh(load));
refresh(load);
live(({ events }) => {
  const fresh = range.isLive ? events.filter((event) => matches(event) && !rows.some((each) => each.seq === event.seq)) : [];
  if (!fresh.length) return;
  rows = [...fresh.reverse(), ...rows].slice(0, MAX_SHOWN);
  draw();
});
