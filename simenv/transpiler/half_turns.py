"""Half turns of Clifford circuits about axes that a stabilizer engine knows.

Qiskit writes a rotation about Z as two half turns r(-pi, a) r(pi, b). Their product depends on
b - a alone, and a is the phase of a number that rounding left: no single one is a Clifford gate
then, for any Clifford circuit. Both axes are turned so that the first one is X.
"""

from __future__ import annotations

import math
from typing import Any

from qiskit.circuit import ParameterExpression
from qiskit.circuit.library import RGate
from qiskit.transpiler.basepasses import TransformationPass
from qiskit.transpiler.passes.utils.control_flow import trivial_recurse

_TOLERANCE = 1e-12


class AlignHalfTurns(TransformationPass):  # type: ignore[misc]  # Qiskit has no types
    """Turn the axes of each two consecutive half turns `r` of a qubit by the same angle."""

    @trivial_recurse  # type: ignore[untyped-decorator]
    def run(self, dag: Any) -> Any:
        """Return the DAG, changed in place."""
        for run in dag.collect_runs(["r"]):
            pending: Any = None
            for node in run:
                if not _is_half_turn(node):
                    pending = None
                elif pending is None:
                    pending = node
                else:
                    first, second = float(pending.op.params[1]), float(node.op.params[1])
                    for each, axis in ((pending, 0.0), (node, second - first)):
                        gate = RGate(each.op.params[0], math.remainder(axis, 2.0 * math.pi))
                        dag.substitute_node(each, gate)
                    pending = None
        return dag


def _is_half_turn(node: Any) -> bool:
    angle, axis = node.op.params
    if isinstance(angle, ParameterExpression) or isinstance(axis, ParameterExpression):
        return False
    return abs(abs(float(angle)) - math.pi) < _TOLERANCE
