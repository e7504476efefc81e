"""Declaration of a benchmark's command-line options; `bench.__main__` alone parses them."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from typing import Any


class Option:
    """One option of a benchmark, with the arguments of `ArgumentParser.add_argument`.

    `quick`: the default with `--quick`; None: the usual default.
    """

    def __init__(self, *flags: str, quick: Any = None, **arguments: Any) -> None:
        self._flags, self._quick, self._arguments = flags, quick, arguments

    def add_to(self, parser: ArgumentParser, *, quick: bool) -> None:
        arguments = dict(self._arguments)
        if quick and self._quick is not None:
            arguments["default"] = self._quick
        parser.add_argument(*self._flags, **arguments)


CPU = Option("--cpu", action="store_true", help="CPU seconds instead of wall time")
SEED = Option("--seed", type=int, default=time.time_ns() & 4294967295)
THREADS = Option("--threads", type=int, default=os.cpu_count() or 1)


def rounds(number: int, quick: int) -> Option:
    """Return the option of the number of rounds."""
    return Option("--rounds", type=int, default=number, quick=quick)
