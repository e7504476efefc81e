"""Runs of the demo: algorithms, and circuits on an emulated QPU.

The library's algorithms are all submitted, awaited and checked. Circuits run on an ideal simulator
and on an emulated QPU, with the share of right outcomes of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simenv import library
from simenv.client.tasks.task import as_completed
from simenv.library import algorithms as library_algorithms

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from simenv.client.client import Client
    from simenv.client.result import Result
    from simenv.client.tasks.task import Task

_MOST_BITS = 32  # of an outcome in the table
SHOTS = 4096
SEED = 7


class DemoRow(msgspec.Struct, frozen=True):
    """One row of the demo's table. `fault`: what is wrong with the counts, "" if nothing is."""

    circuit: str
    task: str
    qubits: int
    engine: str
    queue_ms: float
    run_ms: float
    total_ms: float
    counts: dict[str, int]
    fault: str
    remark: str


def perform(client: Client) -> Iterator[DemoRow]:
    """Run every circuit once, and return the rows in the order in which the circuits end."""
    chosen = {each.name: each for each in library_algorithms()}
    tasks = [
        client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name)
        for each in sorted(chosen.values(), key=lambda each: each.circuit.num_qubits)
    ]
    for task in as_completed(tasks):
        yield _row(chosen[task.name], task.id, task.result())


def _row(each: library.Algorithm, task: str, result: Result) -> DemoRow:
    timing = result.timing
    return DemoRow(
        circuit=each.name, task=task, qubits=each.circuit.num_qubits, engine=result.engine,
        queue_ms=1e3 * (timing.queued_s + timing.sent_s), run_ms=1e3 * timing.run_s,
        total_ms=1e3 * timing.total_s, counts=result.counts, fault=each.fault(result.counts),
        remark=result.remark,
    )  # fmt: skip


WHOLE_DEVICE = "superconducting-heavy-hex"
_KICK = 0.6  # angle of rx; rzz turns by -pi/2 (Kim et al., Nature 618, 500, 2023)
_WHOLE_SHOTS = 1_000


def whole_device(client: Client) -> DemoRow:
    """Run two steps of a kicked Ising model on all qubits of an emulated QPU. Without noise a
    qubit's <Z> is cos(a)^2, and sin(a)^2 cos(a)^2 more if it has two neighbours."""
    info = client.device(WHOLE_DEVICE)
    pairs = sorted({(min(pair), max(pair)) for pair in info.coupling})
    neighbours = np.bincount(np.ravel(pairs), minlength=info.num_qubits)
    circuit = _kicked_ising(info.num_qubits, pairs)
    task = client.post(circuit, shots=_WHOLE_SHOTS, seed=SEED, device=WHOLE_DEVICE)
    result = task.result()
    cosine, sine = math.cos(_KICK) ** 2, math.sin(_KICK) ** 2
    ideal = float(np.mean(np.where(neighbours == 2, cosine + sine * cosine, cosine)))
    ones = sum(key.count("1") * count for key, count in result.counts.items())
    mean = 1.0 - 2.0 * ones / (_WHOLE_SHOTS * info.num_qubits)
    text = f"mean of Z {mean:.3f}, without noise {ideal:.3f}"
    timing = result.timing
    return DemoRow(
        circuit=str(circuit.name), task=task.id, qubits=info.num_qubits, engine=result.engine,
        queue_ms=1e3 * (timing.queued_s + timing.sent_s), run_ms=1e3 * timing.run_s,
        total_ms=1e3 * timing.total_s, counts=result.counts,
        fault="" if 0.85 * ideal < mean < ideal else text, remark=text,
    )  # fmt: skip


def _kicked_ising(num_qubits: int, pairs: list[tuple[int, int]]) -> QuantumCircuit:
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(num_qubits, name="kicked-ising")
    for _ in range(2):
        circuit.rx(_KICK, range(num_qubits))
        for one, two in pairs:
            circuit.rzz(-math.pi / 2, one, two)
    circuit.measure_all()
    return circuit


def top(act: DemoRow) -> str:
    """Return the three most frequent outcomes and their counts, if their bits fit into a line. Each
    is one word, without the spaces between registers, so that no line breaks in it."""
    if act.qubits > _MOST_BITS:
        return act.remark
    top_keys = sorted(act.counts, key=lambda key: -act.counts[key])[:3]
    return "  ".join(f"{key.replace(' ', '')}:{act.counts[key]}" for key in top_keys)


def algorithm(name: str) -> library.Algorithm:
    """Return the algorithm whose circuit has this name."""
    return next(each for each in library_algorithms() if each.name == name)


DEVICE = "superconducting-lattice"  # a bundled profile, which needs no other package


class EmulatedComparison(msgspec.Struct, frozen=True):
    """One circuit on both. `right`: share of shots with an outcome that the algorithm is run
    for."""

    circuit: str
    qubits: int
    device: str
    engine: str  # engine that ran it with noise
    gates_2q: int  # native two-qubit gates of the compiled circuit
    ideal: dict[str, int]
    emulated: dict[str, int]
    right_ideal: float
    right_emulated: float
    hellinger: float  # fidelity of the emulated counts to theory's distribution

    @property
    def fault(self) -> str:
        """Error text; "" if noise lowers the share of right outcomes and leaves it above a half."""
        if 0.5 < self.right_emulated < self.right_ideal:
            return ""
        shares = f"{self.right_emulated:.3f} of the shots are right"
        return f"{shares}, {self.right_ideal:.3f} without noise"


def algorithms() -> tuple[library.Algorithm, ...]:
    """Return circuits that are small enough to succeed on a noisy device."""
    return (library.ghz(5), library.bernstein_vazirani(0b1011, 4), library.grover_search(0b101, 3))


def submit(client: Client) -> list[tuple[library.Algorithm, Task, Task]]:
    """Submit every circuit for both; return each with its tasks."""
    return [
        (
            each,
            client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name),
            client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name, device=DEVICE),
        )
        for each in algorithms()
    ]


def compare(tasks: list[tuple[library.Algorithm, Task, Task]]) -> list[EmulatedComparison]:
    """Wait for the results and compare them."""
    results = []
    for each, ideal, emulated in tasks:
        assert isinstance(each.expected, library.ExpectedOutcomes)
        noisy = emulated.result()
        theory, gates = each.expected, noisy.gates or {}
        results.append(
            EmulatedComparison(
                circuit=each.name, qubits=each.circuit.num_qubits, device=noisy.device or "",
                engine=noisy.engine,
                gates_2q=sum(count for name, count in gates.items() if name in _TWO_QUBITS),
                ideal=ideal.result().counts, emulated=noisy.counts,
                right_ideal=theory.success(ideal.result().counts),
                right_emulated=theory.success(noisy.counts),
                hellinger=theory.fidelity(noisy.counts),
            )
        )  # fmt: skip
    return results


_TWO_QUBITS = {"cx", "cz", "ecr", "rzz", "rxx"}
