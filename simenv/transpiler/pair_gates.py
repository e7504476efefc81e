"""Gates on two qubits that one CZ makes, as one CZ.

Qiskit's translator writes each gate by its definition: rzz(-pi/2), which is CZ and a turn about Z
of each qubit, becomes cx rz cx. This pass replaces it, and every other gate of a circuit that one
CZ or none makes, before the translation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from qiskit.circuit import Gate, QuantumCircuit
from qiskit.circuit.library import CZGate
from qiskit.converters import circuit_to_dag
from qiskit.quantum_info import Operator
from qiskit.synthesis import TwoQubitBasisDecomposer, TwoQubitWeylDecomposition
from qiskit.transpiler.basepasses import TransformationPass
from qiskit.transpiler.passes.utils.control_flow import trivial_recurse

from simenv.transpiler.compile_cost import ENTANGLERS

_SINGLE = ENTANGLERS | {"cy", "ch"}  # their definitions have one
_TOLERANCE = 1e-9


class SingleEntangler(TransformationPass):  # type: ignore[misc]  # Qiskit has no types
    """Write each gate on two qubits that one CZ or none makes so."""

    def __init__(self) -> None:
        super().__init__()
        self._decomposer = TwoQubitBasisDecomposer(CZGate(), euler_basis="ZSX")

    @trivial_recurse  # type: ignore[untyped-decorator]
    def run(self, dag: Any) -> Any:
        """Return the DAG, changed in place."""
        known: dict[tuple[object, ...], Any] = {}  # DAG of a gate of Qiskit's; None: it stays
        for node in dag.two_qubit_ops():
            if node.name in _SINGLE or node.is_parameterized() or not isinstance(node.op, Gate):
                continue
            key = (node.name, *node.params) if node.is_standard_gate() else ()
            if key in known:
                found = known[key]
            else:
                found = self._synthesized(node)
                if key:  # other gates may share a name and differ
                    known[key] = found
            if found is not None:
                dag.substitute_node_with_dag(node, found)
        return dag

    def _synthesized(self, node: Any) -> Any:
        matrix = node.matrix if node.is_standard_gate() or node.name == "unitary" else None
        if matrix is None:
            if node.op.definition is None:
                return None
            matrix = Operator(node.op.definition).data
        matrix = np.asarray(matrix, np.complex128)
        if np.abs(matrix - np.diag(matrix.diagonal())).max() < _TOLERANCE:
            return _diagonal(matrix.diagonal())
        found = TwoQubitWeylDecomposition(matrix, fidelity=None)
        single = abs(found.a - math.pi / 4.0) < _TOLERANCE or abs(found.a) < _TOLERANCE
        if not single or max(abs(found.b), abs(found.c)) > _TOLERANCE:
            return None
        return circuit_to_dag(self._decomposer(matrix))


def _diagonal(factors: Any) -> Any:
    """Return a diagonal gate as CZ, or none, and turns about Z, exactly; None if it needs two."""
    angles = np.angle(factors)
    coupling = math.remainder(angles[0] + angles[3] - angles[1] - angles[2], 2.0 * math.pi)
    entangles = abs(abs(coupling) - math.pi) < _TOLERANCE
    if not entangles and abs(coupling) > _TOLERANCE:
        return None
    result = QuantumCircuit(2, global_phase=angles[0])
    if entangles:
        result.cz(0, 1)
    for qubit, angle in enumerate((angles[1] - angles[0], angles[2] - angles[0])):
        result.p(math.remainder(angle, 2.0 * math.pi), qubit)
    return circuit_to_dag(result)
