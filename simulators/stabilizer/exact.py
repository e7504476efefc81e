"""Exact results of a stabilizer state: expectation values, and distributions of outcomes.

The outcomes of measuring some qubits are uniform over an affine space: a base row, plus any sum of
the generators. Circuits are in deferred form (`convert`), so the state is pure.
"""

from __future__ import annotations

import numpy as np
import stim
from numpy.typing import NDArray

from simulators.errors import Unsupported

MAX_RANDOM_BITS = 21


def simulate(circuit: stim.Circuit) -> stim.TableauSimulator:
    """The final state of a circuit without measurements."""
    simulator = stim.TableauSimulator(seed=0)
    simulator.do_circuit(circuit)
    return simulator


def means(
    simulator: stim.TableauSimulator, strings: list[tuple[int, int]], num_qubits: int
) -> NDArray[np.float64]:
    """Expectation value of each Pauli string (x, z): -1, 0 or 1."""
    result = np.empty(len(strings))
    for number, (x, z) in enumerate(strings):
        pauli = stim.PauliString(num_qubits)
        support = x | z
        while support:
            qubit = (support & -support).bit_length() - 1
            support &= support - 1
            pauli[qubit] = _LETTER[(x >> qubit & 1) + 2 * (z >> qubit & 1)]
        result[number] = simulator.peek_observable_expectation(pauli)
    return result


_LETTER = {1: "X", 2: "Z", 3: "Y"}


def distribution(simulator: stim.TableauSimulator, source: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Possible outcomes [2**random bits, len(source)], equally likely.

    source[c]: the qubit read by bit c; -1 reads 0. Raises Unsupported for too many random bits.
    """
    wires = sorted(set(source[source >= 0].tolist()))
    base, random = _forced(simulator, wires, -1)
    if random > MAX_RANDOM_BITS:
        raise Unsupported(
            f"{random} outcome bits are random: 2^{random} outcomes; the limit is"
            f" 2^{MAX_RANDOM_BITS}",
            hint="ask for counts with shots instead of exact probabilities",
        )
    rows = base[np.newaxis]
    for number in range(random):
        other, _ = _forced(simulator, wires, number)
        rows = np.concatenate((rows, rows ^ (base ^ other)))
    place = {wire: k for k, wire in enumerate(wires)}
    result = np.zeros((len(rows), source.size), np.uint8)
    for bit in np.flatnonzero(source >= 0).tolist():
        result[:, bit] = rows[:, place[int(source[bit])]]
    return result


def _forced(
    simulator: stim.TableauSimulator, wires: list[int], bit: int
) -> tuple[NDArray[np.uint8], int]:
    """Outcome with random bit `bit` 1 and all other random bits 0; and the number of random
    bits."""
    copy = simulator.copy()
    row = np.zeros(len(wires), np.uint8)
    random = 0
    for k, wire in enumerate(wires):
        value = copy.peek_z(wire)
        if value == 0:
            row[k] = random == bit
            copy.postselect_z(wire, desired_value=bool(row[k]))
            random += 1
        else:
            row[k] = value < 0
    return row, random
