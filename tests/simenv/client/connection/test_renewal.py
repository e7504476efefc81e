"""A result that is not what was written: never handed out, and asked for again."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from client_peer import Peer, completed, completion, spec
from failing import fails

from simenv import result_files
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import NotFoundError, StoreError, TaskFailedError
from simenv.model import RESULT_FORMAT, ResultData, ResultFile, TaskOptions, TaskState
from simenv.wire import codec
from simenv.wire.messages import client as m, queries

ARRAY = np.arange(200_000, dtype="<u4")


def submitted(link: ServiceSession) -> Task:
    [task] = send(link, PreparedSubmit(TaskOptions(), [spec()]), None)
    return task


def flipped(one: m.Completion) -> m.Completion:
    return msgspec.structs.replace(one, payload=one.payload[:-1] + bytes([one.payload[-1] ^ 1]))


@pytest.mark.parametrize("word", ["again", "waits", "intact"])
def test_corrupt_payload_is_requested_again(link: ServiceSession, idle: Peer, word: str) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, word)])
    changed = msgspec.structs.replace(completion(1, seed=7), attempts=2)
    idle.on(m.WatchResults, lambda q: [completed(changed), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(flipped(completion(1, seed=7))))
    result = task.result(10)
    assert (result.seed, result.attempts, result.counts) == (7, 2, {"00": 1000, "11": 24})
    assert len(idle.of(queries.VerifyResult)) == 1


def test_corrupt_failure_is_requested_again(link: ServiceSession, idle: Peer) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "again")])
    result = completion(1, state=TaskState.FAILED)
    idle.on(m.WatchResults, lambda q: [completed(result), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(flipped(result)))
    fails(TaskFailedError, "it broke", task.result, 10)


def test_corrupt_result_raises_after_one_verification(link: ServiceSession, idle: Peer) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "intact")])
    broken = flipped(completion(1))
    idle.on(m.WatchResults, lambda q: [completed(broken), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(broken))
    assert fails(StoreError, "t-1 is damaged", task.result, 10).hint
    assert len(idle.of(queries.VerifyResult)) == 1


@pytest.mark.parametrize("word", ["removed", "unknown"])
def test_corrupt_result_not_stored_raises(link: ServiceSession, idle: Peer, word: str) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, word)])
    task = submitted(link)
    idle.say(completed(flipped(completion(1))))
    fails(NotFoundError, "no longer kept", task.result, 10)


def filed(folder: Path, name: str = "t-1.h5") -> ResultFile:
    return result_files.write(folder / name, {"counts": ARRAY}, {}, name=name)


def ended(file: ResultFile) -> m.Completion:
    data = ResultData(RESULT_FORMAT, (("c", 8),), 8, 9, 1, 1, bytes(len(ARRAY)), file=file)
    payload = codec.encode(data)
    got = completion(1)
    return msgspec.structs.replace(got, payload=payload, checksum=result_files.zlib.crc32(payload))


def serving(peer: Peer, folder: Path, most: int = queries.CHUNK_BYTES) -> None:
    """Chunks from the folder, `most` bytes at once."""

    def chunk(q: queries.FetchResult) -> list[m.ToClient]:
        data = (folder / q.file).read_bytes()[q.offset :][: min(most, q.size_bytes)]
        return [queries.ResultChunk(q.request, data)]

    peer.on(queries.FetchResult, chunk)


def test_array_of_short_chunks_is_whole(link: ServiceSession, peer: Peer, tmp_path: Path) -> None:
    serving(peer, tmp_path, most=100_001)
    peer.finishes = False
    task = submitted(link)
    peer.say(completed(ended(filed(tmp_path))))
    np.testing.assert_array_equal(task.result(10).outcome_counts, ARRAY)
    assert len(peer.of(queries.FetchResult)) == 8


def test_array_is_fetched_once_when_read(link: ServiceSession, peer: Peer, tmp_path: Path) -> None:
    serving(peer, tmp_path)
    peer.finishes = False
    task = submitted(link)
    peer.say(completed(ended(filed(tmp_path))))
    result = task.result(10)
    assert result.has("counts")
    assert not peer.of(queries.FetchResult)
    assert result.outcome_counts is not None
    assert result.outcome_counts is not None
    assert len(peer.of(queries.FetchResult)) == 1


@pytest.mark.parametrize("how", ["flip", "short", "refused"])
def test_bad_file_is_rewritten(link: ServiceSession, peer: Peer, tmp_path: Path, how: str) -> None:
    serving(peer, tmp_path)
    peer.finishes = False
    first, second = filed(tmp_path), filed(tmp_path, "t-1.second.h5")
    content = bytearray((tmp_path / first.name).read_bytes())
    content[first.arrays[0].offset + 5_000] ^= 16
    (tmp_path / first.name).write_bytes(content[:300_000] if how == "short" else content)
    if how == "refused":
        refusal = m.Refusal("result_store", "it is not there")

        def chunk(q: queries.FetchResult) -> list[m.ToClient]:
            if q.file == first.name:
                return [m.Refused(q.request, [refusal])]
            data = (tmp_path / q.file).read_bytes()[q.offset :][: q.size_bytes]
            return [queries.ResultChunk(q.request, data)]

        peer.on(queries.FetchResult, chunk)
    peer.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "again")])
    peer.on(m.WatchResults, lambda q: [completed(ended(second)), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    peer.say(completed(ended(first)))
    np.testing.assert_array_equal(task.result(10).outcome_counts, ARRAY)
    assert len(peer.of(queries.VerifyResult)) == 1
