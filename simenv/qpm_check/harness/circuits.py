"""Circuits with known results, as OpenQASM 2 text."""

from __future__ import annotations

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
BELL = HEAD + "qreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
UNREADABLE = HEAD + "qreg q[2];\ncreg c[2];\nnonsense q[0];\nmeasure q -> c;\n"
NO_QASM = "this is not qasm"
FIRST_BIT = HEAD + "qreg q[3];\ncreg c[3];\nx q[0];\nmeasure q -> c;\n"  # 001
FIRST_BIT_QPY = (  # the same in QPY 13, base64
    "UUlTS0lUDQIGAQAAAAAAAAABcHEAAWYACAAAAAMAAAADAAAAAAAAAAIAAAACAAAAAAAAAAQAAAAAYwAAAAAAAAAAe31x"
    "AQAAAAMAAQFxAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAACYwEAAAADAAEBYwAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAgAA"
    "AAAAAAAAAAUAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAWEdhdGVxAAAAAAAHAAAAAAAAAAEAAAABAAAAAAAA"
    "AAAAAAAAAAAAAAAAAE1lYXN1cmVxAAAAAGMAAAAAAAcAAAAAAAAAAQAAAAEAAAAAAAAAAAAAAAAAAAAAAAAATWVhc3Vy"
    "ZXEAAAABYwAAAAEABwAAAAAAAAABAAAAAQAAAAAAAAAAAAAAAAAAAAAAAABNZWFzdXJlcQAAAAJjAAAAAgAAAP//////"
    "/////////wAAAAAAAAAA"
)
CROSSED = HEAD + "qreg q[3];\ncreg c[3];\nx q[0];\nmeasure q[0] -> c[2];\n"  # 100
REGISTERS = (  # '10 001': b is the last declared
    HEAD + "qreg q[5];\ncreg a[3];\ncreg b[2];\nx q[0];\nx q[4];\n"
    "measure q[0] -> a[0];\nmeasure q[1] -> a[1];\nmeasure q[2] -> a[2];\n"
    "measure q[3] -> b[0];\nmeasure q[4] -> b[1];\n"
)
AMPLITUDES = HEAD + "qreg q[3];\nx q[0];\nh q[2];\n"  # indices 1 and 5
_NONE = ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg")
_GATES = (
    *(f"{name} q[0];" for name in _NONE),
    *(f"{name}(0.3) q[0];" for name in ("rx", "ry", "rz", "p", "u1")),
    "u2(0.1,0.2) q[0];", "u3(0.1,0.2,0.3) q[0];", "u(0.1,0.2,0.3) q[0];",
    *(f"{name} q[0],q[1];" for name in ("cx", "cy", "cz", "ch", "swap", "csx")),
    *(f"{name}(0.3) q[0],q[1];" for name in ("cp", "cu1", "crx", "cry", "crz", "rxx", "rzz")),
    "cu3(0.1,0.2,0.3) q[0],q[1];", "cu(0.1,0.2,0.3,0.4) q[0],q[1];",
    "ccx q[0],q[1],q[2];", "cswap q[0],q[1],q[2];", "reset q[0];",
)  # fmt: skip
EVERY_GATE = HEAD + "qreg q[3];\ncreg c[3];\n" + "\n".join(_GATES) + "\nmeasure q -> c;\n"
DEFINED = (  # gates that a host's compiler defines in the text
    HEAD + "gate cs a,b { p(pi/4) a; cx a,b; p(-pi/4) b; cx a,b; p(pi/4) b; }\n"
    "gate flip(t) a { rx(t) a; }\n"
    "qreg q[2];\ncreg c[2];\nflip(pi) q[0];\ncs q[0],q[1];\nmeasure q -> c;\n"  # 01
)


def number(value: int, bits: int) -> str:
    """Circuit that prepares `value` in `bits` bits and measures it: one outcome, different for each
    value."""
    lines = [f"qreg q[{bits}];", f"creg c[{bits}];"]
    lines += [f"x q[{place}];" for place in range(bits) if value >> place & 1]
    return HEAD + "\n".join([*lines, "measure q -> c;"]) + "\n"


def key(value: int, bits: int) -> str:
    """Outcome of `number`."""
    return format(value, f"0{bits}b")


def one_qubit_gates(qubits: int, layers: int) -> int:
    """Number of one-qubit gates of `layered`."""
    return 1 + layers * (qubits + 1)


def layered(qubits: int, layers: int) -> str:
    """Circuit of `layers` layers on all qubits that no optimizer simplifies or splits: each qubit
    is entangled with its lower and upper neighbour in turn."""
    lines = [f"qreg q[{qubits}];", f"creg c[{qubits}];", "t q[0];"]
    pairs = [
        "".join(f"cx q[{a}],q[{a + 1}];" for a in range(first, qubits - 1, 2)) for first in (0, 1)
    ]
    lines += [f"h q;rx(0.1) q[0];{pairs[layer % 2]}" for layer in range(layers)]
    return HEAD + "\n".join([*lines, "measure q -> c;"]) + "\n"
