"""Size of the propagation of observables, by which it is priced before a run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.profile import StringsSize
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import RunControl
from simulators.execution.outputs import masks
from simulators.strings.certification import UNKNOWN, Stated, StringLimits, certified
from simulators.strings.program import program_of
from simulators.strings.propagation import Propagation

_MOST_OPERATIONS = 20_000  # of a circuit whose size is computed
_SAMPLES = 3  # strings that are tried
_STRINGS = 2**15  # held at once by a trial
_WORK = 2 * 10**8  # of all trials: half a second
_GROWTH = 1.5  # work of all eps relative to that of the last one
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


def strings_size(
    circuit: Circuit,
    params: NDArray[np.float64],
    noise: NoiseProgram | None,
    labels: Iterable[str],
    limits: StringLimits,
) -> StringsSize | None:
    """Size for the strings of observables of an admissible circuit, from trials of a few; None if
    their number cannot be known or the circuit is too long. `params`: of the circuit, bound."""
    distinct = list(dict.fromkeys(labels))
    fits = all(len(label) == circuit.num_qubits and not set(label) - set("IXYZ") for label in distinct)
    is_narrow = (circuit.table.rows[circuit.ops, 1][circuit.table.rows[circuit.ops, 0] > 15] <= 2).all()
    if not distinct or not fits or not is_narrow or circuit.conditions_data:
        return None
    if circuit.ops.size > _MOST_OPERATIONS:
        return None
    support = output_support(("expectation",), distinct, circuit)
    part, own = active_part(circuit, noise or _NO_NOISE, support)
    program = program_of(part.circuit, params[part.params], own)
    arrays, control = Propagation(program.num_qubits), RunControl()
    tried = StringLimits(limits.tolerance, min(limits.strings, _STRINGS))
    places = np.linspace(0, len(distinct) - 1, min(_SAMPLES, len(distinct))).astype(int)
    found: list[Stated] = []
    for place in places.tolist():
        x, z = (masks(part.labels((distinct[place],), circuit.num_qubits)[0], program.num_qubits))
        found.append(certified(arrays, program, (x, z), (0, 0, 0), tried, control))
        if sum(each.work for each in found) > _WORK:
            break
    is_certified = all(each.basis != UNKNOWN for each in found)
    work = sum(each.work for each in found) / len(found)
    peak = max(each.peak for each in found)
    if not is_certified:
        work *= _GROWTH * limits.strings / tried.strings
        peak = limits.strings
    return StringsSize(len(distinct), float(f"{work:.2g}"), peak, is_certified, limits.tolerance)
