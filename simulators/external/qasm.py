"""Circuits as OpenQASM 2 for external programs: u3 and cx alone, which every parser reads.

One quantum register `q`, one classical register `c` over all clbits, measurements last.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile

from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported
from simulators.execution.qiskit_export import Dialect, convert

BASIS = ("u3", "cx")  # of qelib1.inc (Cross et al., arXiv:1707.03429)
_DIALECT = Dialect("external", "engine='statevector' runs it")


def dump(circuit: Circuit, params: NDArray[Any]) -> str:
    """Text of a circuit without free parameters that measures at its end only.

    Angles have 16 decimals and no exponent, because some parsers do not accept one. Raises
    Unsupported for operations that OpenQASM 2 lacks.
    """
    full = transpile(
        convert(circuit, params, _DIALECT), basis_gates=list(BASIS), optimization_level=0
    )
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{max(1, full.num_qubits)}];"]
    if full.num_clbits:
        lines.append(f"creg c[{full.num_clbits}];")
    lines += [_line(full, item) for item in full.data]
    return "\n".join(lines) + "\n"


def _line(circuit: QuantumCircuit, item: Any) -> str:
    operation = item.operation
    qubits = [f"q[{circuit.find_bit(qubit).index}]" for qubit in item.qubits]
    if operation.name == "measure":
        return f"measure {qubits[0]} -> c[{circuit.find_bit(item.clbits[0]).index}];"
    if operation.name not in BASIS:
        raise Unsupported(
            f"{operation.name} in a circuit for a program of its own",
            hint="gates and final measurements alone; engine='statevector' runs it",
        )
    angles = ",".join(f"{float(angle):.16f}" for angle in operation.params)
    return f"{operation.name}{f'({angles})' if angles else ''} {','.join(qubits)};"
