"""Circuits on an ideal simulator and on an emulated QPU, and the share of right outcomes of
each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.cli.demo.algorithms.piece import DemoCircuit, ExpectedOutcomes
from simenv.cli.demo.algorithms.search import grover_search
from simenv.cli.demo.algorithms.textbook import bernstein_vazirani, ghz

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simenv.client.client import Client

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


def pieces() -> tuple[DemoCircuit, ...]:
    """Return circuits that are small enough to succeed on a noisy device."""
    return (ghz(5), bernstein_vazirani(0b1011, 4), grover_search(0b101, 3))


def compare(client: Client) -> list[EmulatedComparison]:
    """Run every circuit on both; all are submitted before the first is awaited."""
    chosen = pieces()
    pairs = [
        [
            client.submit(
                piece.circuit, shots=SHOTS, seed=SEED, name=piece.circuit.name, device=device
            )
            for device in (None, DEVICE)
        ]
        for piece in chosen
    ]
    results = []
    for piece, (ideal, emulated) in zip(chosen, pairs, strict=True):
        assert isinstance(piece.answer, ExpectedOutcomes)
        noisy = emulated.result()
        theory = piece.answer.probabilities
        results.append(
            EmulatedComparison(
                circuit=piece.circuit.name,
                qubits=piece.circuit.num_qubits,
                device=noisy.device or "",
                engine=noisy.engine,
                gates_2q=sum(
                    count for name, count in (noisy.gates or {}).items() if name in _TWO_QUBITS
                ),
                ideal=ideal.result().counts,
                emulated=noisy.counts,
                right_ideal=_right(ideal.result().counts, theory),
                right_emulated=_right(noisy.counts, theory),
                hellinger=_hellinger(noisy.counts, theory),
            )
        )
    return results


_TWO_QUBITS = {"cx", "cz", "ecr", "rzz", "rxx"}


def likely(theory: Mapping[str, float]) -> set[str]:
    """Return the outcomes that the algorithm is run for: at least a quarter as likely as the
    likeliest."""
    highest = max(theory.values())
    return {key for key, probability in theory.items() if probability >= highest / 4}


def _right(counts: Mapping[str, int], theory: Mapping[str, float]) -> float:
    right = likely(theory)
    return sum(count for key, count in counts.items() if key in right) / sum(counts.values())


def _hellinger(counts: Mapping[str, int], theory: Mapping[str, float]) -> float:
    """Return (sum sqrt(p q))^2, the definition of `qiskit.quantum_info.hellinger_fidelity`."""
    shots = sum(counts.values())
    overlap = sum((p * counts.get(key, 0) / shots) ** 0.5 for key, p in theory.items())
    return float(overlap**2)
