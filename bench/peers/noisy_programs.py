"""Random dynamic programs under noise, their exact distributions, and the same program for Aer.

A program is a tree of steps on a few qubits. `exact` is a density matrix for each classical record;
`aer_counts` samples state vectors of Aer (its density matrix is wrong where two measurements write
one bit). Both have their noise from `Noise` by the formulas of docs/concepts/noise.md and share
nothing with the engines. With relaxation each step at the top stands between barriers, so that
waiting times are the durations of delays.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)

Matrix = NDArray[np.complex128]
Branches = dict[int, Matrix]  # unnormalized density matrix of each record
_ONE = ("h", "x", "y", "z", "s", "id", "rx")
_WAITS_US = (2.0, 10.0, 30.0)
_LEAST = 1e-15  # probability of a branch that is dropped
_X: Matrix = np.array([[0, 1], [1, 0]], np.complex128)
_Y: Matrix = np.array([[0, -1j], [1j, 0]])
_Z: Matrix = np.diag([1.0, -1.0]).astype(np.complex128)
_PAULIS = (np.eye(2, dtype=np.complex128), _X, _Y, _Z)
_GATES: dict[str, Matrix] = {
    "h": (_X + _Z) / math.sqrt(2), "x": _X, "y": _Y, "z": _Z, "s": np.diag([1, 1j]),
    "id": _PAULIS[0], "cx": np.eye(4, dtype=np.complex128)[[0, 3, 2, 1]],
    "cz": np.diag([1, 1, 1, -1]).astype(np.complex128),
    "pair": (np.eye(4) - 1j * np.kron(_X, _X)) / math.sqrt(2),  # rxx(pi / 2) of a link
}  # fmt: skip


_TO_ZERO = [np.outer([1, 0], np.eye(2)[k]).astype(np.complex128) for k in (0, 1)]


class Step(NamedTuple):
    """A gate, `delay`, `reset`, `measure`, a `pair` of a link, or a block: `if`, `for`, or `leave`
    (a conditional break)."""

    name: str
    qubits: tuple[int, ...] = ()
    clbit: int = -1
    value: float = 0.0  # angle, duration in us, value of the bit, number of passes
    body: tuple[Step, ...] = ()
    other: tuple[Step, ...] = ()


class Program(NamedTuple):
    num_qubits: int
    num_clbits: int
    steps: tuple[Step, ...]
    spaced: bool  # steps at the top stand between barriers


@dataclass(frozen=True, slots=True)
class Noise:
    """Calibrated values of all qubits; 0: none."""

    preparation: float = 0.0
    reset: float = 0.0
    p01: float = 0.0
    p10: float = 0.0
    one: float = 0.0  # average infidelity of a gate on one qubit
    two: float = 0.0
    t1_us: float = 0.0
    t2_us: float = 0.0

    def snapshot(self, num_qubits: int) -> CalibrationSnapshot:
        """A device with these values, whose gates take no time."""
        native = [NativeGate(name, 1, int(name == "rx")) for name in _ONE]
        native += [NativeGate(name, 2) for name in ("cx", "cz")]
        gates = [GateCalibration(name, error=self.one, duration_ns=0.0) for name in _ONE]
        gates += [GateCalibration(name, error=self.two, duration_ns=0.0) for name in ("cx", "cz")]
        qubit = QubitCalibration(
            t1_us=self.t1_us or None, t2_us=self.t2_us or None, p01=self.p01, p10=self.p10,
            readout_ns=0.0, reset_ns=0.0, reset_error=self.reset,
            preparation_error=self.preparation,
        )  # fmt: skip
        return CalibrationSnapshot(
            name="drawn", num_qubits=num_qubits, version="1", dynamic=True, all_to_all=True,
            native_gates=tuple(native), gates=tuple(gates), qubits=(qubit,) * num_qubits,
        )  # fmt: skip


# Random programs.


def random_program(
    rng: np.random.Generator, *, clifford: bool = False, loops: bool = False, waits: bool = False
) -> Program:
    """A program of 2 to 4 qubits. `clifford`: for stabilizer engines, no more than Paulis under
    conditions; `waits`: with delays."""
    num_qubits, num_clbits = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    size = int(rng.integers(4, 15))

    def qubit() -> int:
        return int(rng.integers(num_qubits))

    def gate() -> Step:
        if rng.random() < 0.2:
            pair = rng.permutation(num_qubits)[:2].tolist()
            return Step(("cx", "cz")[int(rng.integers(2))], tuple(pair))
        names = ("h", "x", "id", "s", "h", "x", "id") + (() if clifford else ("rx",))
        name = names[int(rng.integers(len(names)))]
        return Step(name, (qubit(),), value=float(rng.uniform(0.3, 3.0)) if name == "rx" else 0.0)

    def step(depth: int, *, conditional: bool = False) -> Step:
        draw = rng.random()
        if conditional and clifford:
            return Step(("x", "z", "y")[int(rng.integers(3))], (qubit(),))
        if draw < 0.25:
            return Step("measure", (qubit(),), int(rng.integers(num_clbits)))
        if draw < 0.45:
            return Step("reset", (qubit(),))
        if draw < 0.6 and depth < 2:
            return block(depth)
        if draw < 0.7 and waits and depth == 0:
            return Step("delay", (qubit(),), value=float(rng.choice(_WAITS_US)))
        return gate()

    def block(depth: int) -> Step:
        if loops and rng.random() < 0.4:
            body = [step(depth + 1) for _ in range(int(rng.integers(1, 4)))]
            if rng.random() < 0.4:
                leave = Step("leave", clbit=int(rng.integers(num_clbits)), value=1.0)
                body.insert(int(rng.integers(len(body) + 1)), leave)
            return Step("for", value=float(rng.integers(1, 4)), body=tuple(body))
        count = 1 if clifford else int(rng.integers(1, 3))
        inner = 2 if clifford else depth + 1
        body = [step(inner, conditional=True) for _ in range(count)]
        other = [step(2, conditional=True)] if rng.random() < 0.3 and not clifford else []
        clbit, value = int(rng.integers(num_clbits)), float(rng.integers(2))
        return Step("if", (), clbit, value, tuple(body), tuple(other))

    steps = [step(0) for _ in range(size)]
    for clbit in rng.permutation(num_clbits)[: int(rng.integers(1, num_clbits + 1))].tolist():
        steps.append(Step("measure", (qubit(),), clbit))
        if rng.random() < 0.25:  # what follows a measurement acts on nothing that is read
            steps.append(step(2) if rng.random() < 0.5 else Step("reset", (steps[-1].qubits[0],)))
    return Program(num_qubits, num_clbits, tuple(steps), waits)


def random_noise(rng: np.random.Generator, *, pauli: bool = False, waits: bool = False) -> Noise:
    """Values with a reset error of .15; each of the others is left out now and then."""

    def maybe(value: float, chance: float = 0.75) -> float:
        return value if rng.random() < chance else 0.0

    p01 = maybe(0.03)
    times = (40.0, float(rng.uniform(20.0, 80.0))) if waits else (0.0, 0.0)
    return Noise(
        preparation=maybe(0.1), reset=maybe(0.15, 0.9), p01=p01, p10=p01 if pauli else maybe(0.08),
        one=maybe(0.02, 0.3 if pauli else 0.75), two=maybe(0.05), t1_us=times[0], t2_us=times[1],
    )  # fmt: skip


# The program as a circuit of Qiskit, and as text for stim.


def circuit_of(program: Program, *, free: bool = False) -> tuple[QuantumCircuit, dict[Any, float]]:
    """The circuit, and the values of its parameters: angles and durations, if they are `free`."""
    circuit = QuantumCircuit(program.num_qubits, program.num_clbits)
    values: dict[Any, float] = {}

    def number(value: float) -> Any:
        if not free:
            return value
        parameter = Parameter(f"v{len(values)}")
        values[parameter] = value
        return parameter

    def write(steps: Iterable[Step], *, top: bool) -> None:
        for step in steps:
            if top and program.spaced:
                circuit.barrier()
            if step.name == "if":
                condition = circuit.clbits[step.clbit], int(step.value)
                if step.other:
                    with circuit.if_test(condition) as otherwise:
                        write(step.body, top=False)
                    with otherwise:
                        write(step.other, top=False)
                else:
                    with circuit.if_test(condition):
                        write(step.body, top=False)
            elif step.name == "for":
                with circuit.for_loop(range(int(step.value))):
                    write(step.body, top=False)
            elif step.name == "leave":
                with circuit.if_test((circuit.clbits[step.clbit], int(step.value))):
                    circuit.break_loop()
            elif step.name == "measure":
                circuit.measure(step.qubits[0], step.clbit)
            elif step.name == "delay":
                circuit.delay(number(step.value), step.qubits[0], unit="us")
            elif step.name == "rx":
                circuit.rx(number(step.value), step.qubits[0])
            elif step.name == "pair":
                circuit.rxx(math.pi / 2, *step.qubits)
            else:
                getattr(circuit, step.name)(*step.qubits)

    write(program.steps, top=True)
    return circuit, values


def is_plain(program: Program) -> bool:
    """True if the program has no blocks, so that stim's language has it."""
    return not any(step.body for step in program.steps)


def stim_text(program: Program) -> tuple[str, list[int]]:
    """The program in stim's language, and for each clbit the record that it shows; -1: none."""
    lines, shown, records = [], [-1] * program.num_clbits, 0
    names = {"measure": "M", "reset": "R", "id": "I"}
    for step in program.steps:
        if step.name == "measure":
            shown[step.clbit] = records
            records += 1
        name = names.get(step.name, step.name.upper())
        lines.append(f"{name} {' '.join(map(str, step.qubits))}")
    return "\n".join(lines), shown


# Noise as channels.


def _depolarizing(error: float, num_qubits: int) -> list[Matrix]:
    """Kraus operators of the channel with this average infidelity."""
    side = 2**num_qubits
    share = error / (1.0 - 1.0 / side) / 4**num_qubits
    words = [
        functools.reduce(np.kron, word) for word in itertools.product(_PAULIS, repeat=num_qubits)
    ]
    weights = [1.0 - share * (len(words) - 1)] + [share] * (len(words) - 1)
    return [math.sqrt(weight) * word for weight, word in zip(weights, words, strict=True)]


def _flip(probability: float) -> list[Matrix]:
    return [math.sqrt(1.0 - probability) * _PAULIS[0], math.sqrt(probability) * _X]


def _relaxation(noise: Noise, time_us: float) -> list[Matrix]:
    """Amplitude damping, then the rest of the dephasing."""
    stays = math.exp(-time_us / noise.t1_us)
    z = 0.5 * (1.0 - math.exp(-time_us / noise.t2_us + 0.5 * time_us / noise.t1_us))
    damped = [np.diag([1.0, math.sqrt(stays)]), np.array([[0, math.sqrt(1.0 - stays)], [0, 0]])]
    phases = [math.sqrt(1.0 - z) * _PAULIS[0], math.sqrt(z) * _Z]
    return [b @ a for a in damped for b in phases]


Channel = tuple[list[Matrix], tuple[int, ...]]


def _after(noise: Noise, step: Step) -> list[Channel]:
    """Channels that follow an operation by itself."""
    if step.name == "reset":
        return [(_flip(noise.reset), step.qubits)] if noise.reset else []
    if step.name in ("delay", "measure", "pair"):
        return []
    error = noise.one if len(step.qubits) == 1 else noise.two
    return [(_depolarizing(error, len(step.qubits)), step.qubits)] if error else []


def _begun(steps: Iterable[Step]) -> set[int]:
    """Qubits that some steps use."""
    result: set[int] = set()
    for step in steps:
        result |= {*step.qubits} | _begun(step.body) | _begun(step.other)
    return result


def _with_waits(program: Program, noise: Noise) -> Iterator[tuple[Step, list[Channel]]]:
    """Steps at the top, each with the relaxation meanwhile of all qubits in use."""
    begun: set[int] = set()
    for step in program.steps:
        begun |= _begun([step])
        waits: list[Channel] = []
        if step.name == "delay" and noise.t1_us:
            waits = [(_relaxation(noise, step.value), (q,)) for q in sorted(begun)]
        yield step, waits


# Exact distributions.


def _full(matrix: Matrix, qubits: tuple[int, ...], num_qubits: int) -> Matrix:
    """The operator on all qubits; bit 0 of an index is the first qubit."""
    side, count = 2**num_qubits, len(qubits)
    result = np.zeros((side, side), np.complex128)
    mask = sum(1 << q for q in qubits)
    for column in range(side):
        local = sum((column >> q & 1) << k for k, q in enumerate(qubits))
        for row in range(2**count):
            target = column & ~mask | sum((row >> k & 1) << q for k, q in enumerate(qubits))
            result[target, column] += matrix[row, local]
    return result


class _Exact:
    def __init__(self, program: Program, noise: Noise) -> None:
        self._n, self._noise = program.num_qubits, noise
        rho = np.zeros((2**self._n, 2**self._n), np.complex128)
        rho[0, 0] = 1.0
        self._operators: dict[tuple[bytes, tuple[int, ...]], Matrix] = {}
        branches: Branches = {0: rho}
        if noise.preparation:
            for q in sorted(_begun(program.steps)):
                branches = self._act(branches, _flip(noise.preparation), (q,))
        for step, waits in _with_waits(program, noise):
            branches, left = self._step(branches, step)
            assert not left
            for kraus, qubits in waits:
                branches = self._act(branches, kraus, qubits)
        self.probabilities = {record: float(np.trace(rho).real) for record, rho in branches.items()}

    def _operator(self, matrix: Matrix, qubits: tuple[int, ...]) -> Matrix:
        key = matrix.tobytes(), qubits
        if key not in self._operators:
            self._operators[key] = _full(matrix, qubits, self._n)
        return self._operators[key]

    def _act(
        self, branches: Branches, kraus: Sequence[Matrix], qubits: tuple[int, ...]
    ) -> Branches:
        full = [self._operator(matrix, qubits) for matrix in kraus]
        return {
            record: sum((k @ rho @ k.conj().T for k in full), np.zeros_like(rho))
            for record, rho in branches.items()
        }

    def _steps(self, branches: Branches, steps: Iterable[Step]) -> tuple[Branches, Branches]:
        """Branches after some steps, and those that have left the loop."""
        left: Branches = {}
        for step in steps:
            branches, more = self._step(branches, step)
            left = _joined(left, more)
        return branches, left

    def _step(self, branches: Branches, step: Step) -> tuple[Branches, Branches]:
        if step.name == "measure":
            return self._measured(branches, step), {}
        if step.name in ("if", "leave"):
            mine = {r: rho for r, rho in branches.items() if (r >> step.clbit & 1) == step.value}
            others = {r: rho for r, rho in branches.items() if r not in mine}
            if step.name == "leave":
                return others, mine
            mine, left = self._steps(mine, step.body)
            others, more = self._steps(others, step.other)
            return _joined(mine, others), _joined(left, more)
        if step.name == "for":
            done: Branches = {}
            for _ in range(int(step.value)):
                branches, left = self._steps(branches, step.body)
                done = _joined(done, left)
            return _joined(branches, done), {}
        if step.name == "reset":
            branches = self._act(branches, _TO_ZERO, step.qubits)
        elif step.name != "delay":
            branches = self._act(branches, [gate_matrix(step)], step.qubits)
        for kraus, qubits in _after(self._noise, step):
            branches = self._act(branches, kraus, qubits)
        return branches, {}

    def _measured(self, branches: Branches, step: Step) -> Branches:
        p01, p10 = self._noise.p01, self._noise.p10
        read = np.array([[1 - p01, p10], [p01, 1 - p10]])  # row seen, column true
        result: Branches = {}
        for record, rho in branches.items():
            for true in (0, 1):
                onto = np.diag(np.eye(2, dtype=np.complex128)[true])
                projector = self._operator(onto, step.qubits)
                projected = projector @ rho @ projector
                if np.trace(projected).real < _LEAST:
                    continue
                for seen in (0, 1):
                    if read[seen, true]:
                        target = record & ~(1 << step.clbit) | seen << step.clbit
                        result = _joined(result, {target: read[seen, true] * projected})
        return result


def _joined(first: Branches, second: Branches) -> Branches:
    result = dict(first)
    for record, rho in second.items():
        result[record] = result[record] + rho if record in result else rho
    return result


def gate_matrix(step: Step) -> Matrix:
    if step.name == "rx":
        return math.cos(step.value / 2) * _PAULIS[0] - 1j * math.sin(step.value / 2) * _X
    return _GATES[step.name]


def exact(program: Program, noise: Noise) -> dict[int, float]:
    """Probability of each outcome."""
    return _Exact(program, noise).probabilities


# Aer.


def aer_counts(program: Program, noise: Noise, shots: int, seed: int) -> dict[int, int]:
    """Counts of state vectors of Aer, with the channels written into the circuit."""
    from qiskit.quantum_info import Kraus
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel, QuantumError, ReadoutError

    circuit = QuantumCircuit(program.num_qubits, program.num_clbits)

    def channel(kraus: Sequence[Matrix], qubits: tuple[int, ...]) -> None:
        circuit.append(Kraus(list(kraus)), qubits)

    def write(steps: Iterable[Step]) -> None:
        for step in steps:
            if step.name == "if":
                condition = circuit.clbits[step.clbit], int(step.value)
                with circuit.if_test(condition) as otherwise:
                    write(step.body)
                if step.other:
                    with otherwise:
                        write(step.other)
            elif step.name == "for":
                with circuit.for_loop(range(int(step.value))):
                    write(step.body)
            elif step.name == "leave":
                with circuit.if_test((circuit.clbits[step.clbit], int(step.value))):
                    circuit.break_loop()
            elif step.name == "measure":
                circuit.measure(step.qubits[0], step.clbit)
            elif step.name == "rx":
                circuit.rx(step.value, step.qubits[0])
            elif step.name != "delay":
                getattr(circuit, step.name)(*step.qubits)

    if noise.preparation:
        for q in sorted(_begun(program.steps)):
            channel(_flip(noise.preparation), (q,))
    for step, waits in _with_waits(program, noise):
        write([step])
        for kraus, qubits in waits:
            channel(kraus, qubits)
    model = NoiseModel()
    if noise.p01 or noise.p10:
        read = ReadoutError([[1 - noise.p01, noise.p01], [noise.p10, 1 - noise.p10]])
        model.add_all_qubit_readout_error(read)
    for names, kraus in (
        (["reset"], _flip(noise.reset)),
        ([*_ONE], _depolarizing(noise.one, 1)),
        (["cx", "cz"], _depolarizing(noise.two, 2)),
    ):
        model.add_all_qubit_quantum_error(QuantumError(Kraus(kraus)), names)
    # With truncation Aer 0.17 and 0.18 fail for conditions on bits that nothing has written.
    simulator = AerSimulator(
        method="statevector", noise_model=model, seed_simulator=seed, enable_truncation=False
    )
    counts = simulator.run(circuit, shots=shots).result().get_counts()
    return {int(key.replace(" ", ""), 2): value for key, value in counts.items()}
