"""Declaration of a benchmark's command-line options; `bench.__main__` alone parses them."""

from __future__ import annotations

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
