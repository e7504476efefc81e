// Patches of a rotated surface code: logical qubits on the qubits of their chip.

import { h, s } from "./dom.js";

const [CELL, MARGIN, MAX_CHIP] = [30, 22, 2000]; // distance of neighbours and margin in px; qubits drawn

// Sites and checks as `simenv.calibration.logical.surface_code` numbers them: data qubits by rows, then ancillas.
export function rotated(d) {
  const sites = [], checks = [];
  for (let row = 0; row < d; row += 1) for (let column = 0; column < d; column += 1) sites.push([2 * column + 1, 2 * row + 1]);
  for (let row = -1; row < d; row += 1) {
    for (let column = -1; column < d; column += 1) {
      const kind = (row + column) % 2 ? "X" : "Z";
      const wide = column >= 0 && column < d - 1, high = row >= 0 && row < d - 1;
      if (!((wide && high) || (kind === "X" && !high && wide) || (kind === "Z" && !wide && high))) continue;
      const ring = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
      const data = ring.filter(([r, c]) => r >= 0 && r < d && c >= 0 && c < d).map(([r, c]) => r * d + c);
      checks.push({ kind, ancilla: sites.length, data });
      sites.push([2 * column + 2, 2 * row + 2]);
    }
  }
  return { sites, checks };
}

// One patch; `at`: place in px of each qubit of the code.
function patch(code, d, at, label) {
  const middle = [0, 1].map((axis) => at.reduce((sum, point) => sum + point[axis], 0) / at.length);
  return s("g", { class: "patch" }, s("title", null, label),
    code.checks.map(({ kind, ancilla, data }) => s("polygon", { class: kind === "X" ? "check-x" : "check-z",
      points: (data.length > 2 ? data : [...data, ancilla]).map((qubit) => at[qubit].join()).join(" ") })),
    at.map(([x, y], qubit) => s("circle", { class: qubit < d * d ? "data" : "ancilla", cx: x, cy: y, r: qubit < d * d ? 4 : 2.5 })),
    s("text", { x: middle[0], y: middle[1] }, label));
}

function drawing(points, couplings, patches, label) {
  const [left, top] = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
  const lengths = couplings.map(([a, b]) => Math.hypot(points[a][0] - points[b][0], points[a][1] - points[b][1])).filter(Boolean).sort((a, b) => a - b);
  const unit = CELL / (lengths[Math.floor(lengths.length / 2)] ?? 1);
  const at = points.map(([x, y]) => [(x - left) * unit + MARGIN, (y - top) * unit + MARGIN].map((value) => Math.round(10 * value) / 10));
  const [width, height] = [0, 1].map((axis) => Math.max(...at.map((point) => point[axis])) + MARGIN);
  return h("div", { class: "patches", role: "region", tabindex: 0, "aria-label": label },
    s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      couplings.map(([a, b]) => s("line", { x1: at[a][0], y1: at[a][1], x2: at[b][0], y2: at[b][1] })),
      at.map(([x, y]) => s("circle", { class: "site", cx: x, cy: y, r: 2.5 })),
      patches(at)));
}

// `logical`: of a device of `count` qubits; `chip`: {points, coupling, digest} of its chip, null: not known here.
export function draw(logical, count, chip) {
  const { distance: d, patches } = logical, code = rotated(d);
  if (code.sites.length !== logical.physical_qubits || code.sites.length > MAX_CHIP) return [h("p", { class: "muted" }, `Not drawn: ${logical.code} of distance ${d}.`)];
  const placed = chip && chip.points.length <= MAX_CHIP && patches.flat().every((qubit) => qubit < chip.points.length) ? patches : [];
  const notes = [h("p", { class: "legend" }, h("span", { class: "check-x" }, h("i"), "check of X"), h("span", { class: "check-z" }, h("i"), "check of Z"), h("span", null, "large points: data qubits, small ones: ancillas"))];
  const text = (words) => notes.push(h("p", { class: "muted" }, words));
  if (placed.length) {
    if (patches.length < count) text(`Of ${count} logical qubits, the others have errors of their own drawn patches, or those of these in turn: ${logical.options}.`);
    if (chip.digest !== logical.chip_digest) text(`${logical.chip} has another calibration now.`);
    return [drawing(chip.points, chip.coupling, (at) => placed.map((qubits, index) => patch(code, d, qubits.map((qubit) => at[qubit]), `q${index}`)), `Patches of logical qubits on ${logical.chip}`), ...notes];
  }
  text(patches.length ? `The code of each patch; their places on ${logical.chip} are not drawn: this environment has no such device, or a larger one than is drawn.`
    : `The code of each patch: ${logical.chip} has no place for one, and its values are drawn from the chip's.`);
  const pairs = code.checks.flatMap(({ ancilla, data }) => data.map((qubit) => [ancilla, qubit]));
  return [drawing(code.sites, pairs, (at) => patch(code, d, at, ""), `Patch of distance ${d}`), ...notes];
}
