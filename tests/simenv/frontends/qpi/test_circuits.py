"""What the C library reads of a program: its declarations."""

import ctypes

import pytest
from qpi_programs import built

HEAD2 = 'OPENQASM 2.0; include "qelib1.inc";'
HEAD3 = 'OPENQASM 3.0; include "stdgates.inc";'
# Text: qubits, clbits, parameters.
DECLARED = {
    HEAD2 + "qreg q[2]; creg c[2]; h q; measure q -> c;": (2, 2, ()),
    HEAD2 + "qreg a[2]; qreg b [ 3 ]; creg m[2]; creg n[13];": (5, 15, ()),
    HEAD3 + "qubit[2] q; qubit r; bit m; bit[3] c; bit n;": (3, 5, ()),
    HEAD3 + "input float[64] a; input angle b; input float c_1; qubit q;": (
        1,
        0,
        ("a", "b", "c_1"),
    ),
    HEAD3 + "input float theta; qubit[2] q; bit[2] c = measure q;": (2, 2, ("theta",)),
    HEAD3 + "output bit[4] c; qubit q;": (1, 4, ()),
    # A definition's own, comments, strings and lines of their own declare nothing.
    HEAD3 + "def f(qubit[2] a, bit b) -> bit { bit[7] x; return x[0]; } qubit q;": (1, 0, ()),
    HEAD3 + "// qubit[5] r;\n/* qubit[6] s;\n input float z; */ qubit q;": (1, 0, ()),
    HEAD3 + '#pragma qubit[5]\n@note input float z;\nqubit q; include "; qubit r;";': (1, 0, ()),
    HEAD3 + "for int i in [0:1] { x q[i]; } qubit[2] q;": (2, 0, ()),
    # Sizes that are computed are not known.
    HEAD3 + "const int n = 3; qubit[n] q; bit[2] c;": (0, 2, ()),
    HEAD3 + "qubit[2] q; bit[1 + 1] c; bit[2] d;": (2, 0, ()),
    HEAD3 + "qubit[99999999999] q;": (0, 0, ()),
    # What is no program is passed on, whatever it holds.
    "qubit[": (0, 0, ()),
    "input": (0, 0, ()),
    'include "no end': (0, 0, ()),
    "/* no end": (0, 0, ()),
    "}}}} qubit[2] q;": (0, 0, ()),
    "; " * 10 + "qreg": (1, 0, ()),
}


@pytest.fixture(scope="module")
def qpi(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = ctypes.CDLL(str(built(tmp_path_factory.mktemp("qpi")).library))
    for name in ("qubits", "clbits", "parameters"):
        function = library[f"qpi_circuit_{name}"]
        function.restype, function.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.qpi_circuit_parameter.restype = ctypes.c_char_p
    library.qpi_circuit_parameter.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.qpi_circuit_free.argtypes = [ctypes.c_void_p]
    return library


@pytest.mark.parametrize("text", DECLARED, ids=range(len(DECLARED)))
def test_declarations_are_read(qpi: ctypes.CDLL, text: str) -> None:
    circuit = ctypes.c_void_p()
    assert qpi.qpi_circuit_from_qasm(text.encode(), ctypes.byref(circuit)) == 0
    count = qpi.qpi_circuit_parameters(circuit)
    names = tuple(qpi.qpi_circuit_parameter(circuit, k).decode() for k in range(count))
    found = qpi.qpi_circuit_qubits(circuit), qpi.qpi_circuit_clbits(circuit), names
    assert qpi.qpi_circuit_parameter(circuit, count) is None
    qpi.qpi_circuit_free(circuit)
    assert found == DECLARED[text]


@pytest.mark.parametrize(("text", "status"), [("", 4), (" \n", 4), ("x" * (2**24 + 1), 5)])
def test_text_that_is_empty_or_too_long_is_refused(
    qpi: ctypes.CDLL, text: str, status: int
) -> None:
    circuit = ctypes.c_void_p(1)
    assert qpi.qpi_circuit_from_qasm(text.encode(), ctypes.byref(circuit)) == status
    assert circuit.value is None
