"""Circuits on devices of several QPUs: the outcomes of one, in native gates of each module."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import QFTGate

from noise_models import library, linked
from simenv.client.circuits import load
from simenv.client.submission.compiler import Compiler, compiler_sandbox
from simenv.errors import OptionError, ProgramError
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import device_info
from simenv.transpiler.linked.distribution import LinkedCircuit, LinkedTranspiler, with_pairs
from simenv.transpiler.linked.partition import partition
from simenv.transpiler.linked.steps import steps_of
from simenv.transpiler.native_form import NativeForm
from simenv.transpiler.transpiler import target_of
from simulators.circuit.ir import Circuit
from simulators.simulate import simulate

MIXED = (("a", "superconducting-lattice"), ("b", "trapped-ions"))
DIRECTED = (("a", "superconducting-lattice"), ("b", "brisbane"))
CHAIN = (("a", "trapped-ions"), ("b", "ideal"), ("c", "trapped-ions"))


@cache
def machine(modules: tuple[tuple[str, str], ...], *ends: tuple[str, str]) -> DeviceInfo:
    links = [linked.LinkDesign(each, fidelity=0.97, rate_hz=1e5) for each in ends]
    loaded = {name: library.load(device) for name, device in modules}
    return device_info("duo", linked.linked("duo", loaded, links), "0" * 64)


def mixed() -> DeviceInfo:
    return machine(MIXED, ("a.1", "b.0"))


def compiled(
    circuit: QuantumCircuit,
    info: DeviceInfo,
    modules: Sequence[str] = (),
    mapping: Sequence[int] = (),
) -> LinkedCircuit:
    result = LinkedTranspiler(info).divided(circuit, mapping, modules)
    result = replace(result, circuit=with_pairs(result.circuit, info))
    assert NativeForm(info).fits(load(result.circuit).program)
    return result


def distribution(circuit: QuantumCircuit) -> dict[int, float]:
    """Exact probabilities of the outcomes, without the bits of corrections."""
    program = Circuit.from_program(load(circuit).program)
    result = simulate(program, engine="statevector", shots=0, outputs=("probabilities",))
    width = result.probability_width
    keys = [
        int.from_bytes(result.probability_outcomes[at : at + width], "little")
        for at in range(0, len(result.probability_outcomes), width)
    ]
    return dict(zip(keys, np.frombuffer(result.probabilities).tolist(), strict=True))


def assert_equal(circuit: QuantumCircuit, other: QuantumCircuit) -> None:
    first, second = distribution(circuit), distribution(other)
    for key in first.keys() | second.keys():
        assert first.get(key, 0.0) == pytest.approx(second.get(key, 0.0), abs=1e-9)


def pairs(circuit: QuantumCircuit) -> int:
    return circuit.count_ops().get("rxx", 0)


def inverse_qft(num_qubits: int, value: float) -> QuantumCircuit:
    result = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        result.h(qubit)
        result.p(2.0 * math.pi * value * 2**qubit / 2**num_qubits, qubit)
    result.compose(QFTGate(num_qubits).inverse().definition, inplace=True)
    result.measure_all()
    return result


def every_gate() -> QuantumCircuit:
    """Each kind of gate between qubits 0 and 1, those in modules apart, with turns between."""
    result = QuantumCircuit(3)
    for qubit in range(3):
        result.ry(0.4 + 0.3 * qubit, qubit)
    gates = [
        *(("cx", ()), ("cy", ()), ("cz", ()), ("ch", ()), ("csx", ()), ("cs", ()), ("swap", ())),
        *(("iswap", ()), ("ecr", ()), ("cp", (0.3,)), ("crx", (0.4,)), ("cry", (0.5,))),
        *(("crz", (0.6,)), ("rxx", (0.7,)), ("ryy", (0.8,)), ("rzz", (0.9,)), ("rzx", (1.1,))),
    ]
    for number, (name, angles) in enumerate(gates):
        getattr(result, name)(*angles, *((0, 1) if number % 2 else (1, 0)))
        result.rx(0.2 + number, number % 2)
        result.cx(1, 2)
    result.ccx(0, 1, 2)
    result.measure_all()
    return result


@pytest.mark.parametrize("modules", [MIXED, DIRECTED])
def test_every_gate_between_modules_acts_as_inside_one(
    modules: tuple[tuple[str, str], ...],
) -> None:
    info = machine(modules, ("a.1", "b.0"))
    circuit = every_gate()
    assert_equal(compiled(circuit, info, ["a", "b", "b"]).circuit, circuit)


def test_a_fourier_transform_needs_one_pair_for_each_qubit_and_other_module() -> None:
    circuit = inverse_qft(6, 11.3)
    result = compiled(circuit, mixed(), ["a", "a", "a", "b", "b", "b"])
    assert_equal(result.circuit, circuit)
    assert pairs(result.circuit) <= 3 + 9  # three swaps at its begin take three each


def test_no_pair_is_awaited_before_a_barrier_of_all_qubits() -> None:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.barrier()
    circuit.cx(0, 1)
    found = compiled(circuit, mixed(), ("a", "b")).circuit
    (barrier,) = (each for each in found.data if each.operation.name == "barrier")
    assert {found.find_bit(qubit).index for qubit in barrier.qubits} >= {1, 27}  # of the link


def test_a_circuit_that_fits_in_one_module_uses_no_pair() -> None:
    circuit = inverse_qft(4, 3.0)
    result = compiled(circuit, mixed())
    assert pairs(result.circuit) == 0
    assert_equal(result.circuit, circuit)


def test_measurements_and_conditions_of_the_program_act_across_modules() -> None:
    circuit = QuantumCircuit(4, 4)
    circuit.ry(1.1, 0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)) as otherwise:
        circuit.x(1)
        circuit.ry(0.4, 2)
    with otherwise:
        circuit.ry(0.9, 3)
    circuit.cx(2, 1)
    circuit.measure(1, 1)
    circuit.cx(1, 3)
    with circuit.if_test((circuit.clbits[1], 1)):
        circuit.x(0)
    circuit.measure([0, 2, 3], [0, 2, 3])
    result = compiled(circuit, mixed(), ["a", "a", "b", "b"])
    assert_equal(result.circuit, circuit)


def test_modules_in_a_row_pass_gates_between_neighbours() -> None:
    info = machine(CHAIN, ("a.0", "b.0"), ("b.1", "c.0"))
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.measure_all()
    result = compiled(circuit, info, ["a", "b", "c"])
    assert_equal(result.circuit, circuit)
    with pytest.raises(ProgramError, match="modules a and c have no link"):
        compiled(circuit, info, ["a", "c", "b"])


def test_a_mapping_puts_each_qubit_where_it_says() -> None:
    info = machine((("a", "trapped-ions"), ("b", "ideal")), ("a.1", "b.0"))
    circuit = inverse_qft(3, 5.0)
    result = compiled(circuit, info, mapping=[4, 40, 2])
    assert result.first == (4, 40, 2)
    assert_equal(result.circuit, circuit)
    with pytest.raises(OptionError, match="qubit 1 of module a is a communication qubit"):
        compiled(circuit, info, mapping=[1, 40, 2])


def test_what_cannot_be_distributed_is_refused_by_name() -> None:
    circuit = QuantumCircuit(2, 1)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.cx(0, 1)
    with pytest.raises(ProgramError, match="a gate between modules inside if_else"):
        compiled(circuit, mixed(), ["a", "b"])
    assert pairs(compiled(circuit, mixed(), ["b", "b"]).circuit) == 0
    with pytest.raises(OptionError, match="for 2 qubits"):
        compiled(circuit, mixed(), ["a"])
    with pytest.raises(OptionError, match="one of a, b"):
        compiled(circuit, mixed(), ["a", "c"])
    with pytest.raises(ProgramError, match="has 70 qubits"):
        compiled(QuantumCircuit(70), mixed())


def test_no_compilation_uses_the_gate_of_a_link() -> None:
    info = mixed()
    places = target_of(info)["rxx"] if "rxx" in target_of(info).operation_names else {}
    assert not {link.pair for link in info.links} & set(places)


def test_the_layout_of_a_compiled_circuit_names_its_qubits_at_both_ends() -> None:
    info = mixed()
    circuit = QuantumCircuit(3)
    circuit.x([0, 2])
    circuit.swap(0, 1)
    circuit.cx(1, 2)
    circuit.cx(0, 2)
    found = LinkedTranspiler(info).divided(circuit, modules=["a", "b", "a"])
    layout = LinkedTranspiler(info).run(circuit, found.first).layout
    assert tuple(layout.initial_index_layout(filter_ancillas=True)) == found.first
    assert tuple(layout.final_index_layout(filter_ancillas=True)) == found.last


def test_a_structure_is_compiled_once_and_alike_in_a_process_of_its_own() -> None:
    """The process with bounds compiles for the gateway, whose users send circuits of others."""
    circuit = inverse_qft(4, 3.3)
    alone = Compiler(mixed())
    modules = ("a", "b", "a", "b")
    first = alone.compiled(load(circuit), "auto", (), modules)
    assert alone.compiled(load(circuit), "auto", (), modules).loaded.packed == first.loaded.packed
    assert len(alone._structures) == 1
    with closing(compiler_sandbox()) as sandbox:
        other = Compiler(mixed(), sandbox=lambda: sandbox).compiled(
            load(circuit), "auto", (), modules
        )
    assert (other.loaded.packed, other.layouts) == (first.loaded.packed, first.layouts)
    assert other.remote_gates == first.remote_gates > 0


def test_qubits_that_share_gates_come_to_one_module() -> None:
    circuit = QuantumCircuit(8)
    for group in ((0, 3, 4, 7), (1, 2, 5, 6)):
        for first in group:
            for second in group:
                if first < second:
                    circuit.ry(0.3, first)
                    circuit.cz(first, second)
    circuit.cz(0, 1)
    both = frozenset(((0, 1), (1, 0)))
    where = partition(steps_of(circuit), 8, (4, 4), both)
    assert {where[q] for q in (0, 3, 4, 7)} != {where[q] for q in (1, 2, 5, 6)}
    assert where.count(0) == 4


def test_gates_of_a_packet_take_those_between_them_along() -> None:
    """ZZ by two CX needs one pair: rz on the target is between them, in the other module."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.ry(0.4, 1)
    circuit.cx(0, 1)
    circuit.rz(0.3, 1)
    circuit.cx(0, 1)
    circuit.h([0, 1])
    circuit.measure_all()
    result = compiled(circuit, mixed(), ["a", "b"])
    assert pairs(result.circuit) == 1
    assert_equal(result.circuit, circuit)


@pytest.mark.parametrize("gate", ["h", "x", "ry"])
def test_a_packet_ends_at_a_gate_that_is_not_diagonal_on_its_root(gate: str) -> None:
    circuit = QuantumCircuit(3)
    circuit.h([0, 1, 2])
    circuit.cp(0.5, 0, 1)
    getattr(circuit, gate)(*((0.3,) if gate == "ry" else ()), 0)
    circuit.ry(0.2, 1)  # so that qubit 1 is no root of both
    circuit.cp(0.7, 0, 1)
    circuit.cp(0.9, 0, 2)
    circuit.h([0, 1, 2])
    circuit.measure_all()
    result = compiled(circuit, mixed(), ["a", "b", "b"])
    assert pairs(result.circuit) == 2
    assert_equal(result.circuit, circuit)
