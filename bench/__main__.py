"""The command `python -m bench list | run NAME... | record | compare A B | chart`.

`run` and `record` exit with status 1 when a goal is missed or could not be measured.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

from bench import record
from bench.chart import draw
from bench.figures import STORED, write_readme_table
from bench.harness import Report, results
from bench.harness.report import Figure

ROOT = Path(__file__).parent
FOLDERS = ("engine", "service")
_PARTS = ("__init__", "tensor_ranks", "distributed_rank")  # modules without a benchmark
DEFAULT_CHART = Path("docs/images/performance.svg")


def main(argv: list[str]) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of simenv.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names and titles of all benchmarks")
    run = commands.add_parser("run", help="run benchmarks; of a single one, its options may follow")
    run.add_argument("names", nargs="+", metavar="NAME", choices=sorted(_files()))
    run.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    run.add_argument("--json", type=Path, metavar="FILE", help="append one line for each figure")
    recording = commands.add_parser("record", help="measure goals at this commit, in one file")
    record.add_to(recording)
    compare = commands.add_parser("compare", help="ratios of the figures of two result files")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    chart = commands.add_parser("chart", help="draw the README's bar chart, write its table")
    chart.add_argument("results", type=Path, nargs="?", default=STORED, help="default: %(default)s")
    chart.add_argument("--svg", type=Path, default=DEFAULT_CHART, help="default: %(default)s")
    options, rest = parser.parse_known_args(argv)
    if options.command == "run":
        return _run(options, rest)
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if options.command == "list":
        for name, path in sorted(_files().items()):
            print(f"{name:20}{_title(path)}")
    elif options.command == "record":
        return record.record(options)
    elif options.command == "compare":
        print(*results.compare(results.read(options.before), results.read(options.after)), sep="\n")
    else:
        draw(results.read(options.results), options.svg)
        if options.results == STORED:
            write_readme_table()
    return 0


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    if rest and len(options.names) > 1:
        raise SystemExit(f"options of one benchmark, {' '.join(rest)}, need a single NAME")
    all_met = True
    for name in options.names:
        module = _load(name)
        parser = argparse.ArgumentParser(
            prog=f"python -m bench run {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in module.OPTIONS:
            option.add_to(parser, quick=options.quick)
        if options.json is not None:
            Report.on_figure = partial(_append, options.json, options.quick)
        arguments = parser.parse_args(rest)
        Report.seed = getattr(arguments, "seed", None)
        all_met &= module.run(arguments).close()
    return 0 if all_met else 1


def _append(file: Path, quick: bool, figure: Figure) -> None:
    results.append(file, (figure,), quick=quick)


def _files() -> dict[str, Path]:
    """Return the file of each benchmark, by name."""
    return {
        path.stem: path
        for folder in FOLDERS
        for path in (ROOT / folder).glob("*.py")
        if path.stem not in _PARTS
    }


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{_files()[name].parent.name}.{name}")


def _title(path: Path) -> str:
    """Return the first line of a module's docstring, without importing it."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
