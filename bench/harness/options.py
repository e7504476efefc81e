"""Declaration of a benchmark's command-line options; `bench.__main__` alone parses them."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from typing import Any


class Option:
    """One option of a benchmark, with the arguments of `ArgumentParser.add_argument`. `quick`: the
    default with `--quick`; None: the usual default. A number as default, or one in its list of
    defaults, gives the type."""

    def __init__(self, *flags: str, quick: Any = None, **arguments: Any) -> None:
        self._flags, self._quick, self._arguments = flags, quick, arguments

    def add_to(self, parser: ArgumentParser, *, quick: bool) -> None:
        arguments = dict(self._arguments)
        default = arguments.get("default")
        first = default[0] if isinstance(default, list) and default else default
        if isinstance(first, int | float):
            arguments["type"] = type(first)
        if quick and self._quick is not None:
            arguments["default"] = self._quick
        parser.add_argument(*self._flags, **arguments)


CPU = Option("--cpu", action="store_true", help="CPU seconds instead of wall time")
SEED = Option("--seed", default=time.time_ns() & 4294967295)
THREADS = Option("--threads", default=os.cpu_count() or 1)


def rounds(number: int, quick: int) -> Option:
    """Return the option of the number of rounds."""
    return Option("--rounds", default=number, quick=quick)
