"""100,000 mutated frames: the service refuses them, lives, does not grow, and serves others."""

import random
from pathlib import Path

import msgspec
import psutil
import pytest
from service import ServiceHarness, spec

import simenv
from simenv.model import PoolSpec, TaskOptions, TaskState
from simenv.wire import codec
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import admin, client as m, credentials, queries
from simenv.wire.messages.explain import Explain
from simenv.wire.messages.history import GetApp, GetHistory, GetSpec
from simenv.wire.transport.sockets import PeerKind
from testbed.typed_messages import HONEST, POOL, exchange

FRAMES = 100_000
A_ROUND = 50  # sent before the service looks
GROWTH_BYTES = 24 * 2**20
KEY = new_pair().public
GOOD_CLIENT: list[object] = [
    m.Hello(1, "0.1.0", "~ana"), m.Submit(2, "~k", 0, TaskOptions(), [spec(1), spec(2)]),
    m.Submit(3, "mine", 7, TaskOptions(name="run"), [spec(3)]), m.WatchResults(4, [1, 2, 3]),
    m.Cancel(5, [1, 2]), m.GetStatus(6), m.GetQueue(7, True, 10), m.GetTasks(8, [1, 2**40]),
    m.GetWorkers(9), m.GetEvents(10, 0, 5), m.GetCompletions(11, 0, 5), m.Ack(12, "mine", 0),
    m.GetCursor(13, "mine"), m.Ping(14), GetHistory(15, 0, 5),
    GetHistory(15, 0, 5, before=9, states=(TaskState.DONE,)), GetSpec(16, 1),
    GetApp(17), queries.FetchResult(18, 1, "f", 0, 100), queries.VerifyResult(19, 1),
    queries.CollectGarbage(20, 1e9), queries.GetEngines(24),
    Explain(25, TaskOptions(), b"program", 100),
    credentials.AddKey(21, "eve", "client", KEY), credentials.RevokeKey(22, "eve"),
    credentials.GetKeys(23), admin.GetPools(26),
    admin.Scale(27, "main", 1, 2), admin.DrainNode(28, "here", "for repair"),
    admin.ResumeNode(29, "here"),
]  # fmt: skip
GOOD_WORKER: list[object] = [
    m.Join("0.1.0", "main-0", 1000, "here", 1, (), 1, 2),
    m.Started(1, 65_537),
    m.AttemptResults([m.AttemptResult(1, 65_537, 2, b"r", 1, "f", 1)]),
    m.Heartbeat("main-0", 1, 1, 65_537, 10_000, 1, 7, 9),
]
# msgpack's ways to say a length or a kind: nil, ext, maps, arrays and strings of 2^32 - 1, ...
HEADS = [
    *(b"\xc0", b"\xc1", b"\xc9\xff\xff\xff\xff\x01", b"\xdf\xff\xff\xff\xff"),
    *(b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\0" * 7, b"\xcb\x7f\xf8" + b"\0" * 6),
    *(b"\x91" * 500, b"\x81\xa1a" * 500, b"\xa3\xff\xfe\xfd", b"\xff", b""),
]


def mutated(rng: random.Random, good: list[bytes]) -> bytes:
    """One of these messages with something wrong: cut, stretched, changed, spliced, or noise."""
    body = bytearray(rng.choice(good))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(8):
            case 0:
                del body[place:]
            case 1:
                body[place : place + 1] = rng.randbytes(1)
            case 2:
                body[place : place + rng.randrange(9)] = b""
            case 3:
                body[place:place] = rng.choice(HEADS)
            case 4:
                body[place : place + 1] = rng.choice(HEADS)
            case 5:
                other = rng.choice(good)
                body[place:] = other[rng.randrange(len(other) + 1) :]
            case 6:
                body += body[:place]
            case _:
                body[place:] = rng.randbytes(rng.randrange(40))
    return bytes(body)


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    return ServiceHarness(tmp_path, durability="process")


def serve(bench: ServiceHarness) -> None:
    """All that has come, without the tests' own check of the machine, which is slower than it."""
    for _ in range(3):
        bench.loop._next_tick_ns = 0
        bench.loop.run_once(timeout_s=0.0)


@pytest.mark.parametrize("role", ["client", "admin", "worker"])
def test_mutated_frames_end_or_swell_the_service(bench: ServiceHarness, role: str) -> None:
    key = new_pair().public if role != "worker" else ""  # workers of this machine have none
    if key:
        bench.say(credentials.AddKey(1, "mallory", role, key))
    bench.join()
    peer_kind = PeerKind.WORKER if role == "worker" else PeerKind.CLIENT
    good = [codec.encode(each) for each in (GOOD_WORKER if role == "worker" else GOOD_CLIENT)]
    rng = random.Random(f"frames of a {role}")
    process = psutil.Process()
    rounds = FRAMES // 3 // A_ROUND
    mallory = bench.listener.connect(peer_kind, b"mallory", key)
    for turn in range(rounds):
        if turn == rounds // 4:  # caches and pools have their size
            before = process.memory_info().rss
        for _ in range(A_ROUND):
            mallory.send(mutated(rng, good))
        serve(bench)
        while mallory.receive(0.0) is not None:
            pass
        if bench.work is not None:
            while bench.work.receive(0.0) is not None:
                pass
        if bench.state.draining:
            bench.state.draining, bench.loop.lifecycle.stopped = False, False
    assert process.memory_info().rss - before < GROWTH_BYTES
    bench.step()  # with the check of every invariant
    assert isinstance(bench.say(m.Ping(77))[-1], m.Pong)
    assert isinstance(bench.submit(), m.Accepted)


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
def joined(tmp_path: Path) -> ServiceHarness:
    result = ServiceHarness(tmp_path, durability="process")
    result.join()
    return result


def test_program_nested_beyond_the_decoder_is_refused(joined: ServiceHarness) -> None:
    """msgspec raises RecursionError for it, which is no MsgspecError."""
    nested = msgspec.msgpack.encode([2, msgspec.Raw(NESTED)])
    call = msgspec.msgpack.encode([1, b"", 1, 1, 13, msgspec.Raw(NESTED)])
    for terms, packed in (
        (TaskOptions(), nested),
        (TaskOptions(engine="transpiler", outputs=("value",)), call),
    ):
        assert joined.refusal(Explain(1, terms, packed, 1)).code == "program"
        assert joined.refused(spec(program=packed), terms=terms).code == "program"
    assert joined.loop.monitoring.internal_errors.count == 0


def test_more_shots_than_a_word_holds_are_refused(joined: ServiceHarness) -> None:
    """With noise, the digest of the options has the shots."""
    terms = TaskOptions(snapshot="ab" * 16)
    assert joined.refused(spec(shots=2**64 - 1), terms=terms).code != "internal"
    assert joined.loop.monitoring.internal_errors.count == 0
