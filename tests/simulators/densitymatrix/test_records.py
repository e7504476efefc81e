"""Classical records of dynamic circuits: bits that nothing reads do not multiply states."""

import tracemalloc

import engine_runs
import numpy as np
from arrays import Arrays
from device_models import DeviceModel
from msgspec.structs import replace
from noisy import Exact

from simulators.circuit import ir
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.densitymatrix.program import Measurement, build_program
from simulators.engine import PauliSum, Request
from simulators.execution.hidden_bits import without_hidden

ENGINE = DensityMatrixEngine()
DATA = 4  # qubits of a module, which also has one for communication


def remote_cp(
    circuit: Arrays, angle: float, source: int, target: int, bits: tuple[int, int]
) -> None:
    """A controlled phase of qubits of two modules: the control is copied to the other module over a
    Bell pair, and the copy is measured away (Eisert et al., quant-ph/0005101)."""
    here, there = 2 * DATA, 2 * DATA + 1
    circuit.add("h", [here]).add("cx", [here, there]).add("cx", [source, here])
    circuit.add("measure", [here], [bits[0]])
    circuit.begin((ir.CLBIT, bits[0], 0)).add("x", [there]).add("end")
    circuit.add("cp", [there, target], params=[angle]).add("h", [there])
    circuit.add("measure", [there], [bits[1]])
    circuit.begin((ir.CLBIT, bits[1], 0)).add("z", [source]).add("end")
    circuit.add("reset", [here]).add("reset", [there])


def distributed_qft(*, reuse: bool) -> Arrays:
    """QFT of 8 qubits on two modules of 5; each remote gate measures two bits, the same ones or its
    own. The input is |11>."""
    size = 2 * DATA
    remote = DATA * DATA
    circuit = Arrays(size + 2, size + 2 * (1 if reuse else remote)).add("x", [0]).add("x", [1])
    used = 0
    for target in reversed(range(size)):
        circuit.add("h", [target])
        for source in reversed(range(target)):
            angle = np.pi / (1 << target - source)
            if source // DATA == target // DATA:
                circuit.add("cp", [source, target], params=[angle])
                continue
            first = size + (0 if reuse else 2 * used)
            remote_cp(circuit, angle, source, target, (first, first + 1))
            used += 1
    assert used == remote
    return circuit


def ended(reuse: bool, *, measured: bool = True) -> Circuit:
    """The transform of |00000011> back to a basis state by phases and h alone: qubit t has the
    phase 2 pi 3 / 2^(t + 1)."""
    circuit = distributed_qft(reuse=reuse)
    for qubit in range(2 * DATA):
        circuit.add("p", [qubit], params=[-2.0 * np.pi * 3.0 / (2 << qubit)]).add("h", [qubit])
    for qubit in range(2 * DATA if measured else 0):
        circuit.add("measure", [qubit], [qubit])
    if reuse:
        for comm in range(2):
            circuit.add("measure", [2 * DATA + comm], [2 * DATA + comm])
    return circuit.circuit()


def test_counts_of_a_distributed_transform_need_two_records_in_three_states_of_memory() -> None:
    """With 32 measurements on two bits; each dead bit doubled the records, and their memory."""
    circuit, state = ended(reuse=True), 8 * 4 ** (2 * DATA + 2)
    engine_runs.run(ENGINE, circuit, Request(1, 1))  # loads what it needs
    tracemalloc.start()
    result = engine_runs.run(
        ENGINE, circuit, Request(100, 1), max_branches=2, memory_bytes=3 * state
    ).row(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.remark == ""
    assert result.outcomes == bytes(len(result.outcomes))
    assert peak < 3 * state


def test_expectation_values_read_no_record() -> None:
    """With 32 bits of which each has one use, and no output."""
    sums = tuple(
        PauliSum(("I" * (2 * DATA + 1 - q) + "Z" + "I" * q,), np.ones(1)) for q in range(2 * DATA)
    )
    request = Request(0, 1, ("expectation",), sums)
    circuit = ended(reuse=False, measured=False)
    result = engine_runs.run(ENGINE, circuit, request, max_branches=2).row(0)
    np.testing.assert_allclose(np.array(result.expectations)[:, 0], 1.0, atol=1e-10)
    assert result.remark == ""


def test_merged_records_keep_the_distribution_with_noise() -> None:
    rng = np.random.default_rng(3)
    for _ in range(6):
        circuit = Arrays(3, 4)
        for _ in range(10):
            qubit, bit = int(rng.integers(3)), int(rng.integers(4))
            circuit.add("h", [qubit]).add("cx", [qubit, (qubit + 1) % 3])
            circuit.add("measure", [qubit], [bit])
            circuit.begin((ir.CLBIT, int(rng.integers(4)), 0)).add("x", [int(rng.integers(3))])
            circuit.add("measure", [(qubit + 2) % 3], [int(rng.integers(4))]).add("end")
        built = circuit.add("measure", [0], [1]).circuit()
        noise = attach_noise(built, DeviceModel(3, readout=(0.02, 0.05)))
        exact = Exact(built, noise)
        request = Request(0, 1, ("probabilities",))
        result = engine_runs.probabilities(engine_runs.run(ENGINE, built, request, noise).row(0))
        for key in result.keys() | exact.probs.keys():
            assert abs(result.get(key, 0.0) - exact.probs.get(key, 0.0)) < 1e-12


def test_measurement_whose_outcome_nothing_reads_has_no_clbit() -> None:
    circuit = Arrays(1, 1)
    for _ in range(2):
        circuit.add("h", [0]).add("measure", [0], [0]).add("h", [0])
    built = circuit.circuit()
    program = build_program(built, attach_noise(built, DeviceModel(1)), measurement_layout(built))
    assert [step.clbit for step in program.steps if isinstance(step, Measurement)] == [-1, 0]


def test_hidden_bits_of_corrections_cost_no_state() -> None:
    """With a bit of its own for each of 32 measurements, no two records of 2^32 were equal."""
    circuit, size = ended(reuse=False), 2 * DATA
    registers = ("c", size), (ir.HIDDEN_REGISTER, circuit.num_clbits - size)
    hidden, request = replace(circuit, registers=registers), Request(100, 1)
    result = engine_runs.run(ENGINE, hidden, request, max_branches=2)
    shown = without_hidden(hidden, result, 100).row(0)
    assert (shown.outcome_width, shown.outcomes) == (1, b"\0")
    assert np.frombuffer(shown.counts, np.uint32).tolist() == [100]
