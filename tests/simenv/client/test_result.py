"""The executor, and results."""

import concurrent.futures as cf
import copy
import gc
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import weakref
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from rich.pretty import pretty_repr
from waiting import until

import simenv
from simenv.client import result_data, result_display
from simenv.client.client import SimenvExecutor
from simenv.client.connection.task_handle import ResultOrigin, Submission, TaskHandle
from simenv.client.result import Result
from simenv.client.result_data import DecodedResult, Provenance, Stages
from simenv.errors import (
    OptionError,
    ProtocolError,
    StoreError,
    TimedOutError,
    VersionMismatchError,
)
from simenv.model import (
    RESULT_FORMAT,
    Origin,
    ResultData,
    ResultFile,
    StoredArray,
    TaskState,
    Timing,
)
from simenv.wire import codec
from simenv.wire.messages.client import STATES, Completion

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;"


def test_circuits_run_as_futures_with_the_options_of_the_executor(env: simenv.Client) -> None:
    with SimenvExecutor(env, shots=100, seed=3) as executor:
        tasks = [executor.submit(BELL, seed=k) for k in range(5)] + [executor.submit(BELL)]
        assert cf.wait(tasks, timeout=60).not_done == set()
        results = [future.result() for future in cf.as_completed(tasks)]
    assert {result.seed for result in results} == {0, 1, 2, 3, 4}
    assert {result.shots for result in results} == {100}
    copies = pickle.loads(pickle.dumps(results))  # noqa: S301 - our own
    assert [copy.counts for copy in copies] == [result.counts for result in results]
    fails(RuntimeError, "after shutdown", executor.submit, BELL)
    assert env.run(BELL, shots=10).shots == 10, "the client is its owner's"


def test_map_yields_in_order_and_cancels_what_is_late(env: simenv.Client) -> None:
    executor = SimenvExecutor(env, shots=50)
    circuits = [BELL.replace("h q[0]", f"rx({k}.5) q[0]") for k in range(20)]
    results = list(executor.map(circuits, seed=8))
    assert len({got.task for got in results}) == 20
    assert [got.counts for got in executor.map(circuits, seed=8)] == [got.counts for got in results]
    fails(TimedOutError, "", list, SimenvExecutor(env, shots=10).map([ENDLESS] * 3, timeout=0.05))
    until(lambda: not env.queue()[0])


def test_shutdown_can_cancel_what_runs(env: simenv.Client) -> None:
    executor = SimenvExecutor(env, shots=10)
    tasks = [executor.submit(ENDLESS) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(task.done() for task in tasks)
    assert tasks[-1].cancelled()


def test_functions_are_refused_by_name(env: simenv.Client) -> None:
    with pytest.raises(OptionError, match="in_process is a function: this executor runs circuits"):
        SimenvExecutor(env).submit(in_process)
    fails(OptionError, "is a function", SimenvExecutor(env).map, [in_process])
    with pytest.raises(OptionError, match="pow is a function: this executor runs circuits"):
        SimenvExecutor(env).submit(pow, 2, 3)
    fails(OptionError, "in_process is a function", SimenvExecutor(env).map, in_process, [1, 2])
    fails(OptionError, "1 arguments after", SimenvExecutor(env).map, [ENDLESS], [ENDLESS])


def in_process() -> None: ...


DATA = ResultData(
    RESULT_FORMAT, (("c", 2),), 2, 1024, 2**53 - 1, 1, b"\x00\x03", struct.pack("<2I", 1000, 24)
)
STAGES = Stages(0.001, 0.002, 0.003, 0.004, 0.005, 0.014)
PROVENANCE = Provenance(
    "t-8k2f", "bell", "statevector", "small", Origin("main-0", "here", 1, "0.1.0"), 1, 2,
    STAGES,
)  # fmt: skip


def result(**changes: object) -> Result:
    return Result(DecodedResult.of(replace(DATA, **changes), PROVENANCE.task), PROVENANCE)


def test_outcomes_are_arrays_and_counted_once() -> None:
    got = result()
    assert got.counts == {"00": 1000, "11": 24}
    assert got.counts is got.counts
    got = result()
    assert (got.outcomes.tolist(), got.outcome_counts.tolist()) == ([0, 3], [1000, 24])
    assert got.outcome_counts.dtype == np.uint32
    row = (1 << 66 | 1).to_bytes(9, "little")
    got = result(registers=(("c", 67),), outcome_width=9, outcomes=row, counts=struct.pack("<I", 7))
    assert (got.outcomes.shape, got.counts) == ((1, 9), {"1" + "0" * 65 + "1": 7})


def test_probabilities_of_circuit_without_measurements_are_over_qubits() -> None:
    outcome = result(
        registers=(),
        num_qubits=3,
        counts=b"",
        outcomes=b"",
        probability_outcomes=b"\x01\x06",
        probability_width=1,
        probabilities=struct.pack("<2d", 0.25, 0.75),
    )
    assert outcome.probabilities == {"001": 0.25, "110": 0.75}


@pytest.mark.parametrize(("dtype", "size"), [("<c16", 16), ("<c8", 8)])
def test_statevector_has_its_precision_and_is_read_only(dtype: str, size: int) -> None:
    vector = np.array([1, 0, 0, 1j], dtype) / np.sqrt(np.array(2, dtype))
    statevector = result(statevector=vector.astype(dtype).tobytes()).statevector
    assert statevector.dtype.itemsize == size
    np.testing.assert_array_equal(statevector, vector.astype(dtype))
    with pytest.raises(ValueError, match="read-only"):
        statevector[0] = 0


def test_expectation_is_refused_for_several_observables() -> None:
    assert result(expectations=struct.pack("<2d", 0.5, 0.01)).expectation == 0.5
    two = result(expectations=struct.pack("<4d", 0.5, 0.01, -0.25, 0.0))
    assert (two.expectations, two.std_errors) == ((0.5, -0.25), (0.01, 0.0))
    with pytest.raises(OptionError, match="2 expectation values"):
        _ = two.expectation


@pytest.mark.parametrize(
    "what", ["probabilities", "statevector", "expectation", "expectations", "std_errors"]
)
def test_output_that_was_not_requested_is_refused_with_hint(what: str) -> None:
    fails(OptionError, r"task t-8k2f has no \w+\n  submit it with", getattr, result(), what)


@pytest.mark.parametrize("what", ["counts", "shots", "timing", "seed", "anything"])
def test_result_attributes_are_read_only(what: str) -> None:
    fails(AttributeError, "", setattr, result(), what, 1)


def test_result_of_unknown_format_raises_version_mismatch_error() -> None:
    fails(VersionMismatchError, f"format 9, this client reads {RESULT_FORMAT}", result, format=9)


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": b"\0" * 7},
        {"counts": b"\0" * 12},
        {"outcomes": b"\0"},
        {"outcome_width": 2},
        {"probability_outcomes": b"\0", "probabilities": b"\0" * 16, "probability_width": 1},
    ],
)
def test_inconsistent_result_arrays_are_a_protocol_error(changes: dict[str, object]) -> None:
    fails(ProtocolError, "t-8k2f", result, **changes)


def filed(*fields: str) -> ResultFile:
    """A file whose arrays have the lengths of DATA."""
    sizes = {"outcomes": 2, "counts": 8, "bit_strings": 4}
    arrays = [StoredArray(field, "<u1", (1,), 0, sizes[field], 0) for field in fields]
    return ResultFile("t-1.h5", 64, 0, tuple(arrays))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("outcomes", {"file": filed("outcomes"), "outcomes": b"\0"}),
        ("counts", {"file": filed("outcomes", "counts"), "outcomes": b"", "counts": b"\0" * 400}),
        ("counts", {"file": filed("outcomes", "counts", "counts"), "outcomes": b"", "counts": b""}),
        ("bit_strings", {"file": filed("bit_strings", "bit_strings")}),
    ],
)
def test_array_in_the_message_and_in_the_file_is_a_protocol_error(
    field: str, changes: dict[str, object]
) -> None:
    fails(ProtocolError, f"has the array {field} twice", result, **changes)


def sampled(name: str, size: int, count: int) -> Result:
    """A result with `count` distinct outcomes of one register."""
    width = 1 if size <= 8 else 2
    rows = np.arange(count, dtype=f"<u{width}").tobytes()
    packed = struct.pack(f"<{count}I", *[1] * count)
    return result(registers=((name, size),), outcome_width=width, outcomes=rows, counts=packed)


def test_many_counts_share_strings_whatever_the_names_of_registers() -> None:
    first, second = [list(sampled(f"c{k}", 8, 256).counts) for k in range(2)]
    assert first == [format(outcome, "08b") for outcome in range(256)]
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_all_strings_of_a_shape_are_made_after_as_many_lookups() -> None:
    result_data._strings.cache_clear()
    strings = result_data._strings((11,))
    made = [(len(sampled(f"c{k}", 11, 512).counts), len(strings)) for k in range(5)]
    assert made == [(512, 512)] * 3 + [(512, 2048)] * 2


@pytest.mark.parametrize("size", [13, 16, 31, 64, 75])
@pytest.mark.parametrize("beyond", [False, True])
def test_strings_of_many_wide_outcomes_are_those_of_each(size: int, beyond: bool) -> None:
    for cache in (result_data._strings, result_data._keys):
        cache.cache_clear()
    width, last = -(-size // 8), 1 << size
    last_byte = (1 << 8 * width) - 1 if beyond else last - 1  # an engine would have to be broken
    outcomes = [0, 1, *(last - 1 - 7 * k for k in range(200)), last_byte]
    rows = b"".join(outcome.to_bytes(width, "little") for outcome in outcomes)
    strings = result_data.keys(rows, width, (("c", size),))
    assert list(strings) == [format(outcome, f"0{size}b") for outcome in outcomes]
    assert bool(result_data._strings((size,))) == bool(beyond and size % 8)


def test_results_share_registers_also_after_many_shapes() -> None:
    for name in ("early", *(f"c{k}" for k in range(40)), "late"):
        first, second = [sampled(name, 8, 64).registers for _ in range(2)]
        assert first is second


def test_json_has_every_field_and_integers_exact_as_doubles() -> None:
    vector = np.array([1, 0, 0, 1j], "<c16")
    outcome = result(statevector=vector.tobytes(), expectations=struct.pack("<2d", 0.5, 0.0))
    document = json.loads(json.dumps(outcome.to_dict()), parse_int=lambda text: int(float(text)))
    assert (document["counts"], document["seed"]) == ({"00": 1000, "11": 24}, 2**53 - 1)
    assert (document["statevector"][3], document["timing"]["run_s"]) == ([0.0, 1.0], 0.004)
    assert document["probabilities"] is None
    assert {
        "task", "state", "counts", "shots", "seed", "engine", "route", "device", "snapshot", "node",
        "ranks", "attempts", "timing",
    } <= set(document)  # fmt: skip


def test_repr_shows_task_size_engine_and_worker() -> None:
    assert repr(result()) == "<Result t-8k2f | 2 qubits, 1024 shots | statevector, 4 ms on main-0>"


def test_rich_shows_what_repr_shows() -> None:
    assert pretty_repr([result()], max_width=200) == (
        "[Result(task='t-8k2f', num_qubits=2, shots=1024, engine='statevector',"
        " timing.run_s=0.004, worker='main-0', warnings=())]"
    )


def everything() -> Result:
    """Two rows with every kind of array."""
    return Result(
        DecodedResult.of(
            replace(
                DATA,
                num_qubits=1,
                registers=(("c", 2),),
                outcomes=b"\x00\x03\x01",
                counts=struct.pack("<3I", 1000, 24, 1024),
                rows=struct.pack("<2I", 2, 1),
                count=2,
                binding=5,
                probability_outcomes=b"\x00\x03\x01",
                probability_width=1,
                probabilities=struct.pack("<3d", 0.75, 0.25, 1.0),
                probability_rows=struct.pack("<2I", 2, 1),
                statevector=np.arange(4, dtype="<c16").tobytes(),
                expectations=struct.pack("<4d", 1.0, 0.1, 2.0, 0.2),
                gradients=struct.pack("<4d", 1.0, 2.0, 3.0, 4.0),
            ),
            PROVENANCE.task,
        ),
        PROVENANCE,
        1,
    )


def pickled(found: Result) -> Result:
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 our own
    assert isinstance(again, Result)
    return again


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_pickled_or_copied_result_equals_the_original(
    duplicate: Callable[[Result], Result],
) -> None:
    for original in (everything(), result()):
        outcome = duplicate(original)
        assert outcome.to_dict() == original.to_dict()
    assert outcome.counts == {"00": 1000, "11": 24}


def test_pickles_carry_no_other_binding_and_need_no_service() -> None:
    assert len(pickle.dumps(everything())) < len(pickle.dumps(everything()._decoded.data)) + 1_000
    outcome = pickled(everything())
    assert (outcome._decoded.data.count, outcome.task, outcome.binding_index) == (1, "t-8k2f.1", 6)
    script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).counts)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(result()),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == str(result().counts)


class UnreachableService:
    def provenance(self) -> Provenance:
        return PROVENANCE

    def receipt(self) -> None:
        raise ConnectionError("the service is gone")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_copies_need_no_service(duplicate: Callable[[Result], Result]) -> None:
    original = Result(DecodedResult.of(DATA, PROVENANCE.task), UnreachableService())
    fails(ConnectionError, "is gone", lambda: original.receipt)
    outcome = duplicate(original)
    assert (outcome.receipt, outcome.task, outcome.counts) == (None, "t-8k2f", original.counts)


def test_results_hold_no_reference_cycle_that_only_the_collector_could_free() -> None:
    array = StoredArray("statevector", "<c16", (2,), 0, 32, 0)
    for file in (None, ResultFile("t-1.h5", 32, 0, (array,))):
        payload = codec.encode(replace(DATA, file=file))
        handle = TaskHandle(cast(Any, None), 1, Submission())
        completion = Completion(
            1, STATES.index(TaskState.DONE), 1, 1, payload, zlib.crc32(payload), Timing(0, 0, 0)
        )
        handle.end(completion, ResultOrigin(PROVENANCE.origin, "statevector", "", 0.0))
        result = Result(handle.decode(), handle)
        assert result.has("statevector") == (file is not None)
        alive = weakref.ref(handle)
        gc.disable()
        try:
            del handle, result
            assert alive() is None
        finally:
            gc.enable()


STATE = np.array([0.6, 0, 0, 0.8j], "<c16")
EXPORTED = ResultData(
    RESULT_FORMAT, (("a", 1), ("b", 1)), 2, 1024, 2**64 - 1, 1, b"\x00\x03",
    struct.pack("<2I", 1000, 24), b"\x00\x03", 1, struct.pack("<2d", 0.36, 0.64), STATE.tobytes(),
    struct.pack("<2d", 0.28, 0.01), remark="one\ntwo",
)  # fmt: skip
FOUND = Result(DecodedResult.of(EXPORTED, PROVENANCE.task), PROVENANCE)
TOLD = {
    "task": "t-8k2f", "name": "bell", "state": "DONE", "shots": 1024, "seed": 2**64 - 1,
    "binding": 0, "engine": "statevector", "route": "small", "precision": "double", "node": "here",
    "worker": "main-0", "version": "0.1.0", "ranks": 1, "slots": 1, "attempts": 2, "num_qubits": 2,
    "remark": "one\ntwo", "format": 1, "content": "a simenv result",
}  # fmt: skip
ARRAYS = {
    "statevector": STATE, "counts/outcomes": np.array([0, 3], "u1"),
    "counts/counts": np.array([1000, 24], "<u4"), "probabilities/outcomes": np.array([0, 3], "u1"),
    "probabilities/values": np.array([0.36, 0.64]), "expectations": np.array([[0.28, 0.01]]),
}  # fmt: skip


def test_hdf5_file_has_all_arrays_and_metadata(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        for name, array in ARRAYS.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name][()], array)
        table = dict(file.attrs)
    assert {key: table[key] for key in TOLD} == TOLD
    assert json.loads(table["registers"]) == [["a", 1], ["b", 1]]
    assert json.loads(table["timing"])["total_s"] == 0.014


def test_files_have_all_of_the_result(tmp_path: Path) -> None:
    FOUND.save(str(tmp_path / "r.npz"))
    with np.load(tmp_path / "r.npz") as file:
        assert set(file.files) == {*ARRAYS, "metadata"}
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file[name], array)
        document = json.loads(str(file["metadata"]))
    assert {key: document[key] for key in TOLD} == TOLD
    FOUND.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == FOUND.to_dict()


@pytest.mark.parametrize("name", ["r.txt", "r", "missing/r.h5", "missing/r.npz"])
def test_save_to_unsupported_or_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    fails(OptionError, "cannot save", FOUND.save, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.h5", "r.npz", "r.json"])
def test_failed_save_keeps_old(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fails((OptionError, StoreError), "No space left", FOUND.save, tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_saved_binding_of_sweep_has_only_its_own_values(tmp_path: Path) -> None:
    data = replace(
        EXPORTED,
        count=2,
        rows=struct.pack("<2I", 1, 1),
        probability_rows=struct.pack("<2I", 1, 1),
        statevector=np.array([[1, 0, 0, 0], [0, 0, 0, 1]], "<c16").tobytes(),
        expectations=struct.pack("<4d", 1.0, 0.0, -1.0, 0.0),
    )
    Result(DecodedResult.of(data, "t-1"), PROVENANCE, 1).save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["statevector"][()].tolist() == [0, 0, 0, 1]
        assert file["counts/outcomes"][()].tolist() == [3]
        assert file["counts/counts"][()].tolist() == [24]
        assert file["probabilities/values"][()].tolist() == [0.64]
        assert file["expectations"][()].tolist() == [[-1.0, 0.0]]
        assert file.attrs["task"] == "t-8k2f.1"


def pack(values: list[int], width: int) -> tuple[bytes, bytes]:
    rows = b"".join(value.to_bytes(width, "little") for value in values)
    return rows, struct.pack(f"<{len(values)}I", *range(1, len(values) + 1))


def expected(value: int, sizes: list[int]) -> str:
    """Written the slow way: registers from clbit 0 up, each to the left of the last."""
    parts = []
    for size in sizes:
        parts.append("".join(str(value >> k & 1) for k in reversed(range(size))))
        value >>= size
    return " ".join(reversed(parts))


@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
@settings(derandomize=True, deadline=None)
def test_counts_keys_agree_with_reference_formatting(data: st.DataObject, sizes: list[int]) -> None:
    bits = sum(sizes)
    width = next((w for w in (1, 2, 4, 8) if 8 * w >= bits), -(-bits // 8))
    values = sorted(data.draw(st.sets(st.integers(0, 2**bits - 1), min_size=1, max_size=20)))
    registers = tuple((f"r{k}", size) for k, size in enumerate(sizes))
    counts = result_data.counts(*pack(values, width)[:1], width, pack(values, width)[1], registers)
    assert counts == {expected(value, sizes): k for k, value in enumerate(values, 1)}


def test_outcomes_and_probabilities_have_keys_of_their_width() -> None:
    rows, value = pack([0, 2, 3], 2)
    assert result_data.counts(rows, 2, value, (("c", 2),)) == {"00": 1, "10": 2, "11": 3}
    rows, value = pack([0b10_01], 1)
    assert result_data.counts(rows, 1, value, (("c", 2), ("", 2))) == {"10 01": 1}
    assert result_data.counts(b"", 0, struct.pack("<I", 5), ()) == {"": 5}
    assert result_data.counts(b"", 0, struct.pack("<I", 5), (("c", 2), ("d", 1))) == {"0 00": 5}
    fails(ValueError, "zip", result_data.counts, b"\0\1", 1, struct.pack("<I", 5), (("c", 1),))
    result = result_data.probabilities(b"\0\3", 1, struct.pack("<2d", 0.25, 0.75), (("c", 2),))
    assert result == {"00": 0.25, "11": 0.75}


def test_caches_are_bounded() -> None:
    few = 50  # strings of more of them are not kept
    for first in range(0, 3 * result_data.STRINGS_KEPT, few):
        values = list(range(first, first + few))
        rows, result = pack(values, 2)
        for _ in range(2):
            counts = result_data.counts(rows, 2, result, (("c", 16),))
            assert list(counts) == [format(value, "016b") for value in values]
    assert len(result_data._strings((16,))) == result_data.STRINGS_KEPT
    registers = (("c", 6),)
    for values in ([low, high] for low in range(40) for high in range(low + 1, 64)):
        rows, result = pack(values, 1)
        counts = result_data.counts(rows, 1, result, registers)
        assert list(counts) == [format(value, "06b") for value in values]
    assert len(result_data._outcome_sets((6,))) <= result_data.SETS_KEPT


WIDE = HEAD + "qreg q[6]; creg c[6]; h q; measure q->c;"


class Text(HTMLParser):
    """The text of a page, and whether its tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_histogram_sums_up_rare_outcomes_of_its_result(env: simenv.Client) -> None:
    result = env.run(BELL, shots=1000, seed=5, name="bell")
    value = Text(result._repr_html_()).words
    assert {"00", "11", *map(str, result.counts.values())} <= set(value)
    assert any("bell" in word for word in value)
    assert any("seed: 5" in word for word in value)
    result = env.run(WIDE, shots=64_000, seed=5)
    value = Text(result._repr_html_()).words
    entries = [word for word in value if re.fullmatch("[01]{6}", word)]
    assert len(entries) == 16
    assert min(result.counts[key] for key in entries) >= sorted(result.counts.values())[-16]
    assert "48 more" in value


def test_expectation_values_are_a_table(env: simenv.Client) -> None:
    result = env.run(BELL.replace("measure q->c;", ""), shots=None, observables=["ZZ", "ZI"])
    assert Text(result._repr_html_()).words[-6:] == ["0", "1", "exact", "1", "0", "exact"]


def test_task_shows_its_state_and_then_its_result(env: simenv.Client) -> None:
    task = env.submit(BELL, shots=10, name="waits")
    page = task._repr_html_()
    assert "waits" in page
    assert f"Task {task.id}" in page or f"Result {task.id}" in page
    task.result(60)
    assert task._repr_html_().startswith(task.result()._repr_html_())


def test_names_are_text() -> None:
    page = result_display.task_html("t-1", "<script>", "FAILED", None)
    assert "<script>" not in page
    assert any("<script>" in word for word in Text(page).words)


def test_client_shows_its_pools(env: simenv.Client) -> None:
    value = Text(env._repr_html_()).words
    assert "main" in value
    assert "2 of 2" in value


def test_client_without_gateway_has_no_dashboard(env: simenv.Client) -> None:
    assert env.dashboard is None
    assert "href" not in env._repr_html_()


def test_small_circuit_of_a_task_is_drawn(env: simenv.Client) -> None:
    task = env.submit(BELL, shots=10)
    task.result(60)
    (drawing,) = [word for word in Text(task._repr_html_()).words if "\u2524 H \u251c" in word]
    assert len(drawing.splitlines()) > 5
    assert dict(task.circuit().count_ops()) == {"measure": 2, "h": 1, "cx": 1}
    wide = env.submit(HEAD + "qreg q[30]; creg c[30]; h q; measure q->c;", shots=10)
    wide.result(60)
    assert "circuit" not in wide._repr_html_()


def test_circuit_of_a_task_has_its_values(env: simenv.Client) -> None:
    x = ParameterVector("x", 12)
    circuit = QuantumCircuit(1)
    for parameter in x:
        circuit.rx(parameter, 0)
    circuit.measure_all()
    values = [0.1 * k for k in range(12)]
    result = env.submit(circuit, parameter_values=values, shots=10).circuit()
    assert [each.operation.params[0] for each in result.data[:12]] == pytest.approx(values)
    assert env.submit_many((circuit, [values, values]), shots=10)[1].circuit().num_parameters == 12


def test_plot_has_a_bar_for_each_likely_outcome(env: simenv.Client) -> None:
    pytest.importorskip("matplotlib").use("agg")
    result = env.run(BELL, shots=1000, seed=5)
    axes = result.plot()
    assert [bar.get_height() for bar in axes.patches] == [result.counts["00"], result.counts["11"]]
    assert axes.get_ylabel() == "counts"
    axes.figure.canvas.draw()
    labels = axes.get_tightbbox()  # all of it is in the picture that savefig writes
    assert 0 <= labels.x0 < labels.x1 <= axes.figure.bbox.x1
    assert 0 <= labels.y0 < labels.y1 <= axes.figure.bbox.y1
    outcome = env.run(HEAD + "qreg q[8]; creg c[8]; h q; measure q->c;", shots=None,
                   outputs="probabilities")  # fmt: skip
    axes.clear()
    assert outcome.plot(axes) is axes
    assert len(axes.patches) == 64
    assert "192 rarer outcomes left out" in axes.get_title()
    values = env.run(BELL.replace("measure q->c;", ""), shots=None, observables="ZZ")
    fails(OptionError, "probabilities", values.plot)


SWEPT = ResultData(
    RESULT_FORMAT,
    (("c", 2),),
    2,
    shots=8,
    seed=1,
    outcome_width=1,
    outcomes=b"\x00\x01\x02\x03\x02",
    counts=struct.pack("<5I", 8, 1, 3, 4, 8),
    probability_outcomes=b"\x00\x01\x02\x03",
    probability_width=1,
    probabilities=struct.pack("<4d", 1.0, 0.25, 0.75, 1.0),
    statevector=np.arange(12, dtype="<c16").tobytes(),
    expectations=struct.pack("<6d", 0.1, 0.01, 0.2, 0.02, 0.3, 0.03),
    gradients=struct.pack("<6d", 1, 2, 3, 4, 5, 6),
    binding=40,
    count=3,
    rows=struct.pack("<3I", 1, 3, 1),
    probability_rows=struct.pack("<3I", 1, 2, 1),
)


def sheet(**changes: object) -> DecodedResult:
    return DecodedResult.of(replace(SWEPT, **changes), "t-8k2f")


def test_each_row_of_result_has_its_own_values() -> None:
    result = sheet()
    rows = [Result(result, PROVENANCE, k) for k in range(3)]
    assert [row.counts for row in rows] == [{"00": 8}, {"01": 1, "10": 3, "11": 4}, {"10": 8}]
    assert (rows[1].outcomes.tolist(), rows[1].outcome_counts.tolist()) == ([1, 2, 3], [1, 3, 4])
    assert rows[1].probabilities == {"01": 0.25, "10": 0.75}
    assert rows[2].statevector.tolist() == [8, 9, 10, 11]
    assert ([row.expectation for row in rows], rows[2].std_errors) == ([0.1, 0.2, 0.3], (0.03,))
    assert [row.gradient.tolist() for row in rows] == [[1, 2], [3, 4], [5, 6]]
    assert (rows[1].gradients.shape, [row.binding_index for row in rows]) == ((1, 2), [40, 41, 42])


def test_expectations_of_sweep_are_one_array() -> None:
    table = sheet().expectations()
    assert (table.shape, table[:, 0, 0].tolist()) == ((3, 1, 2), [0.1, 0.2, 0.3])


def test_row_without_outcomes_has_empty_counts() -> None:
    assert Result(sheet(rows=struct.pack("<3I", 0, 5, 0)), PROVENANCE, 0).counts == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0}, {"count": 2}, {"rows": b""}, {"rows": struct.pack("<3I", 1, 3, 2)},
        {"rows": struct.pack("<2I", 1, 4)}, {"rows": b"\0" * 11},
        {"probability_rows": struct.pack("<3I", 1, 1, 1)}, {"expectations": b"\0" * 40},
        {"expectations": b""}, {"gradients": b"\0" * 40}, {"gradients": b"\0" * 8},
        {"statevector": b"\0" * 20}, {"outcomes": b"\0" * 4}, {"outcome_width": 2},
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_arrays_are_a_protocol_error(changes: dict[str, object]) -> None:
    fails(ProtocolError, "t-8k2f", sheet, **changes)
