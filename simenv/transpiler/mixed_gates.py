"""Translation for devices of which different pairs have different gates in one direction each.

Qiskit's BasisTranslator leaves a two-qubit gate against the direction of its pair to the pass
GateDirection, which refuses what the translator makes of it where pairs have different gates. Here
gates become cx and u first, each cx gets the direction of its pair, and then all are translated.
"""

from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit.equivalence_library import SessionEquivalenceLibrary
from qiskit.circuit.library import CXGate
from qiskit.converters import circuit_to_dag
from qiskit.transpiler import PassManager, Target, TransformationPass
from qiskit.transpiler.passes import BasisTranslator, UnrollCustomDefinitions
from qiskit.transpiler.passes.utils.control_flow import trivial_recurse

from simenv.transpiler.qiskit_runtime import BELL

NAME = "simenv_mixed"  # of the plugin
_OTHERS = ("measure", "reset", "delay", "barrier", BELL)
_CONTROL_FLOW = ("if_else", "while_loop", "for_loop", "switch_case")


def is_mixed(target: Target) -> bool:
    """Return whether pairs of a Target have different gates, and one of them in one direction."""
    places = [set(each) for each in map(target.__getitem__, target.operation_names) if each]
    pairs = [each for each in places if any(qubits and len(qubits) == 2 for qubits in each)]
    directed = any(qubits[::-1] not in each for each in pairs for qubits in each if qubits)
    return directed and any(each != pairs[0] for each in pairs)


def translation(target: Target) -> PassManager:
    """Return the passes of the translation."""
    library = SessionEquivalenceLibrary
    singles = [
        name
        for name in target.operation_names
        if name not in _CONTROL_FLOW and target.operation_from_name(name).num_qubits == 1
    ]
    basis = ["cx", "u", *singles, *_OTHERS, *_CONTROL_FLOW]
    return PassManager(
        [
            UnrollCustomDefinitions(library, basis),
            BasisTranslator(library, basis),
            _Directions(target),
            BasisTranslator(library, None, target=target),
        ]
    )


class _Directions(TransformationPass):  # type: ignore[misc]  # qiskit is untyped
    """Turn each cx whose pair has gates in the other direction only, with h on both qubits."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        listed = (target[name] or {} for name in target.operation_names)
        self._pairs = {qubits for each in listed for qubits in each if qubits and len(qubits) == 2}
        turned = QuantumCircuit(2)
        turned.h([0, 1])
        turned.cx(1, 0)
        turned.h([0, 1])
        self._turned = circuit_to_dag(turned)

    @trivial_recurse  # type: ignore[untyped-decorator]
    def run(self, dag: Any) -> Any:
        """Return the circuit, in which a pair is that of its qubits' places."""
        numbers = {qubit: index for index, qubit in enumerate(dag.qubits)}
        for node in dag.op_nodes(CXGate):
            pair = tuple(numbers[qubit] for qubit in node.qargs)
            if pair not in self._pairs and pair[::-1] in self._pairs:
                dag.substitute_node_with_dag(node, self._turned)
        return dag


class TranslationPlugin:
    """Stage plugin of Qiskit."""

    def pass_manager(self, config: Any, optimization_level: int | None = None) -> PassManager:  # noqa: ARG002
        """Return the passes for the Target of a configuration."""
        return translation(config.target)
