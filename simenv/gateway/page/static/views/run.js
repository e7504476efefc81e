// Run a circuit of a file, or of typed text, as a task of the reader's own.

import { get, InputError, send } from "../api.js";
import { bytes, card, duration, h, show, table } from "../dom.js";
import { refresh, render, report } from "../shell.js";

const MAX_SEED = 2n ** 64n - 1n;
const MAX_BYTES = 4 * 2 ** 20; // of a file; larger circuits are sent by a client
const EXAMPLE = `OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0], q[1];
measure q -> c;
`;
const text = h("textarea", { name: "program", rows: 14, spellcheck: "false", autocomplete: "off" }, sessionStorage.getItem("program") ?? EXAMPLE);
const FORMS = "OpenQASM 2 or 3, or a QPY file; a file can also be dropped here.";
const note = h("p", { class: "muted", role: "status" }, FORMS);
const answer = h("div", { role: "status" });
let qpy = ""; // a QPY file that was chosen, in base64; "": the text counts

// Whatever a reader chooses becomes text in the field, or base64 of QPY; nothing of it is run here.
async function choose(file) {
  qpy = "";
  text.disabled = false;
  note.replaceChildren(FORMS);
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
    ...(field.seed.value.trim() ? { seed: BigInt(field.seed.value.trim()) } : {}),
    ...Object.fromEntries(["device", "pool", "engine", "account", "name"].map((name) => [name, field[name].value.trim()]).filter(([, value]) => value)),
  };
}

// Says why the service refuses the request also beside the field that it names, if it does.
function refuse(error) {
  const { elements } = form, names = error?.message.split(/\W+/, 4) ?? [];
  const refused = error?.code === "program" ? "program" : ["engine", "pool", "device", "shots", "seed", "account"].find((name) => names.includes(name));
  for (const each of form.querySelectorAll(".refused")) {
    const field = elements[each.dataset.of], is = each.dataset.of === refused;
    each.replaceChildren(is ? [error.message, error.hint].filter(Boolean).join("; ") : "");
    field.toggleAttribute("aria-invalid", is);
    if (is) field.focus();
  }
  report(error);
  if (error && !refused) document.getElementById("problem").scrollIntoView({ block: "nearest" });
}

// Sends the form to `path`, once at a time.
async function post(path, done) {
  if (!form.reportValidity()) return;
  const buttons = form.querySelectorAll("button");
  buttons.forEach((each) => { each.disabled = true; });
  try {
    const found = await send("POST", path, request());
    refuse(null);
    done(found);
  } catch (error) { refuse(error); } finally {
    buttons.forEach((each) => { each.disabled = false; });
  }
}

const run = () => post("/tasks", ({ id }) => { sessionStorage.setItem("program", text.value); location.href = `/ui/tasks/${encodeURIComponent(id)}`; });

const explain = () => post("/explain", ({ engine, engines }) => show(answer,
  h("h3", null, engine ? `Engine ${engine} would run it` : "No engine can run it"),
  table("Engines", [
    { name: "Engine", of: (each) => each.engine },
    { name: "Expected run", of: (each) => (each.able ? duration(each.seconds) : "–"), number: true },
    { name: "Pool", of: (each) => each.pool || "–", wide: true },
    { name: "Why, or why not", of: (each) => [each.why, each.hint].filter(Boolean).join("; "), line: true },
  ], engines)));

const options = (none, found) => [h("option", { value: "" }, none), ...found.map(({ name }) => h("option", { value: name }, name))];
const selects = Object.fromEntries(["device", "pool", "engine", "account"].map((name) => [name, h("select", { name })]));
const seed = h("input", { name: "seed", inputmode: "numeric", autocomplete: "off", placeholder: "new", oninput: () => {
  const value = seed.value.trim();
  seed.setCustomValidity(!value || (/^\d{1,20}$/.test(value) && BigInt(value) <= MAX_SEED) ? "" : `an integer from 0 to ${MAX_SEED}`);
} });
// A field with the place for what the service has against it.
const field = (label, control, attributes) => {
  const id = `refused-${control.name}`;
  control.setAttribute("aria-describedby", id);
  return h("label", attributes, label, control, h("span", { class: "refused", id, "data-of": control.name }));
};

async function take(files) {
  const input = form.elements.file;
  try {
    if (files.length > 1) throw new InputError(`${files.length} files; a task has one circuit`);
    await choose(files[0]);
    refuse(null);
  } catch (error) { input.value = ""; refuse(error); }
}

const form = h("form", { class: "run", "data-keep": "", onsubmit: (event) => { event.preventDefault(); run(); } },
  h("label", null, "File", h("input", { type: "file", name: "file", accept: ".qasm,.qasm3,.inc,.txt,.qpy", onchange: (event) => take(event.target.files) })),
  field("Circuit", text, { class: "whole" }), note,
  field("Device", selects.device), field("Pool", selects.pool), field("Engine", selects.engine),
  field("Shots, empty: exact", h("input", { name: "shots", type: "number", min: 1, max: 1e9, step: 1, value: 1024 })),
  field("Seed", seed), field("Account", selects.account), field("Name", h("input", { name: "name", maxlength: 200 })),
  h("div", { class: "row whole" }, h("button", { class: "primary" }, "Run"), h("button", { type: "button", onclick: explain }, "Which engine?")), answer);

// A file that misses the field must not replace the page.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const { files } = event.dataTransfer;
  if (files.length === 1) form.elements.file.files = files;
  if (files.length) take(files);
});

async function load() {
  const [devices, pools, engines, { accounts }] = await Promise.all(["/devices", "/pools", "/engines", "/accounts"].map((path) => get(path)));
  const named = Object.keys(accounts).sort();
  selects.device.replaceChildren(...options("none: without noise", devices));
  selects.pool.replaceChildren(...options("any", pools));
  selects.engine.replaceChildren(...options("best one", engines));
  selects.account.replaceChildren(...options("the default", named.map((name) => ({ name }))));
  selects.account.closest("label").hidden = !named.length;
  render(card("Circuit", form));
}

refresh(load);
