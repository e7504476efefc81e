"""Bytes of a stranger become a value of the declared type or a ProtocolError, nothing else."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any, get_args

import msgspec
import msgspec.inspect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simenv.errors import ProtocolError
from simenv.model import Origin, Program, ResultData, TaskOptions, TaskSpec, Timing
from simenv.wire import codec
from simenv.wire.messages import client as m

DECODERS = [
    codec.from_client, codec.to_client, codec.from_worker, codec.to_worker, codec.result_data,
    codec.failure,
]  # fmt: skip

SUBMIT = m.Submit(
    3,
    "sweep-17",
    500,
    TaskOptions(("counts",)),
    [TaskSpec(b"program", 1024, 2**64 - 1, b"\0" * 8, 7)],
)
COMPLETED = m.Completed(
    Origin("main-0", "here", 1, "0.1.0"),
    "statevector",
    "small",
    [m.Completion(9, 2, 1, 1, b"payload", 7, Timing(1, 2, 3))],
    12,
)
FROM_CLIENT = [
    m.Hello(1, "0.1.0", "~ab"), SUBMIT, m.WatchResults(1, [1, 2]), m.Cancel(2, [3]), m.GetStatus(3),
    m.GetQueue(4, True, 5), m.GetTasks(5, [9]), m.GetWorkers(6), m.GetEvents(7, 3),
    m.GetCompletions(8, 1), m.Ack(9, "default", 4), m.GetCursor(10, "default"), m.Ping(11),
    m.Shutdown(12, True),
]  # fmt: skip
TO_CLIENT = [
    m.Welcome(1, "0.1.0", "default"), m.Accepted(1, 2, 3, True), m.Pong(1, 2), COMPLETED,
    m.Refused(1, [m.Refusal("limit", "too much", "less", 4, 1.5)]), m.UnknownTasks(1, [2]),
    m.Cancelled(1, ["final"]), m.CompletionPage(1, [COMPLETED], 12), m.Acked(1, 2),
    m.Stopping(1, 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda value: type(value).__name__)
def test_client_message_round_trips_unchanged(message: m.FromClient) -> None:
    assert codec.from_client(codec.encode(message)) == message


@pytest.mark.parametrize("message", TO_CLIENT, ids=lambda value: type(value).__name__)
def test_service_message_round_trips_unchanged(message: m.ToClient) -> None:
    assert codec.to_client(codec.encode(message)) == message


def test_encoding_seed_beyond_64_bits_raises_overflow_error() -> None:
    with pytest.raises(OverflowError):
        codec.encode(TaskSpec(b"", 1, 2**64))


@pytest.mark.parametrize("decode", DECODERS)
@given(body=st.binary(max_size=200))
@settings(derandomize=True)
def test_random_bytes_decode_or_raise_protocol_error(
    decode: codec.Decoder[object], body: bytes
) -> None:
    with contextlib.suppress(ProtocolError):
        decode(body)


@given(data=st.data())
@settings(derandomize=True)
def test_corrupted_submission_decodes_or_raises_protocol_error(data: st.DataObject) -> None:
    body = bytearray(codec.encode(SUBMIT))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = codec.from_client(bytes(body))
    except ProtocolError:
        return
    assert isinstance(message, m.FromClient)


@pytest.mark.parametrize("cut", range(len(codec.encode(SUBMIT))))
def test_truncated_submission_raises_protocol_error(cut: int) -> None:
    with pytest.raises(ProtocolError):
        codec.from_client(codec.encode(SUBMIT)[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([99, 1]),  # a tag nobody has
        msgspec.msgpack.encode([12]),  # Ping without its request
        msgspec.msgpack.encode([12, "one"]),
        msgspec.msgpack.encode({"request": 1}),
        msgspec.msgpack.encode([2, 1, [1.5]]),
        b"\x93\x02\x01\xdd\xff\xff\xff\xff",  # a list of 2**32 - 1 ids that are not there
        b"\x92\x0c" + b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes that are not there
        b"\x91" * 100_000,  # nested beyond any stack
        codec.encode(m.Ping(1)) + b"\0",  # something after the end
    ],
)
def test_malformed_message_raises_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.from_client(body)


def test_text_that_is_not_utf8_raises_protocol_error() -> None:
    body = codec.encode(m.Hello(1, "0.1.0", "abcd")).replace(b"abcd", b"\xff\xfe\xfd\xfc")
    with pytest.raises(ProtocolError):
        codec.from_client(body)


def test_result_of_another_type_raises_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        codec.result_data(codec.encode(m.Failure("engine", "it broke")))
    assert codec.result_data(codec.encode(ResultData(1, (), 2, 0, 0))).num_qubits == 2


def _unbounded(kind: Any, path: str, seen: set[type]) -> list[str]:
    """Sequences and strings below this type that may be of any length."""
    info = msgspec.inspect
    lines: list[str] = []
    if isinstance(kind, info.StructType):
        if kind.cls in seen:
            return []
        seen.add(kind.cls)
        for field in kind.fields:
            lines += _unbounded(field.type, f"{path}.{field.name}", seen)
        return lines
    if isinstance(kind, info.UnionType):
        return [each for part in kind.types for each in _unbounded(part, path, seen)]
    if isinstance(kind, info.TupleType):
        return [each for part in kind.item_types for each in _unbounded(part, path, seen)]
    if isinstance(kind, info.ListType | info.VarTupleType | info.StrType | info.DictType):
        if kind.max_length is None:
            lines.append(path)
        if isinstance(kind, info.ListType | info.VarTupleType):
            lines += _unbounded(kind.item_type, f"{path}[]", seen)
        if isinstance(kind, info.DictType):
            lines += _unbounded(kind.key_type, f"{path}{{}}", seen)
            lines += _unbounded(kind.value_type, f"{path}{{}}", seen)
    return lines


@pytest.mark.parametrize("message", [*get_args(m.FromClient), Program])
def test_every_sequence_and_string_from_a_client_has_a_bound(message: type) -> None:
    """So that the decoder refuses what is too long before it has built it."""
    assert _unbounded(msgspec.inspect.type_info(message), message.__name__, set()) == []


def test_submission_of_too_many_tasks_is_refused_before_they_are_decoded() -> None:
    body = codec.encode(m.Submit(7, "~k", 0, TaskOptions(), [TaskSpec(b"", 1, 1)] * 10**6))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="length <= 65536"):
            codec.from_client(body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
