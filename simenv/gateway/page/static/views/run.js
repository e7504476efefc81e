// Run a circuit of a file, or of typed text, as a task of the reader's own.

import { get, InputError, send } from "../api.js";
import { bytes, card, duration, h, show, table } from "../dom.js";
import { refresh, render, report } from "../shell.js";

const MAX_BYTES = 4 * 2 ** 20; // of a file; larger circuits are sent by a client
const EXAMPLE = `OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0], q[1];
measure q -> c;
`;
const text = h("textarea", { name: "program", rows: 14, spellcheck: "false", autocomplete: "off" }, EXAMPLE);
const note = h("p", { class: "muted", role: "status" }, "OpenQASM 2 or 3, or a QPY file.");
const answer = h("div", { role: "status" });
let qpy = ""; // a QPY file that was chosen, in base64; "": the text counts

// Whatever a reader chooses becomes text in the field, or base64 of QPY; nothing of it is run here.
async function choose(file) {
  qpy = "";
  text.disabled = false;
  if (!file) return;
  if (file.size > MAX_BYTES) throw new InputError(`${file.name} has ${bytes(file.size)}; the page takes ${bytes(MAX_BYTES)} at most: simenv submit FILE has no such limit`);
  const data = new Uint8Array(await file.arrayBuffer());
  if (new TextDecoder().decode(data.subarray(0, 6)) === "QISKIT") {
    qpy = data.toBase64?.() ?? btoa(Array.from(data, (value) => String.fromCharCode(value)).join(""));
    text.disabled = true;
    note.replaceChildren(`${file.name}: QPY, ${bytes(file.size)}`);
    return;
  }
  try {
    text.value = new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    throw new InputError(`${file.name} is neither text nor a QPY file`);
  }
  note.replaceChildren(`${file.name}: ${bytes(file.size)}`);
}

function request() {
  const field = form.elements, shots = field.shots.value.trim();
  return {
    ...(qpy ? { qpy } : { program: text.value }),
    ...(shots ? { shots: Number(shots) } : { shots: null, outputs: "probabilities" }),
    ...(field.seed.value ? { seed: Number(field.seed.value) } : {}),
    ...(field.device.value ? { device: field.device.value } : {}),
    ...(field.pool.value ? { pool: field.pool.value } : {}),
    ...(field.label.value.trim() ? { name: field.label.value.trim() } : {}),
  };
}

// Sends the form to `path`, once at a time.
async function post(path, done) {
  const buttons = form.querySelectorAll("button");
  buttons.forEach((each) => { each.disabled = true; });
  try {
    const found = await send("POST", path, request());
    report(null);
    done(found);
  } catch (error) { report(error); } finally {
    buttons.forEach((each) => { each.disabled = false; });
  }
}

const run = () => post("/tasks", ({ id }) => { location.href = `/ui/tasks/${encodeURIComponent(id)}`; });

const explain = () => post("/explain", ({ engine, engines }) => show(answer,
  h("h3", null, engine ? `Engine ${engine} would run it` : "No engine can run it"),
  table("Engines", [
    { name: "Engine", of: (each) => each.engine },
    { name: "Expected run", of: (each) => (each.able ? duration(each.seconds) : "–"), number: true },
    { name: "Pool", of: (each) => each.pool || "–", wide: true },
    { name: "Why, or why not", of: (each) => [each.why, each.hint].filter(Boolean).join("; "), line: true },
  ], engines)));

const options = (names) => [h("option", { value: "" }, names.length ? "any" : "none"), ...names.map((name) => h("option", { value: name }, name))];
const device = h("select", { name: "device" }, options([])), pool = h("select", { name: "pool" }, options([]));
const form = h("form", { class: "run", "data-keep": "", onsubmit: (event) => { event.preventDefault(); run(); } },
  h("label", null, "File", h("input", { type: "file", name: "file", accept: ".qasm,.qasm3,.inc,.txt,.qpy", onchange: async (event) => {
    try { await choose(event.target.files[0]); report(null); } catch (error) { event.target.value = ""; report(error); }
  } })),
  h("label", { class: "whole" }, "Circuit", text), note,
  h("label", null, "Device", device), h("label", null, "Pool", pool),
  h("label", null, "Shots, empty: exact", h("input", { name: "shots", type: "number", min: 1, max: 1e9, step: 1, value: 1024 })),
  h("label", null, "Seed", h("input", { name: "seed", type: "number", min: 0, step: 1, placeholder: "new" })),
  h("label", null, "Name", h("input", { name: "label", maxlength: 200 })),
  h("div", { class: "row whole" }, h("button", { class: "primary" }, "Run"), h("button", { type: "button", onclick: explain }, "Which engine?")), answer);

async function load() {
  const [devices, pools] = await Promise.all([get("/devices"), get("/pools")]);
  device.replaceChildren(h("option", { value: "" }, "none: without noise"), ...devices.map((each) => h("option", { value: each.name }, each.name)));
  pool.replaceChildren(...options(pools.map((each) => each.name)));
  render(card("Circuit", form));
}

refresh(load);
