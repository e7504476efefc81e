"""`python -P -m simenv.service CONFIG`: one environment, from its journal's replay to its drain.

Tells the starter over an inherited pipe: one JSON line, `{"ready": true}` or `{"error": ...}`.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from launcher.local import LocalLauncher
from simenv import config as configs
from simenv.errors import SimenvError
from simenv.service.pools import compile_beside
from simulators import warm

if TYPE_CHECKING:
    from simenv.service.daemon import Daemon
    from simenv.service.start import Environment

log = logging.getLogger("simenv.service")

LIFELINE_LOOK_S = 0.25


class Trouble(msgspec.Struct, frozen=True):
    code: str
    message: str
    hint: str


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the starter hears."""

    ready: bool = False
    error: Trouble | None = None


def main() -> int:
    told = _arguments()
    home, kernels = told.config.parent, configs.kernel_cache(os.environ)
    launcher = LocalLauncher()
    if not warm.is_warm(kernels):
        compile_beside(launcher, kernels, home, os.environ)
    warm.prepare(kernels)  # before anything compiled is imported
    from simenv.service.start import assemble

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        environment = assemble(configs.read(told.config), home, os.environ, launcher)
    except SimenvError as error:
        log.error("%s", error)
        _tell(told.ready_fd, Readiness(error=Trouble(error.code, error.message, error.hint)))
        return error.exit_code
    try:
        _run(environment, told.ready_fd, told.lifeline_fd)
    finally:
        _end(environment)
    log.info("stopped")
    return 0


def _end(environment: Environment) -> None:
    """Whatever closing meets, what only a running service has does not stay."""
    try:
        environment.daemon.close()
    finally:
        environment.leave()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simenv.service", allow_abbrev=False)
    parser.add_argument("config", type=Path, help="config.json in the environment's home")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--lifeline-fd", type=int, default=-1)
    return parser.parse_args()


class Signals:
    """Signals counted as they come and obeyed between two passes of the loop: a handler may
    interrupt the loop anywhere, also inside the very log or list that a drain writes to."""

    def __init__(self) -> None:
        self._come = 0
        self._obeyed = 0

    def came(self, _number: int, _frame: object) -> None:
        self._come += 1

    def obey(self, daemon: Daemon) -> None:
        """The first drains, any further one stops at once."""
        come = self._come
        if come > self._obeyed:
            self._obeyed = come
            daemon.drain(now=come > 1)


def _run(environment: Environment, ready_fd: int, lifeline_fd: int) -> None:
    daemon = environment.daemon
    signals = Signals()
    signal.signal(signal.SIGTERM, signals.came)
    signal.signal(signal.SIGINT, signals.came)
    if lifeline_fd >= 0:
        os.set_blocking(lifeline_fd, False)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    told = False
    next_look = 0.0
    while not daemon.stopped:
        daemon.step()
        signals.obey(daemon)
        if not told:
            told = _tell_when_ready(environment, ready_fd)
        if lifeline_fd < 0 or time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + LIFELINE_LOOK_S
        if _is_cut(lifeline_fd):
            log.info("the starter is gone")
            daemon.drain(now=True)
            lifeline_fd = -1


def _tell_when_ready(environment: Environment, ready_fd: int) -> bool:
    """Ready: every pool has the workers it must have. False: not yet known."""
    pools = [pool.info() for pool in environment.daemon.state.pools.values()]
    broken = [pool for pool in pools if pool.state in ("degraded", "quarantined")]
    if broken:
        words = f"pool {broken[0].name} has no working worker: {broken[0].reason}"
        hint = f"its log: {environment.places.logs}"
        _tell(ready_fd, Readiness(error=Trouble("start_failed", words, hint)))
        environment.daemon.drain(now=True)
        return True
    if any(pool.workers < spec.min for pool, spec in zip(pools, environment.pools, strict=True)):
        return False
    _tell(ready_fd, Readiness(ready=True))
    return True


def _tell(descriptor: int, readiness: Readiness) -> None:
    if descriptor < 0:
        return
    try:
        os.write(descriptor, msgspec.json.encode(readiness) + b"\n")
        os.close(descriptor)
    except OSError:
        log.warning("the starter has gone before hearing that we are ready")


def _is_cut(descriptor: int) -> bool:
    """The starter holds the other end of this pipe as long as it lives, and writes nothing."""
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    sys.exit(main())
