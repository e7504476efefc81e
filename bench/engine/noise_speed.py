"""Circuits with a device's noise: trajectories and density matrix, compared with Aer's methods.

Noise follows each gate: depolarizing with parameter .0003 on one qubit and .003 on two ("dep"), or
the same with thermal relaxation in addition, T1 = T2 = 100 us over 35 and 300 ns ("relax"). Every
qubit is measured with readout error. Ours is the faster of the engines `statevector` (trajectories)
and, up to 12 qubits, `densitymatrix`, including planning. Aer's methods are its density matrix (up
to 12 qubits), its state vector (measured with few shots and extrapolated by its slope), and its
state vector with shot branching, which is off by default. Times are seconds of one thread. A second
table has ten times the errors of "dep", so that shots share little: seconds a shot, from 12 qubits.
A third has circuits of a device with 8 qubits, planning included, with one more component of noise
each: dephasing by detunings (T2*), leakage, jumps of T1, memory error.

Where our trajectories are expected to take longer than `--ours-s`, they run for a tenth of the
shots, and ten times that is an upper bound (more shots share more), marked "<="; cases whose tenth
is expected to take longer, too, and those in which Aer's branching is expected to take longer than
`--branching-s`, are left out. Branching is also left out where a tenth of the shots takes it longer
than Aer's density matrix takes for all.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.circuits import brickwork, engine_circuit, measured, wide_circuit
from bench.harness import SEED, Option, Report, installed, repeated_s, timed_s
from bench.harness.kernels import load_kernels

ONE, TWO = 3e-4, 3e-3  # depolarizing parameters
RELAXATION_US, ONE_NS, TWO_NS = 100.0, 35.0, 300.0
P01, P10 = 0.01, 0.02
DENSITY_QUBITS = 12
BRICKWORK_GATES = 200  # about
# Aer's slope is measured from this number of shots to three times as many.
FEW_SHOTS, FEW_WIDE_SHOTS, WIDE_QUBITS = 8, 2, 16
BRANCHED_QUBITS = 12  # below this width branching is slower than Aer's default
MANY_ERRORS, MANY_ERRORS_SHOTS = 10.0, 1_000
PART = 10  # a tenth of the shots bounds the time of all
LONG_S = 5.0  # calls that take longer are timed at once: loading takes no part of it that counts
CALLS = 5  # repetitions of each stage in `_stages`; the fastest counts
CLOCK = time.process_time
_SLOPES: dict[tuple[str, int, bool, float], tuple[float, float]] = {}
OPTIONS = (
    Option("--qubits", nargs="+", default=[5, 8, 12, 16, 20], quick=[5, 8]),
    Option(
        "--circuits", nargs="+", default=["ansatz", "tfim", "qft", "brickwork"], quick=["ansatz"]
    ),
    Option("--shots", nargs="+", default=[1_000, 100_000], quick=[1_000]),
    Option("--ours-s", default=300.0, quick=50.0),
    Option("--branching-s", default=1_000.0, quick=100.0),
    SEED,
)
DEVICE_QUBITS, DEVICE_CIRCUITS, DEVICE_LAYERS, DEVICE_SHOTS = 8, 10, 10, 1_000
COMPONENTS = {  # of the device: the goal and what it measures
    "t2_star": "with detunings (T2*)",
    "leakage": "with leakage",
    "t1_jumps": "with a jump of T1",
    "memory": "with a memory error",
}
GOALS = {
    "small_100k_times": "5-12 qubits, 100,000 shots: times as fast as Aer's best method, least",
    "small_1k_times": "5-12 qubits, 1,000 shots: times as fast as Aer's best method, least",
    "branching_dep_times": "16, 20 qubits, dep, 1,000 shots: times as fast as branching, least",
    "branching_relax_times": "16, 20 qubits, relax, 1,000 shots: times as fast as branching, least",
    "vector_1k_dep_times": "20 qubits, dep, 1,000 shots: times as fast as Aer's vector, least",
    "vector_1k_relax_times": "20 qubits, relax, 1,000 shots: times as fast as Aer's vector, least",
    "vector_100k_dep_times": "20 qubits, dep, 100,000 shots: times as fast as Aer's vector, least",
    "vector_100k_relax_times": "20 qubits, relax, 100,000 shots: times as fast as Aer, least",
    "many_errors_times": "12-20 qubits, dep, ten times the errors: a shot, times as fast, least",
}


def run(options: Namespace) -> Report:
    report = Report("noise_speed", "noise: our engines and Aer's methods, CPU seconds, one thread")
    load_kernels()
    aer = installed("qiskit_aer")
    worst: dict[str, float] = {}  # least ratio of each goal
    _stages(report)
    _components(report)
    print("\ncircuit  qubits noise   shots      ours  engine         density    vector branching")
    cases = itertools.product(options.circuits, options.qubits, (False, True), options.shots)
    for name, num_qubits, relax, shots in cases:
        _line(_Case(name, num_qubits, relax, shots, options), worst, aer=aer)
    if aer and MANY_ERRORS_SHOTS in options.shots:
        print("\nten times the errors of dep: circuit  qubits  ours, s a shot  Aer's vector")
        for name, num_qubits in itertools.product(options.circuits, options.qubits):
            if num_qubits >= BRANCHED_QUBITS:
                shots = MANY_ERRORS_SHOTS
                case = _Case(name, num_qubits, False, shots, options, MANY_ERRORS)
                value, peer = _ours(case)[0] / shots, _aer_slope(case)[0]
                print(f"{name:10}{num_qubits:5}{value:10.4g}{peer:10.4g}", flush=True)
                _note(worst, "many_errors_times", peer, value)
    for key, label in GOALS.items():
        if key in worst:
            report.at_least(key, worst[key], label)
        else:
            report.not_measured(
                key, label, "no line of this run shows it; see --ours-s, --branching-s"
            )
    return report


def _note(worst: dict[str, float], key: str, peer_s: float | None, ours_s: float) -> None:
    """Note the least of a goal's ratios; ours is NaN where it would take too long."""
    if peer_s is not None and not math.isnan(ours_s):
        worst[key] = min(worst.get(key, np.inf), peer_s / ours_s)


class _Case:
    """One circuit with noise, for our engines and for Aer."""

    def __init__(
        self,
        name: str,
        num_qubits: int,
        relax: bool,
        shots: int,
        options: Namespace,
        scale: float = 1.0,
    ) -> None:
        """`scale`: of all errors but those of readout."""
        self.name, self.num_qubits, self.relax = name, num_qubits, relax
        self.shots, self.scale = shots, scale
        self.ours_s, self.branching_s = options.ours_s, options.branching_s
        if name == "brickwork":
            depth = round(BRICKWORK_GATES / (1.5 * num_qubits))
            gates = brickwork(num_qubits, depth, options.seed)
        else:
            gates = wide_circuit(name, num_qubits, options.seed)
        self.source = measured(num_qubits, gates)
        self.circuit = engine_circuit(self.source)
        self.noise = noise_program(self.circuit, relax=relax, scale=scale)
        self.few_shots = FEW_SHOTS if num_qubits < WIDE_QUBITS else FEW_WIDE_SHOTS


def _line(case: _Case, worst: dict[str, float], *, aer: bool) -> None:
    value, engine = _ours(case)
    result = _aer_seconds(case) if aer else {}
    text = "".join(f"{result.get(key, float('nan')):10.3g}" for key in ("density", "vector", "br"))
    noise = "relax" if case.relax else "dep"
    start = f"{case.name:10}{case.num_qubits:5} {noise:6}{case.shots:8}"
    print(f"{start}{value:10.4g}  {engine:14}{text}", flush=True)
    size = {1_000: "1k", 100_000: "100k"}.get(case.shots)
    if case.num_qubits <= DENSITY_QUBITS and result:
        if size is not None:
            _note(worst, f"small_{size}_times", min(result.values()), value)
    elif case.num_qubits in (16, 20) and size == "1k":
        _note(worst, f"branching_{noise}_times", result.get("br"), value)
    if case.num_qubits == 20 and size is not None:
        _note(worst, f"vector_{size}_{noise}_times", result.get("vector"), value)


def _ours(case: _Case) -> tuple[float, str]:
    """Return the seconds and the name of the faster engine; NaN where it would take too long."""
    from simulators import registry
    from simulators.engine import Request, RunControl, RunOptions

    results: list[tuple[float, str]] = []
    names = ["statevector"] + ["densitymatrix"] * (case.num_qubits <= DENSITY_QUBITS)
    for name in names:
        engine = registry.create(name)

        def call(shots: int, engine: Any = engine) -> None:
            plan = engine.plan(case.circuit, case.noise, RunOptions())
            engine.run(plan, case.circuit, Request(shots, 1), RunOptions(), RunControl())

        few = min(case.shots, 100)
        call(few)  # load and compile kernels
        # Trajectories of more shots share more: an upper bound.
        bound = timed_s(lambda call=call, few=few: call(few), CLOCK)
        if name == "statevector":
            bound *= case.shots / few
        if bound <= case.ours_s:
            results.append((timed_s(lambda call=call: call(case.shots), CLOCK), name))
        elif name == "statevector" and bound <= PART * case.ours_s:
            part = case.shots // PART
            seconds = timed_s(lambda call=call, part=part: call(part), CLOCK)
            results.append((PART * seconds, f"<= {name}"))
    return min(results, default=(float("nan"), "(too long)"))


def _aer_seconds(case: _Case) -> dict[str, float]:
    """Return the seconds of each of Aer's methods that is not expected to take too long."""
    entries = {}
    if case.num_qubits <= DENSITY_QUBITS:
        density = _aer_call(case, case.shots, method="density_matrix")
        seconds = timed_s(density, CLOCK)  # the first call loads
        entries["density"] = seconds if seconds > LONG_S else timed_s(density, CLOCK)
    slope, base = _aer_slope(case)
    entries["vector"] = base + slope * (case.shots - case.few_shots)
    if case.num_qubits >= BRANCHED_QUBITS and entries["vector"] <= case.branching_s:
        branching = {"shot_branching_enable": True, "shot_branching_sampling_enable": True}
        part_s = timed_s(_aer_call(case, case.shots // PART, **branching), CLOCK)
        if part_s < entries.get("density", math.inf):
            entries["br"] = timed_s(_aer_call(case, case.shots, **branching), CLOCK)
    return entries


def _aer_call(
    case: _Case, shots: int, method: str = "statevector", **settings: Any
) -> Callable[[], object]:
    """Return a run of Aer."""
    from qiskit_aer import AerSimulator

    noise = aer_noise(relax=case.relax, scale=case.scale)
    engine = AerSimulator(method=method, noise_model=noise, max_parallel_threads=1, **settings)
    return lambda: engine.run(case.source, shots=shots).result().get_counts(0)


def _aer_slope(case: _Case) -> tuple[float, float]:
    """Return the seconds that one more shot takes Aer's state vector, and those of few shots."""
    key = (case.name, case.num_qubits, case.relax, case.scale)
    if key not in _SLOPES:
        few = _aer_call(case, case.few_shots)
        few()
        base = timed_s(few, CLOCK)
        more_s = timed_s(_aer_call(case, 3 * case.few_shots), CLOCK)
        _SLOPES[key] = max((more_s - base) / (2 * case.few_shots), 0.0), base
    return _SLOPES[key]


def aer_noise(*, relax: bool, scale: float) -> Any:
    """Return Aer's model of the noise."""
    from qiskit_aer import noise

    result = noise.NoiseModel()
    error_1q = noise.depolarizing_error(scale * ONE, 1)
    error_2q = noise.depolarizing_error(scale * TWO, 2)
    if relax:
        time_us = RELAXATION_US / scale
        single = noise.thermal_relaxation_error(time_us, time_us, 1e-3 * ONE_NS)
        pair = noise.thermal_relaxation_error(time_us, time_us, 1e-3 * TWO_NS)
        error_1q, error_2q = error_1q.compose(single), error_2q.compose(pair.tensor(pair))
    result.add_all_qubit_quantum_error(error_1q, ["h", "x", "rx", "ry", "rz", "u"])
    result.add_all_qubit_quantum_error(error_2q, ["cx", "cz", "cp", "rzz", "swap"])
    result.add_all_qubit_readout_error(noise.ReadoutError([[1 - P01, P01], [P10, 1 - P10]]))
    return result


def noise_program(circuit: Any, *, relax: bool, scale: float = 1.0) -> Any:
    """Return the noise of Aer's model as a noise program of our engines."""
    from noise_models.channel import Readout, depolarizing, relaxation, tensor
    from simulators.circuit.noise import NoiseProgram

    channel_1q, channel_2q = depolarizing(scale * ONE, 1), depolarizing(scale * TWO, 2)
    if relax:
        time_us = RELAXATION_US / scale
        channel_1q = channel_1q.then(relaxation(ONE_NS, time_us, time_us))
        pair = relaxation(TWO_NS, time_us, time_us)
        channel_2q = channel_2q.then(tensor(pair, pair))
    rows = []
    at = 0
    for k, (code, count) in enumerate(circuit.table.rows[circuit.ops, :2].tolist()):
        wires = circuit.qubits[at : at + count].tolist()
        at += count
        if circuit.table.names[circuit.ops[k]] != "measure" and code and count <= 2:
            rows.append((k, count - 1, wires[0], wires[1] if count == 2 else -1))
    size = circuit.num_qubits
    return NoiseProgram(
        f"{relax} {scale}".encode(),
        frozenset({"kraus", "pauli", "readout"}),
        np.array(rows, np.int64),
        (channel_1q, channel_2q),
        Readout(np.full(size, P01), np.full(size, P10)),
    )


def _components(report: Report) -> None:
    """Time trajectories of a device with one more component of noise."""
    print(f"\na device of {DEVICE_QUBITS} qubits, {DEVICE_CIRCUITS} circuits, seconds")
    plain_s = _device_s("")
    print(f"{'plain':10}{plain_s:10.4g}", flush=True)
    for name, label in COMPONENTS.items():
        seconds = _device_s(name)
        print(f"{name:10}{seconds:10.4g}", flush=True)
        what = f"{DEVICE_QUBITS} qubits, {DEVICE_SHOTS:,} shots {label}: times the time without"
        report.at_most(f"{name}_times", seconds / plain_s, what)


def _device_s(component: str) -> float:
    """Return the seconds of all circuits of the device with this component, planning included."""
    from noise_models.build import build
    from noise_models.model import NoiseOptions
    from simulators import registry
    from simulators.circuit.passes.attach_noise import attach_noise
    from simulators.engine import Request, RunControl, RunOptions

    circuits = [engine_circuit(_device_circuit(k)) for k in range(DEVICE_CIRCUITS)]
    model = build(_device(component), NoiseOptions())
    cases = [(circuit, attach_noise(circuit, model)) for circuit in circuits]
    engine, options = registry.create("statevector"), RunOptions()

    def call() -> None:
        for circuit, noise in cases:
            plan = engine.plan(circuit, noise, options)
            engine.run(plan, circuit, Request(DEVICE_SHOTS, 1), options, RunControl())

    call()  # load and compile kernels
    return min(repeated_s(call, CALLS, CLOCK))


def _device_circuit(seed: int) -> Any:
    """Layers of rotations of each qubit by two half turns, and of CX on neighbours."""
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(DEVICE_QUBITS, DEVICE_QUBITS)
    angles = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, (DEVICE_LAYERS, DEVICE_QUBITS))
    for layer, of_qubits in enumerate(angles.tolist()):
        for qubit, angle in enumerate(of_qubits):
            circuit.sx(qubit)
            circuit.rz(angle, qubit)
            circuit.sx(qubit)
        for qubit in range(layer % 2, DEVICE_QUBITS - 1, 2):
            circuit.cx(qubit, qubit + 1)
    circuit.measure(range(DEVICE_QUBITS), range(DEVICE_QUBITS))
    return circuit


def _device(component: str) -> Any:
    """Return the calibration of a line of qubits with one more component of noise; "": none."""
    from noise_models.calibration import (
        CalibrationSnapshot,
        GateCalibration,
        NativeGate,
        QubitCalibration,
        T1Jumps,
    )

    rng = np.random.default_rng(0)
    more: dict[str, dict[str, Any]] = {
        "t1_jumps": {"t1_jumps": T1Jumps(1.0, 600.0, 0.2, low=True)},
        "memory": {"memory_error": 2e-4},
    }
    qubits = []
    for _ in range(DEVICE_QUBITS):
        t1_us = float(rng.uniform(80.0, 150.0))
        t2_us = t1_us * float(rng.uniform(0.6, 1.4))
        own = {"t2_star_us": 0.4 * t2_us} if component == "t2_star" else more.get(component, {})
        qubits.append(QubitCalibration(t1_us=t1_us, t2_us=t2_us, p01=P01, p10=P10, **own))
    leaks = {"leakage": 5e-4, "seepage": 0.05} if component == "leakage" else {}
    return CalibrationSnapshot(
        "line", DEVICE_QUBITS, qubits=tuple(qubits),
        native_gates=(NativeGate("sx", 1), NativeGate("cx", 2), NativeGate("rz", 1)),
        coupling=tuple((k, k + 1) for k in range(DEVICE_QUBITS - 1)),
        gates=(
            GateCalibration("sx", (), 3e-4, ONE_NS, **leaks),
            GateCalibration("cx", (), 6e-3, TWO_NS, **leaks),
            GateCalibration("rz", (), 0.0, 0.0),
        ),
    )  # fmt: skip


def _stages(report: Report) -> None:
    """Time the stages of trajectories with 100,000 shots apart from the evolution of states."""
    from simulators.circuit.analysis.measurements import measurement_layout
    from simulators.engine import RunOptions
    from simulators.execution.readout import ReadoutStage
    from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
    from simulators.statevector.trajectories.walks import TrajectorySampler
    from simulators.trajectories.locations import locate
    from simulators.trajectories.pattern_sampling import draw_patterns, sort_places

    shots = 100_000
    circuit = engine_circuit(measured(20, wide_circuit("ansatz", 20, 1)))
    noise = noise_program(circuit, relax=True)
    located = locate(circuit, noise)
    assert located is not None
    places = TrajectorySampler(located.circuit, located.table, RunOptions()).places
    rules = FrameRules.of(located.circuit)
    stage = ReadoutStage.of(measurement_layout(circuit), noise.readout)
    assert stage is not None
    records = np.random.default_rng(0).integers(0, 1 << 20, (shots, 1)).astype(np.uint64)

    def patterns() -> None:
        drawn = draw_patterns(located.errors, 0, shots, (1, 0), np.arange(places.size))
        sort_places(carry(drawn, located.table, rules, places).patterns, places.size)

    def readout() -> None:
        stage.flip(records, 0, (1, 0))

    best = [min(repeated_s(call, CALLS, CLOCK)) for call in (patterns, readout)]
    what = "20 qubits, 100,000 shots, ms"
    report.at_most("stages_ms", 1e3 * sum(best), f"patterns, their classes and readout: {what}")
    report.at_most("readout_ms", 1e3 * best[1], f"readout alone: {what}")
