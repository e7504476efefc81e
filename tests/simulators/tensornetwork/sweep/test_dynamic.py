"""Engine `sweep`: measurements, resets and conditions before the end of a circuit."""

from collections.abc import Sequence

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities, run
from msgspec.structs import replace
from noisy import after_gates, p_value, program
from noisy_runs import DYNAMIC, bit, dynamic_noise
from reference import Operation
from swept import chi_square, counted, counts_of

from noise_models.channel import Channel, Readout, ReadoutGroup, depolarizing, relaxation
from simulators.catalog.costs import SweepCost
from simulators.circuit import ir
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.ir import Circuit
from simulators.engine import Request
from simulators.errors import OutOfMemory, Unsupported
from simulators.lines.size import sweep_size
from simulators.stabilizer.engine import StabilizerEngine
from simulators.statevector.engine import StatevectorEngine
from simulators.tensornetwork.sweep.engine import SweepEngine

WIDTH = 5
READOUT = Readout(np.linspace(0.01, 0.05, WIDTH), np.linspace(0.1, 0.02, WIDTH))
ONE = ("x", "h", "s", "t", "sx", "z")
TWO = ("cx", "cz", "swap", "iswap", "ecr")


def random_circuit(random: np.random.Generator) -> Circuit:
    """Gates, measurements, resets and nested blocks on a line of qubits."""
    arrays = Arrays(WIDTH, WIDTH)

    def gates(count: int) -> None:
        for _ in range(count):
            qubit = int(random.integers(WIDTH))
            kind = random.random()
            if kind < 0.3:
                arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
            elif kind < 0.5:
                arrays.add(ONE[int(random.integers(len(ONE)))], [qubit])
            elif kind < 0.7:
                low = min(qubit, WIDTH - 2)
                arrays.add(TWO[int(random.integers(len(TWO)))], [low, low + 1])
            elif kind < 0.8:
                low = min(qubit, WIDTH - 2)
                arrays.add("cp", [low + 1, low], (), [float(random.uniform(0, 6))])
            elif kind < 0.9:
                arrays.add("measure", [qubit], [int(random.integers(WIDTH))])
            else:
                arrays.add("reset", [qubit])

    for qubit in range(WIDTH):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    gates(8)
    for _ in range(3):
        arrays.add("measure", [int(random.integers(WIDTH))], [int(random.integers(WIDTH))])
        arrays.begin(bit(int(random.integers(WIDTH))))
        gates(3)
        if random.random() < 0.5:
            arrays.begin(*arrays.equals(0, int(random.integers(4))))
            gates(2)
            arrays.add("end")
        if random.random() < 0.5:
            arrays.add("else")
            gates(2)
        arrays.add("end")
        gates(3)
    for qubit in range(0, WIDTH, 2):
        arrays.add("measure", [qubit], [qubit])
    return arrays.circuit()


@pytest.mark.parametrize("seed", range(12))
def test_random_dynamic_circuits_have_the_distribution_of_the_density_matrix(seed: int) -> None:
    random = np.random.default_rng([seed, 3])
    circuit = random_circuit(random)
    noise = None
    if seed % 4:
        noise = dynamic_noise(circuit, (0.5, 1.0, 1.7)[seed % 3], READOUT if seed % 2 else None)
    assert chi_square(circuit, noise, seed, 20_000) > 0.0005


@pytest.mark.parametrize("name", ["ccx", "cswap"])
def test_a_gate_on_three_qubits_under_a_condition(name: str) -> None:
    arrays = Arrays(4, 4)
    for qubit in range(4):
        arrays.add("ry", [qubit], (), [0.5 + 0.4 * qubit])
    arrays.add("measure", [3], [3]).begin(bit(3)).add(name, [2, 0, 1]).add("end")
    circuit = arrays.add("h", [1]).measure(range(3)).circuit()
    assert chi_square(circuit, dynamic_noise(circuit, 1.0), 4, 20_000) > 0.001


def test_readout_errors_of_a_group_and_of_one_measurement_amid() -> None:
    """A group applies to final measurements alone, as in other engines."""
    arrays = Arrays(3, 4).add("h", [0]).add("cx", [0, 1]).add("measure", [0], [3])
    arrays.begin(bit(3)).add("ry", [2], (), [1.1]).add("end").add("h", [0])
    circuit = arrays.measure(range(3)).circuit()
    confusion = np.random.default_rng(5).dirichlet(np.ones(4), 4).T * 0.3 + 0.7 * np.eye(4)
    rates = np.array([0.1, 0.05, 0.02])
    readout = Readout(rates, rates[::-1].copy(), (ReadoutGroup((1, 2), confusion),))
    assert chi_square(circuit, dynamic_noise(circuit, 1.0, readout), 4) > 0.001


def repetition_code(data: int, cycles: int) -> Circuit:
    """Cycles of a repetition code on a line: ancillas are measured and reset; then the data."""
    width = 2 * data - 1
    arrays = Arrays(width, cycles * (data - 1) + data)
    for cycle in range(cycles):
        for ancilla in range(1, width, 2):
            arrays.add("cx", [ancilla - 1, ancilla])
        for ancilla in range(1, width, 2):
            arrays.add("cx", [ancilla + 1, ancilla])
        for ancilla in range(1, width, 2):
            arrays.add("measure", [ancilla], [cycle * (data - 1) + ancilla // 2])
            arrays.add("reset", [ancilla])
    for k in range(data):
        arrays.add("measure", [2 * k], [cycles * (data - 1) + k])
    return arrays.circuit()


def test_syndromes_of_a_repetition_code_have_the_rates_of_a_stabilizer_simulation() -> None:
    """41 qubits, 4 cycles, Pauli errors and readout errors: rates of all detectors, and of pairs of
    successive ones, each within five standard deviations."""
    data, cycles, shots = 21, 4, 20_000
    circuit = repetition_code(data, cycles)
    pair, one = depolarizing(0.02, 2), depolarizing(0.03, 1)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name == "reset":
            return [(row.qubits, one)]
        return [(row.qubits, pair)] if row.name == "cx" else []

    width = circuit.num_qubits
    noise = program(after_gates(circuit, rule), Readout(np.full(width, 0.02), np.full(width, 0.02)))
    noise = replace(noise, kinds=frozenset({"pauli", "readout"}))
    bits = []
    for engine, seed in ((SweepEngine(), 1), (StabilizerEngine(), 2)):
        request = Request(shots, seed, ("memory",))
        memory = run(engine, circuit, request, noise).row(0).memory
        rows = np.frombuffer(memory, np.uint8).reshape(shots, -1)
        record = np.unpackbits(rows, axis=1, bitorder="little")[:, : circuit.num_clbits]
        syndromes = record[:, : cycles * (data - 1)].reshape(shots, cycles, data - 1)
        last = record[:, cycles * (data - 1) :]
        syndromes = np.concatenate((syndromes, (last[:, 1:] ^ last[:, :-1])[:, None]), axis=1)
        detectors = np.diff(syndromes, axis=1, prepend=np.uint8(0)) & 1
        flat = detectors.reshape(shots, -1)
        both = flat[:, 1:] & flat[:, :-1]
        timelike = (detectors[:, 1:] & detectors[:, :-1]).reshape(shots, -1)
        bits.append(np.hstack((flat, both, timelike)).mean(axis=0))
    sigma = np.sqrt(np.maximum(bits[1] * (1 - bits[1]), 1e-4) * 2 / shots)
    assert bits[1].min() > 0.001
    assert np.abs(bits[0] - bits[1]).max() < 5 * sigma.max()
    assert (np.abs(bits[0] - bits[1]) < 5 * sigma).all()


def test_a_switch_and_stored_bits_act_as_their_conditions() -> None:
    """Cases with several labels, a default, a variable, a condition on it, and a stored clbit."""
    arrays = Arrays(4, 5, [("a", 2), ("b", 3)])
    number = arrays.variable(2)
    for qubit in range(4):
        arrays.add("ry", [qubit], (), [0.7 + 0.3 * qubit])
    arrays.add("cx", [0, 1]).add("measure", [0], [0]).add("measure", [1], [1])
    arrays.begin((ir.REGISTER, 0, 2), name="switch")
    arrays.begin((ir.VALUE, arrays.value(1), 2), (ir.VALUE, arrays.value(2), 2), name="case")
    arrays.add("ry", [2], (), [0.9])
    arrays.begin((ir.VALUE, arrays.value(3), 2), name="case").add("x", [3])
    arrays.add("measure", [3], [4])
    arrays.add("default").add("cx", [2, 3]).add("end")
    one = (ir.VALUE, arrays.value(1), 2)
    arrays.begin(
        (ir.REGISTER, 0, 2), one, (ir.ADD, 0, 2), (ir.SET_VARIABLE, number, 2), name="store"
    )
    arrays.begin((ir.VARIABLE, number, 2), one, (ir.EQUAL, 0, 0)).add("h", [2]).add("end")
    arrays.begin((ir.VARIABLE, number, 2), one, (ir.LESS, 0, 0), (ir.SET_CLBIT, 0, 0), name="store")
    circuit = arrays.add("measure", [2], [2]).add("measure", [3], [3]).circuit()
    exact = probabilities(
        run(StatevectorEngine(), circuit, Request(0, 1, ("probabilities",))).row(0)
    )
    assert p_value(exact, counts_of(counted(circuit, None, 40_000, 2))) > 0.001


def test_a_bit_that_is_measured_twice_keeps_its_order_for_conditions() -> None:
    """The second measurement of a clbit is of a qubit that nothing precedes; the condition between
    them reads the first one, which comes after several layers."""
    arrays = Arrays(3, 2).add("ry", [0], (), [1.0]).add("cx", [1, 0]).add("ry", [0], (), [0.7])
    arrays.add("cx", [0, 1]).add("ry", [1], (), [0.4]).add("measure", [1], [0])
    arrays.begin(bit(0)).add("x", [0]).add("end").add("x", [2]).add("measure", [2], [0])
    arrays.begin(bit(0)).add("h", [0]).add("end").add("measure", [0], [1])
    assert chi_square(arrays.circuit(), None, 6) > 0.001


def test_dynamic_circuits_a_shot_is_a_function_of_the_seed_and_its_number() -> None:
    circuit = random_circuit(np.random.default_rng(5))
    noise = dynamic_noise(circuit, 1.0, READOUT)

    def memory(shots: int, **options: object) -> bytes:
        return run(SweepEngine(), circuit, Request(shots, 3, ("memory",)), noise, **options).memory

    alone = memory(300)
    assert memory(300, threads=3) == alone
    assert alone.startswith(memory(77))


def test_loops_and_conditions_on_many_bits_are_refused_with_the_way_out() -> None:
    loop = DYNAMIC["loop"]().circuit()
    with pytest.raises(Unsupported, match="has no 'for'"):
        counted(loop, None, 10, 1)
    arrays = Arrays(16, 16)
    for qubit in range(16):
        arrays.add("h", [qubit])
    arrays.measure(range(16)).begin(*arrays.equals(0, 5)).add("x", [0]).add("end")
    with pytest.raises(Unsupported, match="depends on 16 measured bits; engine 'sweep' takes 14"):
        counted(arrays.add("measure", [0], [0]).circuit(), None, 10, 1)


def test_damping_of_a_measured_qubit_acts_on_what_follows_it() -> None:
    arrays = Arrays(2, 3).add("ry", [0], (), [2.0]).add("cx", [0, 1]).add("measure", [0], [0])
    circuit = arrays.add("cx", [0, 1]).add("measure", [0], [1]).add("measure", [1], [2]).circuit()
    slow = relaxation(500, 2, 3)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        return [((q,), slow) for q in range(2)] if row.name in ("cx", "measure") else []

    assert chi_square(circuit, program(after_gates(circuit, rule)), 8) > 0.001


def test_many_operators_drawn_before_a_value_divide_its_line() -> None:
    """Each conditional reset draws one of two operators: 2^64 combinations are never counted."""
    arrays = Arrays(2, 2).add("h", [1]).add("measure", [1], [1]).add("h", [0])
    for _ in range(64):
        arrays.begin(bit(1)).add("reset", [0]).add("end").add("ry", [0], (), [np.pi / 2])
    counts = counts_of(counted(arrays.measure([0]).circuit(), None, 4_000, 1))
    # Without resets 65 quarter turns act on |+>, an even number of which is a flip or none.
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 1_000) < 5 * (4_000 * 0.25 * 0.75) ** 0.5 for count in counts.values())


def test_program_that_would_be_too_long_is_refused_before_it_is_made() -> None:
    steps = 2_000
    arrays = Arrays(2, steps)
    for k in range(steps):
        arrays.add("h", [k % 2]).add("cz", [0, 1]).add("h", [k % 2]).add("measure", [k % 2], [k])
        arrays.add("h", [k % 2])
    circuit = arrays.circuit()
    size = sweep_size(circuit, circuit.params, ("counts",))
    assert size is not None
    assert "parts" in SweepCost().refusal(Profile(2, steps, 0, 0, 0, 0, 0, 0, True, 0, sweep=size))
    with pytest.raises(OutOfMemory, match="a program of about"):
        counted(circuit, None, 8, 1)


def test_conditions_with_too_many_settings_in_all_are_refused() -> None:
    arrays = Arrays(15, 14)
    for qubit in range(14):
        arrays.add("h", [qubit]).add("measure", [qubit], [qubit])
    for value in range(20):
        arrays.begin(*arrays.equals(0, value)).add("x", [14]).add("end")
    with pytest.raises(Unsupported, match="settings of measured bits in all"):
        counted(arrays.circuit(), None, 8, 1)
