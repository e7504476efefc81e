"""Every number of a message to the service has a bound."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

import msgspec
import pytest
from failing import fails
from msgspec import inspect

from simenv.errors import ProtocolError
from simenv.model import TaskOptions, TaskSpec
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.service.event_loop import CHECKED
from simenv.wire import codec
from simenv.wire.messages import base, client as m, identity
from simenv.wire.messages.accounting import GetUsage
from simenv.wire.messages.history import GetHistory

# Checked as a whole where it arrives, as the messages CHECKED: `base.check_magnitudes`.
DESCRIBED = {DeviceInfo}
# By the table of options, and by admission: the fields of the tasks of a submission.
RULED = {TaskOptions, TaskSpec}
# Their windows of time, by `views.check_window`.
WINDOWS = (GetUsage, GetHistory)
_NUMBERS = (inspect.IntType, inspect.FloatType)
_ITEMS = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)


def unbounded(kind: Any, place: str, seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Yield the places of numbers without a least and a largest value."""
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, _NUMBERS):
        low = kind.ge if kind.gt is None else kind.gt
        high = kind.le if kind.lt is None else kind.lt
        if low is None or high is None:
            yield place
    elif isinstance(kind, inspect.StructType):
        if kind.cls not in seen | DESCRIBED | RULED:
            for field in kind.fields:
                yield from unbounded(field.type, f"{place}.{field.name}", seen | {kind.cls})
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from unbounded(each, place, seen)
    elif isinstance(kind, _ITEMS):
        yield from unbounded(kind.item_type, f"{place}[]", seen)
    elif isinstance(kind, inspect.TupleType):
        for number, each in enumerate(kind.item_types):
            yield from unbounded(each, f"{place}[{number}]", seen)
    elif isinstance(kind, inspect.DictType):
        yield from unbounded(kind.key_type, f"{place}{{}}", seen)
        yield from unbounded(kind.value_type, f"{place}{{}}", seen)


RECEIVED = [
    kind
    for kind in (*get_args(m.FromWorker), *get_args(m.FromClient), identity.UserRequest)
    if kind not in (*CHECKED, *WINDOWS)
]


@pytest.mark.parametrize("kind", RECEIVED, ids=lambda kind: kind.__name__)
def test_every_number_of_a_received_message_has_a_bound(kind: type) -> None:
    assert list(unbounded(inspect.type_info(kind), kind.__name__)) == []


RESULT = m.AttemptResult(1, 65_537, 2, b"r", 1)
BEAT = m.Heartbeat("main-0", 1, 1, 65_537, 10_000)
JOIN = m.Join("0.1.0", "main-0", 1, "here", 1, (), 1)
FORGED: list[tuple[Any, dict[str, Any]]] = [
    *((RESULT, {name: value}) for name in (
        "run_us", "start_us", "decode_us", "plan_us", "engine_us", "encode_us", "compile_us",
        "device_ns", "file_bytes", "checksum",
    ) for value in (2**63 - 1, 2**64 - 1, -1, float("nan"), float("inf"), "1")),
    *((BEAT, {name: 2**63 - 1}) for name in (
        "rss_bytes", "cpu_ms", "node_cpu_ms", "node_used_bytes", "base_bytes",
    )),
    *((JOIN, {name: 2**63 - 1}) for name in ("pid", "ranks")),
    (JOIN, {"name": "x" * 10**6}), (JOIN, {"node": "x" * 10**6}), (JOIN, {"version": "x" * 300}),
    (RESULT, {"file": "x" * 10**6}), (RESULT, {"state": 0}), (RESULT, {"state": 99}),
]  # fmt: skip


@pytest.mark.parametrize(("good", "forged"), FORGED)
def test_extreme_figures_of_a_worker_are_refused(good: Any, forged: dict[str, Any]) -> None:
    bad = msgspec.structs.replace(good, **forged)
    message = m.AttemptResults([bad]) if good is RESULT else bad
    fails(ProtocolError, "", codec.from_worker, codec.encode(message))


def test_deep_nesting_is_refused() -> None:
    for depth in (100, 10_000, 500_000):
        fails(ProtocolError, "", codec.from_worker, b"\x91" * depth)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 2.0**100, 2**63])
def test_description_of_a_machine_has_no_number_out_of_bounds(value: float) -> None:
    fields = ("x", DeviceKind.HARDWARE, "lab", "fridge", "1", "", 2, 1000, (), False)
    check = partial(base.check_magnitudes, has_unknown=True)
    check(DeviceInfo(*fields))  # most was not measured
    device = DeviceInfo(*fields, dt_ns=value)
    assert "dt_ns" in fails(ProtocolError, "", check, device).message
    fails(ProtocolError, "", base.check_magnitudes, DeviceInfo(*fields, dt_ns=float("nan")))
