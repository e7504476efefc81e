"""Runs of a circuit whose errors are drawn before it runs: the checks, and a state a binding."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from msgspec.structs import replace

from simulators.catalog.cards import EngineCard
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit, active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import EngineResult
from simulators.errors import OTHER_ENGINE, Unsupported
from simulators.execution import outputs, part_caches, requests
from simulators.execution.readout import ReadoutStage
from simulators.trajectories import shot_blocks
from simulators.trajectories.locations import NoisyCircuit, locate

StateOf = Callable[[NoisyCircuit, requests.BindingRun, MeasurementLayouts], outputs.FinalState]
DynamicStateOf = Callable[
    [Subcircuit, NoiseProgram, requests.BindingRun, MeasurementLayouts], outputs.FinalState
]
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


class NoisePlan(msgspec.Struct, frozen=True, eq=False):
    """Plan of an engine that prepares nothing of a circuit: its noise, maybe none."""

    noise: NoiseProgram

    @classmethod
    def of(cls, noise: NoiseProgram | None) -> NoisePlan:
        return cls(_NO_NOISE if noise is None else noise)

    @property
    def memory_bytes(self) -> int:
        return self.noise.memory_bytes


def run_bindings(
    card: EngineCard,
    noise: NoiseProgram,
    run: requests.EngineRun,
    state_of: StateOf,
    *,
    separate: bool = False,
    dynamic_state_of: DynamicStateOf | None = None,
) -> EngineResult:
    """Run all bindings of a circuit, each with the state that `state_of` makes. `separate`: see
    `locate`. `dynamic_state_of`: makes the state of a circuit with mid-circuit operations that are
    no gates, or with noise between measurements; None: it is refused. Raises Unsupported for
    outputs that trajectories cannot give."""
    circuit, request = run.circuit, run.request
    requests.check_run(circuit, run.options)
    rows = run.rows()
    requests.check_outputs(card, request, bool(circuit.clbits_data))
    if noise.kinds:
        shot_blocks.refuse_outputs(request)
    outputs.terms(request.observables, circuit.num_qubits)
    labels = [label for item in request.observables for label in item.labels]
    support = output_support(request.outputs, labels, circuit)
    part, noise = active_part(circuit, noise, support)
    layouts = MeasurementLayouts.of(part.circuit, noise)
    layout = layouts.state if "expectation" in request.outputs else layouts.clbits
    located = None
    if not layout.branching:
        located = locate(part.circuit, noise, local=True, separate=separate)
    if located is None and dynamic_state_of is None:
        text = f"engine {card.name!r}: a measurement, reset or condition before the end of a"
        text += " circuit with noise," if card.control.dynamic else " circuit,"
        text += " or noise that acts on a measured qubit and another one"
        raise Unsupported(text, hint=OTHER_ENGINE)
    own = part_caches.part_request(part, request, circuit.num_qubits)
    readout = ReadoutStage.of(layouts.clbits, noise.readout, part.operations)
    results = []
    for row in rows:
        circuit = part.circuit if located is None else located.circuit
        bound = replace(row, circuit=circuit, params=row.params[part.params], request=own)
        if located is not None:
            state = state_of(located, bound, layouts)
        else:
            assert dynamic_state_of is not None
            state = dynamic_state_of(part, noise, bound, layouts)
        results.append(outputs.collect(state, layouts, own, row.key, readout))
    return EngineResult.joined(results)
