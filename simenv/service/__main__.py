"""Run the service of one environment: `python -P -m simenv.service CONFIG`.

The service reports to its starter over an inherited pipe, one `StartupMessage` in JSON a line.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from launcher.base import LaunchError
from launcher.process.children import LocalLauncher
from simenv import config as configs
from simenv.config import Config
from simenv.config.paths import QUIET, StartupError, StartupMessage
from simenv.errors import SimenvError
from simenv.model import WorkerState
from simenv.process import SERVICE_GC, freeze_gc
from simenv.sandbox.progress import load_text
from simenv.scheduler.views.cluster_info import pool_infos
from simenv.service.bootstrap import RunningService, Warmup, admission, build_service
from simenv.service.event_loop import EventLoop
from simenv.service.journal.database import LeadershipLost, place_of
from simenv.service.queries.devices import routing_snapshot
from simenv.service.standby import StandbyService
from simenv.service.workers.processes import start_compilers
from simenv.service.workers.starts import LOOK_S, StartMonitor
from simulators.compiler import warmup

log = logging.getLogger("simenv.service")

LIFELINE_POLL_S = 0.25
COMPILER_STARTS = 5
STARTING_POLL_S = 0.01  # poll interval at the start: the loading thread does not wake the loop
# Text of a log line cannot forge a record or control a terminal.
_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E)
    if chr(code) not in "\n\t"
}


def main() -> int:
    arguments = _arguments()
    home, environ, ready_fd = arguments.config.parent, dict(os.environ), arguments.ready_fd
    for name, value in QUIET.items():  # before numpy is imported, which prices circuits
        os.environ.setdefault(name, value)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        _report(arguments.ready_fd, "looking for a launcher that works here")
        config = msgspec.structs.replace(
            configs.read(arguments.config), lifeline=arguments.lifeline_fd >= 0
        )
        if arguments.end:
            _end_environment(config, home, ready_fd)
            return 0
        environment = _build(config, home, arguments)
    except SimenvError as error:
        log.error("%s", error)
        failure = StartupError(error.code, error.message, error.hint)
        _send_message(ready_fd, StartupMessage(error=failure))
        return error.exit_code
    if environment is None:
        log.info("stopped, a standby")
        return 0
    compiler_launcher, lost = LocalLauncher(), False
    try:
        _run(environment, compiler_launcher, arguments.ready_fd, arguments.lifeline_fd)
    except LeadershipLost as error:
        log.error("%s", error)
        lost = True
    finally:
        _end(environment, lost)
        compiler_launcher.close()
        if arguments.temporary and _is_cut(arguments.lifeline_fd):  # nobody else may be left
            for folder in arguments.temporary:
                shutil.rmtree(folder, ignore_errors=True)
    if lost:  # nothing that this process remembers is of use: a standby begins anew
        log.info("continues as a standby")
        words = [sys.executable, "-P", "-m", "simenv.service", str(arguments.config), "--standby"]
        os.execve(words[0], words, environ)
    log.info("stopped")
    return 0


def _build(config: Config, home: Path, arguments: argparse.Namespace) -> RunningService | None:
    """Build the service; a standby waits before that until it may lead. Returns None if a standby
    is not needed any more. Raises SimenvError."""
    if not (arguments.standby and config.journal):
        return build_service(config, home, os.environ)
    signals = Signals()
    signals.catch()
    ready: Callable[[], None] | None = None  # after the loss of the leadership, nobody waits
    if arguments.ready_fd >= 0:
        ready = partial(_send_message, arguments.ready_fd, StartupMessage(ready=True))
    arguments.ready_fd = -1
    with StandbyService(arguments.config, os.environ, lambda: signals.has_arrived) as standby:
        return standby.build(ready)


def _end_environment(config: Config, home: Path, ready_fd: int) -> None:
    """Store that the environment is ended; report as ready if it was not before. Raises
    JournalError."""
    from simenv.service.journal.leadership import end_environment

    place = place_of(config, home / "unused")
    is_new = not isinstance(place, Path) and end_environment(place)
    _send_message(ready_fd, StartupMessage(ready=is_new))


def _end(environment: RunningService, lost: bool) -> None:
    try:
        environment.loop.close(lost=lost)
    finally:
        environment.leave()  # its files go even if that fails


class LogFormatter(logging.Formatter):
    """Formatter that escapes control characters, and indents the further lines of a record by two
    spaces, so that none looks like a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS).replace("\n", "\n  ")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simenv.service", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="config.json in the environment's home")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--lifeline-fd", type=int, default=-1)
    help_text = "folder of the starter, removed at the end if the lifeline is closed"
    parser.add_argument("--temporary", type=Path, action="append", help=help_text)
    parser.add_argument("--standby", action="store_true", help="wait until it may lead")
    parser.add_argument("--end", action="store_true", help="store that the environment is ended")
    return parser.parse_args()


class Signals:
    """Counter of received signals, which are handled between two passes of the loop: a signal
    handler may interrupt the loop anywhere, also while it writes the log or a list that a drain
    changes."""

    def __init__(self) -> None:
        self._received = 0
        self._handled = 0

    def catch(self) -> None:
        """Count SIGTERM and SIGINT from here on."""
        signal.signal(signal.SIGTERM, self.received)
        signal.signal(signal.SIGINT, self.received)

    @property
    def has_arrived(self) -> bool:
        """True if a signal was received."""
        return self._received > 0

    def received(self, _number: int, _frame: object) -> None:
        self._received += 1

    def handle(self, loop: EventLoop) -> None:
        """Drain the loop on the first signal; stop it at once on any further one."""
        received = self._received
        if received > self._handled:
            self._handled = received
            loop.drain(now=received > 1)


def _run(
    environment: RunningService, compiler_launcher: LocalLauncher, ready_fd: int, lifeline_fd: int
) -> None:
    loop = environment.loop
    signals = Signals()
    signals.catch()
    if lifeline_fd >= 0:
        os.set_blocking(lifeline_fd, False)
    loop.run_once(0.0)  # starts the workers, which load their modules meanwhile
    start = Startup(environment, compiler_launcher, ready_fd)
    next_poll_s = 0.0
    while not loop.lifecycle.stopped:
        loop.run_once(None if start.reported_ready else STARTING_POLL_S)
        signals.handle(loop)
        start.advance()
        if lifeline_fd < 0 or time.monotonic() < next_poll_s:
            continue
        next_poll_s = time.monotonic() + LIFELINE_POLL_S
        if _is_cut(lifeline_fd):
            log.info("the starter is gone")
            loop.drain(now=True)
            lifeline_fd = -1


class Startup:
    """Steps of a start that follow the first pass of the loop: modules are loaded, workers become
    ready, and the starter is informed. Used from the loop's thread."""

    def __init__(
        self, environment: RunningService, compiler_launcher: LocalLauncher, ready_fd: int
    ) -> None:
        """`compiler_launcher`: runs processes that compile kernels besides the service and its
        worker."""
        self.reported_ready = False
        self._environment = environment
        self._compiler_launcher = compiler_launcher
        self._ready_fd = ready_fd
        self._kernels = configs.kernel_folder(os.environ)
        self._warmup = Warmup(self._kernels)
        self._loading: Warmup | None = self._warmup
        loop = environment.loop
        self._starts = StartMonitor(loop.scheduler, loop.workers.log_bytes)
        self._stored = self._all = 0  # kernels
        self._next_look_s = 0.0
        self._compilers_started = False
        self._compilers = self._compiler_starts = 0  # that run; how often they were started
        self._reported = ""

    def advance(self) -> None:
        """Do the next steps; called between two passes of the loop."""
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + LOOK_S
            if self._loading is not None or self._compilers:
                self._stored, self._all = self._warmup.kernels()
            self._starts.look(self._stored)
        if self._loading is not None:
            over = self._loading.over()
            if self._loading.cold and not self._compilers_started:
                self._compilers_started = True
                self._start_compilers()
            if over:
                self._loaded()
                self._loading = None
        loop = self._environment.loop
        if self._compilers:
            self._compilers -= len(self._compiler_launcher.poll_exits())
            if not self._compilers:
                loop.scheduler.kernels_compiled(True)
                if self._compiler_starts < COMPILER_STARTS and not warmup.is_compiled(
                    self._kernels
                ):
                    self._start_compilers()  # they were killed, and go on where they were
        if self._loading is None and not self.reported_ready:
            self.reported_ready = _report_readiness(
                self._environment, self._ready_fd, self._compiling
            )
            if self.reported_ready:
                self._environment.loop.monitoring.pass_times.restart()
        if not self.reported_ready:
            self._report()

    def _report(self) -> None:
        """Send the progress of the start to the starter, if it has changed."""
        pools = self._environment.loop.state.cluster.pools.values()
        target = sum(pool.spec.min for pool in pools)
        ready = sum(info.workers for info in pool_infos(self._environment.loop.state))
        text = f"{ready} of {target} workers ready{self._compiling}"
        if text != self._reported:
            self._reported = text
            _report(self._ready_fd, text)

    @property
    def _compiling(self) -> str:
        """The state of compilation, for messages; "": nothing is compiled."""
        if not self._compilers:
            return ""
        number = f" {self._stored} of {self._all}" if self._all else ""
        return f"; compiling kernels{number}, once on this machine"

    def _start_compilers(self) -> None:
        home = self._environment.paths.home
        self._compiler_starts += 1
        try:
            self._compilers = start_compilers(
                self._compiler_launcher, self._kernels, home, os.environ
            )
            self._environment.loop.scheduler.kernels_compiled(False)
        except LaunchError as error:
            log.warning("%s", error)  # tasks that need these kernels will compile them

    def _loaded(self) -> None:
        loop = self._environment.loop
        snapshot = partial(routing_snapshot, loop.state, loop.devices)
        loop.submit_queue.admission = admission(
            loop.config, loop.state, snapshot, loop.devices.emulated
        )
        loop.query_queue.resume()
        freeze_gc(SERVICE_GC)


def _report_readiness(environment: RunningService, ready_fd: int, compiling: str = "") -> bool:
    """Tell the starter when the service is ready or its start has failed. Returns whether it did.
    The service is ready when every pool has its smallest number of workers, or all that can be
    placed now; after start_timeout_s one worker of the environment is enough, and the others come
    when they come. A pool of hardware that is not available counts as ready, and so does a pool of
    jobs; `status` shows the reason. A pool without a working worker fails the first start of an
    environment; a later one, with a journal, serves with the pools that stand, or for the tasks
    that wait. `compiling`: for the message of a failure."""
    state, journal = environment.loop.state, environment.loop.journal
    age_ns = time.monotonic_ns() - environment.loop.lifecycle.started_ns
    is_late = age_ns > state.limits.start_timeout_ns
    ready, stands, failures = True, False, list[str]()
    for info in pool_infos(state):
        pool = state.cluster.pools[info.name]
        is_coming = any(w.state is WorkerState.STARTING for w in pool.workers.values())
        failing = info.state in ("degraded", "quarantined")
        if pool.spec.jobs is not None or (failing and pool.spec.provider):
            continue  # a machine that is not available, or a job that waits, delays no other pool
        stands = stands or info.workers > 0
        if failing and not (info.workers or is_coming):
            failures.append(f"pool {info.name} has no working worker: {info.reason}")
            continue
        lacks_resources = bool(pool.shortage) and not (is_coming or failing)
        ready = ready and (info.workers >= pool.spec.min or lacks_resources)
    is_restart = journal.epoch > 1 and not environment.loop.config.lifeline
    has_tasks = any(pool.queue for pool in state.cluster.pools.values())
    if failures and not (is_restart and (stands or not ready or has_tasks)):
        message = f"{'; '.join(failures)}{compiling} ({load_text()})"
        hint = f"its log: {environment.paths.logs}; start_timeout_s raises the limit of a start"
        _send_message(ready_fd, StartupMessage(error=StartupError("start_failed", message, hint)))
        environment.loop.drain(now=True)
        return True
    ready = ready or (is_late and stands)
    if ready:
        for failure in failures:
            log.warning("%s; its tasks wait", failure)
        _send_message(ready_fd, StartupMessage(ready=True))
    return ready


def _report(descriptor: int, text: str) -> None:
    """Send a line of progress; lines that the starter does not read are dropped."""
    if descriptor >= 0:
        with suppress(OSError):
            os.write(descriptor, msgspec.json.encode(StartupMessage(progress=text)) + b"\n")


def _send_message(descriptor: int, readiness: StartupMessage) -> None:
    if descriptor < 0:
        return
    try:
        os.write(descriptor, msgspec.json.encode(readiness) + b"\n")
        os.close(descriptor)
    except OSError:
        log.warning("the starter has gone before hearing that we are ready")


def _is_cut(descriptor: int) -> bool:
    """Return whether the starter has ended: it keeps the other end of this pipe open while it
    lives, and writes nothing."""
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    gc.disable()  # until all modules are loaded
    sys.exit(main())
