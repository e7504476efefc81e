"""Liveness of classical bits in instructions of dynamic circuits."""

from arrays import Arrays
from msgspec.structs import replace

from simulators.circuit import ir
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.analysis.profiler import profile
from simulators.dynamic.instructions import Assembler, Measure, Store
from simulators.dynamic.liveness import live_bits, output_mask, recorded_bits


def masks_of(circuit: Arrays, live: int) -> tuple[list[object], tuple[int, ...]]:
    """Instructions of a circuit, whose gates are their numbers, and their masks."""
    built = circuit.circuit()
    assembler = Assembler(built, measurement_layout(built, keep=True).roles)
    for k in range(built.ops.size):
        if assembler.marks()[k]:
            assembler.add(k)
        else:
            assembler.items.append(k)
    return assembler.items, live_bits(assembler.items, live)


def test_bit_lives_from_its_measurement_to_its_last_reader() -> None:
    circuit = Arrays(1, 2).add("measure", [0], [0]).begin((ir.CLBIT, 0, 0)).add("x", [0])
    items, masks = masks_of(circuit.add("end").add("measure", [0], [1]).add("x", [0]), 0)
    measured = [at for at, item in enumerate(items) if isinstance(item, Measure)]
    assert [masks[at] for at in measured] == [0, 0]
    assert [masks[at + 1] for at in measured] == [1, 0]


def test_bit_that_is_measured_again_is_dead_before() -> None:
    circuit = Arrays(1, 1)
    for _ in range(2):
        circuit.add("measure", [0], [0]).add("x", [0])
    assert masks_of(circuit, 1)[1] == (0, 0, 0, 1, 1)


def test_bit_that_a_later_pass_of_a_loop_reads_is_live_at_its_end() -> None:
    loop = Arrays(1, 2).begin((ir.CLBIT, 0, 0), name="while").add("x", [0])
    loop.begin((ir.CLBIT, 1, 0)).add("x", [0]).add("end")
    loop.add("measure", [0], [0]).add("x", [0]).add("end")
    items, masks = masks_of(loop, 0)
    measured = next(at for at, item in enumerate(items) if isinstance(item, Measure))
    assert masks[0] == masks[measured + 1] == 3


def test_store_ends_its_target_and_reads_its_value() -> None:
    circuit = Arrays(1, 3).add("measure", [0], [0]).add("x", [0])
    circuit.begin((ir.CLBIT, 0, 0), (ir.SET_CLBIT, 2, 0), name="store")
    items, masks = masks_of(circuit, 4)
    stored = next(at for at, item in enumerate(items) if isinstance(item, Store))
    assert masks[stored : stored + 2] == (1, 4)


def test_hidden_register_is_no_output() -> None:
    assert output_mask(Arrays(1, 5, (("c", 2), ("d", 3))).circuit()) == 0b11111
    assert (
        output_mask(Arrays(1, 5, (("c", 2), (ir.HIDDEN_REGISTER, 2), ("d", 1))).circuit())
        == 0b10011
    )


def test_record_of_corrections_has_the_bits_that_are_live_at_once() -> None:
    """Three pairs of corrections, one pair after the other, and two bits that results show."""
    circuit = Arrays(2, 8, (("c", 2), (ir.HIDDEN_REGISTER, 6)))
    for bit in range(2, 8, 2):
        circuit.add("h", [0]).add("measure", [0], [bit]).add("measure", [0], [bit + 1])
        for each in (bit, bit + 1):
            circuit.begin((ir.CLBIT, each, 0)).add("x", [1]).add("end")
    built = circuit.add("measure", [0], [0]).add("measure", [1], [1]).circuit()
    assert recorded_bits(built)[0] == profile(built, ("counts",)).recorded == 2
    assert profile(replace(built, registers=(("c", 8),)), ("counts",)).recorded == -1
