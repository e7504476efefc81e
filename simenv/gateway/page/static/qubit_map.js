// The coupling map of a device: qubits placed by the lengths of paths between them.

import { figure, h, s } from "./dom.js";

export const MAX_QUBITS = 1200; // of a map; a device with more is a table
// Dark to light, as viridis; equal steps of lightness, so that it is read without colours too.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

export function color(part) {
  const at = Math.max(0, Math.min(1, part)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  const mix = STOPS[low].map((value, index) => Math.round(value + (STOPS[low + 1][index] - value) * (at - low)));
  return `rgb(${mix.join(",")})`;
}

function neighbours(size, edges) {
  const result = Array.from({ length: size }, () => []);
  for (const [a, b] of edges) { result[a].push(b); result[b].push(a); }
  return result;
}

function distances(from, near) {
  const result = new Float32Array(near.length).fill(-1);
  result[from] = 0;
  for (let queue = [from], at = 0; at < queue.length; at += 1) {
    for (const next of near[queue[at]]) if (result[next] < 0) { result[next] = result[queue[at]] + 1; queue.push(next); }
  }
  return result;
}

// Classical scaling by a few landmarks (Brandes and Pich), then stress majorization (Gansner, Koren,
// North): a lattice comes out as one. Linear in the qubits for each landmark.
export function place(size, edges) {
  const near = neighbours(size, edges);
  if (!edges.length) {
    const side = Math.ceil(Math.sqrt(size));
    return Array.from({ length: size }, (_, index) => [index % side, Math.floor(index / side)]);
  }
  const pivots = [];
  let far = new Float32Array(size).fill(Infinity), next = 0;
  while (pivots.length < Math.min(size, 60)) {
    const paths = distances(next, near).map((value) => (value < 0 ? Math.sqrt(size) : value));
    pivots.push([next, paths]);
    far = far.map((value, index) => Math.min(value, paths[index]));
    next = far.indexOf(Math.max(...far));
    if (far[next] === 0) break;
  }
  const [a, ...others] = pivots.map(([, paths]) => paths);
  const second = others[0] ?? a;
  const spread = (values) => { const mean = values.reduce((x, y) => x + y, 0) / size; return values.map((value) => value - mean); };
  // Power iteration on the centred squared distances to the pivots.
  const columns = pivots.map(([, paths]) => Array.from(spread(Array.from(paths, (value) => value * value))));
  const axis = (orthogonal) => {
    let weights = columns.map((_, index) => Math.sin(1 + index));
    let values = [];
    for (let round = 0; round < 60; round += 1) {
      values = Array.from({ length: size }, (_, row) => columns.reduce((sum, column, index) => sum + column[row] * weights[index], 0));
      if (orthogonal) {
        const dot = values.reduce((sum, value, row) => sum + value * orthogonal[row], 0) / orthogonal.reduce((sum, value) => sum + value * value, 1e-12);
        values = values.map((value, row) => value - dot * orthogonal[row]);
      }
      weights = columns.map((column) => column.reduce((sum, value, row) => sum + value * values[row], 0));
      const norm = Math.hypot(...weights) || 1;
      weights = weights.map((value) => value / norm);
    }
    return values;
  };
  const x = axis(null), y = axis(x);
  const scale = (values, paths) => { const most = Math.max(...values.map(Math.abs)) || 1; return values.map((value) => (value / most) * Math.max(...paths) / 2); };
  const points = scale(x, a).map((value, index) => [value, scale.y?.[index] ?? 0]);
  scale(y, second).forEach((value, index) => { points[index][1] = value; });
  const anchors = size <= 400 ? Array.from({ length: size }, (_, index) => [index, distances(index, near)]) : pivots;
  for (let round = 0; round < (size <= 400 ? 60 : 120); round += 1) {
    for (let node = 0; node < size; node += 1) {
      let [sx, sy, total] = [0, 0, 0];
      const pull = (other, path) => {
        if (other === node || path <= 0) return;
        const weight = 1 / (path * path);
        const [dx, dy] = [points[node][0] - points[other][0], points[node][1] - points[other][1]];
        const length = Math.hypot(dx, dy) || 1e-6;
        sx += weight * (points[other][0] + (path * dx) / length);
        sy += weight * (points[other][1] + (path * dy) / length);
        total += weight;
      };
      for (const [other, paths] of anchors) pull(other, paths[node]);
      if (size > 400) for (const other of near[node]) pull(other, 1);
      if (total) points[node] = [sx / total, sy / total];
    }
  }
  return upright(points, edges);
}

// Turned so that most couplings are horizontal or vertical, and wider than high.
function upright(points, edges) {
  let [best, least] = [0, Infinity];
  for (let step = 0; step < 90; step += 1) {
    const turn = (step * Math.PI) / 180;
    const sum = edges.reduce((total, [a, b]) => {
      const angle = Math.atan2(points[b][1] - points[a][1], points[b][0] - points[a][0]) + turn;
      return total + Math.abs(Math.sin(2 * angle));
    }, 0);
    if (sum < least - 1e-9) [best, least] = [turn, sum];
  }
  const [cos, sin] = [Math.cos(best), Math.sin(best)];
  let turned = points.map(([x, y]) => [x * cos - y * sin, x * sin + y * cos]);
  const size = (axis) => Math.max(...turned.map((point) => point[axis])) - Math.min(...turned.map((point) => point[axis]));
  if (size(1) > size(0)) turned = turned.map(([x, y]) => [-y, x]);
  const [left, right] = [turned[0], turned[turned.length - 1]];
  if (left[1] > right[1]) turned = turned.map(([x, y]) => [x, -y]);
  if (left[0] > right[0]) turned = turned.map(([x, y]) => [-x, y]);
  return turned;
}

const range = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined && value > 0 && Number.isFinite(value));
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
};

// Part of a logarithmic scale.
const part = (value, [low, high]) => (high > low ? Math.log(value / low) / Math.log(high / low) : 0.5);

export function scaleBar(label, bounds, format) {
  if (!bounds) return null;
  const id = `scale-${label.replaceAll(/\W/g, "")}`;
  return h("p", { class: "scale" }, label, h("span", null, format(bounds[0])),
    s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("defs", null, s("linearGradient", { id }, STOPS.map((_, index) => s("stop", { offset: index / (STOPS.length - 1), "stop-color": color(index / (STOPS.length - 1)) })))),
      s("rect", { width: 100, height: 6, fill: `url(#${id})` })),
    h("span", null, format(bounds[1])));
}

// `qubits`: {value, text} of each; `couplings`: {qubits: [a, b], value, text}. One qubit is in the
// tab order; arrows move to the nearest one in their direction. `choose(qubit)` is called for it.
export class QubitMap extends HTMLElement {
  set(points, qubits, couplings, chosen, choose) {
    const [left, top] = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
    const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
    const unit = 34;
    const at = points.map(([x, y]) => [(x - left) * unit + 20, (y - top) * unit + 20]);
    const [width, height] = [(right - left) * unit + 40, (bottom - top) * unit + 40];
    const [inner, outer] = [range(qubits.map((each) => each.value)), range(couplings.map((each) => each.value))];
    const paint = (value, bounds) => (value > 0 && bounds ? color(part(value, bounds)) : "#9aa3af");
    const move = (event, from) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      let [best, least] = [from, Infinity];
      at.forEach(([x, y], other) => {
        const [dx, dy] = [x - at[from][0], y - at[from][1]];
        const ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (other !== from && ahead > 1 && ahead + 2 * aside < least) [best, least] = [other, ahead + 2 * aside];
      });
      choose(best);
      this.querySelector(`[data-qubit="${best}"]`)?.focus();
    };
    this.replaceChildren(
      h("div", { class: "map" }, s("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Coupling map; arrow keys move between qubits" },
        couplings.map(({ qubits: [a, b], value, text }) => s("line", { x1: at[a][0], y1: at[a][1], x2: at[b][0], y2: at[b][1], stroke: paint(value, outer) }, s("title", null, text))),
        qubits.map(({ value, text }, index) => {
          const shade = value > 0 && inner ? part(value, inner) : 0.5;
          return s("g", { class: `${shade < 0.5 && value > 0 ? "pale" : ""} ${index === chosen ? "chosen" : ""}`, "data-qubit": index, role: "button",
            tabindex: index === chosen ? 0 : -1, "aria-label": text, "aria-pressed": String(index === chosen),
            onclick: () => choose(index), onkeydown: (event) => (event.key === "Enter" || event.key === " " ? (event.preventDefault(), choose(index)) : move(event, index)) },
            s("circle", { cx: at[index][0], cy: at[index][1], r: 11, fill: paint(value, inner) }), s("title", null, text),
            s("text", { x: at[index][0], y: at[index][1] }, index));
        }))),
      scaleBar("Qubits", inner, (value) => figure(value)) ?? "", scaleBar("Couplings", outer, (value) => figure(value)) ?? "");
  }
}
customElements.define("qubit-map", QubitMap);
