"""Programs of several QPUs as one circuit: messages, copies, refusals by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from linked_devices import linked_device
from qiskit import ClassicalRegister, QuantumRegister

from simenv.client.circuits import load
from simenv.errors import ProgramError
from simenv.transpiler.linked.operations import DistributedCircuit
from simenv.transpiler.qpu_programs.join import distributed
from simenv.transpiler.qpu_programs.program import QPUProgram


def pair(qubits: int = 2, clbits: int = 2) -> tuple[QPUProgram, QPUProgram]:
    return QPUProgram("A", qubits, clbits), QPUProgram("B", qubits, clbits)


def names(joined: DistributedCircuit) -> list[str]:
    return [each.operation.name for each in joined.circuit.data]


def test_a_deadlock_is_named_with_the_message_that_each_program_waits_for() -> None:
    a, b = pair()
    a.qrecv(0, b)
    a.qsend(1, b)
    b.qrecv(0, a)
    b.qsend(1, a)
    with pytest.raises(ProgramError, match="do not come: A: qrecv from B; B: qrecv from A"):
        distributed([a, b], linked_device())


def _unread(a: QPUProgram, b: QPUProgram) -> None:
    a.send(0, b)


def _wrong_kind(a: QPUProgram, b: QPUProgram) -> None:
    a.send(0, b)
    b.qrecv(0, a)


def _ended(a: QPUProgram, b: QPUProgram) -> None:
    a.send(0, b)
    b.recv([0, 1], a)


def _stranger(a: QPUProgram, b: QPUProgram) -> None:
    a.qsend(0, "C")


def _in_a_block(a: QPUProgram, b: QPUProgram) -> None:
    with a.if_test((0, 1)):
        a.qsend(0, b)


def _changed_while_exposed(a: QPUProgram, b: QPUProgram) -> None:
    a.expose(0, b)
    a.h(0)


def _changed_copy(a: QPUProgram, b: QPUProgram) -> None:
    a.expose(0, b)
    copy = b.attach(a)
    b.cx(0, copy)


def _late_copy(a: QPUProgram, b: QPUProgram) -> None:
    a.expose(0, b)
    copy = b.attach(a)
    b.detach(copy, a)
    b.cx(copy, 0)


def _sent_copy(a: QPUProgram, b: QPUProgram) -> None:
    a.expose(0, b)
    b.qsend(b.attach(a), a)


def _kept_copy(a: QPUProgram, b: QPUProgram) -> None:
    a.expose(0, b)
    b.attach(a)


def _not_exposed(a: QPUProgram, b: QPUProgram) -> None:
    a.unexpose(0, b)


def _no_free_link(a: QPUProgram, b: QPUProgram) -> None:
    a.qsend(0, b)
    a.qsend(1, b)
    b.recv(0, a)
    b.qrecv(0, a)
    b.qrecv(1, a)


def _expression_of_a_register(a: QPUProgram, b: QPUProgram) -> None:
    with a.switch(a.cregs[0]) as case, case(2):
        a.x(0)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_unread, "A: send to B is never received"),
        (_wrong_kind, r"B: qrecv from A \(sent by send\)"),
        (_ended, r"B: recv from A"),
        (_stranger, "A: qsend to C, which is no program that is joined"),
        (_in_a_block, "A: qsend to B in a block"),
        (_changed_while_exposed, "A: h is not diagonal on an exposed qubit"),
        (_changed_copy, "B: cx is not diagonal on a copy"),
        (_late_copy, "B: cx on a detached copy"),
        (_sent_copy, "B: qsend to A of a qubit that is a copy"),
        (_kept_copy, "A: expose to B without unexpose"),
        (_not_exposed, "A: unexpose to B of a qubit that it has no copy of"),
        (_no_free_link, r"A: qsend to B \(no free link\); B: recv from A"),
        (_expression_of_a_register, "A: switch_case by an expression of a register"),
    ],
)
def test_faults_are_refused_by_name(
    write: Callable[[QPUProgram, QPUProgram], None], message: str
) -> None:
    a, b = pair()
    write(a, b)
    with pytest.raises(ProgramError, match=message):
        distributed([a, b], linked_device())


def test_faults_of_the_programs_themselves_are_refused_by_name() -> None:
    device = linked_device(modules=3, links=((0, 1),))
    a, b, c = (QPUProgram(name, 1, 1) for name in "ABC")
    a.qsend(0, c)
    c.qrecv(0, a)
    for programs, message in (
        ([a, b, c], "modules a and c have no link"),
        ([b, QPUProgram("B", 1)], "two programs are named 'B'"),
        ([QPUProgram("W", 4)], "W has 4 qubits; module a has 3 beside its 1 communication"),
        ([b] * 4, "4 programs for device duo of 3 modules"),
        ([], "0 programs"),
        ({"z": b}, "has no module 'z'"),
    ):
        with pytest.raises(ProgramError, match=message):
            distributed(programs, device)
    with pytest.raises(ProgramError, match="A: send to itself"):
        a.send(0, "A")
    with pytest.raises(ProgramError, match="name of a program: ''"):
        QPUProgram("", 1)
    with pytest.raises(ProgramError, match="B: detach of a qubit that is no copy"):
        b.detach(b.qubits[0], a)


def test_programs_run_in_turn_until_each_waits() -> None:
    a, b = pair()
    a.qsend(0, b)
    a.qrecv(1, b)
    b.qrecv(0, a)
    b.qsend(0, a)
    joined, _ = distributed([a, b], linked_device())
    assert names(joined).count("simenv_bell") == 2
    assert joined.circuit.num_qubits == 6  # two qubits each, and the link's


def test_a_bit_that_is_written_after_it_was_sent_keeps_the_value_that_was_sent() -> None:
    a, b = pair()
    a.measure(0, 0)
    a.send(0, b)
    a.measure(1, 0)  # before the bit is received
    b.recv(0, a)
    b.measure(0, 1)
    joined, bits = distributed([a, b], linked_device())
    first, second = (each.clbits[0] for each in joined.circuit.data[:2])
    assert first != second
    places = {(each.name, k): bit for each in joined.circuit.cregs for k, bit in enumerate(each)}
    assert places[bits["A"][0][0]] == second
    assert places[bits["B"][0][0]] == first
    assert "store" not in names(joined)


def test_a_condition_on_a_register_reads_received_bits() -> None:
    a, b = pair()
    a.measure([0, 1], [0, 1])
    a.send([0, 1], b)
    b.recv([1, 0], a)
    with b.if_test((b.cregs[0], 2)):
        b.x(0)
    joined, _ = distributed([a, b], linked_device())
    (block,) = (each for each in joined.circuit.data if each.operation.name == "if_else")
    sent = {each.clbits[0] for each in joined.circuit.data if each.operation.name == "measure"}
    assert set(block.clbits) == sent


def test_registers_of_a_program_keep_their_names_and_bits_outside_them_are_last() -> None:
    program = QPUProgram("A", QuantumRegister(2), ClassicalRegister(1, "x"))
    program.add_bits(QPUProgram("B", 0, 1).clbits[:0])
    program.measure_all()
    joined, bits = distributed([program], linked_device())
    assert [each.name for each in joined.circuit.cregs] == ["A_x", "A_meas", "simenv_hidden"]
    assert bits["A"] == ((("A_x", 0),), (("A_meas", 0), ("A_meas", 1)))


def test_a_program_with_messages_alone_is_refused_with_the_way_to_run_it() -> None:
    a, b = pair()
    a.qsend(0, b)
    with pytest.raises(ProgramError, match=r"'qsend' is opaque[^$]*client\.join") as refused:
        load(a)
    assert "client.join" in refused.value.hint
