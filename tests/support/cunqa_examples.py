"""Examples of CUNQA 2.4 (examples/python of its repository) as `CunqaCircuit.info`, and what they
say of a shot: bits of each circuit, bit 0 first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Info = dict[str, Any]
PHASE = 1 / 2**3


def circuit(name: str, qubits: int, clbits: int, *instructions: Info) -> Info:
    """The members that CunqaCircuit.info has."""
    return {
        "id": name,
        "instructions": list(instructions),
        "num_qubits": qubits,
        "num_clbits": clbits,
        "classical_registers": {"c0": list(range(clbits))} if clbits else {},
        "quantum_registers": {"q0": list(range(qubits))},
        "is_dynamic": True,
        "has_cc": False,
        "has_qc": False,
        "sending_to": [],
        "params": [],
        "blocks_with_comms": [],
    }


def gate(name: str, *qubits: int, params: Sequence[float] = ()) -> Info:
    return {"name": name, "qubits": list(qubits)} | ({"params": list(params)} if params else {})


def measure(qubit: int, clbit: int) -> Info:
    return {"name": "measure", "qubits": [qubit], "clbits": [clbit]}


def classical(name: str, other: str, *clbits: int) -> Info:
    return {"name": name, "clbits": list(clbits), "circuits": [other]}


def quantum(name: str, other: str, *qubits: int) -> Info:
    return {"name": name, "qubits": list(qubits), "circuits": [other]}


def controlled(other: str, *instructions: Info) -> Info:
    return {"name": "rcontrol", "instructions": list(instructions), "circuits": [other]}


def cif(
    clbits: Sequence[int], *instructions: Info, condition: int = 1, operation: str = "and"
) -> Info:
    return {
        "name": "cif",
        "clbits": list(clbits),
        "instructions": list(instructions),
        "condition": condition,
        "operation": operation if condition else f"{operation}n",
    }


def send_recv() -> list[Info]:
    """cl_comm/01-send_recv.py: the bit of one circuit flips the other's qubit."""
    return [
        circuit("1", 2, 2, gate("h", 0), measure(0, 0), classical("send", "2", 0), measure(1, 1)),
        circuit("2", 1, 1, classical("recv", "1", 0), cif([0], gate("x", 0)), measure(0, 0)),
    ]


def cyclic(count: int = 3) -> list[Info]:
    """cl_comm/02-cyclic.py: each circuit sends its bit to the next one, the last to the first."""
    return [
        circuit(
            str(k), 2, 2,
            gate("h", 1), measure(1, 1), classical("send", str((k + 1) % count), 1),
            classical("recv", str((k - 1) % count), 0), cif([0], gate("x", 0)), measure(0, 0),
        )
        for k in range(count)
    ]  # fmt: skip


def iterative_phase_estimation(count: int = 4) -> list[Info]:
    """cl_comm/03-distributed_QPE.py: circuit k measures one bit of a phase, and corrects it by the
    bits of those before it."""
    result = []
    for k in range(count):
        theta = 2 ** (count - 1 - k) * PHASE * 2 * math.pi
        steps = [gate("h", 0), gate("x", 1), gate("crz", 0, 1, params=[theta])]
        for j in range(k):
            turn = gate("rz", 0, params=[-math.pi * 2 ** (-j - 1)])
            steps += [classical("recv", f"cc_{k - j - 1}", 0), cif([0], turn)]
        steps += [gate("h", 0), measure(0, 0)]
        steps += [classical("send", f"cc_{k + j + 1}", 0) for j in range(count - k - 1)]
        result.append(circuit(f"cc_{k}", 2, 2, *steps, measure(1, 1)))
    return result


def teledata() -> list[Info]:
    """qu_comm/01-teledata.py."""
    received = (quantum("qrecv", "First", 0), gate("cx", 0, 1), measure(0, 0), measure(1, 1))
    return [
        circuit("First", 1, 0, gate("h", 0), quantum("qsend", "Second", 0)),
        circuit("Second", 2, 2, *received),
    ]


def telegate() -> list[Info]:
    """qu_comm/02-telegate.py."""
    return [
        circuit("First", 1, 1, gate("h", 0), quantum("expose", "Second", 0), measure(0, 0)),
        circuit("Second", 1, 1, controlled("First", gate("cx", -1, 0)), measure(0, 0)),
    ]


def phase_estimation(ancillas: int = 3) -> list[Info]:
    """qu_comm/04-qdistributed_QPE.py: the phase's bits in one circuit, the state in another one."""
    n = ancillas
    steps = [gate("h", k) for k in range(n)]
    steps += [quantum("expose", "register", n - 1 - k) for k in range(n)]
    steps += [gate("swap", k, n - 1 - k) for k in range(n // 2)]
    for k in range(n):
        for j in range(k):
            turn = [-math.pi / 2 ** (k - j)]
            steps.append(gate("crz", n - 1 - j, n - 1 - k, params=turn))
        steps.append(gate("h", n - 1 - k))
    turns = [
        controlled("ancilla", gate("crz", -1, 0, params=[2**k * 4 * math.pi * PHASE]))
        for k in range(n)
    ]
    return [
        circuit("ancilla", n, n, *steps, *(measure(k, k) for k in range(n))),
        circuit("register", 1, 0, gate("x", 0), *turns),
    ]


def qubits_and_bits() -> list[Info]:
    """qu_comm/05-qc_with_cc.py: a qubit, then a bit, by the same circuits."""
    sent = (gate("h", 0), quantum("qsend", "Second", 0), measure(0, 0))
    bit = (gate("h", 1), measure(1, 1), classical("send", "Second", 1))
    received = (quantum("qrecv", "First", 0), gate("cx", 0, 1), measure(0, 0), measure(1, 1))
    then = (classical("recv", "First", 2), cif([2], gate("x", 2)), measure(2, 2))
    return [circuit("First", 2, 2, *sent, *bit), circuit("Second", 3, 3, *received, *then)]


def several_communication_qubits() -> list[Info]:
    """qu_comm/06-several_comm_qubits.py: a copy is used before a qubit that was sent before it."""
    sent = (gate("h", 0), gate("h", 1), quantum("qsend", "Second", 0))
    exposed = (quantum("expose", "Second", 1), measure(0, 0), measure(1, 1))
    used = (controlled("First", gate("cx", -1, 2)), *(gate("x", 2),) * 4)
    received = (quantum("qrecv", "First", 0), gate("cx", 0, 1))
    ends = (measure(0, 0), measure(1, 1), measure(2, 2))
    return [
        circuit("First", 2, 2, *sent, *exposed),
        circuit("Second", 3, 3, *used, *received, *ends),
    ]


def several_controls() -> list[Info]:
    """qu_comm/07-distributed_multicontrolled.py: a gate with controls of another circuit."""
    both = (gate("h", 0), gate("h", 1), quantum("expose", "Second", 0, 1))
    return [
        circuit("First", 2, 2, *both, measure(0, 0), measure(1, 1)),
        circuit("Second", 1, 1, controlled("First", gate("mcx", -1, -2, 0)), measure(0, 0)),
    ]


def conditions() -> list[Info]:
    """no_comm/08-multi_cif_example.py: conditions on several bits."""
    return [
        circuit(
            "only", 5, 5,
            gate("x", 0), measure(0, 0), measure(1, 1),
            cif([0, 1], gate("x", 2)), cif([0, 1], gate("x", 3), operation="or"),
            cif([0, 1], gate("x", 4), operation="xor"), cif([0, 1], gate("x", 2), condition=0),
            *(measure(k, k) for k in range(5)),
        )
    ]  # fmt: skip
