"""Circuits with a device's noise: trajectories and density matrix, compared with Aer's methods.

Noise follows each gate: depolarizing with parameter .0003 on one qubit and .003 on two ("dep"), or
the same with thermal relaxation in addition, T1 = T2 = 100 us over 35 and 300 ns ("relax"). Every
qubit is measured with readout error. Ours is the faster of the engines `statevector` (trajectories)
and, up to 12 qubits, `densitymatrix`, including planning. Aer's methods are its density matrix (up
to 10 qubits), its state vector (measured with few shots and extrapolated by its slope), and its
state vector with shot branching, which is off by default. Times are seconds of one thread. A second
table has ten times the errors of "dep", so that shots share little: seconds a shot, from 12 qubits.

    python -m bench run noise_speed [--qubits 5 8 12 16 20] [--circuits ansatz tfim qft]
        [--shots 1000 100000] [--most-s 60] [--many-errors]

`--most-s`: cases expected to take longer are left out; goals that need them are not measured.
`--many-errors`: the second table alone.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.circuits import measured, wide_circuit
from bench.harness.kernels import load_kernels
from bench.harness.options import Option
from bench.harness.report import Report, installed
from bench.harness.timing import clock_of, timed_s
from bench.peers.base import Gate

if TYPE_CHECKING:
    from simulators.circuit.ir import Circuit
    from simulators.circuit.noise import NoiseProgram

ONE, TWO = 3e-4, 3e-3  # depolarizing parameters
RELAXATION_US, ONE_NS, TWO_NS = 100.0, 35.0, 300.0
P01, P10 = 0.01, 0.02
DENSITY_QUBITS, AER_DENSITY_QUBITS = 12, 10
FEW_SHOTS = 8  # Aer's slope is measured from this number to three times as many
BRANCHED_QUBITS = 12  # below this width branching is slower than Aer's default
MANY_ERRORS, MANY_ERRORS_SHOTS = 10.0, 1_000
CALLS = 5  # repetitions of each stage in `_stages`; the fastest counts
OPTIONS = (
    Option("--qubits", type=int, nargs="+", default=[5, 8, 12, 16, 20], quick=[5, 8]),
    Option("--circuits", nargs="+", default=["ansatz", "tfim", "qft"], quick=["ansatz"]),
    Option("--shots", type=int, nargs="+", default=[1_000, 100_000], quick=[1_000]),
    Option("--most-s", type=float, default=60.0, quick=10.0),
    Option("--many-errors", action="store_true"),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("noise_speed", "noise: our engines and Aer's methods, CPU seconds, one thread")
    load_kernels()
    aer = installed("qiskit_aer")
    worst: dict[str, float] = {}
    if not options.many_errors:
        _stages(report)
        _table(options, worst, aer=aer)
    if aer:
        _many_errors(options, worst)
    for key, label in GOALS.items():
        if key in worst:
            report.at_least(key, worst[key], label)
        elif not options.many_errors:
            report.not_measured(key, label, "no line of this run shows it; see --most-s")
    return report


def _table(options: Namespace, worst: dict[str, float], *, aer: bool) -> None:
    """Print the table of all cases; note the least ratios of each goal."""
    print("\ncircuit  qubits noise   shots      ours  engine         density    vector branching")
    for name in options.circuits:
        for num_qubits in options.qubits:
            for relax in (False, True):
                for shots in options.shots:
                    case = _Case(name, num_qubits, relax, shots, options.most_s)
                    _line(case, worst, aer=aer)


def _many_errors(options: Namespace, worst: dict[str, float]) -> None:
    """Print the seconds a shot with ten times the depolarizing errors; note the least ratio."""
    print("\nten times the errors of dep: circuit  qubits  ours, s a shot  Aer's vector")
    for name in options.circuits:
        for num_qubits in [n for n in options.qubits if n >= BRANCHED_QUBITS]:
            case = _Case(
                name, num_qubits, False, MANY_ERRORS_SHOTS, options.most_s, scale=MANY_ERRORS
            )
            value, peer = _ours(case)[0] / case.shots, _aer_slope(case)[0]
            print(f"{name:10}{num_qubits:5}{value:10.4g}{peer:10.4g}", flush=True)
            if value == value:
                key = "many_errors_times"
                worst[key] = min(worst.get(key, np.inf), peer / value)


GOALS = {
    "small_100k_times": "5-12 qubits, 100,000 shots: times as fast as Aer's best method, least",
    "small_1k_times": "5-12 qubits, 1,000 shots: times as fast as Aer's best method, least",
    "branching_dep_times": "16 and 20 qubits, dep: times as fast as Aer's branching, least",
    "branching_relax_times": "16 and 20 qubits, relax: times as fast as Aer's branching, least",
    "vector_1k_dep_times": "20 qubits, dep, 1,000 shots: times as fast as Aer's vector, least",
    "vector_1k_relax_times": "20 qubits, relax, 1,000 shots: times as fast as Aer's vector, least",
    "vector_100k_dep_times": "20 qubits, dep, 100,000 shots: times as fast as Aer's vector, least",
    "vector_100k_relax_times": "the same, relax",
    "many_errors_times": "12-20 qubits, dep, ten times the errors: a shot, times as fast, least",
}


class _Case:
    """One circuit with noise, for our engines and for Aer."""

    def __init__(
        self,
        name: str,
        num_qubits: int,
        relax: bool,
        shots: int,
        most_s: float,
        scale: float = 1.0,
    ) -> None:
        """`scale`: of all errors but those of readout."""
        self.name, self.num_qubits, self.relax = name, num_qubits, relax
        self.shots, self.most_s = shots, most_s
        self.gates = wide_circuit(name, num_qubits, 1)
        self.circuit = _circuit(num_qubits, self.gates)
        self.scale = scale
        self.noise = noise_program(self.circuit, relax=relax, scale=scale)


def _line(case: _Case, worst: dict[str, float], *, aer: bool) -> None:
    value, engine = _ours(case)
    result = _aer_seconds(case) if aer else {}
    text = "".join(f"{result.get(key, float('nan')):10.3g}" for key in ("density", "vector", "br"))
    noise = "relax" if case.relax else "dep"
    start = f"{case.name:10}{case.num_qubits:5} {noise:6}{case.shots:8}"
    print(f"{start}{value:10.4g}  {engine:14}{text}", flush=True)

    def note(key: str, seconds: float | None) -> None:
        if seconds is not None and value == value:
            worst[key] = min(worst.get(key, np.inf), seconds / value)

    kind = noise + "_times"
    if case.num_qubits <= DENSITY_QUBITS and result:
        size = {1_000: "1k", 100_000: "100k"}.get(case.shots)
        if size is not None:
            note(f"small_{size}_times", min(result.values()))
    elif case.num_qubits in (16, 20):
        note(f"branching_{kind}", result.get("br"))
    if case.num_qubits == 20 and case.shots in (1_000, 100_000):
        note(f"vector_{case.shots // 1_000}k_{kind}", result.get("vector"))


def _ours(case: _Case) -> tuple[float, str]:
    """Return the seconds and the name of the faster engine; NaN where it would take too long."""
    from simulators import registry
    from simulators.engine import Request, RunControl, RunOptions

    clock = clock_of(cpu=True)
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
        bound = timed_s(lambda call=call, few=few: call(few), clock) * (
            case.shots / few if name == "statevector" else 1.0
        )
        if bound <= 20 * case.most_s:
            results.append((timed_s(lambda call=call: call(case.shots), clock), name))
    return min(results, default=(float("nan"), "(too long)"))


def _aer_seconds(case: _Case) -> dict[str, float]:
    """Return the seconds of each of Aer's methods that is not expected to take too long."""
    clock, call = clock_of(cpu=True), _aer_calls(case)
    entries = {}
    if case.num_qubits <= AER_DENSITY_QUBITS:
        run_ = call(case.shots, method="density_matrix")
        run_()
        entries["density"] = timed_s(run_, clock)
    slope, base = _aer_slope(case)
    entries["vector"] = base + slope * (case.shots - FEW_SHOTS)
    if case.num_qubits >= BRANCHED_QUBITS and entries["vector"] <= 10 * case.most_s:
        entries["br"] = timed_s(
            call(
                case.shots,
                method="statevector",
                shot_branching_enable=True,
                shot_branching_sampling_enable=True,
            ),
            clock,
        )
    return entries


def _aer_calls(case: _Case) -> Callable[..., Callable[[], object]]:
    """Return a function of a number of shots and settings of Aer that returns a run."""
    from qiskit_aer import AerSimulator

    circuit = measured(case.num_qubits, case.gates)
    noise = _aer_noise(relax=case.relax, scale=case.scale)

    def call(shots: int, **settings: Any) -> Callable[[], object]:
        engine = AerSimulator(noise_model=noise, max_parallel_threads=1, **settings)
        return lambda: engine.run(circuit, shots=shots).result().get_counts(0)

    return call


def _aer_slope(case: _Case) -> tuple[float, float]:
    """Return the seconds that one more shot takes Aer's state vector, and those of FEW_SHOTS."""
    clock, call = clock_of(cpu=True), _aer_calls(case)
    few = call(FEW_SHOTS, method="statevector")
    few()
    base = timed_s(few, clock)
    slope = (timed_s(call(3 * FEW_SHOTS, method="statevector"), clock) - base) / (2 * FEW_SHOTS)
    return max(slope, 0.0), base


def _aer_noise(*, relax: bool, scale: float) -> Any:
    from qiskit_aer.noise import (
        NoiseModel,
        ReadoutError,
        depolarizing_error,
        thermal_relaxation_error,
    )

    result = NoiseModel()
    error_1q, error_2q = depolarizing_error(scale * ONE, 1), depolarizing_error(scale * TWO, 2)
    if relax:
        time_us = RELAXATION_US / scale
        single = thermal_relaxation_error(time_us, time_us, 1e-3 * ONE_NS)
        pair = thermal_relaxation_error(time_us, time_us, 1e-3 * TWO_NS)
        error_1q, error_2q = error_1q.compose(single), error_2q.compose(pair.tensor(pair))
    result.add_all_qubit_quantum_error(error_1q, ["h", "x", "rx", "ry", "rz", "u"])
    result.add_all_qubit_quantum_error(error_2q, ["cx", "cz", "cp", "rzz", "swap"])
    result.add_all_qubit_readout_error(ReadoutError([[1 - P01, P01], [P10, 1 - P10]]))
    return result


def noise_program(circuit: Circuit, *, relax: bool, scale: float = 1.0) -> NoiseProgram:
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


def _circuit(num_qubits: int, gates: list[Gate]) -> Circuit:
    """Return a circuit of the gates with all qubits measured."""
    from simulators.circuit.ir import CircuitData

    table: dict[tuple[str, int, int, int], int] = {}
    ops, qubits, params = [], [], []
    for name, wires, angles in gates:
        ops.append(table.setdefault((name, len(wires), 0, len(angles)), len(table)))
        qubits += wires
        params += angles
    ops += [table.setdefault(("measure", 1, 1, 0), len(table))] * num_qubits
    return CircuitData(
        num_qubits,
        num_qubits,
        (("c", num_qubits),),
        tuple(key[0] for key in table),
        np.array([key[1:] for key in table], np.uint16).tobytes(),
        np.array(ops, np.uint16).tobytes(),
        np.array([*qubits, *range(num_qubits)], np.uint16).tobytes(),
        np.arange(num_qubits, dtype=np.uint16).tobytes(),
        np.array(params, np.float64).tobytes(),
    ).circuit()


def _stages(report: Report) -> None:
    """Time the stages of trajectories with 100,000 shots apart from the evolution of states."""
    from simulators.circuit.analysis.measurements import measurement_layout
    from simulators.engine import RunOptions
    from simulators.execution.readout import ReadoutStage
    from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
    from simulators.statevector.trajectories.sampler import TrajectorySampler
    from simulators.trajectories.locations import locate
    from simulators.trajectories.pattern_sampling import draw_patterns, sort_places

    clock, shots = clock_of(cpu=True), 100_000
    circuit = _circuit(20, wide_circuit("ansatz", 20, 1))
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

    best = [min(timed_s(call, clock) for _ in range(CALLS)) for call in (patterns, readout)]
    what = "20 qubits, 100,000 shots, ms"
    report.at_most("stages_ms", 1e3 * sum(best), f"patterns, their classes and readout: {what}")
    report.at_most("readout_ms", 1e3 * best[1], f"readout alone: {what}")
