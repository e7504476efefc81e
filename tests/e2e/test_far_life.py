"""A named environment that listens: its keys through restarts, and over the command line."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from live import Live, environment

import simenv
from simenv.cli.app import run
from simenv.errors import KeyRefusedError
from simenv.wire.keyfiles import UserKeyFile, create_private, read_private

ROOT = Path(__file__).parents[2]
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"


@pytest.fixture
def named(no_leaks: None) -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as live:
        yield live


def test_key_files_stay_valid_after_restart_until_revoked(
    named: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ana, eva = tmp_path / "ana", tmp_path / "eva"
    common = ["--name", named.name]
    assert run(["keys", "add", "ana", "--out", str(ana), *common]) == 0
    with simenv.connect(service=ana) as client:
        task = client.submit(BELL, seed=3)
        assert run(["down", *common]) == 0
        assert run(["keys", "add", "eva", "--role", "admin", "--out", str(eva), *common]) == 0
        capsys.readouterr()
        assert run(["keys", "list", "--no-header", "--columns", "name,role", *common]) == 0
        assert capsys.readouterr().out == "ana\tclient\neva\tadmin\n"
        named.up()
        assert task.result(timeout_s=60).counts
    with simenv.connect(service=eva) as client:
        assert client.status().name == named.name
    assert run(["down", "--service", str(eva)]) == 0
    assert run(["keys", "revoke", "ana", *common]) == 0
    named.up()
    with pytest.raises(KeyRefusedError):
        simenv.connect(service=ana)


def test_keys_add_needs_a_listener(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment() as live:
        command = ["keys", "add", "ana", "--out", str(tmp_path / "ana"), "--name", live.name]
        assert run(command) == 2
        assert "simenv up --listen" in capsys.readouterr().err
        live.down()
    assert not (tmp_path / "ana").exists()


def test_secret_key_is_printed_only_for_out_dash(
    named: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ana"
    assert run(["keys", "add", "ana", "--out", str(file), "--json", "--name", named.name]) == 0
    secret = read_private(file, UserKeyFile).secret_key
    assert run(["keys", "list", "--json", "--name", named.name]) == 0
    output = capsys.readouterr()
    assert secret not in output.out + output.err
    assert secret.encode() not in b"".join(
        path.read_bytes() for path in named.home.rglob("*") if path.is_file()
    )
    assert run(["keys", "add", "eva", "--out", "-", "--name", named.name]) == 0
    decoded = msgspec.json.decode(capsys.readouterr().out, type=UserKeyFile)
    file = tmp_path / "eva"
    create_private(file, decoded)
    with simenv.connect(service=file) as eva:
        assert eva.status().name == named.name
