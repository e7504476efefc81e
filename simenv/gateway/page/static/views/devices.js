// Devices: their couplings coloured by error, their figures in time, certificate, stored snapshots.

import { get } from "../api.js";
import { card, clock, count, duration, facts, figure, h, mark, own, table } from "../dom.js";
import { MAX_QUBITS, place } from "../qubit_map.js";
import { history as series } from "../series.js";
import { actions, refresh, render, subject, title } from "../shell.js";
import "../plots.js";

const name = subject();
const range = own("time-range");
const map = own("qubit-map");
const plots = { times: own("time-plot"), errors: own("time-plot"), trust: own("time-plot") };
const microseconds = (value) => duration(value / 1e6);
const QUBIT_FIGURES = {
  readout_error: ["readout error", (value) => figure(value)],
  t1_us: ["T1", microseconds],
  t2_us: ["T2", microseconds],
  gate_error: ["one-qubit error", (value) => figure(value)],
};
const number = new URLSearchParams(location.search).get("at");
let at = Number(number) > 0 ? number : "", dates = []; // the snapshot shown, "": the one in force
let device = null, drawn = null, points = null, shown = "readout_error", chosen = 0, names = [], pools = [], gaps = null;

const median = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  return known.length ? known[Math.floor(known.length / 2)] : null;
};

const errorsOf = (qubits) => device.operations.filter((each) => each.qubits.length === qubits && each.error !== null);

function qubitValue(index, key) {
  if (key === "gate_error") return median(errorsOf(1).filter((each) => each.qubits[0] === index).map((each) => each.error));
  return device.qubits[index]?.[key] ?? null;
}

function pairs() {
  const found = new Map();
  const put = (a, b, text, error) => {
    const key = a < b ? `${a},${b}` : `${b},${a}`;
    const before = found.get(key);
    if (!before) found.set(key, { qubits: [Math.min(a, b), Math.max(a, b)], value: error, texts: [text] });
    else if (error !== null) Object.assign(before, { value: before.value === null ? error : Math.min(before.value, error), texts: [...new Set([...before.texts, text])] });
  };
  for (const [a, b] of device.coupling) put(a, b, "", null);
  for (const { name: gate, qubits: [a, b], error, duration_ns: length } of errorsOf(2)) put(a, b, `${gate} error ${figure(error)}${length ? `, ${figure(length)} ns` : ""}`, error);
  return [...found.values()].map(({ qubits, value, texts }) => ({ qubits, value, text: `${qubits.join("–")}: ${texts.filter(Boolean).join("; ") || "error not known"}` }));
}

function drawMap() {
  if (device.num_qubits > MAX_QUBITS || !device.qubits.length) return;
  points ??= place(device.num_qubits, device.coupling);
  const [, format] = QUBIT_FIGURES[shown];
  const qubits = Array.from({ length: device.num_qubits }, (_, index) => {
    const value = qubitValue(index, shown);
    return { value, text: `Qubit ${index}: ${QUBIT_FIGURES[shown][0]} ${value === null ? "not known" : format(value)}` };
  });
  map.set(points, qubits, pairs(), chosen, (index) => { chosen = index; drawMap(); draw(); });
}

function oneQubit() {
  const couplings = pairs().filter(({ qubits }) => qubits.includes(chosen));
  return [h("h3", null, `Qubit ${chosen}`),
    facts([
      ...Object.entries(QUBIT_FIGURES).map(([key, [label, format]]) => { const value = qubitValue(chosen, key); return [label, value === null ? "not known" : format(value)]; }),
      ["Couplings", couplings.length ? couplings.map(({ text }) => h("div", null, text)) : "none"],
    ])];
}

const list = () => [
  card("Pools as devices", table("Pools as devices", [
    { name: "Pool", of: (each) => (each.kind === "ideal" ? each.name : h("a", { href: `/ui/devices/${encodeURIComponent(each.name)}` }, each.name)) },
    { name: "Kind", of: (each) => mark(each.kind) },
    { name: "Model", of: (each) => each.model, wide: true },
    { name: "Qubits", of: (each) => count(each.num_qubits), number: true },
    { name: "Gates", of: (each) => each.gates.slice(0, 8).map((gate) => gate.name).join(" ") + (each.gates.length > 8 ? ` and ${each.gates.length - 8} more` : ""), wide: true },
    { name: "Two-qubit error", of: (each) => figure(median(each.operations.filter((one) => one.qubits.length === 2).map((one) => one.error))), number: true },
    { name: "T1", of: (each) => { const value = median(each.qubits.map((qubit) => qubit.t1_us)); return value === null ? "–" : microseconds(value); }, number: true },
    { name: "Calibrated", of: (each) => clock(each.calibrated_s) },
  ], pools, { key: (each) => each.name })),
  card("Names that device= accepts", Object.entries(Object.groupBy(names, (each) => each.source)).map(([source, found]) => [
    h("h3", null, source),
    h("ul", { class: "names" }, found.map((each) => h("li", null, h("a", { href: `/ui/devices/${encodeURIComponent(each.name)}` }, each.name)))),
  ])),
];

function choose(value) {
  at = value;
  const query = new URLSearchParams(location.search);
  if (at) query.set("at", at); else query.delete("at");
  history.replaceState(null, "", `?${query}`);
  refresh(load);
}

// Times as the service writes them, newest first: the address keeps one, and asks for it.
const snapshots = () => h("label", { class: "row" }, "Snapshot ", h("select", { onchange: (event) => choose(event.target.value) },
  h("option", { value: "", selected: !at }, "in force now"),
  dates.toReversed().map((time, index) => h("option", { value: time, selected: String(time) === at }, `${index ? "from" : "since"} ${clock(time)}`))));

const lost = (text) => h("p", { class: "muted" }, text);

function one() {
  title(device.name, device.model !== device.name ? device.model : "");
  const two = median(errorsOf(2).map((each) => each.error));
  return [
    device.problem ? h("p", { class: "warning" }, device.problem) : null,
    card(at ? "Stored snapshot" : "Snapshot in force", dates.length ? snapshots() : null, facts([
      ["Kind", device.kind], ["Provider", device.provider], ["Technology", device.technology],
      ["Qubits", count(device.num_qubits)], ["Median two-qubit error", two === null ? "" : figure(two)],
      ["Median T1", device.qubits.length ? microseconds(median(device.qubits.map((qubit) => qubit.t1_us))) : ""],
      ["Calibrated", device.calibrated_s ? `${clock(device.calibrated_s)}, ${duration(Date.now() / 1000 - device.calibrated_s)} ago` : "never"],
      ["Snapshot", device.calibration_id ? h("code", null, device.calibration_id.slice(0, 24)) : "none"],
      ["Gates", device.gates.slice(0, 16).map((gate) => gate.name).join(" ")],
      ["Most shots", count(device.max_shots)],
    ])),
    device.qubits.length ? card("Coupling map",
      h("label", { class: "row" }, "Colour of qubits ", h("select", { onchange: (event) => { shown = event.target.value; drawMap(); draw(); } },
        Object.entries(QUBIT_FIGURES).map(([key, [label]]) => h("option", { value: key, selected: key === shown }, label)))),
      device.num_qubits > MAX_QUBITS ? lost(`A map is drawn for ${MAX_QUBITS} qubits at most.`) : map,
      device.all_to_all ? lost("All pairs of qubits are coupled.") : null,
      h("div", { "aria-live": "polite" }, oneQubit())) : card("Coupling map", lost("An ideal device has no measured figures.")),
    gaps ? [
      h("div", { class: "two" }, card("T1 and T2", plots.times), card("Errors", plots.errors)),
      card("Certificate", gaps.certified === null && gaps.score === null
        ? lost(["No certificate is stored. ", h("code", null, `simenv certify ${device.name}`), " measures the device and compares it with its snapshot."])
        : [facts([["Claims confirmed", gaps.certified === null ? "" : `${figure(100 * gaps.certified)} %`], ["Score against counts", gaps.score === null ? "" : figure(gaps.score, 4)]]), plots.trust]),
    ] : null,
  ];
}

function draw() { render(...(name ? one() : list())); }

async function trends() {
  const [from, to] = range.bounds;
  const zoom = (begin, end) => range.choose(range.last, [begin, end]);
  const key = (figureName) => `device/${device.name}/${figureName}`;
  const { times, values } = await series(["t1_us", "t2_us", "error_1q", "error_2q", "readout_error", "certified", "score"].map(key), from, to);
  const last = (figureName) => values[key(figureName)].findLast((value) => value !== null) ?? null;
  const line = (label, figureName, format) => ({ label, values: values[key(figureName)], format });
  plots.times.set("T1 and T2", times, [line("T1", "t1_us", microseconds), line("T2", "t2_us", microseconds)], [from, to], zoom);
  plots.errors.set("Errors", times, [line("two-qubit", "error_2q", figure), line("one-qubit", "error_1q", figure), line("readout", "readout_error", figure)], [from, to], zoom);
  plots.trust.set("Certificate", times, [line("claims confirmed", "certified", figure), line("score", "score", figure)], [from, to], zoom);
  gaps = { certified: last("certified"), score: last("score") };
}

async function load() {
  if (name) {
    const path = `/devices/${encodeURIComponent(name)}`, wanted = at;
    const [fresh, stored] = await Promise.all([get(path, { at_s: wanted }), get(`${path}/calibrations`)]);
    if (wanted !== at) return; // another one was chosen meanwhile
    dates = stored.times_s;
    if (fresh.calibration_id !== drawn) { [device, drawn] = [fresh, fresh.calibration_id]; drawMap(); }
    draw();
    await trends();
  } else {
    [names, pools] = await Promise.all([get("/devices"), get("/pools/devices")]);
  }
  draw();
}

if (name) actions(range);
range.addEventListener("range", () => refresh(load));
refresh(load, 30);
