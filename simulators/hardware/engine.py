"""Engine `hardware`: a device behind Qiskit's BackendV2, one job at a time.

The engine is created with its backend and keeps it. Counts are the device's own and not
reproducible; a seed is passed on only if the backend is a simulator that takes one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from qiskit.transpiler import Target

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts, measurement_layout
from simulators.circuit.examples import bell
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution.outputs import CountedState, FinalState, RecordedState, collect
from simulators.execution.requests import (
    bind,
    check_outputs,
    check_request,
    check_run,
    num_bindings,
)
from simulators.execution.sampling import records_of
from simulators.hardware import transpile
from simulators.hardware.jobs import Machine
from simulators.hardware.target import TargetFigures, figures
from simulators.hardware.transpile import TranspiledStructure
from simulators.results import EngineResult

CARD = builtin_card("hardware")


class HardwareEngine:
    """Engine of one device."""

    name = "hardware"

    def __init__(self, backend: Any) -> None:
        self.machine = Machine(backend)
        self._target: Target | None = None
        self._figures: TargetFigures | None = None

    @property
    def backend(self) -> Any:
        """Machine's BackendV2."""
        return self.machine.backend

    @property
    def target(self) -> Target:
        """Machine's Target: the same object while its figures stay the same. Raises
        MachineFailed."""
        try:
            result = self.backend.target
            if self._target is None or result is not self._target:
                said = figures(result)  # some backends make a new Target at each access
                if said != self._figures:
                    self._target, self._figures = result, said
        except Exception as error:
            raise self.machine.failed("does not say what it is", error) from error
        assert self._target is not None
        return self._target

    def worth_caching(self, circuit: Circuit) -> bool:
        """Return False for circuits that are transpiled again for each binding."""
        return not transpile.has_durations(circuit)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Transpile the structure for the machine; refuses by name operations that it lacks."""
        check_request(CARD, circuit, noise, options)
        check_run(circuit, options)
        result, target = measurement_layout(circuit), self.target
        transpile.refuse_what_is_missing(circuit, result, target, self.machine.name)
        return transpile.fitted(circuit, result, self.backend, target)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `Engine`; errors of the device are MachineRefused, MachineFailed, BadAnswer."""
        if not isinstance(plan, TranspiledStructure):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        check_run(circuit, options)
        number = num_bindings(circuit, request)
        branching = plan.ending.branching
        check_outputs(CARD, request, plan.ending.measures, collapses=branching)
        control.check()
        if plan.target is not self.target:  # a new calibration, or other failed qubits
            plan = self.plan(circuit, None, options)
            assert isinstance(plan, TranspiledStructure)
        circuits = [
            transpile.bound(plan, circuit, bind(circuit, request, row), self.backend)
            for row in range(number)
        ]
        key = request.seed, request.binding
        remark = self._remark(plan, number, request.shots)
        states: list[FinalState]
        if "memory" in request.outputs:
            states = [
                RecordedState(circuit.num_qubits, records_of(shots, circuit.num_clbits), remark)
                for shots in self.machine.memory(circuits, request.shots, key, control)
            ]
        else:
            states = [
                CountedState(circuit, counts, remark)
                for counts in self.machine.counts(circuits, request.shots, key, control)
            ]
        layouts = MeasurementLayouts(plan.ending, plan.ending)
        return EngineResult.joined([collect(state, layouts, request, key) for state in states])

    def _remark(self, plan: TranspiledStructure, circuits: int, shots: int) -> str:
        text = self.machine.name
        if plan.transpiled:
            text += f": transpiled (level {transpile.LEVEL}, seed {transpile.SEED})"
        elif plan.full_circuit is not None:
            text += ": as written"
        else:
            text += f": fitted to each binding (level {transpile.LEVEL}, seed {transpile.SEED})"
        jobs = self.machine.jobs(circuits, shots)
        return f"{text}, in {jobs} jobs" if jobs > 1 else text

    def warm_up(self) -> None:
        """Load the transpiler. Nothing is run on the machine."""
        with suppress(Unsupported):  # a machine of one qubit
            self.plan(bell(), None, RunOptions())
