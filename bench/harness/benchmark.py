"""Benchmarks by name: functions with `@benchmark(OPTION=DEFAULT, ...)`, found without an import."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import time
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness.report import Figure, Report

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "service")
SEED, THREADS = time.time_ns() & 0xFFFFFFFF, os.cpu_count() or 1
Function = Callable[[Report, Namespace], None]


class Benchmark(NamedTuple):
    """A benchmark's function, and its options by name."""

    function: Function
    options: Mapping[str, Any]

    def run(
        self, words: Sequence[str], *, quick: bool = False, on_figure: Callable[[Figure], object]
    ) -> bool:
        """Run it with these words as options; return whether all its goals are met."""
        name, text = self.function.__name__, self.function.__doc__ or ""
        parser = ArgumentParser(
            prog=f"python -m bench run {name}",
            description=text,
            formatter_class=RawTextHelpFormatter,
        )
        for option, default in self.options.items():
            _add(parser, f"--{option.replace('_', '-')}", default, quick=quick)
        options = parser.parse_args(words)
        report = Report(name, text.partition("\n")[0], getattr(options, "seed", None), on_figure)
        self.function(report, options)
        return report.close()


def benchmark(**options: Any) -> Callable[[Function], Benchmark]:
    """Make a benchmark of a function that adds figures to a report. `options`: defaults by name; a
    pair has the default with `--quick` second. False makes a switch, a list takes several words, of
    those in it if they are names, a dict names of its keys, which may be repeated, and a type has
    no default."""
    return lambda function: Benchmark(function, options)


def _add(parser: ArgumentParser, flag: str, default: Any, *, quick: bool) -> None:
    every = default[0] if isinstance(default, tuple) else default
    if isinstance(default, tuple):
        default = default[quick]
    first = default[0] if isinstance(default, list) and default else default
    if isinstance(default, bool):
        parser.add_argument(flag, action="store_true")
    elif isinstance(default, type):
        parser.add_argument(flag, type=default)
    elif isinstance(default, dict):
        parser.add_argument(flag, choices=list(default), action="append", default=[])
    else:
        many: dict[str, Any] = {"nargs": "+"} if isinstance(default, list) else {}
        if many and isinstance(first, str) and first:  # "": any words
            many["choices"] = every
        parser.add_argument(
            flag, type=type(first), default=default, help="default: %(default)s", **many
        )


@functools.cache
def titles() -> dict[str, tuple[str, str]]:
    """Return the module and the title of each benchmark by name."""
    found = {}
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                decorator = ast.unparse(node.decorator_list[0]).removeprefix("harness.")
                if decorator.startswith("benchmark("):
                    title = (ast.get_docstring(node) or "").partition("\n")[0]
                    found[node.name] = f"bench.{path.parent.name}.{path.stem}", title
    return dict(sorted(found.items()))


def load(name: str) -> Benchmark:
    found: Benchmark = getattr(importlib.import_module(titles()[name][0]), name)
    return found
