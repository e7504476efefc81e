"""Sweeps on a device that g++ compiles: bits, barriers, ranks."""

import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_exercise
import msgspec
import numpy as np
import pytest
from gpu_bits import circuit_results, repeated_bits, same, table_bits
from numpy.typing import DTypeLike, NDArray
from plain_sweeps import run as plainly
from random_sweeps import TOLERANCE, Table, random_state

from simulators.gpu import programs, sweeps
from simulators.gpu.devices.device import COMPLEX, MemoryLedger
from simulators.gpu.programs import encode_sweeps
from simulators.gpu.sweeps import DeviceState, UploadedProgram, apply_program, upload_program
from simulators.statevector.planning import tables as t
from testbed.host_device import BACKWARD, KERNELS, HostDevice


def swept(
    device: HostDevice, table: Table, begin: NDArray[np.complex128] | None, precision: str
) -> NDArray[np.complexfloating]:
    """The state after all passes; `begin` None: |0...0>."""
    plan, floats = table.plan()
    state = DeviceState(device, MemoryLedger(2**30, "host"), plan.num_wires, precision)
    if begin is None:
        state.set_zero()
    else:
        state.buffer[:] = begin.astype(COMPLEX[precision])
    program = upload_program(device, encode_sweeps(plan, precision))
    apply_program(state, program, floats, lambda: None)
    result: NDArray[np.complexfloating] = device.download(state.settle())
    return result


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("seed", range(12))
def test_random_tables_agree_with_plain_reference(library: Path, seed: int, precision: str) -> None:
    table = Table(11, 8 + seed % 4, seed)
    table.fill(2, 10, fresh=False)
    begin = random_state(11, seed)
    result = swept(HostDevice(library), table, begin, precision)
    expected = plainly(*table.plan(), begin)
    assert np.abs(result - expected).max() < TOLERANCE[COMPLEX[precision].name]


@pytest.mark.parametrize("seed", range(8))
def test_sweeps_from_zero_state_read_no_unwritten_amplitude(library: Path, seed: int) -> None:
    table = Table(13, 8 + seed % 3, seed)
    table.fill(3, 8, fresh=True)
    begin = np.zeros(1 << 13, complex)
    begin[0] = 1.0
    result = swept(HostDevice(library), table, None, "double")  # what is not written is NaN
    assert np.abs(result - plainly(*table.plan(), begin)).max() < TOLERANCE["complex128"]


def test_batch_of_states_is_swept_in_one_launch_with_numbers_of_each(library: Path) -> None:
    table = Table(10, 9, 3)
    table.fill(1, 8, fresh=False)
    plan, floats = table.plan()
    device = HostDevice(library)
    begin = random_state(10, 1)
    state = DeviceState(device, MemoryLedger(2**30, "host"), 10, "double", count=3)
    state.buffer[:] = np.tile(begin, 3)
    rows = np.stack([floats, floats * 0.5, floats * -1.0])
    program = upload_program(device, encode_sweeps(plan, "double"))
    apply_program(state, program, rows, lambda: None)
    for k in range(3):
        expected = plainly(plan, rows[k], begin)
        assert np.abs(state.buffer.reshape(3, -1)[k] - expected).max() < 1e-12
    assert device.launches == ["sweep_batch_double"]


class PlainDevice(HostDevice):
    """One that captures no graphs."""

    def capture(self, launches: Callable[[], None]) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize("precision", ["double", "single"])
def test_repeated_program_is_replayed_with_new_numbers(library: Path, precision: str) -> None:
    device, plain = HostDevice(library), PlainDevice(library)
    assert repeated_bits(device, precision) == repeated_bits(plain, precision)
    assert (device.replays, plain.replays) == (3, 0)
    assert device.launches == plain.launches


def pairs_and_maps(seed: int) -> Table:
    """Matrices on two row bits, and CX, Toffoli and SWAP of rows, without conditions on tiles."""
    table = Table(10, 9, seed)
    table.places.append([*range(9)])
    table.inside, table.live = (1 << 9) - 1, [(1 << 10) - 1]
    for _ in range(40):
        bits = table.rng.choice(4, 3, replace=False).tolist()
        one, two, three = (1 << bit for bit in bits)
        kind = table.rng.integers(0, 5)
        if kind == 0:
            table.op(KIND=t.PERMUTE_ROWS, ROW_MASK=one | two, ROW_VALUE=one, ROW_OTHER=one | two)
        elif kind == 1:
            table.op(KIND=t.PERMUTE_ROWS, ROW_MASK=one | two, ROW_VALUE=one, ROW_OTHER=two)
        elif kind == 2:
            fields = {"ROW_VALUE": one | two, "ROW_OTHER": one | two | three}
            table.op(KIND=t.PERMUTE_ROWS, ROW_MASK=one | two | three, **fields)
        else:
            wires = 2 + int(kind == 4)
            at, size = len(table.floats), 1 << wires
            unitary = np.linalg.qr(table.rng.normal(size=(size, size)))[0]
            table.floats += unitary.ravel().tolist()
            table.op(KIND=t.REAL + wires, AT=at, **dict(zip("ABC"[:wires], bits, strict=False)))
    table.starts.append(len(table.ops))
    return table


@pytest.mark.parametrize("seed", range(12))
def test_matrices_absorb_maps_of_their_own_places(library: Path, seed: int) -> None:
    table = pairs_and_maps(seed)
    given = sum(row[0] == t.PERMUTE_ROWS for row in table.ops)
    left = programs.tile_operations(table.plan()[0], 0)
    assert sum(op.kind in (programs.FLIP, programs.MAP) for op in left) < given
    begin = random_state(10, seed)
    result = swept(HostDevice(library), table, begin, "double")
    assert np.abs(result - plainly(*table.plan(), begin)).max() < TOLERANCE["complex128"]


def test_sizes_of_programs_are_those_of_the_kernels() -> None:
    text = "".join(path.read_text() for path in KERNELS.glob("*.cuh"))
    for name in ("PASS", "HEADER", "STAGE", "OPERATION", "PHASE"):
        assert f"{name}_WORDS = {getattr(programs, f'_{name}_WORDS')}" in text
    assert f"PRODUCTS_BYTES = {programs._PRODUCTS_BYTES}" in text


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("seed", range(4))
def test_pass_whose_program_is_too_long_is_divided(
    library: Path, monkeypatch: pytest.MonkeyPatch, seed: int, precision: str
) -> None:
    monkeypatch.setattr(programs, "_PASS_WORDS", 350)
    table = Table(11, 8 + seed, seed)
    table.fill(2, 30, fresh=seed % 2 == 0)
    program = encode_sweeps(table.plan()[0], precision)
    assert len(program.passes) > 4
    for each in program.passes:
        assert each.code.size + each.matrices.stop - each.matrices.start <= 350
    assert sum(each.is_last for each in program.passes) == 2
    begin = np.eye(1, 1 << 11, dtype=complex)[0] if seed % 2 == 0 else random_state(11, seed)
    result = swept(HostDevice(library), table, None if seed % 2 == 0 else begin, precision)
    expected = plainly(*table.plan(), begin)
    assert np.abs(result - expected).max() < TOLERANCE[COMPLEX[precision].name]


def repeated(device: HostDevice, runs: int, states: int = 1) -> tuple[UploadedProgram, list[int]]:
    """Run a program of two passes so often over states in turn; the passes counted after each."""
    table = Table(10, 8, 6)
    table.fill(2, 6, fresh=False)
    plan, floats = table.plan()
    program = upload_program(device, encode_sweeps(plan, "double"))
    ledger = MemoryLedger(2**30, "host")
    held = [DeviceState(device, ledger, 10, "double") for _ in range(states)]
    counted: list[int] = []
    for run in range(runs):
        state = held[run % states]
        state.buffer[:] = random_state(10, 1)
        state.overwrite()
        apply_program(state, program, floats, lambda: counted.append(len(device.launches)))
        assert np.abs(state.buffer - plainly(plan, floats, random_state(10, 1))).max() < 1e-12
    return program, counted


def test_each_pass_of_a_replay_is_counted(library: Path) -> None:
    _, counted = repeated(HostDevice(library), 3)
    assert counted == [1, 2, 4, 4, 6, 6]


def test_graph_is_replayed_for_its_own_state_only(library: Path) -> None:
    device = HostDevice(library)
    program, _ = repeated(device, 7, states=3)
    assert len(program.graphs) == 3
    assert device.replays == 4


class RefusingDevice(HostDevice):
    """One that finds at the end of a capture that it has none."""

    def capture(self, launches: Callable[[], None]) -> None:  # type: ignore[override]
        super().capture(launches)


@pytest.mark.parametrize(("device_type", "replays"), [(HostDevice, 4), (RefusingDevice, 0)])
def test_graph_from_zero_state_is_not_replayed_from_another(
    library: Path, device_type: type[HostDevice], replays: int
) -> None:
    table = Table(10, 8, 6)
    table.fill(2, 6, fresh=False)
    plan, floats = table.plan()
    device = device_type(library)
    program = upload_program(device, encode_sweeps(plan, "double"))
    state = DeviceState(device, MemoryLedger(2**30, "host"), 10, "double")
    zero, other = np.eye(1, 1 << 10, dtype=complex)[0], random_state(10, 1)
    for begin in (zero, zero, zero, other, other, zero):
        state.buffer[:] = begin if begin is other else np.nan
        if begin is other:
            state.overwrite()
        else:
            state.set_zero()
        apply_program(state, program, floats, lambda: None)
        assert np.abs(state.settle() - plainly(plan, floats, begin)).max() < 1e-12
    assert device.replays == replays


def test_graphs_of_a_program_are_few_and_hold_no_state(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "_MOST_GRAPHS", 2)
    device = HostDevice(library)
    program, _ = repeated(device, 9, states=3)
    assert (len(program.graphs), device.replays) == (2, 0)
    made: list[weakref.ref[object]] = []

    class WatchedDevice(HostDevice):
        def empty(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
            result = super().empty(count, dtype)
            if result.dtype == np.complex128:
                made.append(weakref.ref(result))
            return result

    program, _ = repeated(WatchedDevice(library), 2)
    assert list(program.graphs.values()) != [None]
    assert [each() for each in made] == [None]


@pytest.mark.parametrize(("limit", "value"), [("GRAPH_AMPLITUDES", 1 << 9), ("_GRAPH_BYTES", 64)])
def test_wide_state_or_many_numbers_are_swept_by_launches(
    library: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(sweeps, limit, value)
    device = HostDevice(library)
    program, _ = repeated(device, 3)
    assert (program.graphs, device.replays) == ({}, 0)


def matrices_alone(kinds: list[int]) -> Table:
    table = Table(12, 12, 1)
    table.places.append([*range(12)])
    table.inside, table.live = (1 << 12) - 1, [(1 << 12) - 1]
    for kind in kinds:
        table.matrix(kind)
    table.starts.append(len(table.ops))
    return table


@pytest.mark.parametrize("precision", ["double", "single"])
def test_warps_ask_for_no_more_memory_than_they_need(library: Path, precision: str) -> None:
    """Coalescing, and bank conflicts of shared memory."""
    device = HostDevice(library, is_traced=True)
    swept(device, matrices_alone([2] * 12), random_state(12, 1), precision)
    result = device.tally()
    assert set(result) == {"global load", "global store", "shared load", "shared store"}
    for kind, each in result.items():
        assert each.requests, kind
        assert each.transactions <= 1.2 * each.fewest, kind


# A shuffle waits for the whole block here, as it does not on a device: it hides the barrier before
# a second sum.
_HIDDEN = "the scratch of an earlier sum"


def barriers() -> list[tuple[str, int]]:
    """File and line of each."""
    return [
        (path.name, number)
        for path in sorted(KERNELS.glob("*.cuh"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.match(r"\s+__syncthreads\(\);", line)
    ]


def text_of(file: str, line: int) -> str:
    return (KERNELS / file).read_text().splitlines()[line - 1]


def is_noticed(library: Path, file: str, line: int) -> bool:
    device = HostDevice(library)
    device.skip_barrier(file, line)
    try:
        with np.errstate(all="ignore"):
            return not gpu_exercise.is_right(library)
    except (ValueError, AssertionError, IndexError, OverflowError):  # of what is no number
        return True
    finally:
        device.skip_barrier("", 0)


def test_every_missing_barrier_but_a_hidden_one_is_noticed(library: Path) -> None:
    assert gpu_exercise.is_right(library)
    table = {barrier: is_noticed(library, *barrier) for barrier in barriers()}
    missed = [barrier for barrier, noticed in table.items() if not noticed]
    assert len(table) >= 20
    hidden = [(file, line) for file, line in missed if _HIDDEN in text_of(file, line)]
    assert missed == hidden
    assert len(hidden) <= 1


@pytest.mark.parametrize("order", [BACKWARD, 11])
@pytest.mark.parametrize("precision", ["double", "single"])
def test_two_orders_of_threads_have_the_same_bits(
    library: Path, precision: str, order: int
) -> None:
    one, two = HostDevice(library), HostDevice(library, order=order)
    assert table_bits(one, 3, precision) == table_bits(two, 3, precision)
    assert table_bits(one, 3, precision) != table_bits(two, 4, precision)
    for n in (5, 13):
        result = circuit_results(one, n, precision)
        again = circuit_results(two, n, precision)
        assert all(same(a, b) for a, b in zip(result, again, strict=True))


def test_one_different_bit_is_noticed(library: Path) -> None:
    (_, value) = circuit_results(HostDevice(library), 5, "double")
    assert value.statevector is not None
    changed = value.statevector.copy()
    changed.view("uint64")[0, 0] ^= 1
    assert not same(value, msgspec.structs.replace(value, statevector=changed))
