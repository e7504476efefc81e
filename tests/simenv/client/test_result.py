"""The executor, and results."""

import concurrent.futures as cf
import copy
import gc
import json
import pickle
import struct
import subprocess
import sys
import weakref
import zlib
from collections.abc import Callable
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from rich.pretty import pretty_repr
from waiting import until

import simenv
from simenv.client import result_data
from simenv.client.client import SimenvExecutor
from simenv.client.connection.task_handle import ResultOrigin, Submission, TaskHandle
from simenv.client.result import Result
from simenv.client.result_data import DecodedResult, Provenance, Stages
from simenv.errors import OptionError, ProtocolError, TimedOutError, VersionMismatchError
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
    return Result(
        DecodedResult.of(msgspec.structs.replace(DATA, **changes), PROVENANCE.task), PROVENANCE
    )


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


def test_counts_that_were_not_requested_are_refused() -> None:
    with pytest.raises(OptionError, match="no counts"):
        _ = result(counts=b"", outcomes=b"").counts


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
    one_by_one = beyond and size % 8
    assert bool(result_data._strings((size,))) == bool(one_by_one)


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
            msgspec.structs.replace(
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
        payload = codec.encode(msgspec.structs.replace(DATA, file=file))
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
