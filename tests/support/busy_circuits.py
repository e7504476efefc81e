"""Circuits that keep a simulator busy for as long as they say: nothing in them can be left out."""

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
QUBITS = 20


def busy(layers: int, qubits: int = QUBITS) -> str:
    """OpenQASM 2, all qubits measured: turns and a ring of controlled phases in each layer, which
    do not commute. 20 qubits take some ms a layer."""
    ring = "".join(f"cz q[{k}],q[{(k + 1) % qubits}];\n" for k in range(qubits))
    turned = "".join(f"rx({0.1 + 0.01 * k}) q;\n{ring}" for k in range(layers))
    return f"{HEAD}qreg q[{qubits}];\ncreg c[{qubits}];\n{turned}measure q -> c;\n"


ENDLESS = busy(300, 24)
"""Half a minute on two cores: for tests that stop it, or look at what happens beside it."""
