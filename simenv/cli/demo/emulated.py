"""Circuits on an ideal simulator and on an emulated QPU, and the share of right outcomes of
each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.library import Algorithm, ExpectedOutcomes, bernstein_vazirani, ghz, grover_search

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

DEVICE = "superconducting-lattice"  # a bundled profile, which needs no other package
SHOTS = 4096
SEED = 7


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


def algorithms() -> tuple[Algorithm, ...]:
    """Return circuits that are small enough to succeed on a noisy device."""
    return (ghz(5), bernstein_vazirani(0b1011, 4), grover_search(0b101, 3))


def submit(client: Client) -> list[tuple[Algorithm, Task, Task]]:
    """Submit every circuit for both; return each with its tasks."""
    return [
        (
            each,
            client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name),
            client.post(each.circuit, shots=SHOTS, seed=SEED, name=each.name, device=DEVICE),
        )
        for each in algorithms()
    ]


def compare(tasks: list[tuple[Algorithm, Task, Task]]) -> list[EmulatedComparison]:
    """Wait for the results and compare them."""
    results = []
    for each, ideal, emulated in tasks:
        assert isinstance(each.expected, ExpectedOutcomes)
        noisy = emulated.result()
        theory = each.expected
        results.append(
            EmulatedComparison(
                circuit=each.name,
                qubits=each.circuit.num_qubits,
                device=noisy.device or "",
                engine=noisy.engine,
                gates_2q=sum(
                    count for name, count in (noisy.gates or {}).items() if name in _TWO_QUBITS
                ),
                ideal=ideal.result().counts,
                emulated=noisy.counts,
                right_ideal=theory.success(ideal.result().counts),
                right_emulated=theory.success(noisy.counts),
                hellinger=theory.fidelity(noisy.counts),
            )
        )
    return results


_TWO_QUBITS = {"cx", "cz", "ecr", "rzz", "rxx"}
