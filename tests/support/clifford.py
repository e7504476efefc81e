"""Random Clifford circuits, and distributions compared at five sigma."""

import numpy as np
from arrays import Arrays

from simulators.circuit.gates import GATES

ONE = ["h", "s", "sdg", "x", "y", "z", "sx", "sxdg", "rz", "ry", "rx", "u", "p"]
TWO = ["cx", "cz", "cy", "swap", "iswap", "ecr", "dcx", "rzz", "rxx", "ryy", "rzx"]


def clifford(n: int, gates: int, seed: int, clbits: int = 0) -> Arrays:
    """Random Clifford gates, with angles that are quarter turns, on all of n qubits."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(n, clbits)
    for k in range(gates):
        gate = GATES[str(rng.choice(ONE if k % 2 or n == 1 else TWO))]
        wires = rng.permutation(n)[: gate.qubits].tolist()
        angles = rng.integers(-6, 7, gate.params) * np.pi / 2
        arrays.add(gate.name, wires, (), angles.tolist())
    return arrays


def assert_alike(seen: dict[int, int], probs: dict[int, float], shots: int) -> None:
    assert sum(seen.values()) == shots
    assert set(seen) <= set(probs)
    for key, p in probs.items():
        sigma = np.sqrt(shots * p * (1 - p))
        assert abs(seen.get(key, 0) - shots * p) <= 5 * sigma + 1
