"""The command `python -m bench list | run NAME... | record | compare A B | chart`.

`run` and `record` exit with status 1 when a goal is missed or could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import record
from bench.chart import draw
from bench.figures import STORED, write_readme_table
from bench.harness import results
from bench.harness.benchmark import load, titles
from bench.harness.report import Figure

DEFAULT_CHART = Path("docs/images/performance.svg")


def main(argv: list[str]) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of simenv.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="names and titles of all benchmarks")
    text = "run benchmarks; of a single one, its options may follow, or --help"
    run = commands.add_parser("run", help=text, add_help=False)
    run.add_argument("names", nargs="+", metavar="NAME", choices=list(titles()))
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
        for name, (_, title) in titles().items():
            print(f"{name:20}{title}")
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

    def keep(figure: Figure) -> None:
        if options.json is not None:
            results.append(options.json, (figure,), quick=options.quick)

    how = {"quick": options.quick, "on_figure": keep}
    met = [load(name).run(rest, **how) for name in options.names]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
