"""A start that fails leaves nothing, and neither does an end that fails."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from service import ServiceHarness

from simenv.config import convert
from simenv.service import __main__ as main
from simenv.service.bootstrap import RunningService, build_service
from simenv.service.support.ownership import ConnectionFileLease


def test_failed_start_leaves_no_socket_folder(tmp_path: Path) -> None:
    (tmp_path / "home" / "connection.json").mkdir(parents=True)  # where the file should be
    with TemporaryDirectory(prefix="s", dir="/tmp") as runtime:  # a socket's path must be short
        environ = {"XDG_RUNTIME_DIR": runtime, "SIMENV_HOME": str(tmp_path)}
        result = convert({"memory_bytes": 2**20, "launcher": {"use": "local"}})
        with pytest.raises(IsADirectoryError):
            build_service(result, tmp_path / "home", environ)
        (lasting,) = Path(runtime).iterdir()
        assert list(lasting.iterdir()) == []
        assert not (tmp_path / "home" / "worker.json").exists()


def test_failed_shutdown_still_removes_connection_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ServiceHarness(tmp_path)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    places = bench.loop.workers._paths
    places.connection.touch()
    leaving = ExitStack()
    leaving.callback(shutil.rmtree, sockets)
    leaving.callback(ConnectionFileLease(places.connection).leave)
    environment = RunningService(bench.loop, places, leaving)
    bench.journal._db.close()
    with pytest.raises(Exception, match="closed database"):
        main._end(environment)
    assert not places.connection.exists()
    assert not sockets.exists()


def test_signal_takes_effect_only_when_event_loop_handles_it(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path)
    signals = main.Signals()
    signals.handle(bench.loop)
    assert not bench.state.draining
    signals.received(signal.SIGTERM, None)
    assert not bench.state.draining
    signals.handle(bench.loop)
    assert bench.state.draining
    end_ns = bench.loop.stop_at_ns
    signals.handle(bench.loop)
    assert bench.loop.stop_at_ns == end_ns
    signals.received(signal.SIGTERM, None)
    signals.handle(bench.loop)
    assert bench.loop.stop_at_ns < end_ns
