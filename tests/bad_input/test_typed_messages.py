"""Messages made from the types of the protocol, with edge values, on real connections."""

from pathlib import Path

import msgspec
import pytest
from service import ServiceHarness, spec

import simenv
from simenv.model import PoolSpec, TaskOptions
from simenv.wire.messages import queries
from testbed.typed_messages import HONEST, POOL, exchange

MESSAGES = 10_000  # `python -m bench run typed_fuzz` sends 100,000, and measures the answers
NESTED = b"\x91" * 5_000 + b"\xc0"


def test_typed_messages_end_the_service_or_stay_without_answer(tmp_path: Path) -> None:
    pools = (PoolSpec(name=POOL), PoolSpec(name=HONEST))
    with simenv.local(pools=pools, slots=2, listen="tcp://127.0.0.1:0") as client:
        before = client.status()
        found = exchange(client, tmp_path, MESSAGES, seed=1)
        after = client.status()
        assert (after.pid, after.epoch) == (before.pid, before.epoch)
        assert client.metrics().service.internal_errors == 0
    assert found.bells
    for counts in found.bells:
        assert set(counts) <= {"00", "11"}
    for kind in ("Accepted", "Explained", "NoiseStored", "DecisionReply"):
        assert found.answers[kind], f"no message came as far as {kind}"


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    result = ServiceHarness(tmp_path, durability="process")
    result.join()
    return result


def test_program_nested_beyond_the_decoder_is_refused(bench: ServiceHarness) -> None:
    """msgspec raises RecursionError for it, which is no MsgspecError."""
    nested = msgspec.msgpack.encode([2, msgspec.Raw(NESTED)])
    call = msgspec.msgpack.encode([1, b"", 1, 1, 13, msgspec.Raw(NESTED)])
    for terms, packed in (
        (TaskOptions(), nested),
        (TaskOptions(engine="transpiler", outputs=("value",)), call),
    ):
        assert bench.refusal(queries.Explain(1, terms, packed, 1)).code == "program"
        assert bench.refused(spec(program=packed), terms=terms).code == "program"
    assert bench.loop.internal_errors.count == 0


def test_more_shots_than_a_word_holds_are_refused(bench: ServiceHarness) -> None:
    """With noise, the digest of the options has the shots."""
    terms = TaskOptions(snapshot="ab" * 16)
    assert bench.refused(spec(shots=2**64 - 1), terms=terms).code != "internal"
    assert bench.loop.internal_errors.count == 0
