"""Circuits without their idle qubits, and layouts with them.

A circuit that was written for all qubits of a device may use a few. Only these are placed; the idle
ones get the places that are left.
"""

from __future__ import annotations

from typing import Any


def used_qubits(circuit: Any, least: int = 1) -> list[Any]:
    """Return the qubits that an operation other than a barrier acts on, in the circuit's order.
    `least`: number of qubits of such operations."""
    used = {
        qubit
        for each in circuit.data
        if len(each.qubits) >= least and each.operation.name != "barrier"
        for qubit in each.qubits
    }
    return [qubit for qubit in circuit.qubits if qubit in used]


def largest_part(circuit: Any) -> int:
    """Return the number of qubits of the largest part that operations other than barriers join."""
    parts = {qubit: [qubit] for qubit in circuit.qubits}
    for each in circuit.data:
        if each.operation.name == "barrier":
            continue
        for qubit in each.qubits[1:]:
            one, two = sorted((parts[each.qubits[0]], parts[qubit]), key=len)
            if one is not two:
                two += one
                parts |= dict.fromkeys(one, two)
    return max(map(len, parts.values()), default=0)


def without_qubits(circuit: Any, kept: list[Any]) -> Any:
    """Return the operations of a circuit on these of its qubits alone."""
    from qiskit.circuit.library import Barrier
    from qiskit.converters import circuit_to_dag, dag_to_circuit

    own = set(kept)
    result = circuit.copy_empty_like()
    for each in circuit.data:
        inside = [qubit for qubit in each.qubits if qubit in own]
        if len(inside) == len(each.qubits):
            result._append(each)
        elif inside and each.operation.name == "barrier":
            result._append(each.replace(operation=Barrier(len(inside)), qubits=inside))
    dag = circuit_to_dag(result)
    dag.remove_qubits(*(qubit for qubit in circuit.qubits if qubit not in own))
    return dag_to_circuit(dag)


def with_idle_qubits(compiled: Any, circuit: Any) -> Any:
    """Return the compiled circuit with the layout of all qubits of the original one: those that are
    idle there stand in place of ancillas."""
    from qiskit.transpiler import Layout, TranspileLayout

    layout = compiled._layout
    places = layout.initial_layout.get_virtual_bits()
    own = set(circuit.qubits)
    idle = iter([qubit for qubit in circuit.qubits if qubit not in places])
    others = sorted((bit for bit in places if bit not in own), key=places.__getitem__)
    renamed = {bit: next(idle, bit) for bit in others}
    first = {renamed.get(bit, bit): place for bit, place in places.items()}
    ancillas = [bit for bit in others if renamed[bit] is bit]
    compiled._layout = TranspileLayout(
        initial_layout=Layout(first),
        input_qubit_mapping={bit: k for k, bit in enumerate([*circuit.qubits, *ancillas])},
        final_layout=layout.final_layout,
        _input_qubit_count=circuit.num_qubits,
        _output_qubit_list=layout._output_qubit_list,
    )
    return compiled
