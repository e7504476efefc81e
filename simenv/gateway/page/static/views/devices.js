// Devices: their couplings coloured by error, figures of each qubit, figures in time, certificate,
// stored snapshots.

import { get } from "../api.js";
import { card, clock, count, duration, facts, figure, h, mark, own, table } from "../dom.js";
import { draw as drawMachine } from "../machine.js";
import { draw as drawPatches } from "../patches.js";
import { MAX_QUBITS, median } from "../qubit_map.js";
import { history as series } from "../series.js";
import { actions, refresh, render, subject, title } from "../shell.js";
import "../plots.js";

const name = subject();
const range = own("time-range");
range.dataset.last = 2592000; // devices are calibrated once a day or less
const map = own("qubit-map");
const plots = { times: own("time-plot"), errors: own("time-plot"), trust: own("time-plot") };
const microseconds = (value) => duration(value / 1e6);
const QUBIT_FIGURES = {
  readout_error: ["Readout error", (value) => figure(value)],
  t1_us: ["T1", microseconds],
  t2_us: ["T2", microseconds],
  error_1q: ["One-qubit error", (value) => figure(value)],
};
const number = new URLSearchParams(location.search).get("at");
let at = Number(number) > 0 ? number : "", dates = []; // the snapshot shown, "": the one in force
let device = null, before = null, qubits = [], drawn = null, points = null, chip = null, shown = "readout_error", listed = "qubits", chosen = 0, names = [], pools = [], gaps = null;

// Limits that a reader sets: what is not worse is dim on the map and not in the lists.
const limits = { qubits: null, couplings: null };
const isTime = () => shown.endsWith("_us"); // the larger the better
const worse = {
  qubits: (row) => limits.qubits === null || device.unusable.includes(row.index) || (row[shown] !== null && (isTime() ? row[shown] < limits.qubits : row[shown] > limits.qubits)),
  couplings: (pair) => limits.couplings === null || pair.broken || pair.value > limits.couplings,
};

// The gates of a device on so many qubits whose error is known; one without qubits acts alike on all.
// A frame change, which takes no time and has no error, does not count. One of error 1 does not work.
const works = ({ error }) => !(error >= 1);
function errorsOf(info, width) {
  const widths = new Map(info.gates.map((gate) => [gate.name, gate.qubits]));
  return info.operations.filter(({ name: gate, qubits, error, duration_ns: length }) => error !== null && (error || length !== 0) && !["reset", "delay"].includes(gate) && !/^measure(_|$)/.test(gate)
    && (qubits.length || widths.get(gate)) === width);
}
// What joins two modules makes Bell pairs; it is no gate of the device.
const linkOn = (info, qubits) => (info.links ?? []).find(({ pair }) => pair.every((qubit) => qubits.includes(qubit)));
const pairError = (info) => median(errorsOf(info, 2).filter((each) => works(each) && !linkOn(info, each.qubits)).map((each) => each.error));
const t1 = (info) => median(info.qubits.map((qubit) => qubit.t1_us));
const medianT1 = (info) => { const value = t1(info); return value === null ? "–" : microseconds(value); };

// A figure of the snapshot that is shown, and how it differs from the stored one before.
function trend(text, figureOf) {
  const [now, then] = [figureOf(device), before && figureOf(before.device)];
  if (!now || !then) return text;
  const percent = Math.round(100 * (now / then - 1));
  return `${text}, ${percent ? `${percent > 0 ? "+" : "−"}${count(Math.abs(percent))} %` : "no change"} since ${clock(before.time)}`;
}

// An ideal device has neither couplings nor figures.
const isIdeal = (info) => !(info.qubits.length || info.operations.length || info.coupling.length);

// For each qubit its number and the values of QUBIT_FIGURES, null where they are not known.
function figuresOfQubits() {
  const errors = Array.from({ length: device.num_qubits }, () => []);
  for (const { qubits, error } of errorsOf(device, 1).filter(works)) for (const index of qubits.length ? qubits : errors.keys()) errors[index]?.push(error);
  return errors.map((found, index) => {
    const { readout_error = null, t1_us = null, t2_us = null } = device.qubits[index] ?? {};
    return { index, readout_error, t1_us, t2_us, error_1q: median(found) };
  });
}

const linkText = ({ fidelity, wait_ns: wait, latency_ns: latency }) => [
  `infidelity ${figure(1 - fidelity)}`,
  wait ? `mean wait ${microseconds(1e-3 * wait)}` : "no wait",
  latency ? `messages take ${microseconds(1e-3 * latency)}` : "",
].filter(Boolean).join(", ");

// The code and chip of logical qubits.
const logicalText = ({ code, distance, chip, decoder, physical_qubits: physical, round_ns: round, extrapolated }) =>
  `${code} of distance ${distance} on ${chip}: ${count(physical)} qubits each, rounds of ${microseconds(1e-3 * round)}, decoder ${decoder}${extrapolated ? ", errors extrapolated from a smaller distance" : ""}`;

function pairs() {
  const found = new Map();
  const put = (a, b, text, error, length = null) => {
    const key = a < b ? `${a},${b}` : `${b},${a}`;
    const before = found.get(key);
    if (!before) found.set(key, { qubits: [Math.min(a, b), Math.max(a, b)], value: error, length, texts: [text] });
    else Object.assign(before, { length: before.length ?? length, value: before.value === null || error === null ? error ?? before.value : Math.min(before.value, error), texts: [...new Set([...before.texts, text])] });
  };
  for (const [a, b] of device.coupling) put(a, b, "", null);
  for (const each of errorsOf(device, 2).filter(({ qubits }) => !linkOn(device, qubits))) {
    const { name: gate, qubits: [a, b], error, duration_ns: length } = each;
    if (b === undefined) continue;
    if (works(each)) put(a, b, `${gate} error ${figure(error)}${length ? `, ${figure(length)} ns` : ""}`, error, length);
    else put(a, b, `${gate} does not work`, null);
  }
  const links = (device.links ?? []).map(({ pair, fidelity, ...times }) => ({ qubits: pair, link: true, value: 1 - fidelity, length: null, text: `${pair.join("–")}: link, ${linkText({ fidelity, ...times })}` }));
  for (const { pair: [a, b] } of device.links ?? []) found.delete(a < b ? `${a},${b}` : `${b},${a}`);
  return [...links, ...found.values()].map(({ link, qubits, value, length, text, texts }) => link ? { link, qubits, value, length, broken: false, text } : ({ qubits, value, length, broken: value === null && texts.some((text) => text.endsWith("does not work")), text: `${qubits.join("–")}: ${texts.filter(Boolean).join("; ") || "error not known"}` }));
}

function drawMap() {
  if (device.num_qubits > MAX_QUBITS || isIdeal(device) || points === null) return;
  const [, format] = QUBIT_FIGURES[shown];
  const circles = qubits.map(({ index, [shown]: value, ...rest }) => ({ value, dim: !worse.qubits({ index, [shown]: value, ...rest }), broken: device.unusable.includes(index), text: device.unusable.includes(index) ? `Qubit ${index}: not usable` : `Qubit ${index}: ${QUBIT_FIGURES[shown][0]} ${value === null ? "not known" : format(value)}` }));
  map.set(points, circles, pairs().map((pair) => ({ ...pair, dim: !worse.couplings(pair) })), chosen, (index) => { chosen = index; drawMap(); draw(); }, (value) => format(value), device.modules ?? []);
}

// Calibrated quantities of a qubit beside QUBIT_FIGURES: one row for each, with its places.
const SHOWN_PLACES = 12;
function termsOf(index) {
  const text = (value, unit) => unit === "us" ? microseconds(value) : `${figure(value)} ${unit}`.trim();
  return (device.terms ?? []).flatMap(({ title, unit, places, values }) => {
    const found = places.flatMap((place, k) => place.length && !place.includes(index) ? [] : [{ place, value: values[k] }]);
    const lines = found.slice(0, SHOWN_PLACES).map(({ place, value }) => `${place.length > 1 ? `${place.join("–")}: ` : ""}${text(value, unit)}`);
    if (found.length > SHOWN_PLACES) lines.push(`and ${found.length - SHOWN_PLACES} more`);
    return found.length ? [[title, lines.length > 1 ? lines.map((line) => h("div", null, line)) : lines[0]]] : [];
  });
}

function oneQubit() {
  const couplings = pairs().filter(({ qubits }) => qubits.includes(chosen));
  const alike = errorsOf(device, 2).filter(({ qubits }) => !qubits.length).map(({ name: gate, error }) => `${gate} error ${figure(error)}`);
  return [h("h3", null, `Qubit ${chosen}`),
    facts([
      ...Object.entries(QUBIT_FIGURES).map(([key, [label, format]]) => { const value = qubits[chosen][key]; return [label, value === null ? "not known" : format(value)]; }),
      ...termsOf(chosen),
      ["Couplings", couplings.length ? couplings.map(({ text }) => h("div", null, text)) : device.all_to_all ? ["all", ...alike].join("; ") : "none"],
    ])];
}

// The lists of a device: their rows, of what is worse than its limit, and columns.
const LISTS = {
  qubits: {
    rows: () => qubits, key: (row) => `q${row.index}`, rowClass: (row) => row.index === chosen && "chosen",
    columns: [
      { name: "Qubit", of: (row) => row.index, by: (row) => row.index, number: true, csv: "qubit" },
      ...Object.entries(QUBIT_FIGURES).map(([key, [label, format]]) => ({ name: label, of: (row) => (row[key] === null ? "–" : format(row[key])), by: (row) => row[key], number: true, csv: key })),
    ],
  },
  couplings: {
    rows: pairs, key: (pair) => `c${pair.qubits.join()}`, rowClass: (pair) => pair.qubits.includes(chosen) && "chosen",
    columns: [
      { name: "Coupling", of: (pair) => pair.qubits.join("–"), by: (pair) => pair.qubits.join("-"), number: true, csv: "qubits" },
      { name: "Error", of: (pair) => (pair.broken ? "does not work" : figure(pair.value)), by: (pair) => (pair.broken ? 1 : pair.value), number: true, csv: "error" },
      { name: "Length", of: (pair) => (pair.length ? `${figure(pair.length)} ns` : "–"), by: (pair) => pair.length, number: true, csv: "duration_ns" },
    ],
  },
};

function csv({ rows, columns }) {
  const lines = [columns.map((each) => each.csv), ...rows().map((row) => columns.map(({ by }) => by(row) ?? ""))];
  return `data:text/csv;charset=utf-8,${encodeURIComponent(lines.map((line) => `${line.join()}\n`).join(""))}`;
}

function lists() {
  const found = LISTS[listed], every = found.rows(), rows = every.filter(worse[listed]), label = listed === "qubits" ? "Qubits" : "Couplings";
  return h("section", { class: "card", "data-key": "lists" }, h("h2", null, label),
    h("div", { class: "segments", role: "group", "aria-label": "List" }, Object.keys(LISTS).map((name) => h("button", { "aria-pressed": String(name === listed), onclick: () => { listed = name; draw(); } }, name))),
    limits[listed] === null ? null : h("p", { class: "muted", role: "status" }, `${count(rows.length)} of ${count(every.length)} are worse.`),
    table(label, found.columns, rows, { key: found.key, rowClass: found.rowClass, redraw: draw, empty: every.length ? "None is worse." : "The device has none." }),
    h("p", null, h("a", { href: csv(found), download: `${device.name}-${listed}.csv` }, "Download as CSV")));
}

// A field for a limit; empty: all are shown.
const limit = (key, label) => h("label", { "data-key": label }, label, h("input", { name: `limit-${key}`, type: "number", min: 0, step: "any", placeholder: "all", oninput: (event) => {
  limits[key] = event.target.value === "" ? null : Number(event.target.value);
  drawMap();
  draw();
} }));

const list = () => [
  card("Pools as devices", table("Pools as devices", [
    { name: "Pool", of: (each) => (each.kind === "ideal" ? each.name : h("a", { href: `/ui/devices/${encodeURIComponent(each.name)}` }, each.name)), by: (each) => each.name },
    { name: "Kind", of: (each) => mark(each.kind), by: (each) => each.kind },
    { name: "Model", of: (each) => each.model, by: (each) => each.model, wide: true },
    { name: "Qubits", of: (each) => count(each.num_qubits), by: (each) => each.num_qubits, number: true },
    { name: "Gates", of: (each) => each.gates.slice(0, 8).map((gate) => gate.name).join(" ") + (each.gates.length > 8 ? ` and ${each.gates.length - 8} more` : ""), wide: true },
    { name: "Two-qubit error", of: (each) => figure(pairError(each)), by: pairError, number: true },
    { name: "T1", of: medianT1, by: t1, number: true },
    { name: "Calibrated", of: (each) => clock(each.calibrated_s), by: (each) => each.calibrated_s || null, line: "named" },
  ], pools, { key: (each) => each.name, redraw: draw })),
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

const ago = (time) => { const age = Date.now() / 1000 - time; return age < 172800 ? `${duration(age)} ago` : `${count(Math.floor(age / 86400))} days ago`; };

const lost = (text) => h("p", { class: "muted" }, text);

function one() {
  title(device.name, device.model !== device.name ? device.model : "");
  const two = pairError(device);
  return [
    device.problem ? h("p", { class: "warning" }, device.problem) : null,
    device.refused_fit ? h("p", { class: "warning" }, `The fit to counts was refused, and stored by force: ${device.refused_fit}`) : null,
    card(at ? "Stored snapshot" : "Snapshot in force", dates.length ? snapshots() : null, facts([
      ["Kind", device.kind], ["Provider", device.provider], ["Technology", device.technology],
      ["Qubits", count(device.num_qubits)], ["Median two-qubit error", two === null ? "" : trend(figure(two), pairError)],
      ["Median T1", device.qubits.length ? trend(medianT1(device), t1) : ""],
      ["Calibrated", device.calibrated_s ? `${clock(device.calibrated_s)}, ${ago(device.calibrated_s)}` : "never"],
      ["Snapshot", device.calibration_id ? h("code", null, device.calibration_id.slice(0, 24)) : "none"],
      ["Gates", device.gates.slice(0, 16).map((gate) => gate.name).join(" ")],
      ["Most shots", count(device.max_shots)],
      ...(device.modules?.length ? [["Modules", device.modules.map((each) => h("div", null, `${each.name}: ${count(each.qubits.length)} qubits, ${each.communication.length ? `those of links ${each.communication.join(", ")}` : "none of a link"}`))]] : []),
      ...(device.links?.length ? [["Links", [...device.links.slice(0, SHOWN_PLACES).map((each) => h("div", null, `${each.pair.join("–")}: ${linkText(each)}`)), device.links.length > SHOWN_PLACES ? h("div", null, `and ${count(device.links.length - SHOWN_PLACES)} more`) : null]]] : []),
      ...(device.logical ? [["Logical qubits", logicalText(device.logical)]] : []),
      ...(device.layers?.length ? [["Layers with learned errors", device.layers.map(({ gates, error }) => h("div", null, `${gates.join(", ")}: error ${figure(error)}`))]] : []),
    ])),
    device.analog ? [card("Machine", drawMachine(device.analog.device)), card("Noise", facts(termsOf(null)),
      device.analog.uncalibrated.length ? lost(`Not calibrated: ${device.analog.uncalibrated.join(", ")}.`) : null)] : !isIdeal(device) ? h("div", { class: "beside", "data-key": "qubits" }, card("Coupling map",
      h("form", { class: "limits", onsubmit: (event) => event.preventDefault() },
        h("label", null, "Colour of qubits", h("select", { onchange: (event) => { [shown, limits.qubits] = [event.target.value, null]; drawMap(); draw(); } },
          Object.entries(QUBIT_FIGURES).map(([key, [label]]) => h("option", { value: key, selected: key === shown }, label)))),
        limit("qubits", isTime() ? `Qubits with ${QUBIT_FIGURES[shown][0]} below, µs` : `Qubits with ${QUBIT_FIGURES[shown][0].toLowerCase()} above`),
        device.coupling.length ? limit("couplings", "Couplings with error above") : null),
      device.num_qubits > MAX_QUBITS ? lost(`A map is drawn for ${MAX_QUBITS} qubits at most.`) : map,
      device.all_to_all ? lost("All pairs of qubits are coupled.") : null,
      h("div", { "aria-live": "polite" }, oneQubit())), lists()) : card("Coupling map", lost("An ideal device has no measured figures.")),
    device.logical ? card("Patches", drawPatches(device.logical, device.num_qubits, chip)) : null,
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

async function chipOf(name) {
  const path = encodeURIComponent(name);
  const [{ coupling, calibration_id: digest }, { positions }] = await Promise.all([get(`/devices/${path}`), get(`/positions/${path}`)]);
  return { points: positions, coupling, digest };
}

async function load() {
  if (name) {
    const path = `/devices/${encodeURIComponent(name)}`, wanted = at;
    const [fresh, stored, places] = await Promise.all([get(path, { at_s: wanted }), get(`${path}/calibrations`), points ? null : get(`/positions/${encodeURIComponent(name)}`)]);
    if (wanted !== at) return; // another one was chosen meanwhile
    dates = stored.times_s;
    points ??= places.positions;
    if (fresh.calibration_id !== drawn) {
      const time = stored.times_s[(at ? stored.times_s.findIndex((each) => String(each) === at) : stored.times_s.length - 1) - 1];
      const former = time ? await get(path, { at_s: time }).catch(() => null) : null; // it may have left the stored ones meanwhile
      if (wanted !== at) return;
      before = former && { time, device: former };
      [device, drawn] = [fresh, fresh.calibration_id];
      qubits = figuresOfQubits();
      chip = device.logical && await chipOf(device.logical.chip).catch(() => null); // this environment may not have it
      drawMap();
    }
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
