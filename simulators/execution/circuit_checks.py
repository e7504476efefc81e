"""Checks of a circuit against an engine's card: what the engine refuses when it plans."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import EngineCard
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.gates import FOR, STORE, SWITCH, UNITARY, WHILE
from simulators.circuit.ir import Circuit, Table
from simulators.circuit.noise import NoiseProgram
from simulators.engine import RunOptions
from simulators.errors import OTHER_ENGINE, TooManyQubits, Unsupported


def check_request(
    card: EngineCard,
    circuit: Circuit,
    noise: NoiseProgram | None,
    opts: RunOptions,
    *,
    reduced: bool = False,
) -> None:
    """Raises Unsupported for a precision, width, option, block or noise that the engine lacks.
    `reduced`: the width depends on the requested outputs; see `check_width`."""
    if opts.precision not in card.precisions:
        text = f"precision {opts.precision[:32]!r}; engine {card.name!r} has none such"
        raise Unsupported(text, hint=f"there are {', '.join(card.precisions)}")
    if not reduced:
        check_width(card, circuit.num_qubits)
    if opts.parts is not None and not card.control.parts:
        text = f"engine {card.name!r} keeps no state between the parts of a circuit"
        raise Unsupported(text, hint=OTHER_ENGINE)
    if opts.settings and (wrong := card.option_problem(opts.settings)):
        hint = f"it has: {', '.join(o.name for o in card.options) or 'no options'}"
        raise Unsupported(wrong, hint=hint)
    control = card.control
    if circuit.conditions_data and not (control.loops and control.switches and control.variables):
        missing = {STORE: not control.variables, SWITCH: not control.switches}
        missing |= {WHILE: not control.loops, FOR: not control.loops}
        for row in np.unique(circuit.ops).tolist():
            code, name = int(circuit.table.rows[row, 0]), circuit.table.names[row]
            if missing.get(code):
                raise Unsupported(f"engine {card.name!r} has no {name!r}", hint=OTHER_ENGINE)
    if circuit.conditions_data and not card.control.conditions:
        text = f"engine {card.name!r} has no conditions on clbits"
        raise Unsupported(text, hint=OTHER_ENGINE)
    if card.gate_qubits:
        wide = _wide_rows(circuit.table, card.gate_qubits)
        for row in wide[np.isin(wide, circuit.ops)].tolist() if wide.size else ():
            text = f"{circuit.table.names[row]} on {circuit.table.rows[row, 1]} qubits; engine"
            text += f" {card.name!r} takes gates on at most {card.gate_qubits}"
            hint = "decompose it: qiskit.transpile with basis_gates=['u', 'cx']"
            raise Unsupported(text, hint=hint)
    if noise is not None and (lacking := sorted(noise.kinds - card.noise_with(opts.settings))):
        has = ", ".join(sorted(card.noise.kinds)) or "no noise"
        names = [option.name for option in card.options if option.noise.issuperset(lacking)]
        switch = f"; all with option {names[0]}=1" if names else ""
        text = f"engine {card.name!r} has no {' and no '.join(lacking)} noise"
        leave = "leave the noise out"
        if _OF_COMPONENT.keys() >= set(lacking):
            factors = ", ".join(f"{_OF_COMPONENT[kind][0]!r}: 0" for kind in lacking)
            what = " and ".join(_OF_COMPONENT[kind][1] for kind in lacking)
            leave = f"noise={{{factors}}} leaves {what} out"
        raise Unsupported(text, hint=f"it has: {has}{switch}; {leave}")


# Kinds of noise that are one component of the noise model.
_OF_COMPONENT = {
    "leakage": ("gate.leakage", "the leakage of gates"),
    "quasistatic": ("qubit.quasistatic", "the detunings of shots (T2*)"),
}


@functools.lru_cache(maxsize=256)
def _wide_rows(table: Table, max_qubits: int) -> NDArray[np.intp]:
    """Rows of a table with gates on more than `max_qubits` qubits."""
    return np.flatnonzero((table.rows[:, 0] >= UNITARY) & (table.rows[:, 1] > max_qubits))


def check_width(card: EngineCard, num_qubits: int) -> None:
    """Raises TooManyQubits for more qubits than the engine takes with any memory."""
    if num_qubits > card.max_qubits:
        text = f"{num_qubits} qubits; engine {card.name!r} takes {card.max_qubits}"
        raise TooManyQubits(text, hint="take fewer qubits")


def plan_layouts(
    card: EngineCard, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions
) -> MeasurementLayouts:
    """Plan of an engine that needs the measurement layouts alone; refuses circuits beyond its
    card."""
    check_request(card, circuit, noise, options)
    layouts = MeasurementLayouts.of(circuit)
    if layouts.clbits.branching and not card.control.dynamic:
        text = f"engine {card.name!r} has no measurements, resets or conditions before a circuit's"
        text += " end"
        raise Unsupported(text, hint=OTHER_ENGINE)
    return layouts
