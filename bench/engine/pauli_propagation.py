"""Pauli propagation, compared with pauli-prop and with exact values.

Kicked Ising circuits on the lattice of ibm_kyiv (127 qubits), as in Kim et al., Nature 618, 500
(2023): T times rx on all qubits and rzz(-pi/2) on all pairs; with noise, depolarizing channels of
parameters p1 after rx and p2 after rzz. Both programs cut what is below eps, on one thread, and
take turns; CPU seconds, the least of the rounds. pauli-prop gets each rzz as cz and sdg, and its
frame.
At angles 0 and pi / 2 the circuits are Clifford circuits, with known values.

The values of 200 random circuits, of at most 14 qubits with noise and 20 without, are exact by the
density matrix and the statevector; the stated error of each of ours must contain them. All <Z> of
the 156 qubits of fez after five steps, with every calibrated channel, are one request.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from typing import Any, NamedTuple

import numpy as np

from bench.circuits import disjoint_layers, engine_circuit
from bench.harness import SEED, THREADS, Option, Report, installed, rounds
from bench.harness.kernels import load_kernels

PI_2 = math.pi / 2
Gate = tuple[str, tuple[int, ...], tuple[float, ...]]  # name, qubits, angles


class Row(NamedTuple):
    """A comparison; `noise`: p1 and p2."""

    observable: str
    steps: int
    angle: float
    eps: float
    noise: tuple[float, float] = (0.0, 0.0)

    @property
    def label(self) -> str:
        noise = "" if not any(self.noise) else f", {self.noise[0]:g} and {self.noise[1]:g}"
        return f"{self.observable}, {self.steps} steps, {self.angle:g}, eps {self.eps:g}{noise}"


_LOW, _HIGH = (3e-4, 5e-3), (3e-4, 3e-2)
ROWS = (
    Row("w10", 5, 0.2, 1e-4), Row("w10", 5, 0.6, 1e-4), Row("w10", 5, 0.6, 1e-4, _LOW),
    Row("w10", 5, 0.6, 1e-4, _HIGH), Row("w10", 5, 1.2, 1e-4), Row("w17", 5, 1.2, 3e-4),
    Row("w17", 5, 1.2, 3e-4, _LOW), Row("w17x", 5, 1.2, 3e-4), Row("w17", 5, 0.6, 1e-4),
    Row("Z62", 20, 0.2, 1e-4), Row("Z62", 20, 0.2, 1e-4, _LOW), Row("Z62", 10, 0.6, 1e-4),
    Row("Z62", 10, 0.6, 1e-4, _LOW), Row("Z62", 20, 0.6, 3e-4, _LOW),
)  # fmt: skip
_QUICK = 0, 3, 9, 10
_W17 = (37, 41, 52, 56, 57, 58, 62, 79), (38, 40, 42, 63, 72, 80, 90, 91), 75
OBSERVABLES: dict[str, dict[int, str]] = {
    "Z62": {62: "Z"},
    "w10": dict(zip((13, 29, 31, 9, 30, 8, 12, 17, 28, 32), "XXXYYZZZZZ", strict=True)),
    "w17": {**dict.fromkeys(_W17[0], "X"), **dict.fromkeys(_W17[1], "Z"), _W17[2]: "Y"},
    "w17x": {**dict.fromkeys(_W17[0], "X"), **dict.fromkeys(_W17[1], "Y"), _W17[2]: "Z"},
}
# Values at angle pi / 2 and at 0, after so many steps.
CLIFFORD = {"Z62": (20, 0.0, 1.0), "w10": (5, 1.0, 0.0), "w17": (5, -1.0, 0.0), "w17x": (5, -1, 0)}
_TURNED = "w17x"  # measured after one more layer of rx
_MOST = 2**26  # strings of a comparison
OPTIONS = (
    rounds(3, quick=1),
    Option("--rows", nargs="+", default=list(range(len(ROWS))), quick=list(_QUICK)),
    Option("--cases", default=200, quick=20),
    Option("--steps", default=5, quick=4, help="steps of the circuit on fez"),
    THREADS,
    SEED,
)


def run(options: Namespace) -> Report:
    report = Report("pauli_propagation", "Pauli propagation: CPU seconds of one thread")
    load_kernels()
    _clifford_points(report)
    _against_pauli_prop(report, options)
    _exact_cases(report, options)
    _all_of_fez(report, options)
    return report


def _pairs(device: str) -> tuple[int, list[tuple[int, int]]]:
    """Number of qubits of a device, and its pairs."""
    from noise_models import library

    snapshot = library.load(device)
    found = {(min(g.qubits), max(g.qubits)) for g in snapshot.gates if len(g.qubits) == 2}
    return snapshot.num_qubits, sorted(found)


def _circuit(gates: list[Gate], width: int) -> Any:
    """Circuit of engines."""
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(width)
    for name, qubits, angles in gates:
        getattr(circuit, name)(*angles, *qubits)
    return engine_circuit(circuit)


def _kicked(row: Row) -> tuple[Any, Any]:
    """Circuit of a row, and its noise."""
    from noise_models.channel import depolarizing
    from simulators.circuit.ir import operations
    from simulators.circuit.noise import NoiseProgram

    width, pairs = _pairs("kyiv")
    gates: list[Gate] = []
    for _ in range(row.steps):
        gates += [("rx", (qubit,), (row.angle,)) for qubit in range(width)]
        gates += [("rzz", pair, (-PI_2,)) for layer in disjoint_layers(pairs) for pair in layer]
    if row.observable == _TURNED:
        gates += [("rx", (qubit,), (row.angle,)) for qubit in range(width)]
    circuit = _circuit(gates, width)
    if not any(row.noise):
        return circuit, None
    channels = tuple(depolarizing(p, k) for k, p in enumerate(row.noise, 1))
    rows = [
        (op.place, len(op.qubits) - 1, *op.qubits, *(-1,) * (2 - len(op.qubits)))
        for op in operations(circuit, circuit.params)
    ]
    return circuit, NoiseProgram(b"", frozenset({"pauli"}), np.array(rows, np.int64), channels)


def _masks(name: str) -> tuple[int, int]:
    letters = OBSERVABLES[name].items()
    return (
        sum(1 << q for q, letter in letters if letter in "XY"),
        sum(1 << q for q, letter in letters if letter in "YZ"),
    )


def _ours(row: Row, eps: float) -> tuple[float, Any]:
    """CPU seconds and result of our propagation, without the program's."""
    from simulators.engine import RunControl
    from simulators.strings.program import program_of
    from simulators.strings.propagation import Cuts, Propagation

    circuit, noise = _kicked(row)
    program = program_of(circuit, circuit.params, noise)
    arrays = Propagation(circuit.num_qubits)
    begun = time.process_time()
    found = arrays.run(program, *_masks(row.observable), Cuts(eps, _MOST), RunControl())
    return time.process_time() - begun, found


def _theirs(row: Row, most: int) -> tuple[float, float, int]:
    """CPU seconds, value and number of terms of pauli-prop."""
    from pauli_prop import propagate_through_circuit
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer.noise import PauliLindbladError

    width, pairs = _pairs("kyiv")
    layers = disjoint_layers(pairs)
    one, two = (-math.log1p(-p) / 4**k for k, p in enumerate(row.noise, 1))
    of_two = [a + b for a in "IXYZ" for b in "IXYZ"][1:]
    circuit = QuantumCircuit(width)
    for _ in range(row.steps):
        circuit.rx(row.angle, range(width))
        for qubit in range(width if one else 0):
            circuit.append(PauliLindbladError(list("XYZ"), [one] * 3), [qubit])
        for layer in layers:
            for pair in layer:
                circuit.sdg(pair)
                circuit.cz(*pair)
            for pair in layer if two else ():
                circuit.append(PauliLindbladError(of_two, [two] * 15), list(pair))
    if row.observable == _TURNED:
        circuit.rx(row.angle, range(width))
    letters = OBSERVABLES[row.observable]
    term = "".join(letters.values()), list(letters), 1.0
    observable = SparsePauliOp.from_sparse_list([term], width)
    begun = time.process_time()
    found, _ = propagate_through_circuit(observable, circuit, most, row.eps, "h")
    seconds = time.process_time() - begun
    diagonal = ~found.paulis.x.any(axis=1)
    return seconds, float(found.coeffs[diagonal].real.sum()), len(found)


def _clifford_points(report: Report) -> None:
    worst = 0.0
    for name, (steps, at_quarter, at_zero) in CLIFFORD.items():
        for angle, value in ((PI_2, at_quarter), (0.0, at_zero)):
            _, found = _ours(Row(name, steps, angle, 1e-9), 1e-9)
            worst = max(worst, abs(found.value - value))
    report.at_most("clifford_error", worst, "Clifford points of Kim et al., largest error")


def _against_pauli_prop(report: Report, options: Namespace) -> None:
    ratios: dict[bool, list[float]] = {False: [], True: []}
    held = []
    if installed("pauli_prop"):
        print(f"{'row':46} {'ours s':>8} {'peak':>9} {'final':>9} {'theirs s':>9} {'final':>9}")
    for number in options.rows if installed("pauli_prop") else ():
        row = ROWS[number]
        times: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            seconds, found = _ours(row, row.eps)
            times[0].append(seconds)
            seconds, value, terms = _theirs(row, max(4 * found.peak, 1_000))
            times[1].append(seconds)
        ours_s, theirs_s = map(min, times)
        ratios[any(row.noise)].append(theirs_s / ours_s)
        held.append(found.strings / terms)
        print(
            f"{row.label:46} {ours_s:8.3f} {found.peak:9,} {found.strings:9,} {theirs_s:9.3f}"
            f" {terms:9,}  {theirs_s / ours_s:.1f} times, {found.value:.5f} and {value:.5f}",
            flush=True,
        )
    reason = "pauli-prop is not installed" if not held else "no row of --rows shows it"
    for noisy, key, label in (
        (False, "ideal_times", "without noise: times as fast as pauli-prop, least"),
        (True, "noisy_times", "with noise: times as fast as pauli-prop, least"),
    ):
        if ratios[noisy]:
            report.at_least(key, min(ratios[noisy]), label)
        else:
            report.not_measured(key, label, reason)
    label = "strings at the end, relative to pauli-prop's, most"
    if held:
        report.at_most("strings", max(held), label)
    else:
        report.not_measured("strings", label, reason)


def _exact_cases(report: Report, options: Namespace) -> None:
    """Share of random circuits whose exact value is within three stated errors."""
    from simulators.errors import TruncatedState
    from simulators.simulate import simulate

    outside = certified = 0
    for case in range(options.cases):
        random = np.random.default_rng([options.seed, case])
        noisy = bool(case % 2)
        circuit, noise = _random_case(random, noisy=noisy)
        terms: dict[str, Any] = {
            "shots": 0, "outputs": ("expectation",), "observables": _observable(circuit, random),
            "noise": noise, "seed": case,
        }  # fmt: skip
        engine = "densitymatrix" if noisy else "statevector"
        ((exact, _),) = simulate(circuit, engine=engine, **terms).row(0).expectations
        settings = ("tolerance", float(random.choice([1e-2, 3e-3, 1e-3]))), ("strings", 2**16)
        try:
            found = simulate(circuit, engine="pauli", settings=settings, **terms).row(0)
            certified += 1
        except TruncatedState:
            more = (*settings, ("uncertified", 1))
            found = simulate(circuit, engine="pauli", settings=more, **terms).row(0)
        ((value, error),) = found.expectations
        if abs(value - exact) > 3.0 * error + 1e-9:
            outside += 1
            print(f"outside: case {case}: {value:.6f} +- {error:.2g}, exact {exact:.6f}")
    print(f"{certified} of {options.cases} values certified")
    share = 1.0 - outside / options.cases
    report.at_least("within", share, f"{options.cases} values: share within 3 stated errors")


def _observable(circuit: Any, random: np.random.Generator) -> tuple[Any, ...]:
    """A string of one to four letters."""
    from simulators.engine import PauliSum

    letters = ["I"] * circuit.num_qubits
    for qubit in random.permutation(circuit.num_qubits)[: int(random.integers(1, 5))].tolist():
        letters[qubit] = str(random.choice(list("XYZ")))
    return (PauliSum(("".join(letters),), np.ones(1)),)


def _random_case(random: np.random.Generator, *, noisy: bool) -> tuple[Any, Any]:
    """Kicked circuit on a random graph, and noise of all kinds."""
    from noise_models.channel import depolarizing, from_unitary, relaxation
    from simulators.circuit.ir import operations
    from simulators.circuit.noise import NoiseProgram

    width = int(random.integers(6, 11 if noisy else 15))
    angle, turn = random.uniform(0.1, 1.4, 2)
    pairs = [(q, q + 1) for q in range(width - 1)]
    for _ in range(int(random.integers(1, 4))):
        one, two = sorted(random.permutation(width)[:2].tolist())
        pairs.append((one, two))
    gates: list[Gate] = []
    for _ in range(int(random.integers(2, 7))):
        gates += [("rx", (qubit,), (float(angle),)) for qubit in range(width)]
        clifford = random.random() < 0.5
        for pair in pairs:
            gates.append(("cz", pair, ()) if clifford else ("rzz", pair, (float(turn),)))
    circuit = _circuit(gates, width)
    if not noisy:
        return circuit, None
    relaxed = relaxation(300, 60, 80, 0.02)
    turned = from_unitary(np.diag(np.exp(1j * random.normal(0, 0.05, 4))))
    channels = depolarizing(2e-3, 1), depolarizing(1e-2, 2), relaxed, turned
    rows = []
    for op in operations(circuit, circuit.params):
        if len(op.qubits) == 1:
            rows.append((op.place, 0, *op.qubits, -1))
            continue
        rows.append((op.place, 1, *op.qubits))
        rows += [(op.place, 2, qubit, -1) for qubit in op.qubits]
        rows.append((op.place, 3, *op.qubits))
    kinds: Any = frozenset({"kraus", "pauli"})
    return circuit, NoiseProgram(b"", kinds, np.array(rows, np.int64), channels)


def _all_of_fez(report: Report, options: Namespace) -> None:
    """All <Z> of fez in one request, with its calibrated channels, on all threads."""
    from noise_models import library
    from noise_models.build import build
    from simulators.circuit.passes.attach_noise import attach_noise
    from simulators.engine import PauliSum
    from simulators.simulate import simulate

    width, pairs = _pairs("fez")
    gates: list[Gate] = []
    for _ in range(options.steps):
        for qubit in range(width):
            for turn in (PI_2, 0.6 + math.pi):
                gates += [("rz", (qubit,), (turn,)), ("sx", (qubit,), ())]
            gates.append(("rz", (qubit,), (PI_2,)))
        for layer in disjoint_layers(pairs):
            for pair in layer:
                gates.append(("cz", pair, ()))
                gates += [("rz", (qubit,), (PI_2,)) for qubit in pair]
    circuit = _circuit(gates, width)
    noise = attach_noise(circuit, build(library.load("fez")))
    labels = ["I" * (width - 1 - q) + "Z" + "I" * q for q in range(width)]
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    begun = time.perf_counter()
    found = simulate(
        circuit, engine="pauli", shots=0, outputs=("expectation",), observables=observables,
        noise=noise, threads=options.threads, seed=options.seed,
    ).row(0)  # fmt: skip
    seconds = time.perf_counter() - begun
    print(found.remark)
    errors = [error for _, error in found.expectations]
    label = f"all <Z> of fez, {options.steps} steps, all channels"
    report.at_most("fez_s", seconds, f"{label}, s")
    report.at_most("fez_error", max(errors), f"{label}, largest standard error")
