"""Checks of loading a plugin package: metadata, construction, threads and files left."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from simenv.qpm_check import check
from simenv.qpm_check.check import BOTH, TargetProperty, row
from simenv.qpm_check.checks.records import EVENT
from simenv.qpm_check.fake_defw.loader import OURS
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import CheckFailed, CheckSkipped, expect, short_repr

MOST_S = 0.001
QUICK_S = 2.0
ENDS_S = 10.0
MOST_LEFT = 2  # threads: those of a library may stay as long as the process
IMPORT_S = 60.0
BEGINS_S = 2.0  # a program that starts something in a foreign process has done so by then
STARTS_S = 5.0
LOOK_S = 0.05
OWN_FILES = 4  # connections of the DEFw double
_PACKAGE = (TargetProperty.PACKAGE,)
_load = check.row_with(revisions=BOTH, needs=_PACKAGE, opens=False)


@_load("load.import", "it imports while the host is half built")
def imports(session: CheckSession) -> None:
    expect(not _facts(session)["import_error"], _last(_facts(session)["import_error"]))


_IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])"


@_load("load.bare", "it imports where nothing of DEFw is")
def bare(session: CheckSession) -> None:
    folder = Path(_facts(session)["folder"])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT, str(folder.parent), folder.name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=IMPORT_S,
    )  # fmt: skip
    expect(done.returncode == 0, _last(done.stderr))


@_load("load.metadata", "svc_info: name QPM, module, description, version")
def metadata(session: CheckSession) -> None:
    facts = _loaded(session)
    found = facts["svc_info_found"]
    expect(found == "dict", f"svc_info is {found or 'not there'}")
    info = facts["svc_info"]
    expect_equal("svc_info['name']", info.get("name"), "QPM")
    expect_equal("svc_info['module']", info.get("module"), facts["module"])
    expect(isinstance(info.get("description"), str) and info["description"],
           f"svc_info['description'] is {short_repr(info.get('description'))}")  # fmt: skip
    expect(type(info.get("version")) in (int, float),
           f"svc_info['version'] is {short_repr(info.get('version'))}, not a number")  # fmt: skip
    mode = info.get("instance_mode", "per_connection")
    expect(mode in ("per_connection", "singleton"), f"svc_info['instance_mode'] is {mode!r}")


@_load("load.singleton", "one object for all clients: instance_mode singleton", revisions=(2,))
def singleton(session: CheckSession) -> None:
    mode = _loaded(session)["svc_info"].get("instance_mode", "per_connection")
    expect(mode == "singleton", f"instance_mode is {mode!r}: six clients would get six objects")


@row("load.per-connection", "an object for each client's proxy: instance_mode per_connection",
     revisions=(1,), needs=_PACKAGE, opens=False)  # fmt: skip
def per_connection(session: CheckSession) -> None:
    mode = _loaded(session)["svc_info"].get("instance_mode", "per_connection")
    message = f"instance_mode is {mode!r}: clients would share one queue and one registration"
    expect(mode == "per_connection", message)


@_load("load.launcher", "in a process that is no service, such as the launcher's, nothing is begun")
def launcher(session: CheckSession) -> None:
    disabled = "DEFW_DISABLE_RESMGR" if session.revision == 1 else "DEFW_DISABLE_DIRSVC"
    phase = {"DEFW_AGENT_TYPE": "agent", "DEFW_SHELL_TYPE": "cmdline", disabled: "yes"}
    facts = _loaded(session)
    with _process(session, phase) as control:
        deadline = time.monotonic() + BEGINS_S
        while time.monotonic() < deadline:
            now = control.host("left")
            expect(not now["children"], f"it started {len(now['children'])} processes")
            more = now["files"] - facts["before"]["files"] - OWN_FILES
            expect(more <= 0, f"it opened {more} files or connections")
            time.sleep(LOOK_S)


@row("load.executable", "sys.executable, the host's own program there, is not started as a Python",
     revisions=BOTH, needs=_PACKAGE, opens=False)  # fmt: skip
def executable(session: CheckSession) -> None:
    _loaded(session)
    with (
        tempfile.TemporaryDirectory(prefix="qpm-check-") as home,
        _process(session, {"HOME": home}, bare=True) as control,
    ):
        control.host("made")
        deadline = time.monotonic() + STARTS_S
        while time.monotonic() < deadline and not control.started():
            time.sleep(LOOK_S)
        started = control.started()
    expect(not started, f"it was started {len(started)} times, as: python3 {started[:1]}")


@_load("load.classes", "service_classes lists a class QPM")
def classes(session: CheckSession) -> None:
    facts = _loaded(session)
    expect(facts["classes_found"] in ("list", "tuple"),
           f"service_classes is {facts['classes_found'] or 'not there'}, not a list")  # fmt: skip
    expect("QPM" in facts["classes"], f"service_classes has {facts['classes']}, and no QPM")


@_load("load.initialize", "initialize() returns at once and raises nothing")
def initialize(session: CheckSession) -> None:
    facts = _loaded(session)
    expect(facts["has_initialize"], "there is no function initialize")
    expect(not facts["initialize_error"],
           f"a host swallows it: {_last(facts['initialize_error'])}")  # fmt: skip
    elapsed_s = facts["initialize_s"]
    expect(elapsed_s < QUICK_S, f"it took {elapsed_s:.1f} s; the host is still loading meanwhile")


@row("load.opens", "a QPM comes up and says that it is ready", revisions=BOTH)
def opens(session: CheckSession) -> None:
    session.q.is_ready()


@row("load.uninitialize", "uninitialize() ends what was begun and raises nothing",
     revisions=BOTH, needs=_PACKAGE, alone=True)  # fmt: skip
def uninitialize(session: CheckSession) -> None:
    facts, control = _loaded(session), session.control
    expect(facts["has_uninitialize"], "there is no function uninitialize")
    session.run()
    error = control.host("uninitialize")
    expect(not error, _last(error))

    def left() -> list[str]:
        """Threads and processes that did not exist before the plugin was loaded."""
        now, before = control.host("left"), facts["before"]["threads"]
        names = [name.rpartition(" (")[0] for name in now["threads"]]
        prior = {name.rpartition(" (")[0] for name in before}  # of another process of the plugin's
        threads = [n for n in names if n not in prior and not n.startswith(OURS)]
        result = [f"thread {name}" for name in threads] if len(threads) > MOST_LEFT else []
        return result + [f"process {number}" for number in now["children"]]

    limit_s = min(ENDS_S, session.wait_s)
    with suppress(CheckFailed):
        session.until(lambda: not left(), "the end of what was begun", limit_s)
    expect(not left(), f"{limit_s:g} s after it there is still: {', '.join(left()[:5])}")


@_load("load.start-false", "QPM(start=False) takes less than 1 ms")
def start_false(session: CheckSession) -> None:
    elapsed_s = _started(session)["start_false_s"]
    expect(elapsed_s < MOST_S, f"the fastest of 20 took {1e3 * elapsed_s:.2f} ms")


@_load("load.start-false-idle", "QPM(start=False) starts and opens nothing")
def start_false_idle(session: CheckSession) -> None:
    left = _started(session)["start_false_left"]
    expect(not left, f"20 of them left behind: {', '.join(left[:5])}")


@_load("load.start-false-anywhere", "QPM(start=False) needs no environment variable")
def start_false_anywhere(session: CheckSession) -> None:
    with _process(session, bare=True) as control:
        facts = control.host("facts")
    expect(not facts["start_false_error"], _last(facts["start_false_error"]))


@row("load.lookups", "50 look-ups leave nothing behind", revisions=BOTH, needs=_PACKAGE)
def lookups(session: CheckSession) -> None:
    control = session.control
    before = control.host("left")
    for _ in range(50):
        control.host("query")
    after = control.host("left")
    grown = len(after["threads"]) - len(before["threads"])
    expect(grown <= 5, f"50 look-ups left {grown} threads")
    more = after["files"] - before["files"]
    expect(more <= 5, f"50 look-ups left {more} open files")
    expect(after["children"] == before["children"], "look-ups started processes")


@row("load.clients", "30 clients that come, listen and go leave nothing behind",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def clients(session: CheckSession) -> None:
    session.run()
    control = session.control
    before = control.host("left")
    more = session.under
    for number in range(30):
        listener = session.listener()
        listener.register(EVENT, **more)
        session.submit(by=listener.q)
        listener.taken()
        listener.q.is_ready()  # by now the host's call with the event is answered
        link: Any = listener.q.link
        link.leave() if number % 2 else link.die()

    def settled() -> bool:
        return len(control.host("left")["threads"]) - len(before["threads"]) <= 8

    session.until(settled, "the end of the threads of 30 clients that have gone")


def _process(
    session: CheckSession, environ: dict[str, str] | None = None, *, bare: bool = False
) -> Any:
    """Load the plugin in its own process; see `plugin.PluginTarget.process`."""
    plugin: Any = session.target
    return plugin.process(session.revision, environ, bare=bare)


def _facts(session: CheckSession) -> dict[str, Any]:
    plugin: Any = session.target
    entries: dict[str, Any] = plugin.facts(session.revision)
    return entries


def _loaded(session: CheckSession) -> dict[str, Any]:
    facts = _facts(session)
    if facts["import_error"]:
        raise CheckSkipped("it could not be imported")
    return facts


def _started(session: CheckSession) -> dict[str, Any]:
    facts = _loaded(session)
    expect(not facts["start_false_error"], _last(facts["start_false_error"]))
    return facts


def _last(text: str) -> str:
    """Last line of a traceback: the error."""
    return text.strip().splitlines()[-1] if text.strip() else ""
