// A pulse sequence: the register of its atoms, and the pulses of each channel in time.

import { count, figure, h, many, s } from "./dom.js";
import { color } from "./qubit_map.js";

const MAX_ATOMS = 300; // drawn
const MAX_NAMES = 64; // atoms with their names
const [SIZE, EDGE] = [300, 26]; // of the register in px
const [LEFT, WIDTH, RIGHT, LANE, GAP] = [92, 640, 16, 46, 14]; // of a channel
const QUANTITIES = [["amplitude", "Ω", "rad/µs"], ["detuning", "δ", "rad/µs"], ["phase", "φ", "rad"]];
const um = (value) => `${figure(value)} µm`;
const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// 1, 2 or 5 times a power of ten, at most `value`.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([5, 2, 1].find((each) => each * power <= value * (1 + 1e-9)) ?? 1);
}

function register({ atoms, blockade_um: blockade, is_flat: flat, masked, mask_ns: masking }, occupations) {
  const shown = atoms.slice(0, MAX_ATOMS);
  const low = [1, 2].map((axis) => Math.min(...shown.map((atom) => atom[axis]))), high = [1, 2].map((axis) => Math.max(...shown.map((atom) => atom[axis])));
  const extent = Math.max(high[0] - low[0], high[1] - low[1]) || 1, unit = (SIZE - 2 * EDGE) / extent;
  const at = shown.map(([, x, y]) => [(x - low[0]) * unit + EDGE, (high[1] - y) * unit + EDGE]); // y upwards
  const away = (a, b) => Math.hypot(shown[a][1] - shown[b][1], shown[a][2] - shown[b][2]);
  const pairs = shown.flatMap((_, b) => [...Array(b).keys()].map((a) => [a, b]));
  const nearest = Math.min(...pairs.map(([a, b]) => away(a, b)), extent);
  const radius = Math.max(2, Math.min(11, 0.32 * nearest * unit));
  const width = (high[0] - low[0]) * unit + 2 * EDGE, bottom = (high[1] - low[1]) * unit + 2 * EDGE, bar = round(extent / 3);
  const blocked = flat ? pairs.filter(([a, b]) => away(a, b) < blockade) : [];
  const label = `Register of ${many(atoms.length, "atom")}`;
  return [
    h("div", { class: "register", role: "region", tabindex: 0, "aria-label": label },
      s("svg", { width: Math.max(width, 120), height: bottom + 22, viewBox: `0 0 ${Math.max(width, 120)} ${bottom + 22}`, role: "img", "aria-label": label },
        blocked.map(([a, b]) => s("line", { class: "blockade", x1: at[a][0], y1: at[a][1], x2: at[b][0], y2: at[b][1] }, s("title", null, `${um(away(a, b))} apart`))),
        at.map(([x, y], index) => s("g", { class: masked.includes(shown[index][0]) ? "atom masked" : "atom" }, s("title", null, `${shown[index][0]} at ${figure(shown[index][1], 5)}, ${um(shown[index][2])}${occupations ? `, 1 with probability ${figure(occupations[index])}` : ""}`),
          s("circle", { cx: x, cy: y, r: radius, css: occupations && { fill: color(occupations[index]) } }),
          shown.length <= MAX_NAMES ? s("text", { x, y: y + radius + 8 }, shortened(shown[index][0], 8)) : null)),
        s("path", { class: "bar", d: `M${EDGE} ${bottom + 4}v6h${bar * unit}v-6` }), s("text", { class: "label", x: EDGE + bar * unit + 6, y: bottom + 9 }, um(bar)))),
    h("p", { class: "muted" }, [
      `${many(atoms.length, "atom")}${shown.length < atoms.length ? `, the first ${count(shown.length)} drawn` : ""}, the nearest two ${um(nearest)} apart.`,
      blockade ? ` Blockade radius at the largest Rabi frequency: ${um(blockade)}${blocked.length ? "; lines join atoms within it" : ""}.` : "",
      flat ? "" : " Seen along z.",
      masked.length ? ` An SLM mask is on the ${many(masked.length, "atom")} with broken lines until ${count(masking)} ns.` : "",
      occupations ? " Colours: the probability of 1 at the end, dark for 0 and light for 1; the title of an atom has its value." : "",
    ].join("")),
  ];
}

function lane([times, values], top, [, symbol, unit], duration) {
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  const x = (time) => LEFT + (WIDTH * time) / duration, y = (value) => top + LANE * (1 - (value - least) / (most - least));
  const points = times.map((time, index) => `${x(time).toFixed(2)} ${y(values[index]).toFixed(2)}`);
  const end = x(times.at(-1) + 1).toFixed(2), zero = y(0).toFixed(2); // a sample lasts for one nanosecond
  return s("g", null, s("title", null, `${symbol}: ${figure(least)} to ${figure(most)} ${unit}`),
    s("path", { class: "area", d: `M${x(times[0]).toFixed(2)} ${zero}L${points.join("L")}L${end} ${y(values.at(-1)).toFixed(2)}V${zero}Z` }),
    s("line", { class: "zero", x1: LEFT, x2: LEFT + WIDTH, y1: zero, y2: zero }),
    s("text", { class: "label", x: LEFT - 50, y: top + LANE / 2 }, symbol), s("text", { class: "label unit", x: LEFT - 50, y: top + LANE / 2 + 13 }, unit),
    most ? s("text", { class: "label", x: LEFT - 6, y: y(most) + 5 }, figure(most)) : null,
    least ? s("text", { class: "label", x: LEFT - 6, y: y(least) - 3 }, figure(least)) : null);
}

function channel(each, duration) {
  const acting = QUANTITIES.filter(([key]) => each[key][1].some(Boolean));
  const height = 18 + acting.length * (LANE + GAP) + 20, bottom = height - 20;
  const label = `Pulses of channel ${each.name}: ${each.kind}, ${each.addressing.toLowerCase()}, basis ${each.basis}`;
  const step = round(duration / 4), ticks = [...Array(Math.floor(duration / step + 1e-9) + 1).keys()].map((index) => index * step);
  const x = (time) => LEFT + (WIDTH * time) / duration;
  return [h("h3", null, `${shortened(each.name, 60)} `, h("small", { class: "muted" }, `${each.kind}, ${each.addressing.toLowerCase()}, basis ${each.basis}`)),
    acting.length ? h("div", { class: "pulses", role: "region", tabindex: 0, "aria-label": label },
      s("svg", { width: LEFT + WIDTH + RIGHT, height, viewBox: `0 0 ${LEFT + WIDTH + RIGHT} ${height}`, role: "img", "aria-label": label },
        each.slots.map(([from, to, atoms]) => s("g", { class: "slot" }, s("title", null, `${from} to ${to} ns on ${atoms.join(", ")}`),
          s("line", { x1: x(from), x2: x(from), y1: 14, y2: bottom }), s("text", { x: (x(from) + x(to)) / 2, y: 8 }, shortened(atoms.join(" "), Math.max(2, Math.floor((x(to) - x(from)) / 7)))))),
        acting.map((quantity, index) => lane(each[quantity[0]], 18 + index * (LANE + GAP), quantity, duration)),
        ticks.map((time) => s("g", { class: "tick" }, s("line", { x1: x(time), x2: x(time), y1: bottom, y2: bottom + 4 }), s("text", { x: x(time), y: bottom + 12 }, `${count(time)}${time ? "" : " ns"}`)))))
      : h("p", { class: "muted" }, "No pulse."),
    acting.length && acting.length < 3 ? h("p", { class: "muted" }, `Zero throughout: ${QUANTITIES.filter((each) => !acting.includes(each)).map(([key]) => key).join(", ")}.`) : null];
}

// `drawing`: a PulseDrawing; `occupations`: of its atoms, null without a result. Returns nodes of the register and of the pulses.
export function draw(drawing, occupations) {
  const more = drawing.num_channels - drawing.channels.length;
  return {
    register: register(drawing, occupations),
    pulses: [drawing.channels.map((each) => channel(each, Math.max(1, drawing.duration_ns))), more > 0 ? h("p", { class: "muted" }, `${many(more, "further channel")} not drawn.`) : null],
  };
}
