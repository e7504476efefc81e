// A machine of neutral atoms: limits of its registers, and its channels.

import { count, facts, figure, h, table } from "./dom.js";

const MAX_CHANNELS = 32; // shown
const limited = (value, unit) => (value === null || value === undefined ? "no limit" : `${value >= 1e4 ? count(value) : figure(value, 4)} ${unit}`.trim());
const range = (low, high, unit) => `${figure(low ?? 0, 4)} to ${limited(high, unit)}`;
const yes = (value) => (value ? "yes" : "no");

// `text`: abstract representation of a device of pulser.
export function draw(text) {
  let machine;
  try { machine = JSON.parse(text); } catch { return [h("p", { class: "muted" }, "Not shown: the machine is no JSON.")]; }
  const channels = [...(machine.channels ?? []), ...(machine.dmm_objects ?? [])];
  return [
    facts([
      ["Machine", machine.name], ["Most atoms", limited(machine.max_atom_num, "")],
      ["Least distance of atoms", `${figure(machine.min_atom_distance, 4)} µm`], ["Radius of a register", limited(machine.max_radial_distance, "µm")],
      ["Dimensions", machine.dimensions], ["Rydberg level", machine.rydberg_level],
      ["Layout of traps", machine.requires_layout ? "needed" : "not needed"], ["Most traps in use", machine.max_layout_filling === undefined ? "" : `${figure(100 * machine.max_layout_filling)} %`],
      ["Longest sequence", limited(machine.max_sequence_duration, "ns")], ["Most runs", limited(machine.max_runs, "")],
      ["SLM mask", yes(machine.supports_slm_mask)],
    ]),
    h("h3", null, "Channels"),
    table("Channels", [
      { name: "Channel", of: (each) => each.id }, { name: "Addressing", of: (each) => each.addressing?.toLowerCase() }, { name: "Basis", of: (each) => each.basis },
      { name: "Amplitude", of: (each) => (each.max_amp === 0 ? "none" : range(0, each.max_amp, "rad/µs")), number: true },
      { name: "Detuning", of: (each) => (each.bottom_detuning !== undefined ? `${limited(each.bottom_detuning, "rad/µs")} to 0` : each.max_abs_detuning === null ? "no limit" : `± ${limited(each.max_abs_detuning, "rad/µs")}`), number: true },
      { name: "Duration", of: (each) => range(each.min_duration, each.max_duration, "ns"), number: true },
      { name: "Clock", of: (each) => `${figure(each.clock_period ?? 1, 4)} ns`, number: true },
      { name: "Bandwidth", of: (each) => limited(each.mod_bandwidth, "MHz"), number: true },
    ], channels.slice(0, MAX_CHANNELS), { key: (each) => each.id, empty: "None." }),
  ];
}
