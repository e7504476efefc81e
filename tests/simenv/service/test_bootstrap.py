"""A start that fails leaves nothing, and neither does an end that fails."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from service import Bench

from simenv.config import convert
from simenv.service import __main__ as main
from simenv.service.bootstrap import RunningService, assemble
from simenv.service.support.ownership import ConnectionFileLease


def test_a_start_that_fails_late_leaves_no_socket_folder(tmp_path: Path) -> None:
    (tmp_path / "home" / "connection.json").mkdir(parents=True)  # where the file should be
    with TemporaryDirectory(prefix="s", dir="/tmp") as runtime:  # a socket's path must be short
        environ = {"XDG_RUNTIME_DIR": runtime, "SIMENV_HOME": str(tmp_path)}
        told = convert({"memory_bytes": 2**20, "launcher": {"use": "local"}})
        with pytest.raises(IsADirectoryError):
            assemble(told, tmp_path / "home", environ)
        assert list(Path(runtime).iterdir()) == []
        assert not (tmp_path / "home" / "worker.json").exists()


def test_an_end_that_fails_still_removes_the_connection_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    places = bench.daemon.workers._places
    places.connection.touch()
    leaving = ExitStack()
    leaving.callback(shutil.rmtree, sockets)
    leaving.callback(ConnectionFileLease(places.connection).leave)
    environment = RunningService(bench.daemon, places, leaving)
    bench.journal._db.close()
    with pytest.raises(Exception, match="closed database"):
        main._end(environment)
    assert not places.connection.exists()
    assert not sockets.exists()


def test_a_signal_is_only_counted_until_the_loop_obeys(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    signals = main.Signals()
    signals.obey(bench.daemon)
    assert not bench.state.draining
    signals.came(signal.SIGTERM, None)
    assert not bench.state.draining
    signals.obey(bench.daemon)
    assert bench.state.draining
    end_ns = bench.daemon.stop_at_ns
    signals.obey(bench.daemon)
    assert bench.daemon.stop_at_ns == end_ns
    signals.came(signal.SIGTERM, None)
    signals.obey(bench.daemon)
    assert bench.daemon.stop_at_ns < end_ns
