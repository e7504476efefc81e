"""`python -P -m simenv.worker`: load every kernel, join, then run chunks until told to end."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from simenv.worker.lifeline import die_with
from simenv.worker.session import Session
from simenv.worker.shelf import Shelf

WARM_ENGINE = "statevector"  # what a worker of any engine has ready from the start


def main() -> int:
    told = _arguments()
    die_with(told.parent)
    begin = time.monotonic()
    shelf = Shelf(told.results, told.sync)
    session = Session(told.socket, told.name, told.epoch, shelf)
    session.load(WARM_ENGINE if told.engine == "any" else told.engine, told.kernels)
    sys.stderr.write(f"kernels ready in {time.monotonic() - begin:.2f} s\n")
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
    parser.add_argument("--lease-s", type=float, default=15.0)
    parser.add_argument("--kernels", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sync", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
