"""Circuits with noise on one thread, compared with Aer's methods, pauli-prop and exact values."""

from __future__ import annotations

import itertools
import math
import os
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np

from bench import circuits as shapes
from bench.harness import SEED, THREADS, Report, benchmark, installed, repeated_s, timed, timed_s
from bench.harness.kernels import load_kernels
from bench.peers.base import Gate
from noise_models import library
from noise_models.build import build
from noise_models.calibration import T1Jumps
from noise_models.channel import Readout, depolarizing, from_unitary, relaxation, tensor
from noise_models.options import NoiseOptions
from simulators import registry
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.ir import operations
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import PauliSum, Request, RunControl, RunOptions
from simulators.errors import TruncatedState
from simulators.execution.readout import ReadoutStage
from simulators.simulate import simulate
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.statevector.trajectories.walks import TrajectorySampler
from simulators.strings.program import program_of
from simulators.strings.propagation import Cuts, Propagation
from simulators.trajectories.locations import locate
from simulators.trajectories.pattern_order import sort_places
from simulators.trajectories.pattern_sampling import draw_patterns
from testbed import drawn_devices as drawn

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
CALLS = 5  # repetitions of each stage; the fastest counts
CLOCK = time.process_time
DEVICE_QUBITS, DEVICE_CIRCUITS, DEVICE_LAYERS, DEVICE_SHOTS = 8, 10, 10, 1_000
COMPONENTS = ("t2_star", "leakage", "t1_jumps", "memory")  # of the device


@benchmark(qubits=([5, 8, 12, 16, 20], [5, 8]), shots=([1_000, 100_000], [1_000]),
           circuits=(["ansatz", "tfim", "qft", "brickwork"], ["ansatz"]), ours_s=(300.0, 50.0),
           branching_s=(1_000.0, 100.0), seed=SEED)  # fmt: skip
def noise_speed(report: Report, options: Namespace) -> None:
    """Circuits with a device's noise: trajectories and density matrix, compared with Aer's methods.

    Noise follows each gate: depolarizing with parameter .0003 on one qubit and .003 on two ("dep"),
    or thermal relaxation in addition ("relax"), and readout error. Ours is the faster of the
    engines `statevector` and, up to 12 qubits, `densitymatrix`, planning included; Aer's are its
    density matrix (up to 12 qubits), its state vector (extrapolated from few shots by its slope),
    and its state vector with shot branching. Seconds of one thread. Then ten times the errors of
    "dep", so that shots share little; and a device of 8 qubits with one more component each.

    Where our trajectories are expected to take longer than `--ours-s`, they run for a tenth of the
    shots, and ten times that is an upper bound, since more shots share more; cases whose tenth
    takes longer, too, and those in which Aer's branching is expected to take longer than
    `--branching-s`, or than its density matrix for a tenth, are left out.
    """
    load_kernels()
    aer = installed("qiskit_aer")
    worst: dict[str, float] = {}  # least ratio of each goal

    def note(key: str, peer_s: float | None, ours_s: float) -> None:
        if peer_s is not None and not math.isnan(ours_s):
            worst[key] = min(worst.get(key, np.inf), peer_s / ours_s)

    _stages(report)
    plain_s = _device_s("")
    for name in COMPONENTS:
        report.at_most(f"{name}_times", _device_s(name) / plain_s)
    for case in itertools.product(options.circuits, options.qubits, (False, True), options.shots):
        each = _Case(*case, options)
        value, engine = each.ours()
        theirs = each.aer() if aer else {}
        noise, size = ("dep", "relax")[each.relax], {1_000: "1k", 100_000: "100k"}.get(each.shots)
        text = ", ".join(f"{name} {seconds:.3g}" for name, seconds in theirs.items())
        print(f"{case[0]} {case[1]} {noise} {case[3]}: {engine} {value:.3g} s; {text}", flush=True)
        if each.num_qubits <= DENSITY_QUBITS and theirs and size:
            note(f"small_{size}_times", min(theirs.values()), value)
        elif each.num_qubits in (16, 20) and size == "1k":
            note(f"branching_{noise}_times", theirs.get("branching"), value)
        if each.num_qubits == 20 and size:
            note(f"vector_{size}_{noise}_times", theirs.get("vector"), value)
    many = itertools.product(options.circuits, options.qubits) if aer else ()
    for name, n in many if MANY_ERRORS_SHOTS in options.shots else ():
        if n >= BRANCHED_QUBITS:
            each = _Case(name, n, False, MANY_ERRORS_SHOTS, options, MANY_ERRORS)
            value, peer = each.ours()[0] / MANY_ERRORS_SHOTS, each.slope()[0]
            print(
                f"ten times the errors, {name} {n}: {value:.4g} s a shot, Aer's vector {peer:.4g}"
            )
            note("many_errors_times", peer, value)
    for key, value in worst.items():
        report.at_least(key, value)
    report.none_measured("no line of this run shows it; see --ours-s, --branching-s")


class _Case:
    """One circuit with noise, for our engines and for Aer. `scale`: of all errors but readout's."""

    _slopes: dict[tuple[str, int, bool, float], tuple[float, float]] = {}  # noqa: RUF012

    def __init__(
        self, name: str, num_qubits: int, relax: bool, shots: int, options: Namespace,
        scale: float = 1.0,
    ) -> None:  # fmt: skip
        self.num_qubits, self.relax, self.shots, self.options = num_qubits, relax, shots, options
        self.key = name, num_qubits, relax, scale
        if name == "brickwork":
            depth = round(BRICKWORK_GATES / (1.5 * num_qubits))
            gates = shapes.brickwork(num_qubits, depth, options.seed)
        else:
            gates = shapes.wide_circuit(name, num_qubits, options.seed)
        self.source = shapes.measured(num_qubits, gates)
        self.circuit = shapes.engine_circuit(self.source)
        self.noise = noise_program(self.circuit, relax=relax, scale=scale)

    def ours(self) -> tuple[float, str]:
        """Return the seconds and the name of the faster engine; NaN where it takes too long."""
        results: list[tuple[float, str]] = []
        limit_s = self.options.ours_s
        for name in ("statevector", "densitymatrix")[: 1 + (self.num_qubits <= DENSITY_QUBITS)]:
            engine = registry.create(name)

            def call(shots: int, engine: Any = engine) -> None:
                plan = engine.plan(self.circuit, self.noise, RunOptions())
                engine.run(plan, self.circuit, Request(shots, 1), RunOptions(), RunControl())

            few = min(self.shots, 100)
            call(few)  # load and compile kernels
            bound = timed_s(partial(call, few), CLOCK)  # trajectories of more shots share more
            if name == "statevector":
                bound *= self.shots / few
            if bound <= limit_s:
                results.append((timed_s(partial(call, self.shots), CLOCK), name))
            elif name == "statevector" and bound <= PART * limit_s:
                part_s = timed_s(partial(call, self.shots // PART), CLOCK)
                results.append((PART * part_s, f"<= {name}"))
        return min(results, default=(float("nan"), "(too long)"))

    def aer(self) -> dict[str, float]:
        """Return the seconds of each of Aer's methods that is not expected to take too long."""
        entries = {}
        if self.num_qubits <= DENSITY_QUBITS:
            density = self._run(self.shots, method="density_matrix")
            seconds = timed_s(density, CLOCK)  # the first call loads
            entries["density"] = seconds if seconds > LONG_S else timed_s(density, CLOCK)
        slope, base = self.slope()
        entries["vector"] = base + slope * (self.shots - self._few)
        if self.num_qubits >= BRANCHED_QUBITS and entries["vector"] <= self.options.branching_s:
            how = {"shot_branching_enable": True, "shot_branching_sampling_enable": True}
            part_s = timed_s(self._run(self.shots // PART, **how), CLOCK)
            if part_s < entries.get("density", math.inf):
                entries["branching"] = timed_s(self._run(self.shots, **how), CLOCK)
        return entries

    @property
    def _few(self) -> int:
        return FEW_SHOTS if self.num_qubits < WIDE_QUBITS else FEW_WIDE_SHOTS

    def slope(self) -> tuple[float, float]:
        """Return the seconds that one more shot takes Aer's vector, and those of few shots."""
        if self.key not in self._slopes:
            self._run(self._few)()
            base = timed_s(self._run(self._few), CLOCK)
            more_s = timed_s(self._run(3 * self._few), CLOCK)
            self._slopes[self.key] = max((more_s - base) / (2 * self._few), 0.0), base
        return self._slopes[self.key]

    def _run(self, shots: int, method: str = "statevector", **how: Any) -> Callable[[], object]:
        from qiskit_aer import AerSimulator

        noise = aer_noise(relax=self.relax, scale=self.key[3])
        engine = AerSimulator(method=method, noise_model=noise, max_parallel_threads=1, **how)
        return lambda: engine.run(self.source, shots=shots).result().get_counts(0)


def aer_noise(*, relax: bool, scale: float) -> Any:
    from qiskit_aer import noise

    result = noise.NoiseModel()
    one, two = (noise.depolarizing_error(scale * p, k) for k, p in enumerate((ONE, TWO), 1))
    if relax:
        t_us = RELAXATION_US / scale
        single, pair = (
            noise.thermal_relaxation_error(t_us, t_us, 1e-3 * ns) for ns in (ONE_NS, TWO_NS)
        )
        one, two = one.compose(single), two.compose(pair.tensor(pair))
    result.add_all_qubit_quantum_error(one, ["h", "x", "rx", "ry", "rz", "u"])
    result.add_all_qubit_quantum_error(two, ["cx", "cz", "cp", "rzz", "swap"])
    result.add_all_qubit_readout_error(noise.ReadoutError([[1 - P01, P01], [P10, 1 - P10]]))
    return result


def noise_program(circuit: Any, *, relax: bool, scale: float = 1.0) -> NoiseProgram:
    """Return the noise of Aer's model as a noise program of our engines."""
    one, two = depolarizing(scale * ONE, 1), depolarizing(scale * TWO, 2)
    if relax:
        t_us = RELAXATION_US / scale
        single, pair = relaxation(ONE_NS, t_us, t_us), relaxation(TWO_NS, t_us, t_us)
        one, two = one.then(single), two.then(tensor(pair, pair))
    rows = [(op.place, len(op.qubits) - 1, *op.qubits, *(-1,) * (2 - len(op.qubits)))
            for op in operations(circuit, circuit.params) if op.is_gate]  # fmt: skip
    flips = Readout(np.full(circuit.num_qubits, P01), np.full(circuit.num_qubits, P10))
    kinds, name = frozenset({"kraus", "pauli", "readout"}), f"{relax} {scale}".encode()
    return NoiseProgram(name, kinds, np.array(rows, np.int64), (one, two), flips)


def _device_s(component: str) -> float:
    """Return the seconds of the circuits of a device with one more component of noise; "": none."""
    device = drawn.device(np.random.default_rng(0), DEVICE_QUBITS)
    if component == "t2_star":
        device = drawn.with_t2_star(device, 0.4)
    more: dict[str, dict[str, Any]] = {
        "t1_jumps": {"t1_jumps": T1Jumps(1.0, 600.0, 0.2, low=True)},
        "memory": {"memory_error": 2e-4},
    }
    leaks = {"leakage": 5e-4, "seepage": 0.05} if component == "leakage" else {}
    changed, own = msgspec.structs.replace, more.get(component, {})
    device = changed(
        device, qubits=tuple(changed(each, **own) for each in device.qubits),
        gates=tuple(changed(each, **leaks) if each.error else each for each in device.gates),
    )  # fmt: skip
    sources = (shapes.measured(DEVICE_QUBITS, _native(k)) for k in range(DEVICE_CIRCUITS))
    circuits = [shapes.engine_circuit(source) for source in sources]
    model = build(device, NoiseOptions())
    cases = [(circuit, attach_noise(circuit, model)) for circuit in circuits]
    engine, options = registry.create("statevector"), RunOptions()

    def call() -> None:
        for circuit, noise in cases:
            plan = engine.plan(circuit, noise, options)
            engine.run(plan, circuit, Request(DEVICE_SHOTS, 1), options, RunControl())

    call()  # load and compile kernels
    return min(repeated_s(call, CALLS, CLOCK))


def _native(seed: int) -> list[Gate]:
    """Return layers of rotations of each qubit by two half turns, and of CZ on neighbours."""
    angles = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, (DEVICE_LAYERS, DEVICE_QUBITS))
    gates: list[Gate] = []
    for layer, of_qubits in enumerate(angles.tolist()):
        for qubit, angle in enumerate(of_qubits):
            gates += [("sx", (qubit,), ()), ("rz", (qubit,), (angle,)), ("sx", (qubit,), ())]
        gates += [("cz", (q, q + 1), ()) for q in range(layer % 2, DEVICE_QUBITS - 1, 2)]
    return gates


def _stages(report: Report) -> None:
    """Time the stages of trajectories with 100,000 shots apart from the evolution of states."""
    shots = 100_000
    circuit = shapes.engine_circuit(shapes.measured(20, shapes.wide_circuit("ansatz", 20, 1)))
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

    calls = patterns, lambda: stage.flip(records, 0, (1, 0))
    best = [min(repeated_s(call, CALLS, CLOCK)) for call in calls]
    report.seconds("stages_ms", sum(best))
    report.seconds("readout_ms", best[1])


# --- Pauli propagation ----------------------------------------------------------------------------


class Row(NamedTuple):
    """A comparison; `noise`: parameters p1 after rx and p2 after rzz."""

    observable: str
    steps: int
    angle: float
    eps: float
    noise: tuple[float, float] = (0.0, 0.0)


LOW, HIGH = (3e-4, 5e-3), (3e-4, 3e-2)
ROWS = (
    Row("w10", 5, 0.2, 1e-4), Row("w10", 5, 0.6, 1e-4), Row("w10", 5, 0.6, 1e-4, LOW),
    Row("w10", 5, 0.6, 1e-4, HIGH), Row("w10", 5, 1.2, 1e-4), Row("w17", 5, 1.2, 3e-4),
    Row("w17", 5, 1.2, 3e-4, LOW), Row("w17x", 5, 1.2, 3e-4), Row("w17", 5, 0.6, 1e-4),
    Row("Z62", 20, 0.2, 1e-4), Row("Z62", 20, 0.2, 1e-4, LOW), Row("Z62", 10, 0.6, 1e-4),
    Row("Z62", 10, 0.6, 1e-4, LOW), Row("Z62", 20, 0.6, 3e-4, LOW),
)  # fmt: skip
_W17 = (37, 41, 52, 56, 57, 58, 62, 79), (38, 40, 42, 63, 72, 80, 90, 91), 75
OBSERVABLES: dict[str, dict[int, str]] = {
    "Z62": {62: "Z"},
    "w10": dict(zip((13, 29, 31, 9, 30, 8, 12, 17, 28, 32), "XXXYYZZZZZ", strict=True)),
    "w17": {**dict.fromkeys(_W17[0], "X"), **dict.fromkeys(_W17[1], "Z"), _W17[2]: "Y"},
    "w17x": {**dict.fromkeys(_W17[0], "X"), **dict.fromkeys(_W17[1], "Y"), _W17[2]: "Z"},
}
# Values at angle pi / 2 and at 0, after so many steps.
CLIFFORD = {"Z62": (20, 0.0, 1.0), "w10": (5, 1.0, 0.0), "w17": (5, -1.0, 0.0), "w17x": (5, -1, 0)}
TURNED = "w17x"  # measured after one more layer of rx
KYIV = 127  # qubits
MOST_STRINGS = 2**26


@benchmark(rounds=(3, 1), rows=(list(range(len(ROWS))), [0, 3, 9, 10]), cases=(200, 20),
           steps=(5, 4), threads=THREADS, seed=SEED)  # fmt: skip
def pauli_propagation(report: Report, options: Namespace) -> None:
    """Pauli propagation, compared with pauli-prop and with exact values.

    Kicked Ising circuits on the lattice of ibm_kyiv, as in Kim et al., Nature 618, 500 (2023),
    without noise and with depolarizing channels. Both programs cut what is below eps, on one
    thread, and take turns; CPU seconds, the least of the rounds. At angles 0 and pi / 2 the
    circuits are Clifford circuits, with known values. The values of random circuits, of at most 14
    qubits, are exact by the density matrix or the statevector; the stated error of each of ours
    must contain them. All <Z> of the 156 qubits of fez, with every channel, are one request.
    """
    load_kernels()
    points = [(Row(name, steps, angle, 1e-9), value)
              for name, (steps, quarter, zero) in CLIFFORD.items()
              for angle, value in ((shapes.PI_2, quarter), (0.0, zero))]  # fmt: skip
    worst = max(abs(_propagated(row)[1].value - value) for row, value in points)
    report.at_most("clifford_error", worst)
    ratios: dict[bool, list[float]] = {False: [], True: []}
    held = []
    for row in (ROWS[k] for k in options.rows) if installed("pauli_prop") else ():
        times: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            seconds, found = _propagated(row)
            times[0].append(seconds)
            seconds, value, terms = _pauli_prop(row, max(4 * found.peak, 1_000))
            times[1].append(seconds)
        ours_s, theirs_s = map(min, times)
        ratios[any(row.noise)].append(theirs_s / ours_s)
        held.append(found.strings / terms)
        print(f"{row}: {ours_s:.3f} s, {found.strings:,} strings, {found.value:.5f};"
              f" pauli-prop {theirs_s:.3f} s, {terms:,}, {value:.5f}", flush=True)  # fmt: skip
    for noisy, key in ((False, "ideal_times"), (True, "noisy_times")):
        if ratios[noisy]:
            report.at_least(key, min(ratios[noisy]))
    if held:
        report.at_most("strings", max(held))
    randoms = (np.random.default_rng([options.seed, k]) for k in range(options.cases))
    inside = sum(_is_within(random, k) for k, random in enumerate(randoms))
    report.at_least("within", inside / options.cases)
    pairs = [pair for layer in shapes.disjoint_layers(shapes.device_pairs("fez")) for pair in layer]
    circuit = shapes.engine_circuit(
        shapes.built(156, shapes.kicked_native(range(156), pairs, options.steps, 0.6))
    )
    labels = ["I" * (155 - q) + "Z" + "I" * q for q in range(156)]
    sums = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    terms = {"threads": options.threads, "seed": options.seed, "observables": sums}
    noise = attach_noise(circuit, build(library.load("fez")))
    call = partial(simulate, circuit, shots=0, outputs=("expectation",), noise=noise, **terms)
    seconds, found = timed(lambda: call(engine="pauli").row(0))
    report.seconds("fez_s", seconds)
    report.at_most("fez_error", max(error for _, error in found.expectations))
    report.none_measured("no row of --rows shows it, or pauli-prop is not installed")


def _propagated(row: Row) -> tuple[float, Any]:
    """Return CPU seconds and result of our propagation, without the program's."""
    pairs = [
        pair for layer in shapes.disjoint_layers(shapes.device_pairs("kyiv")) for pair in layer
    ]
    gates = list(shapes.kicked(KYIV, pairs, row.steps, row.angle))
    gates += shapes.kicked(KYIV, [], 1, row.angle) if row.observable == TURNED else ()
    circuit = shapes.engine_circuit(shapes.built(KYIV, gates))
    noise = None
    if any(row.noise):
        channels = tuple(depolarizing(p, k) for k, p in enumerate(row.noise, 1))
        rows = [(op.place, len(op.qubits) - 1, *op.qubits, *(-1,) * (2 - len(op.qubits)))
                for op in operations(circuit, circuit.params)]  # fmt: skip
        noise = NoiseProgram(b"", frozenset({"pauli"}), np.array(rows, np.int64), channels)
    program, arrays = program_of(circuit, circuit.params, noise), Propagation(KYIV)
    letters = OBSERVABLES[row.observable].items()
    masks = (sum(1 << q for q, letter in letters if letter in kinds) for kinds in ("XY", "YZ"))
    cuts = Cuts(row.eps, MOST_STRINGS)
    return timed(lambda: arrays.run(program, *masks, cuts, RunControl()), CLOCK)


def _pauli_prop(row: Row, most: int) -> tuple[float, float, int]:
    """Return CPU seconds, value and number of terms of pauli-prop, which gets each rzz as cz and
    sdg, and its frame."""
    from pauli_prop import propagate_through_circuit
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer.noise import PauliLindbladError

    layers = shapes.disjoint_layers(shapes.device_pairs("kyiv"))
    one, two = (-math.log1p(-p) / 4**k for k, p in enumerate(row.noise, 1))
    of_two = [a + b for a in "IXYZ" for b in "IXYZ"][1:]
    circuit = QuantumCircuit(KYIV)
    for _ in range(row.steps):
        circuit.rx(row.angle, range(KYIV))
        for qubit in range(KYIV if one else 0):
            circuit.append(PauliLindbladError(list("XYZ"), [one] * 3), [qubit])
        for layer in layers:
            for pair in layer:
                circuit.sdg(pair)
                circuit.cz(*pair)
            for pair in layer if two else ():
                circuit.append(PauliLindbladError(of_two, [two] * 15), list(pair))
    if row.observable == TURNED:
        circuit.rx(row.angle, range(KYIV))
    letters = OBSERVABLES[row.observable]
    term = "".join(letters.values()), list(letters), 1.0
    observable = SparsePauliOp.from_sparse_list([term], KYIV)
    call = partial(propagate_through_circuit, observable, circuit, most, row.eps, "h")
    seconds, (found, _) = timed(call, CLOCK)
    diagonal = ~found.paulis.x.any(axis=1)
    return seconds, float(found.coeffs[diagonal].real.sum()), len(found)


def _is_within(random: np.random.Generator, case: int) -> bool:
    """Return whether the exact value of a random circuit, every second one with noise, is within
    three stated errors."""
    noisy = bool(case % 2)
    circuit, noise = _random_case(random, noisy=noisy)
    letters = ["I"] * circuit.num_qubits
    for qubit in random.permutation(circuit.num_qubits)[: int(random.integers(1, 5))].tolist():
        letters[qubit] = str(random.choice(list("XYZ")))
    sums = (PauliSum(("".join(letters),), np.ones(1)),)
    terms: dict[str, Any] = {"shots": 0, "outputs": ("expectation",), "observables": sums,
                             "noise": noise, "seed": case}  # fmt: skip
    engine = "densitymatrix" if noisy else "statevector"
    ((exact, _),) = simulate(circuit, engine=engine, **terms).row(0).expectations
    settings = ("tolerance", float(random.choice([1e-2, 3e-3, 1e-3]))), ("strings", 2**16)
    try:
        found = simulate(circuit, engine="pauli", settings=settings, **terms).row(0)
    except TruncatedState:
        more = (*settings, ("uncertified", 1))
        found = simulate(circuit, engine="pauli", settings=more, **terms).row(0)
    ((value, error),) = found.expectations
    is_within = abs(value - exact) <= 3.0 * error + 1e-9
    if not is_within:
        print(f"outside: case {case}: {value:.6f} +- {error:.2g}, exact {exact:.6f}")
    return is_within


def _random_case(random: np.random.Generator, *, noisy: bool) -> tuple[Any, Any]:
    """Return a kicked circuit on a random graph, and noise of all kinds."""
    width = int(random.integers(6, 11 if noisy else 15))
    angle, turn = random.uniform(0.1, 1.4, 2)
    pairs = [(q, q + 1) for q in range(width - 1)]
    for _ in range(int(random.integers(1, 4))):
        one, two = sorted(random.permutation(width)[:2].tolist())
        pairs.append((one, two))
    gates: list[Gate] = []
    for _ in range(int(random.integers(2, 7))):
        gates += shapes.kicked(width, [], 1, float(angle))
        clifford = random.random() < 0.5
        gates += [("cz", pair, ()) if clifford else ("rzz", pair, (float(turn),)) for pair in pairs]
    circuit = shapes.engine_circuit(shapes.built(width, gates))
    if not noisy:
        return circuit, None
    turned = from_unitary(np.diag(np.exp(1j * random.normal(0, 0.05, 4))))
    relaxed = relaxation(300, 60, 80, 0.02)
    channels = depolarizing(2e-3, 1), depolarizing(1e-2, 2), relaxed, turned
    rows = []
    for op in operations(circuit, circuit.params):
        if len(op.qubits) == 1:
            rows.append((op.place, 0, *op.qubits, -1))
        else:
            rows.append((op.place, 1, *op.qubits))
            rows += [(op.place, 2, qubit, -1) for qubit in op.qubits]
            rows.append((op.place, 3, *op.qubits))
    kinds: Any = frozenset({"kraus", "pauli"})
    return circuit, NoiseProgram(b"", kinds, np.array(rows, np.int64), channels)
