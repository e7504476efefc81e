"""The codec, authentication and key files."""

import contextlib
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import msgspec
import msgspec.inspect
import pytest
from failing import fails
from hypothesis import given, settings, strategies as st

from simenv.config import OwnerEndpoint
from simenv.errors import ConfigError, KeyConflictError, NotFoundError, OptionError, ProtocolError
from simenv.model import Program, ResultData, TaskOptions, TaskSpec
from simenv.wire import codec, key_list, keyfiles
from simenv.wire.messages import client as m
from simenv.wire.messages.base import ClientRequest, answer_of
from simenv.wire.messages.credentials import KeyInfo

DECODERS = [
    codec.from_client, codec.to_client, codec.from_worker, codec.to_worker, codec.result_data,
    codec.failure,
]  # fmt: skip


SUBMIT = m.Submit(
    3, "sweep-17", 500, TaskOptions(("counts",)),
    [TaskSpec(b"program", 1024, 2**64 - 1, b"\0" * 8, 7)],
)  # fmt: skip


def test_every_request_names_an_answer_that_a_client_decodes() -> None:
    requests = [each for each in get_args(m.FromClient) if issubclass(each, ClientRequest)]
    answers = {answer_of(each) for each in requests}
    assert len(requests) > len(answers)
    assert answers <= set(get_args(m.ToClient))


def test_encoding_seed_beyond_64_bits_raises_overflow_error() -> None:
    fails(OverflowError, "", codec.encode, TaskSpec(b"", 1, 2**64))


@pytest.mark.parametrize("decode", DECODERS)
@given(body=st.binary(max_size=200))
@settings(derandomize=True)
def test_random_bytes_decode_or_raise_error(decode: codec.Decoder[object], body: bytes) -> None:
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
    fails(ProtocolError, "", codec.from_client, codec.encode(SUBMIT)[:cut])


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
    fails(ProtocolError, "", codec.from_client, body)


def test_text_that_is_not_utf8_and_results_of_other_types_are_refused() -> None:
    body = codec.encode(m.Hello(1, "0.1.0", "abcd")).replace(b"abcd", b"\xff\xfe\xfd\xfc")
    fails(ProtocolError, "", codec.from_client, body)
    fails(ProtocolError, "", codec.result_data, codec.encode(m.Failure("engine", "it broke")))
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
        fails(ProtocolError, "length <= 65536", codec.from_client, body)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


ANA = KeyInfo("ana", "client", keyfiles.new_pair().public, 1.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def person() -> keyfiles.UserKeyFile:
    pair = keyfiles.new_pair()
    return keyfiles.UserKeyFile(1, "e", "tcp://h:1", "s", "ana", "client", pair.public, pair.secret)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_key_files_are_created_with_mode_0600_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keyfiles.server_file(tmp_path / "server-key.json")
        keyfiles.write_keys(tmp_path / "keys.json", [ANA])
        keyfiles.create_private(tmp_path / "ana", person())
    finally:
        os.umask(before)
    assert [mode(tmp_path / n) for n in ("server-key.json", "keys.json", "ana")] == [0o600] * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ana", "keys.json", "server-key.json"]


@pytest.mark.parametrize("loose", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610])
def test_key_file_accessible_to_others_is_refused(tmp_path: Path, loose: int) -> None:
    path = tmp_path / "ana"
    keyfiles.create_private(path, person())
    path.chmod(loose)
    why = fails(ConfigError, f"mode {loose:04o}", keyfiles.read_private, path, keyfiles.UserKeyFile)
    assert f"chmod 600 {path}" in why.hint


def test_key_file_of_other_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ana"
    keyfiles.create_private(path, person())
    monkeypatch.setattr("os.getuid", lambda: 4711)
    fails(ConfigError, "belongs to another user", keyfiles.read_private, path, keyfiles.UserKeyFile)


def test_keys_file_and_folder_are_fsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that was renamed and not synced may be the old one after a power cut, with a revoked
    key in it: first the file, then its folder."""
    synced: list[bool] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(keyfiles.os, "fsync", noted)
    keyfiles.write_keys(tmp_path / "keys.json", [ANA])
    assert synced == [False, True]


_ADD = """
import sys
from pathlib import Path
from simenv.client.administration.keys import OfflineKeyStore
from simenv.config import EnvironmentPaths
home = Path(sys.argv[1])
people = OfflineKeyStore(EnvironmentPaths(home, home), "env")
for k in range(10):
    people.add(f"{sys.argv[2]}-{k}", "client")
people.revoke(f"{sys.argv[2]}-3")
"""


def test_concurrent_key_changes_of_several_processes_are_all_applied(tmp_path: Path) -> None:
    server = keyfiles.server_file(tmp_path / "server-key.json")
    changed = msgspec.structs.replace(server, address="tcp://127.0.0.1:1")
    keyfiles.write_private(tmp_path / "server-key.json", changed)
    argv = (sys.executable, "-c", _ADD, str(tmp_path))
    running = [subprocess.Popen([*argv, name]) for name in ("a", "b", "c")]
    assert [each.wait(120) for each in running] == [0, 0, 0]
    names = sorted(key.name for key in keyfiles.read_keys(tmp_path / "keys.json"))
    assert names == [f"{who}-{k}" for who in "abc" for k in range(10) if k != 3]


def test_symbolic_links_in_place_of_key_files_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "ana").symlink_to(target)
    fails(ConfigError, "", keyfiles.create_private, tmp_path / "ana", person())
    assert not target.exists()


def test_server_keys_are_created_once_and_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    assert keyfiles.server_file(path) == keyfiles.server_file(path)
    keyfiles.write_private(path, keyfiles.ServerFile(keyfiles.KEYS_FORMAT + 1, "p", "s"))
    fails(ConfigError, f"format {keyfiles.KEYS_FORMAT + 1}", keyfiles.server_file, path)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff\xfe", b'{"format": 1}', b'{"format":1,"keys":[{"name":1}]}',
        b"[" * 9999,
    ],
)  # fmt: skip
def test_damaged_key_file_raises_config_error(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(body)
    path.chmod(0o600)
    fails(ConfigError, "has unexpected content", keyfiles.read_private, path, keyfiles.KeysFile)


def test_keys_are_bounded_unique_and_removed_once() -> None:
    for other in (
        KeyInfo("ana", "client", keyfiles.new_pair().public, 2.0),
        KeyInfo("eva", "admin", ANA.public_key, 2.0),
    ):
        fails(KeyConflictError, "'ana'", key_list.added, [ANA], other)
    entries = [KeyInfo(f"k{n}", "client", f"{n:040}", 1.0) for n in range(key_list.MAX_KEYS)]
    fails(OptionError, str(key_list.MAX_KEYS), key_list.added, entries, ANA)
    assert "ana" in fails(NotFoundError, "", key_list.removed, [ANA], "eva").hint


def test_no_repr_shows_a_secret() -> None:
    pair = keyfiles.new_pair()
    ends = ("tcp://h:1", pair.public, pair.public, pair.secret)
    for holder in (
        pair, person(),
        keyfiles.ServerFile(1, pair.public, pair.secret, "tcp://h:1", pair.public, pair.secret),
        OwnerEndpoint(*ends), keyfiles.WorkerKey(1, "main-0", 1, pair.public, pair.secret),
        keyfiles.WorkerBootstrap(1, "node", "/s", "token", *ends),
    ):  # fmt: skip
        names = ("secret", "secret_key", "own_secret", "token")
        secrets = [value for name in names if (value := getattr(holder, name, ""))]
        assert secrets
        assert not any(secret in repr(holder) for secret in secrets)
