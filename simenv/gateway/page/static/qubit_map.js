// The coupling map of a device, its qubits at given positions.

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

export function median(values) {
  const known = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
  const middle = (known.length - 1) / 2;
  return known.length ? (known[Math.floor(middle)] + known[Math.ceil(middle)]) / 2 : null;
}

// The scale of some values: part(value) is the share of values below it, so that a few large ones do
// not take the colours of all others.
function scaleOf(values) {
  const known = values.filter((value) => Number.isFinite(value) && value > 0).sort((a, b) => a - b);
  if (!known.length) return null;
  const last = known.length - 1;
  const part = (value) => (known[0] === known[last] ? 0.5 : (known.findIndex((each) => each >= value) + known.findLastIndex((each) => each <= value)) / (2 * last));
  return { part, marks: [known[0], median(known), known[last]] };
}

export function scaleBar(label, scale, format) {
  if (!scale) return null;
  const id = `scale-${label.replaceAll(/\W/g, "")}`;
  const [low, middle, high] = scale.marks.map((value) => h("span", null, format(value)));
  return h("p", { class: "scale" }, label, low,
    s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("defs", null, s("linearGradient", { id }, STOPS.map((_, index) => s("stop", { offset: index / (STOPS.length - 1), "stop-color": color(index / (STOPS.length - 1)) })))),
      s("rect", { width: 100, height: 6, fill: `url(#${id})` })),
    high, h("span", null, "(median ", middle, ")"));
}

// The distance of qubits that are neighbours: a device may have coordinates in any unit.
function spacing(points, couplings) {
  const away = (a, b) => Math.hypot(points[a][0] - points[b][0], points[a][1] - points[b][1]);
  const lengths = couplings.map(({ qubits: [a, b] }) => away(a, b)).filter((length) => length > 0).sort((a, b) => a - b);
  if (lengths.length) return lengths[Math.floor(lengths.length / 2)];
  const apart = points.flatMap((_, b) => (b ? [away(0, b)] : [])).filter((length) => length > 0);
  return apart.length ? Math.min(...apart) : 1;
}

// `points`: x to the right and y down of each qubit; `qubits`: {value, text, broken, dim} of each;
// `couplings`: {qubits: [a, b], value, text, broken, dim, link}. What is broken, or a link, has no colour of the scale.
// `modules`: {name, qubits} of each QPU of a device that is several. One qubit is in the tab order; arrows move to the nearest one in their direction. `choose(qubit)` is called for it.
export class QubitMap extends HTMLElement {
  set(points, qubits, couplings, chosen, choose, format = figure, modules = []) {
    const [left, top] = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
    const [right, bottom] = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
    const unit = 34 / spacing(points, couplings);
    const margin = modules.length ? 36 : 20; // with room for the names of modules
    const at = points.map(([x, y]) => [(x - left) * unit + margin, (y - top) * unit + margin]);
    const [width, height] = [(right - left) * unit + 2 * margin, (bottom - top) * unit + 2 * margin];
    const [inner, outer] = [scaleOf(qubits.map((each) => each.value)), scaleOf(couplings.filter((each) => !each.link).map((each) => each.value))];
    const paint = (value, scale) => (value > 0 && scale ? color(scale.part(value)) : "#9aa3af");
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
      h("div", { class: "map" }, s("svg", { viewBox: `0 0 ${width} ${height}`, css: { "min-width": `${Math.min(0.85 * width, 640)}px` }, role: "group", "aria-label": "Coupling map; arrow keys move between qubits" },
        modules.map(({ name, qubits: own }) => {
          const [xs, ys] = [0, 1].map((axis) => own.map((qubit) => at[qubit][axis]));
          const [x, y] = [Math.min(...xs) - 17, Math.min(...ys) - 17];
          return s("g", { class: "module" }, s("title", null, `Module ${name}`),
            s("rect", { x, y, width: Math.max(...xs) - x + 17, height: Math.max(...ys) - y + 17, rx: 8 }));
        }),
        couplings.map(({ qubits: [a, b], value, text, broken, dim, link }) => {
          const line = (kind, stroke) => s("line", { class: kind, x1: at[a][0], y1: at[a][1], x2: at[b][0], y2: at[b][1], stroke });
          return s("g", { class: dim && "dim" }, s("title", null, text), broken ? line("broken") : link ? line("link") : [line("rim"), line("pair", paint(value, outer))]);
        }),
        modules.map(({ name, qubits: own }) => s("text", { class: "module", // on the lines
          x: Math.min(...own.map((qubit) => at[qubit][0])) - 11, y: Math.min(...own.map((qubit) => at[qubit][1])) - 25 }, name.slice(0, 24))),
        qubits.map(({ value, text, broken, dim }, index) => {
          const shade = value > 0 && inner ? inner.part(value) : 0.5;
          return s("g", { class: `${shade < 0.5 && value > 0 ? "pale" : ""} ${index === chosen ? "chosen" : ""} ${broken ? "broken" : ""} ${dim ? "dim" : ""}`, "data-qubit": index, role: "button",
            tabindex: index === chosen ? 0 : -1, "aria-label": text, "aria-pressed": String(index === chosen),
            onclick: () => choose(index), onkeydown: (event) => (event.key === "Enter" || event.key === " " ? (event.preventDefault(), choose(index)) : move(event, index)) },
            s("circle", { cx: at[index][0], cy: at[index][1], r: 11, fill: paint(value, inner) }), s("title", null, text),
            s("text", { x: at[index][0], y: at[index][1] }, index));
        }))),
      scaleBar("Qubits", inner, format) ?? "", scaleBar("Couplings", outer, figure) ?? "",
      [...qubits, ...couplings].some((each) => each.broken) ? h("p", { class: "scale broken" }, h("i"), "does not work") : "",
      couplings.some((each) => each.link) ? h("p", { class: "scale links" }, h("i"), "link, which makes Bell pairs") : "");
  }
}
customElements.define("qubit-map", QubitMap);
