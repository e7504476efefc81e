// One task: its stages in time, its circuit, its counts against the ideal ones, its attempts.

import { get, send } from "../api.js";
import { draw as drawCircuit } from "../circuit.js";
import { draw as drawPulses } from "../pulses.js";
import { card, clock, count, duration, facts, figure, h, many, mark, progress, slotHours, startOf, table } from "../dom.js";
import { actions, refresh, render, report, subject, title } from "../shell.js";

const id = subject();
const FINAL = ["DONE", "FAILED", "CANCELLED", "EXPIRED"];
const LOST = ["task.requeued", "task.preempted"]; // events of attempts that were lost
const MAX_OUTCOMES = 24;
const WAITS = {
  OWN_TASKS: "behind tasks of the same user", SHARE: "behind accounts with more share left", SLOTS: "for a worker with a free slot",
  RANKS: "for slots for its ranks", RESERVED: "behind reservations of others", UNITS: "for units of its reservation",
  PARENTS: "for the tasks that it comes after", LIMIT: "for a limit of its user or account", DEVICE: "for its device",
  STARTING: "for workers to start", LOST: "an attempt that was lost", PREEMPTED: "an attempt that was preempted",
  ALLOCATION: "for a longer allocation", SERVICE: "admission, journal and the way to the worker",
};
let row = null, circuit = null, pulses = null, result = null, ideal = null, idealState = "", lost = [];

function stages(task) {
  const timing = task.timing;
  const rest = Math.max(0, timing.run_us - timing.decode_us - timing.plan_us - timing.engine_us);
  const parts = [
    ["queued", timing.queued_us, "accepted, until it was sent to a worker", "waits"],
    ["sent", timing.sent_us, "at the worker, behind other tasks of its message", "waits"],
    ...(timing.compile_us ? [["compile", timing.compile_us, "engine and kernels compiled or loaded, once in a worker", ""]] : []),
    ["decode", timing.decode_us, "bytes to circuit", ""],
    ["plan", timing.plan_us, "planning its structure", ""],
    ["engine", timing.engine_us, "evolving and sampling", "engine"],
    ["encode", rest, "result to bytes", ""],
    ["returned", timing.returned_us, "transfer in both directions, until it was stored", "waits"],
  ];
  const shown = timing.run_us ? parts : parts.slice(0, 1);
  const total = shown.reduce((sum, [, took]) => sum + took, 0) || 1;
  let at = 0;
  return [
    h("dl", { class: "stages" }, shown.map(([name, took, what, kind]) => {
      const lane = h("div", { class: "lane" }, h("span", { class: kind, css: { left: `min(${(100 * at) / total}%, 100% - 2px)`, width: `${(100 * took) / total}%` } }));
      at += took;
      return [h("dt", { title: what }, name), h("dd", null, lane), h("dd", null, duration(took / 1e6))];
    })),
    h("p", { class: "legend" }, h("span", { class: "waits" }, h("i"), "waiting and transfer"), h("span", { class: "engine" }, h("i"), "engine"), h("span", null, h("i"), "around it"),
      h("span", null, `total ${duration(total / 1e6)}`)),
  ];
}

function outcomes() {
  if (!result) return h("p", { class: "muted" }, FINAL.includes(row.state) ? "This task has no result." : "It is shown when the task has ended.");
  const [values, exact] = result.counts ? [result.counts, false] : [result.probabilities, true];
  if (!values) return expectations();
  const sum = Object.values(values).reduce((total, value) => total + value, 0) || 1;
  const share = new Map(Object.entries(values).map(([key, value]) => [key, value / sum]));
  const ideals = new Map(Object.entries(ideal ?? {}));
  const every = [...new Set([...share.keys(), ...ideals.keys()])];
  const size = (key) => Math.max(share.get(key) ?? 0, ideals.get(key) ?? 0);
  const best = every.sort((a, b) => size(b) - size(a)).slice(0, MAX_OUTCOMES).sort();
  const longest = Math.max(...best.map(size), 1e-12);
  const bar = (kind, value) => h("span", { class: kind, css: { width: `${(100 * (value ?? 0)) / longest}%` } });
  const fidelity = ideal && every.reduce((total, key) => total + Math.sqrt((share.get(key) ?? 0) * (ideals.get(key) ?? 0)), 0) ** 2;
  return [
    h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Histogram" },
      h("div", { class: "outcomes" }, best.map((key) => [
        h("code", null, key),
        h("div", { class: "lane" }, bar("", share.get(key)), ideal ? bar("ideal", ideals.get(key)) : null),
        h("span", null, exact ? figure(values[key] ?? 0) : count(values[key] ?? 0), ideal ? ` (ideal ${figure(100 * (ideals.get(key) ?? 0))} %)` : ""),
      ]))),
    h("p", { class: "legend" }, h("span", null, h("i"), exact ? "probabilities" : `counts of ${count(sum)} shots`),
      ideal ? h("span", { class: "ideal" }, h("i"), "ideal, without noise and shots") : null,
      ideal ? h("span", null, `Hellinger fidelity ${fidelity.toFixed(4)}`) : null,
      every.length > best.length ? h("span", null, `${count(every.length - best.length)} rarer outcomes are left out`) : null),
  ];
}

const expectations = () => (result.expectations?.length
  ? [table("Expectation values", [
    { name: "Observable", of: ([, , number]) => number, number: true },
    { name: "Value", of: ([value]) => figure(value, 6), number: true },
    { name: "Standard error", of: ([, error]) => (error ? figure(error, 2) : "exact"), number: true },
  ], result.expectations.slice(0, 100).map((value, number) => [value, result.std_errors?.[number], number])),
  h("p", { class: "muted" }, "Observables are numbered as they were submitted.")]
  : h("p", { class: "muted" }, "Its results are arrays: see ", h("code", null, `simenv result ${id} --save out.h5`), "."));

async function compare() {
  idealState = "running";
  draw();
  try {
    const { task } = await send("POST", `/tasks/${encodeURIComponent(id)}/ideal`);
    for (let pause = 200; ; pause = Math.min(2 * pause, 3000)) {
      const found = await get(`/tasks/${encodeURIComponent(task)}`);
      if (found.state === "DONE") { ideal = (await get(`/tasks/${encodeURIComponent(task)}/result`)).probabilities; break; }
      if (FINAL.includes(found.state)) throw new Error(found.reason || found.state);
      await new Promise((resolve) => { setTimeout(resolve, pause); });
    }
    idealState = "";
  } catch (error) {
    idealState = "";
    report(error);
  }
  draw();
}

async function cancel() {
  try { await send("POST", `/tasks/${encodeURIComponent(id)}/cancel`); await load(); } catch (error) { report(error); }
}

function draw() {
  const ended = FINAL.includes(row.state);
  const [reason, ...more] = row.reason.split("\n"); // of a function, with its traceback
  actions(
    ended ? null : h("button", { onclick: cancel }, "Cancel task"),
    ended && row.engine !== "functions" ? h("a", { href: `/api/v1/tasks/${encodeURIComponent(id)}/bundle`, download: `${id}.zip` }, "Bundle to run it again (.zip)") : null);
  title(id, row.name);
  render(
    h("section", { class: "card" }, h("h2", null, mark(row.state), reason ? ` ${reason}` : ""),
      more.length ? h("pre", null, more.join("\n")) : null,
      ...(result?.warnings ?? []).map((text) => h("p", { class: "warning" }, text)),
      facts([
        ["User", row.owner], ["Account", row.account], ["Class", row.qos],
        ["Program", pulses?.atoms ? `${many(pulses.atoms.length, "atom")} for ${count(pulses.duration_ns)} ns` : `${many(row.num_qubits, "qubit")}${circuit?.total ? `, ${many(circuit.total, "operation")}` : ""}`],
        ["Sampled", row.shots ? `${many(row.shots, "shot")}, seed ${row.seed}` : "exact"],
        ["Bindings", row.bindings > 1 ? `${count(row.bindings)} from number ${row.binding}` : ""],
        ["Pool", row.pool], ["Engine", row.engine], ["Why this engine", result?.engine_reason],
        ["Device", result?.device ?? row.device], ["Snapshot", result?.snapshot?.slice(0, 16)],
        ["Worker", row.node ? `${row.worker} on ${row.node}` : row.worker], ["Ranks and slots", row.slots ? `${row.ranks} and ${row.slots}` : ""],
        ["Submitted", clock(row.submitted_s)], ["Ended", row.ended_s ? clock(row.ended_s) : ""],
        ["Expected start", row.state === "QUEUED" ? startOf(row) : ""],
        ["Progress", row.state === "RUNNING" ? progress(row) : ""],
        ["Billed", row.units ? slotHours(row.units) : ""],
        ["Run of an application", row.app],
      ])),
    h("div", { class: "two" },
      card("Stages", stages(row), row.timing.run_us ? [h("h3", null, "Why it waited"), table("Waits", [
        { name: "Reason", of: ([why]) => WAITS[why] ?? why }, { name: "Time", of: ([, us]) => duration(us / 1e6), number: true },
      ], Object.entries(row.waits_us).filter(([, us]) => us))] : null),
      card(!result || result.counts ? "Counts" : result.expectations ? "Expectation values" : "Result", outcomes(),
        result && row.bindings > 1 ? h("p", { class: "muted" }, `Of binding ${count(row.binding)}, the first of ${count(row.bindings)}.`) : null,
        result && circuit?.can_compare && !ideal ? h("button", { onclick: compare, disabled: idealState === "running" },
          idealState === "running" ? "Computing …" : "Compare with the ideal distribution") : null)),
    pulses ? (pulses.problem ? card("Pulse sequence", h("p", { class: "muted" }, `Not drawn: ${pulses.problem}`)) : Object.entries({ Register: "register", Pulses: "pulses" }).map(([name, key]) => card(name, drawPulses(pulses, result?.pulses?.occupations)[key]))) : card("Circuit", circuit ? drawCircuit(circuit) : h("p", { class: "muted" }, "Its program is no circuit, or is no longer kept.")),
    card("Attempts", h("p", null, `${many(row.attempts, "attempt")}.`),
      lost.length ? table("Lost attempts", [
        { name: "Time", of: (event) => clock(event.time_s) }, { name: "Event", of: (event) => event.kind }, { name: "Why", of: (event) => event.message, line: true },
      ], lost, { key: (event) => event.seq }) : h("p", { class: "muted" }, "None was lost.")),
  );
}

const quiet = async (promise, otherwise = null) => { try { return await promise; } catch { return otherwise; } };

async function load() {
  if (row && FINAL.includes(row.state)) return;
  const path = `/tasks/${encodeURIComponent(id)}`;
  row = await get(path);
  if (row.num_qubits) circuit ??= await quiet(get(`${path}/operations`));
  if (circuit?.is_pulses) pulses ??= await get(`${path}/pulses`).catch((error) => ({ problem: error.message }));
  if (row.state === "DONE") {
    const found = await quiet(get(`${path}/result`));
    result = found?.results ? found.results[0] : found;
    if (result?.pulses) result = { ...result, counts: result.pulses.counts, expectations: result.pulses.expectation };
  }
  if (row.attempts > 1) lost = (await quiet(get(`${path}/events`), [])).filter((event) => LOST.includes(event.kind));
  draw();
}

title(id);
refresh(load, 2);
