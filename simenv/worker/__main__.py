"""`python -P -m simenv.worker`: load every kernel, join, then run chunks until told to end."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.lifeline import die_with

WARM_ENGINE = "statevector"  # what a worker of any engine has ready from the start


def main() -> int:
    told = _arguments()
    die_with(told.parent)
    # Numba reads these when it is first imported, so they come before every other import.
    os.environ["NUMBA_NUM_THREADS"] = str(told.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from simenv.worker.session import Session

    with _one_at_a_time(told.kernels):
        session = Session(told.socket, told.name, told.epoch, told.kernels)
        session.load(WARM_ENGINE if told.engine == "any" else told.engine)
    session.join(told.lease_s, told.parent)
    gc.collect()
    gc.freeze()
    while True:
        session.work()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simenv.worker", allow_abbrev=False)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--engine", default="any")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lease-s", type=float, default=15.0)
    parser.add_argument("--kernels", type=Path, required=True)
    return parser.parse_args()


@contextlib.contextmanager
def _one_at_a_time(kernels: Path) -> Iterator[None]:
    """The first worker fills the kernel cache, the others wait and then only read it."""
    kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (kernels / "lock").open("w") as lock:
        begin = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    sys.stderr.write(f"kernels ready in {time.monotonic() - begin:.2f} s\n")


if __name__ == "__main__":
    sys.exit(main())
