"""Engine `hardware`: a device behind Qiskit's BackendV2, one job at a time.

The engine is created with its backend and keeps it. Counts are the device's own and not
reproducible; a seed is passed on only if the backend is a simulator that takes one.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ControlFlowOp, Gate, Parameter
from qiskit.circuit.exceptions import CircuitError
from qiskit.exceptions import QiskitError
from qiskit.transpiler import PassManager, Target
from qiskit.transpiler.passes import Optimize1qGatesDecomposition

from simulators.catalog import builtin_card
from simulators.circuit.analysis import measurements
from simulators.circuit.gates import DELAY, DELAY_DT, IF, RESET
from simulators.circuit.ir import Circuit, bell
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.execution import circuit_checks, requests
from simulators.execution.outputs import CountedState, FinalState, RecordedState, collect
from simulators.execution.packing import records_of
from simulators.execution.qiskit_export import Dialect, convert
from simulators.hardware.jobs import Machine, max_shots

# Transpilation to a device's Target; circuits that fit are left as written.
#
# Clbits are never changed, so counts need no mapping back. The transpiler's level and seed are
# fixed, so a circuit is transpiled the same way each time.

LEVEL = 1
SEED = 7
ELSEWHERE = "a simulator runs it: leave out the machine's pool"
DIALECT = Dialect("hardware", ELSEWHERE, pauses=True)
_BYTES_AN_OPERATION = 500  # of a cached Qiskit circuit


@dataclass(frozen=True, slots=True)
class TranspiledStructure:
    """Plan: a structure transpiled for the machine, with all its parameters free. `full_circuit`
    None: the result depends on the parameters (durations, or angles that the machine supports only
    in part); each binding is transpiled separately."""

    target: Target
    ending: measurements.MeasurementLayout
    full_circuit: QuantumCircuit | None
    open: tuple[Parameter, ...]
    transpiled: bool

    @property
    def memory_bytes(self) -> int:
        count = 0 if self.full_circuit is None else len(self.full_circuit.data)
        return _BYTES_AN_OPERATION * (count + len(self.open))


def has_durations(circuit: Circuit) -> bool:
    """Return whether the circuit has a delay with a duration."""
    return bool(np.isin(circuit.table.rows[circuit.ops, 0], (DELAY, DELAY_DT)).any())


def refuse_what_is_missing(
    circuit: Circuit, ending: measurements.MeasurementLayout, target: Target, machine: str
) -> None:
    """Raise Unsupported for qubits or mid-circuit operations that the Target lacks."""
    if target.num_qubits is not None and circuit.num_qubits > target.num_qubits:
        text = f"{circuit.num_qubits} qubits; machine {machine!r} has {target.num_qubits}"
        raise Unsupported(text, hint=ELSEWHERE)
    has, codes = set(target.operation_names), circuit.table.rows[circuit.ops, 0]
    for code, operation, feature in ((IF, "if_else", "conditions"), (RESET, "reset", "resets")):
        if operation not in has and (codes == code).any():
            raise Unsupported(f"machine {machine!r} has no {feature}", hint=ELSEWHERE)
    if ending.branching and not is_dynamic(target):
        text = f"machine {machine!r} has no measurements before a circuit's end"
        raise Unsupported(text, hint=ELSEWHERE)


def is_dynamic(target: Target) -> bool:
    """Return whether operations may follow a measurement. A Target does not state it for the
    measurement itself, but a machine with reset or branches allows it."""
    return not {"reset", "if_else"}.isdisjoint(target.operation_names)


def fitted(
    circuit: Circuit, ending: measurements.MeasurementLayout, backend: Any, target: Target
) -> TranspiledStructure:
    """Plan for a structure. Raises Unsupported if the transpiler fails."""
    if has_durations(circuit):
        return TranspiledStructure(target, ending, None, (), False)
    parameters = [Parameter(f"p{k}") for k in range(circuit.params.size)]
    values = np.empty(len(parameters), object)
    values[:] = parameters
    try:
        full, transpiled = _fit(convert(circuit, values, DIALECT), backend, target)
    except Unsupported:
        if not parameters:
            raise
        return TranspiledStructure(target, ending, None, (), False)
    return TranspiledStructure(target, ending, full, tuple(parameters), transpiled)


def bound(
    plan: TranspiledStructure, circuit: Circuit, params: NDArray[np.float64], backend: Any
) -> QuantumCircuit:
    if plan.full_circuit is None:
        return _fit(convert(circuit, params, DIALECT), backend, plan.target)[0]
    left = plan.full_circuit.parameters  # the transpiler may have removed some
    settings = dict(zip(plan.open, params.tolist(), strict=True))
    values = {parameter: value for parameter, value in settings.items() if parameter in left}
    ready = plan.full_circuit.assign_parameters(values) if values else plan.full_circuit
    if plan.transpiled and values:  # gates that can be merged only now that their angles are known
        ready = PassManager(Optimize1qGatesDecomposition(target=plan.target)).run(ready)
    return ready


def _fit(written: QuantumCircuit, backend: Any, target: Target) -> tuple[QuantumCircuit, bool]:
    if fits(written, target):
        return written, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the machine's own plugins
            result = transpile(
                written, backend=backend, optimization_level=LEVEL, seed_transpiler=SEED
            )
    except (QiskitError, CircuitError) as error:
        text = f"the circuit cannot be written in the machine's gates: {error.message}"
        raise Unsupported(text, hint=ELSEWHERE) from error
    return result, True


def fits(circuit: QuantumCircuit, target: Target) -> bool:
    """Return whether the machine has every operation on exactly these qubits."""
    if target.num_qubits is not None and circuit.num_qubits > target.num_qubits:
        return False
    for item in circuit.data:
        operation = item.operation
        if operation.name == "barrier":
            continue
        if isinstance(operation, ControlFlowOp):
            has = operation.name in target.operation_names
            if not has or not all(fits(block, target) for block in operation.blocks):
                return False
            continue
        qubits = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        angles = None if operation.name == "unitary" else list(operation.params)
        if not target.instruction_supported(operation.name, qubits, parameters=angles):
            return False
    return True


# Description of a device, read from its Qiskit Target, as a plain value.
#
# No value is guessed and no network is used: values that a Target does not state are NaN, "" or 0.

UNKNOWN = math.nan
_WORD_CHARS = 200
_TECHNOLOGIES = {  # technology by package of the provider
    "qiskit_ibm_runtime": "superconducting",
    "iqm": "superconducting",
    "qiskit_ionq": "trapped-ion",
    "qiskit_aqt_provider": "trapped-ion",
}


@dataclass(frozen=True, slots=True)
class QubitFigures:
    t1_us: float
    t2_us: float
    frequency_ghz: float
    readout_error: float  # a probability
    readout_ns: float


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """Figures of one operation on one tuple of qubits; (): the same on all of them."""

    name: str
    qubits: tuple[int, ...]
    error: float
    duration_ns: float


@dataclass(frozen=True, slots=True)
class TargetGate:
    name: str
    qubits: int
    params: int


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """Target in plain numbers. `all_to_all`: `coupling` is empty and stands for every pair."""

    num_qubits: int  # 0: any number
    gates: tuple[TargetGate, ...]
    all_to_all: bool
    directed: bool
    coupling: tuple[tuple[int, int], ...]
    operations: tuple[OperationFigures, ...]  # measure, reset and control flow among them
    qubits: tuple[QubitFigures, ...]  # (): no qubit has figures
    dynamic: bool
    dt_ns: float


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """Machine: its Target, and the other facts of its backend."""

    model: str  # name of the machine
    provider: str
    version: str
    technology: str
    max_shots: int  # largest number of shots of one run
    calibration_id: str  # "": none is known
    calibrated_s: float  # seconds since 1970; 0: not known
    target: TargetFigures


def describe(backend: Any, target: Target) -> MachineDescription:
    calibration_id, calibrated_s = _calibration(backend)
    provider = _word(getattr(getattr(backend, "provider", None), "name", ""))
    return MachineDescription(
        model=_word(getattr(backend, "name", "")) or type(backend).__name__,
        provider=provider or type(backend).__module__.partition(".")[0],
        version=_word(getattr(backend, "backend_version", "")),
        technology=_word(getattr(backend, "technology", "")) or _technology(backend),
        max_shots=max_shots(backend),
        calibration_id=calibration_id,
        calibrated_s=calibrated_s,
        target=figures(target),
    )


def figures(target: Target) -> TargetFigures:
    """Read a Target; seconds become ns and us, Hz become GHz."""
    count = target.num_qubits or 0
    pairs, everywhere = _pairs(target)
    every_pair = count > 1 and len(pairs) == count * (count - 1)
    all_to_all = everywhere or every_pair or count == 1
    named = [(name, target.operation_from_name(name)) for name in target.operation_names]
    return TargetFigures(
        num_qubits=count,
        gates=tuple(
            TargetGate(name, gate.num_qubits, len(gate.params))
            for name, gate in named
            if isinstance(gate, Gate)
        ),
        all_to_all=all_to_all,
        directed=not all_to_all and any((b, a) not in pairs for a, b in pairs),
        coupling=() if all_to_all else tuple(sorted(pairs)),
        operations=tuple(
            OperationFigures(
                name,
                () if qubits is None else tuple(qubits),
                _scaled(getattr(properties, "error", None)),
                _scaled(getattr(properties, "duration", None), 1e9),
            )
            for name in target.operation_names
            for qubits, properties in target[name].items()
        ),
        qubits=_qubits(target, count),
        dynamic=is_dynamic(target),
        dt_ns=_scaled(target.dt, 1e9),
    )


def _pairs(target: Target) -> tuple[set[tuple[int, int]], bool]:
    """Coupled pairs in the direction of their gates; True if a gate acts on any two qubits."""
    pairs: set[tuple[int, int]] = set()
    for name in target.operation_names:
        placed = target[name]
        if None in placed:
            operation = target.operation_from_name(name)
            if isinstance(operation, Gate) and operation.num_qubits == 2:
                return set(), True
            continue
        pairs |= {(qubits[0], qubits[1]) for qubits in placed if len(qubits) == 2}
    return pairs, False


def _qubits(target: Target, count: int) -> tuple[QubitFigures, ...]:
    """Figures of each qubit; () if neither the qubits nor their readout have any."""
    settings = target.qubit_properties or [None] * count
    readout = target["measure"] if "measure" in target.operation_names else {}
    results, has_figures = list[QubitFigures](), False
    for qubit in range(count):
        measured = None if None in readout else readout.get((qubit,))
        of_qubit = (("t1", 1e6), ("t2", 1e6), ("frequency", 1e-9))
        own = [_scaled(getattr(settings[qubit], name, None), factor) for name, factor in of_qubit]
        own.append(_scaled(getattr(measured, "error", None)))
        own.append(_scaled(getattr(measured, "duration", None), 1e9))
        has_figures = has_figures or not all(map(math.isnan, own))
        results.append(QubitFigures(*own))
    return tuple(results) if has_figures else ()


def _scaled(value: Any, factor: float = 1.0) -> float:
    is_number = isinstance(value, int | float) and not math.isnan(value)
    return float(value) * factor if is_number else UNKNOWN  # one NaN object: equality of figures


def _calibration(backend: Any) -> tuple[str, float]:
    """Id and time of the last calibration, if the backend keeps properties."""
    properties = getattr(backend, "properties", None)
    try:
        result = properties() if callable(properties) else properties
        when = getattr(result, "last_update_date", None)
    except Exception:  # noqa: BLE001  # a backend may raise anything; it works without
        return "", 0.0
    if not isinstance(when, datetime):
        return "", 0.0
    return when.isoformat(), when.timestamp()


def _technology(backend: Any) -> str:
    """Technology, if all machines of the provider are of one kind; "": not known."""
    roots = [kind.__module__.partition(".")[0] for kind in type(backend).__mro__]
    return next((_TECHNOLOGIES[root] for root in roots if root in _TECHNOLOGIES), "")


def _word(value: object) -> str:
    return value[:_WORD_CHARS] if isinstance(value, str) else ""


CARD = builtin_card("hardware")


class HardwareEngine:
    name = "hardware"

    def __init__(self, backend: Any) -> None:
        self.machine = Machine(backend)
        self._target: Target | None = None
        self._figures: TargetFigures | None = None

    @property
    def backend(self) -> Any:
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
        return not has_durations(circuit)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Transpile the structure for the machine; refuses by name operations that it lacks."""
        circuit_checks.check_request(CARD, circuit, noise, options)
        requests.check_run(circuit, options)
        result, target = measurements.measurement_layout(circuit), self.target
        refuse_what_is_missing(circuit, result, target, self.machine.name)
        return fitted(circuit, result, self.backend, target)

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
        requests.check_run(circuit, options)
        number = requests.num_bindings(circuit, request)
        branching = plan.ending.branching
        requests.check_outputs(CARD, request, plan.ending.measures, collapses=branching)
        control.check()
        if plan.target is not self.target:  # a new calibration, or other failed qubits
            plan = self.plan(circuit, None, options)
            assert isinstance(plan, TranspiledStructure)
        circuits = [
            bound(plan, circuit, requests.bind(circuit, request, row), self.backend)
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
        layouts = measurements.MeasurementLayouts(plan.ending, plan.ending)
        return EngineResult.joined([collect(state, layouts, request, key) for state in states])

    def _remark(self, plan: TranspiledStructure, circuits: int, shots: int) -> str:
        text = self.machine.name
        if plan.transpiled:
            text += f": transpiled (level {LEVEL}, seed {SEED})"
        elif plan.full_circuit is not None:
            text += ": as written"
        else:
            text += f": fitted to each binding (level {LEVEL}, seed {SEED})"
        jobs = self.machine.jobs(circuits, shots)
        return f"{text}, in {jobs} jobs" if jobs > 1 else text

    def warm_up(self) -> None:
        """Load the transpiler. Nothing is run on the machine."""
        with suppress(Unsupported):  # a machine of one qubit
            self.plan(bell(), None, RunOptions())
