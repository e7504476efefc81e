"""Key files: made for one pair of eyes, read from no other."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simenv.config import OwnerEndpoint
from simenv.errors import ConfigError, KeyConflictError, NotFoundError, OptionError
from simenv.wire import keyfiles
from simenv.wire.keyfiles import KEYS_FORMAT, KeysFile, ServerFile, UserKeyFile, new_pair
from simenv.wire.messages.admin import KeyInfo
from simenv.wire.transport.worker_endpoint import WorkerBootstrap, WorkerKey

ANA = KeyInfo("ana", "client", new_pair().public, 1.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def person() -> UserKeyFile:
    pair = new_pair()
    return UserKeyFile(1, "env", "tcp://h:1", "server", "ana", "client", pair.public, pair.secret)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_key_files_are_created_with_mode_0600_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keyfiles.server_file(tmp_path / "server-key.json")
        keyfiles.write_keys(tmp_path / "keys.json", [ANA])
        keyfiles.create_private(tmp_path / "ana", person())
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("server-key.json", "keys.json", "ana")] == [
        0o600
    ] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ana",
        "keys.json",
        "server-key.json",
    ]


@pytest.mark.parametrize("loose", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610])
def test_key_file_accessible_to_others_is_refused(tmp_path: Path, loose: int) -> None:
    path = tmp_path / "ana"
    keyfiles.create_private(path, person())
    path.chmod(loose)
    with pytest.raises(ConfigError, match=f"mode {loose:04o}") as caught:
        keyfiles.read_private(path, UserKeyFile)
    assert f"chmod 600 {path}" in caught.value.hint


def test_key_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ana"
    keyfiles.create_private(path, person())
    monkeypatch.setattr("os.getuid", lambda: 4711)
    with pytest.raises(ConfigError, match="belongs to another user"):
        keyfiles.read_private(path, UserKeyFile)


def test_keys_file_and_then_its_folder_are_fsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
from simenv.client.keys import OfflineKeyStore
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
    with pytest.raises(ConfigError):
        keyfiles.create_private(tmp_path / "ana", person())
    assert not target.exists()


def test_server_keys_are_created_once(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    assert keyfiles.server_file(path) == keyfiles.server_file(path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format":1,"keys":[{"name":1}]}',
        b"[" * 9999,
    ],
)
def test_damaged_key_file_raises_config_error(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(body)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="has unexpected content"):
        keyfiles.read_private(path, KeysFile)


def test_key_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    keyfiles.write_private(path, ServerFile(KEYS_FORMAT + 1, "p", "s"))
    with pytest.raises(ConfigError, match=f"format {KEYS_FORMAT + 1}"):
        keyfiles.server_file(path)


def test_repr_of_key_pair_does_not_contain_secret() -> None:
    pair = new_pair()
    assert pair.secret not in repr(pair)


def test_duplicate_key_name_or_public_key_is_refused() -> None:
    with pytest.raises(KeyConflictError, match="'ana'"):
        keyfiles.added([ANA], KeyInfo("ana", "client", new_pair().public, 2.0))
    with pytest.raises(KeyConflictError, match="'ana'"):
        keyfiles.added([ANA], KeyInfo("eva", "admin", ANA.public_key, 2.0))


def test_number_of_keys_is_limited() -> None:
    entries = [KeyInfo(f"k{n}", "client", f"{n:040}", 1.0) for n in range(keyfiles.MAX_KEYS)]
    with pytest.raises(OptionError, match=str(keyfiles.MAX_KEYS)):
        keyfiles.added(entries, ANA)


def test_removing_unknown_key_raises_not_found_error() -> None:
    with pytest.raises(NotFoundError) as caught:
        keyfiles.removed([ANA], "eva")
    assert "ana" in caught.value.hint


def test_no_repr_shows_a_secret() -> None:
    pair = new_pair()
    holders = [
        pair,
        person(),
        ServerFile(1, pair.public, pair.secret, "tcp://h:1", pair.public, pair.secret),
        OwnerEndpoint("tcp://h:1", pair.public, pair.public, pair.secret),
        WorkerKey(1, "main-0", 1, pair.public, pair.secret),
        WorkerBootstrap(
            1, "node", "/s", "token", "tcp://h:1", pair.public, pair.public, pair.secret
        ),
    ]
    for holder in holders:
        secrets = [
            value
            for name in ("secret", "secret_key", "own_secret", "token")
            if (value := getattr(holder, name, ""))
        ]
        assert secrets
        assert not any(secret in repr(holder) for secret in secrets)
