"""Bootstrap and warm-up."""

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from failing import fails
from interpreter import python
from service import ServiceHarness, program, spec
from waiting import until

from simenv.config import convert, kernel_cache
from simenv.model import TaskOptions
from simenv.scheduler.routing.engine_support import EMPTY_SNAPSHOT
from simenv.service import __main__ as main
from simenv.service.bootstrap import RunningService, Warmup, admission, build_service
from simenv.service.ownership import ConnectionFileLease
from simenv.wire.messages import client as m
from simenv.wire.messages.explain import Explain, Explained
from simenv.wire.messages.queries import Engines, GetEngines

PATIENCE_S = 60.0


def over(loading: Warmup) -> bool:
    return until(lambda: loading._thread.join(0.1) or loading.over(), PATIENCE_S)


def test_submission_waits_in_idle_loop_until_admission_is_loaded(bench: ServiceHarness) -> None:
    submit_queue = bench.loop.submit_queue
    submit_queue.admission = None
    assert bench.say(m.Submit(5, "~k", 0, TaskOptions(), [spec()])) == []
    assert not submit_queue.busy
    assert isinstance(bench.say(m.GetStatus(6))[0], m.Status)
    submit_queue.admission = admission(bench.config, bench.state, lambda: EMPTY_SNAPSHOT, None)
    bench.step()
    [answer] = bench.heard()
    assert isinstance(answer, m.Accepted)


def test_engine_queries_wait_for_admission_while_others_are_answered(bench: ServiceHarness) -> None:
    submit_queue, query_queue = bench.loop.submit_queue, bench.loop.query_queue
    admission, submit_queue.admission = submit_queue.admission, None
    explain = Explain(7, TaskOptions(), program().packed(), 100)
    assert bench.say(explain) == bench.say(GetEngines(8)) == []
    assert not query_queue.busy
    assert isinstance(bench.say(m.GetStatus(9))[0], m.Status)
    submit_queue.admission = admission
    query_queue.resume()
    bench.step()
    assert [type(answer) for answer in bench.heard()] == [Explained, Engines]
    assert isinstance(bench.say(explain)[0], Explained)


LOADED = """
import sys
from pathlib import Path
from simenv.service.bootstrap import Warmup
loading = Warmup(Path(sys.argv[1]))
loading._thread.join()
assert loading.over()
from simulators.compiler import kernel
kernels = kernel.kernels("light_cone")
print(bool(kernels) and all(each.is_loaded for each in kernels))
"""


def test_light_cone_kernels_are_loaded_after_warmup() -> None:
    assert python("-P", "-c", LOADED, kernel_cache()).stdout == "True\n"


def test_warmup_raises_error_for_kernel_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(NotADirectoryError, "", over, Warmup(tmp_path / "file" / "kernels"))


def test_failed_start_leaves_no_socket_folder(tmp_path: Path) -> None:
    (tmp_path / "home" / "connection.json").mkdir(parents=True)  # where the file should be
    with TemporaryDirectory(prefix="s", dir="/tmp") as runtime:  # a socket's path must be short
        environ = {"XDG_RUNTIME_DIR": runtime, "SIMENV_HOME": str(tmp_path)}
        result = convert({"memory_bytes": 2**20, "launcher": {"use": "local"}})
        fails(IsADirectoryError, "", build_service, result, tmp_path / "home", environ)
        (lasting,) = Path(runtime).iterdir()
        assert list(lasting.iterdir()) == []
        assert not (tmp_path / "home" / "worker.json").exists()


def test_failed_end_removes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    fails(Exception, "", main._end, environment, lost=False)
    assert not places.connection.exists()
    assert not sockets.exists()


def test_signal_takes_effect_only_when_event_loop_handles_it(bench: ServiceHarness) -> None:
    signals = main.Signals()
    signals.handle(bench.loop)
    assert not bench.state.draining
    signals.received(signal.SIGTERM, None)
    assert not bench.state.draining
    signals.handle(bench.loop)
    assert bench.state.draining
    end_ns = bench.loop.lifecycle.stop_at_ns
    signals.handle(bench.loop)
    assert bench.loop.lifecycle.stop_at_ns == end_ns
    signals.received(signal.SIGTERM, None)
    signals.handle(bench.loop)
    assert bench.loop.lifecycle.stop_at_ns < end_ns
