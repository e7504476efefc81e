"""Memory of a process that runs records of measurements, as the kernel counts it."""

import subprocess
import sys

import pytest

from simulators.catalog.costs import BASE_BYTES

QUBITS = 10
CODE = """
import re, sys
from pathlib import Path
sys.path.insert(0, {support!r})
import engine_runs
from arrays import Arrays
from simulators.circuit import ir
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request

def held(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def circuit(qubits, bits):
    # Each outcome flips the last qubit; all qubits are entangled and measured at the end.
    arrays = Arrays(qubits, bits + qubits)
    for bit in range(bits):
        arrays.add("h", [0]).add("measure", [0], [bit])
        arrays.begin((ir.CLBIT, bit, 0)).add("x", [qubits - 1]).add("end")
        if {wide}:
            arrays.add("ccx", [0, 1, 2])
    for qubit in range(qubits - 1):
        arrays.add("h", [qubit]).add("cx", [qubit, qubit + 1])
    for qubit in range(qubits):
        arrays.add("measure", [qubit], [bits + qubit])
    return arrays.circuit()

engine = DensityMatrixEngine()
engine_runs.run(engine, circuit(3, 2), Request(10, 1))  # loads the kernels
Path("/proc/self/clear_refs").write_text("5")
before, size = held("VmRSS"), 8 * 4**10
try:
    engine_runs.run(engine, circuit(10, {bits}), Request(10, 1), memory_bytes={states} * size)
except Exception as error:
    print(type(error).__name__, end=" ")
print((held("VmHWM") - before) / size)
"""


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bits", [3, 6])
def test_peak_stays_within_the_granted_memory(bits: int, wide: bool) -> None:
    """Eight records fit into twelve states; 64 do not, and are refused before they are there. A
    grant has BASE_BYTES more for buffers."""
    support = str(next(path for path in sys.path if path.endswith("tests/support")))
    code = CODE.format(support=support, wide=wide, bits=bits, states=12)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *errors, peak = done.stdout.split()
    assert errors == (["TooManyBranches"] if bits == 6 else [])
    assert 8.0 < float(peak) < 12.0 + BASE_BYTES / (8 * 4**QUBITS) / 8
