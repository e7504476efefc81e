// A circuit as SVG: gates in the first free column, qubits from the top.

import { h, s, count, duration } from "./dom.js";

export const MAX_WIRES = 40; // qubits drawn
export const MAX_COLUMNS = 160; // columns drawn
const [ROW, CELL, LEFT, TOP] = [38, 40, 74, 24]; // CELL: the least width of a column
const MAX_CHARS = 22; // of the angles of one gate; all are in its title

const SHORT = { measure: "M", reset: "|0⟩", sdg: "S†", tdg: "T†", sxdg: "√X†", sx: "√X", id: "I", delay: "wait" };
const CONTROLLED = { cx: "x", cy: "y", cz: "z", ch: "h", cp: "p", crx: "rx", cry: "ry", crz: "rz", cu: "u", cs: "s", csdg: "sdg", csx: "sx",
  ccx: "x", ccz: "z", cswap: "swap", c3x: "x", c4x: "x", mcx: "x", mcphase: "p", mcp: "p" };

const angle = (value) => {
  if (typeof value !== "number") return value;
  for (const part of [1, 2, 3, 4, 6, 8, 16]) {
    const times = Math.round((value / Math.PI) * part);
    if (times && Math.abs(times) <= 16 && Math.abs(value - (times * Math.PI) / part) < 1e-9) {
      const [sign, size] = [times < 0 ? "−" : "", Math.abs(times)];
      return `${sign}${size === 1 ? "" : size}π${part === 1 ? "" : `/${part}`}`;
    }
  }
  return Number(value.toPrecision(3)).toString().replace("-", "−");
};
// Parameters are angles, that of a delay is nanoseconds.
const parameter = ({ name, params }) => params.map((value) => (name === "delay" && typeof value === "number" ? duration(value / 1e9) : angle(value))).join(", ");


// Columns of the operations: the first one in which all rows between their qubits are free.
function place(operations, rows) {
  const free = new Array(rows).fill(0);
  const placed = [];
  let depth = 0;
  for (const operation of operations) {
    const lines = operation.rows.length ? operation.rows : [0, rows - 1];
    const [low, high] = [Math.min(...lines), Math.max(...lines)];
    const column = Math.max(...free.slice(low, high + 1));
    if (column >= MAX_COLUMNS) { depth = MAX_COLUMNS + 1; break; }
    free.fill(column + 1, low, high + 1);
    depth = Math.max(depth, column + 1);
    placed.push({ ...operation, low, high, column });
  }
  return { placed, columns: Math.min(depth, MAX_COLUMNS), cut: placed.length < operations.length };
}

const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// The text of a gate's box and the angles below it; "" for what is drawn otherwise.
function words(operation) {
  const { name } = operation;
  const inner = CONTROLLED[name] ?? name;
  if (name === "barrier" || inner === "swap" || (name in CONTROLLED && (inner === "x" || inner === "z"))) return ["", ""];
  return [shortened(SHORT[inner] ?? (inner.length <= 3 ? inner.toUpperCase() : inner), 8), shortened(parameter(operation), MAX_CHARS)];
}

// Widths of the letters are those of a sans-serif of 11 and 10 px.
const widthOf = (operation) => {
  const [text, under] = words(operation);
  return Math.max(26, 8 * text.length + 8, 5.8 * under.length + 8);
};

function box(x, y, operation, kind) {
  const [text, under] = words(operation), width = widthOf(operation);
  return s("g", { class: kind },
    s("rect", { class: "box", x: x - width / 2, y: y - 14, width, height: 28, rx: 4 }),
    s("text", { x, y: under ? y - 5 : y }, text),
    under ? s("text", { class: "angle", x, y: y + 7 }, under) : null);
}

function gate(operation, x, last) {
  const y = (row) => TOP + row * ROW;
  const { name, rows, params, low, high } = operation;
  const tip = s("title", null, `${name}${params.length ? `(${parameter(operation)})` : ""}`
    + `${operation.qubits.length ? ` on qubits ${operation.qubits.join(", ")}` : ""}`
    + `${operation.clbits.length ? `, bits ${operation.clbits.join(", ")}` : ""}`);
  const line = (kind) => s("line", { class: kind, x1: x, x2: x, y1: y(low), y2: y(high) });
  if (!rows.length) { // a block's marker: if, else, for, end
    return s("g", null, tip, s("line", { class: "guard", x1: x, x2: x, y1: y(0) - 14, y2: y(last) + 14 }), s("text", { x, y: y(0) - 14 }, name));
  }
  if (name === "barrier") return s("g", null, tip, s("line", { class: "barrier", x1: x, x2: x, y1: y(low) - 14, y2: y(high) + 14 }));
  const inner = CONTROLLED[name];
  if (name === "swap" || inner) {
    const targets = name === "swap" || inner === "swap" ? rows.slice(-2) : rows.slice(-1);
    return s("g", { class: "two-qubit" }, tip, line("joint"),
      rows.slice(0, rows.length - targets.length).map((row) => s("circle", { class: "dot", cx: x, cy: y(row), r: 4.5 })),
      targets.map((row) => {
        if (inner === "z") return s("circle", { class: "dot", cx: x, cy: y(row), r: 4.5 });
        if (inner === "x") {
          return s("g", null, s("circle", { class: "target", cx: x, cy: y(row), r: 10 }),
            s("path", { class: "joint", d: `M${x - 10} ${y(row)}h20M${x} ${y(row) - 10}v20` }));
        }
        if (name === "swap" || inner === "swap") return s("path", { class: "joint", d: `M${x - 6} ${y(row) - 6}l12 12M${x + 6} ${y(row) - 6}l-12 12` });
        return box(x, y(row), operation, "two-qubit");
      }));
  }
  const kind = name.startsWith("measure") || name === "reset" ? "measured" : rows.length > 1 ? "two-qubit" : "";
  return s("g", null, tip, rows.length > 1 ? line("joint") : null, rows.map((row) => box(x, y(row), operation, kind)));
}

// `circuit`: {num_qubits, num_clbits, operations: [[name, qubits, clbits, params]], total}, of which
// `operations` may be the first ones only. Returns nodes: the drawing, and what it leaves out.
export function draw(circuit) {
  const used = [...new Set(circuit.operations.flatMap(([name, qubits]) => (name === "barrier" ? [] : qubits)))].sort((a, b) => a - b);
  const wires = used.length ? used.slice(0, MAX_WIRES) : [...Array(Math.min(circuit.num_qubits, MAX_WIRES)).keys()];
  const row = new Map(wires.map((qubit, index) => [qubit, index]));
  const inside = circuit.operations
    .filter(([name]) => name !== "global_phase")
    .map(([name, qubits, clbits, params]) => ({ name, clbits, params, qubits, rows: qubits.filter((qubit) => row.has(qubit)).map((qubit) => row.get(qubit)) }))
    .filter((each) => each.name === "barrier" ? each.rows.length : each.rows.length === each.qubits.length);
  const { placed, columns, cut } = place(inside, wires.length);
  const widths = new Array(columns).fill(CELL);
  for (const each of placed) if (each.rows.length) widths[each.column] = Math.max(widths[each.column], widthOf(each) + 10);
  let width = LEFT;
  const centres = widths.map((each) => (width += each) - each / 2);
  width += 16;
  const height = TOP + wires.length * ROW;
  const notes = [];
  if (used.length > wires.length) notes.push(`the first ${wires.length} of ${count(used.length)} qubits that gates act on, without gates that reach others`);
  if (used.length && used.length < circuit.num_qubits) notes.push(`${count(circuit.num_qubits - used.length)} qubits without gates are left out`);
  if (cut) notes.push(`the first ${MAX_COLUMNS} columns`);
  if (circuit.operations.length < circuit.total) notes.push(`the first ${count(circuit.operations.length)} of ${count(circuit.total)} operations`);
  const label = `Circuit of ${circuit.num_qubits} qubits and ${circuit.total} operations`;
  return [
    h("div", { class: "circuit", role: "region", tabindex: 0, "aria-label": label },
      s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
        wires.map((qubit, index) => s("g", null,
          s("text", { class: "label", x: LEFT - 8, y: TOP + index * ROW }, `q${qubit}`),
          s("line", { class: "wire", x1: LEFT, x2: width - 8, y1: TOP + index * ROW, y2: TOP + index * ROW }))),
        placed.map((operation) => gate(operation, centres[operation.column], wires.length - 1)))),
    notes.length ? h("p", { class: "muted" }, `Drawn: ${notes.join("; ")}.`) : null,
  ];
}
