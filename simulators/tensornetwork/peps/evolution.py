"""Evolution of gates, and of the errors of a shot, into a state on the graph of the gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.chain.product_state import LEAST_CUTOFF, check_memory
from simulators.circuit.ir import Circuit, with_matrices
from simulators.engine import RunControl
from simulators.errors import OTHER_ENGINE, OutOfMemory, Unsupported
from simulators.tensornetwork.mps.canonical_chain import GateFusion
from simulators.tensornetwork.peps.belief_propagation import to_vidal_gauge
from simulators.tensornetwork.peps.simple_update import GraphState, Tensor
from simulators.trajectories.noise_table import PAULI, Q0, Q1, SET, NoiseTable, X, Z

_MOST_VALUES = 1 << 23  # of a tensor: 128 MiB
_WORKSPACE = 3  # relative to the tensors: scaled copies of messages and draws
_MATRICES = {
    (1, 0): np.array([[0, 1], [1, 0]], complex),
    (0, 1): np.array([[1, 0], [0, -1]], complex),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
}

Gate = tuple[int, tuple[int, ...], Tensor]  # operation, qubits, matrix


class GraphLimits(msgspec.Struct, frozen=True):
    bond: int  # largest bond kept
    cutoff: float  # weight that a gate may discard
    memory_bytes: int  # 0: not known
    dtype: str


class GraphCircuit:
    """Gates of a circuit with one binding, and the errors that a shot may have."""

    def __init__(
        self, circuit: Circuit, params: NDArray[np.float64], table: NoiseTable | None = None
    ) -> None:
        self.num_qubits = circuit.num_qubits
        self._gates: list[Gate] = [
            (operation.place, operation.qubits, matrix)
            for operation, matrix in with_matrices(circuit, params)
            if matrix is not None and operation.qubits
        ]
        self._errors: list[list[Gate]] = []
        rows = [] if table is None else table.table.tolist()
        for row in rows:
            if row[SET] != PAULI:
                raise Unsupported(
                    "engine 'peps' takes Pauli errors alone: another error depends on the state"
                    " where it acts",
                    hint=OTHER_ENGINE,
                )
            qubits = [qubit for qubit in (row[Q0], row[Q1]) if qubit >= 0]
            letters = [(row[X] >> k & 1, row[Z] >> k & 1) for k in range(len(qubits))]
            self._errors.append(
                [
                    (row[0], (qubit,), _MATRICES[letter])
                    for qubit, letter in zip(qubits, letters, strict=True)
                    if letter != (0, 0)
                ]
            )
        pairs = {tuple(sorted(qubits)) for _, qubits, _ in self._gates if len(qubits) == 2}
        self.ends: list[tuple[int, int]] = sorted((a, b) for a, b in pairs)

    def closes_loop(self) -> bool:
        """Return whether the pairs of the gates in a qubit's light cone close a loop. If not, and
        if nothing is cut off, what belief propagation gives of each qubit is exact."""
        pairs = [qubits for _, qubits, _ in self._gates if len(qubits) == 2]
        for qubit in range(self.num_qubits):
            within, edges = {qubit}, set[tuple[int, ...]]()
            for pair in reversed(pairs):
                if not within.isdisjoint(pair):
                    within.update(pair)
                    edges.add(tuple(sorted(pair)))
            if len(edges) >= len(within):  # connected, so not a tree
                return True
        return False

    def evolved(
        self,
        limits: GraphLimits,
        control: RunControl,
        errors: Sequence[int] = (),
        progress: Callable[[float], None] = lambda _: None,
    ) -> GraphState:
        """State after all gates with some errors, rows of the noise table, in the Vidal gauge.
        `progress`: called with the part of the gates that each is, of 1."""
        state = GraphState(
            self.num_qubits, self.ends, bond=limits.bond,
            cutoff=max(limits.cutoff, LEAST_CUTOFF[limits.dtype]), dtype=limits.dtype,
        )  # fmt: skip
        itemsize = np.dtype(limits.dtype).itemsize

        def apply(qubits: tuple[int, ...], matrix: Tensor) -> None:
            control.check()
            state.apply(qubits, matrix)
            largest = max(state.tensors[qubit].size for qubit in qubits)
            if largest > _MOST_VALUES:
                raise OutOfMemory(
                    f"engine 'peps': a tensor of a qubit has {largest} values, at most"
                    f" {_MOST_VALUES} are allowed: each bond multiplies them by its size",
                    hint="a smaller option bond, or a graph whose qubits have fewer neighbours",
                )
            if len(qubits) == 2 and limits.memory_bytes:
                need = _WORKSPACE * itemsize * state.size
                check_memory("peps", need, limits.memory_bytes)

        fusion = GateFusion(apply)
        inserted = sorted(
            (gate for error in errors for gate in self._errors[error]), key=lambda gate: gate[0]
        )
        at = 0
        for place, qubits, matrix in self._gates:
            while at < len(inserted) and inserted[at][0] < place:
                fusion.take(*inserted[at][1:])
                at += 1
            fusion.take(qubits, matrix)
            progress(1.0 / len(self._gates))
        for _, qubits, matrix in inserted[at:]:
            fusion.take(qubits, matrix)
        fusion.flush()
        to_vidal_gauge(state, control)
        return state
