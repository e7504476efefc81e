"""Size of the propagation of observables, by which it is priced before a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import Options
from simulators.circuit.analysis.profile import StringsSize
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import PauliSum, RunControl
from simulators.execution.outputs import masks, owners_and_weights
from simulators.strings.certification import UNKNOWN, Stated, StringLimits, certified, targets
from simulators.strings.program import program_of
from simulators.strings.propagation import Propagation

_MOST_OPERATIONS = 20_000  # of a circuit whose size is computed
_SAMPLES = 32  # strings that are tried
_STRINGS = 2**17  # held at once by a trial
_FEWEST = 256  # the same, however deep the circuit is
_WORK = 6 * 10**7  # of all trials: about a second
_CACHED, _MISSES = 2**15, 4.0  # strings in a cache; more time of a step without it, at most
_BEYOND = 4.0  # work of a string whose trial ended early, relative to that of the trial
_GOLDEN = 0.6180339887498949
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


def strings_size(
    circuit: Circuit,
    params: NDArray[np.float64],
    noise: NoiseProgram | None,
    observables: tuple[PauliSum, ...],
    settings: Options = (),
) -> StringsSize | None:
    """Size for the strings of observables of an admissible circuit, from trials of a few; None if
    none can be propagated, or if the circuit is too long. `params`: of the circuit, bound;
    `settings`: of the engine."""
    limits = StringLimits.of(settings)
    labels = [label for item in observables for label in item.labels]
    distinct = list(dict.fromkeys(labels))
    if not distinct or circuit.conditions_data or circuit.ops.size > _MOST_OPERATIONS:
        return None
    if noise is not None and noise.leakage is not None:
        return None
    rows = circuit.table.rows[circuit.ops]
    if (rows[rows[:, 0] >= UNITARY, 1] > 2).any():
        return None
    if any(len(each) != circuit.num_qubits or set(each) - set("IXYZ") for each in distinct):
        return None
    support = output_support(("expectation",), distinct, circuit)
    part, own = active_part(circuit, noise or _NO_NOISE, support)
    program = program_of(part.circuit, params[part.params], own)
    arrays, control = Propagation(program.num_qubits), RunControl()
    deepest = int(np.bincount(part.circuit.qubits, minlength=1).max())  # passes of each string
    most = min(limits.strings, _STRINGS, max(_FEWEST, _WORK // max(1, deepest)))
    spent, work = 0, 0.0
    wanted = targets(labels, *owners_and_weights(observables), limits.tolerance)
    found: list[Stated] = []
    for number in range(min(_SAMPLES, len(distinct))):
        label = distinct[int(len(distinct) * (number * _GOLDEN % 1.0))]
        string = masks(part.labels((label,), circuit.num_qubits)[0], program.num_qubits)
        tried = certified(
            arrays, program, string, (0, 0, number), wanted[label], most, control,
            most_work=_WORK - spent,
        )  # fmt: skip
        found.append(tried)
        spent += tried.work
        slower = 1.0 + min(_MISSES, tried.peak / _CACHED)
        work += tried.work * slower * (_BEYOND if tried.basis == UNKNOWN else 1.0)
        if spent > _WORK:
            break
    known = [each for each in found if each.basis != UNKNOWN]
    # Of the others, some reached the limit of strings, and some only that of their work.
    is_certified = 2 * len(known) >= len(found) and not any(each.second_eps for each in found)
    peak = max(each.peak for each in found) if len(known) == len(found) else limits.strings
    mean = float(f"{work / len(found):.2g}")
    return StringsSize(len(distinct), mean, peak, is_certified, limits.tolerance)
