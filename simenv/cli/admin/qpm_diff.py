"""`simenv qpm diff`: comparison of two pools, row by row."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv.cli import app, terminal
from simenv.cli.admin import qpm_diff_observe
from simenv.cli.admin.qpm_diff_observe import Difference, Row, RowSubject, SampleDistance
from simenv.cli.tasks.circuit_input import read_circuit
from simenv.errors import NotFoundError, ProgramError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.cli.admin.qpm_diff_observe import CircuitSource

    Floats = NDArray[np.floating[Any]]

# Distances of two samples of counts, and the distances that shot noise alone would give. Pure.
#
# Total variation: half the sum of |p - q|. Hellinger: sqrt(1 - sum of sqrt(p q)). Shot noise: the
# shots of both samples are pooled and split again at random, which simulates two samples of one
# unknown distribution (a permutation test; multivariate hypergeometric).

ROUNDS = 200
SIGMAS = 5.0
_SEED = 20_25  # of the random splits: the same counts give the same verdict


def distance(first: Mapping[str, int], second: Mapping[str, int]) -> SampleDistance:
    """Return the distances of two samples, each with at least one shot."""
    import numpy as np

    outcomes = sorted({*first, *second})
    first_counts = np.array([first.get(outcome, 0) for outcome in outcomes], dtype=np.int64)
    second_counts = np.array([second.get(outcome, 0) for outcome in outcomes], dtype=np.int64)
    together = first_counts + second_counts
    rng = np.random.default_rng(_SEED)
    dealt = rng.multivariate_hypergeometric(
        together, int(first_counts.sum()), size=ROUNDS, method="marginals"
    )
    chance_tv, chance_h = _apart(dealt, together - dealt)
    tv, hellinger = _apart(first_counts[None, :], second_counts[None, :])
    return SampleDistance(
        float(tv[0]),
        float(hellinger[0]),
        float(chance_tv.mean()),
        float(chance_h.mean()),
        _upper_bound(chance_tv),
        _upper_bound(chance_h),
    )


def _apart(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return both distances of each row, [rounds]."""
    import numpy as np

    p = first / first.sum(axis=1, keepdims=True)
    q = second / second.sum(axis=1, keepdims=True)
    overlap = np.sqrt(p * q).sum(axis=1)
    return 0.5 * np.abs(p - q).sum(axis=1), np.sqrt(np.clip(1.0 - overlap, 0.0, 1.0))


def _upper_bound(chance: Floats) -> float:
    return float(chance.mean() + SIGMAS * chance.std())


# Comparison of two observed pools, row by row. Pure.
#
# Invariant: every row was observed on both pools; an answer that one of them lacks is a row too.

NONE = "-"
# Calls that describe a device: their answers have the known fields of that device.
DESCRIBING = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip
_MOST_PATHS = 4  # most paths of a shape in one row


def compare(
    first: qpm_diff_observe.PoolObservations,
    second: qpm_diff_observe.PoolObservations,
    bound: float | None = None,
) -> qpm_diff_observe.Comparison:
    """Compare two pools. `bound`: total variation up to which counts may differ; None: no bound."""
    rows = (
        *_calls(first, second),
        *(row for pair in _runs(first, second) for row in _run_rows(*pair, bound)),
        *_facts(first, second),
    )
    return qpm_diff_observe.Comparison(first.pool, second.pool, tuple(rows))


def _calls(
    first: qpm_diff_observe.PoolObservations, second: qpm_diff_observe.PoolObservations
) -> Iterator[Row]:
    second_outcomes = {answer.call: answer for answer in second.answers}
    first_outcomes = {answer.call: answer for answer in first.answers}
    for call in {**first_outcomes, **second_outcomes}:
        yield _call(call, first_outcomes.get(call), second_outcomes.get(call))


def _call(
    call: str,
    first: qpm_diff_observe.CallOutcome | None,
    second: qpm_diff_observe.CallOutcome | None,
) -> Row:
    if first is None or second is None or first.outcome != second.outcome:
        return Row(
            RowSubject.CALL, call, _outcome_text(first), _outcome_text(second), Difference.BEHAVIOUR
        )
    differences = qpm_diff_observe.differing_paths(first.shape, second.shape)
    if differences:
        return Row(
            RowSubject.CALL,
            call,
            _paths([(path, first_kind) for path, first_kind, _ in differences]),
            _paths([(path, second_kind) for path, _, second_kind in differences]),
            Difference.FACT
            if call in DESCRIBING and qpm_diff_observe.is_missing(differences)
            else Difference.BEHAVIOUR,
        )
    return Row(RowSubject.CALL, call, first.outcome, second.outcome, Difference.SAME)


def _outcome_text(answer: qpm_diff_observe.CallOutcome | None) -> str:
    if answer is None:
        return NONE
    return f"{answer.outcome}: {answer.words}" if answer.words else answer.outcome


def _paths(differences: list[tuple[str, str]]) -> str:
    parts = [f"{path}: {kind}" for path, kind in differences[:_MOST_PATHS]]
    more = len(differences) - _MOST_PATHS
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _runs(
    first: qpm_diff_observe.PoolObservations, second: qpm_diff_observe.PoolObservations
) -> Iterator[tuple[qpm_diff_observe.RunOutcome, qpm_diff_observe.RunOutcome]]:
    """Return the pairs of runs: both pools ran the same circuits in the same order."""
    return iter(zip(first.runs, second.runs, strict=True))


def _run_rows(
    first: qpm_diff_observe.RunOutcome, second: qpm_diff_observe.RunOutcome, bound: float | None
) -> Iterator[Row]:
    name = first.circuit
    yield _states(first, second)
    alike = first.reached == second.reached
    yield Row(
        RowSubject.TIMES,
        name,
        ", ".join(first.reached) or NONE,
        ", ".join(second.reached) or NONE,
        Difference.SAME if alike else Difference.BEHAVIOUR,
    )
    if first.counts and second.counts:
        if first.form != second.form:
            yield Row(
                RowSubject.COUNTS, f"{name}: keys", first.form, second.form, Difference.BEHAVIOUR
            )
        else:
            yield _counts(first, second, bound)
    for what in ("engine", "route", "remark"):
        left, right = getattr(first, what), getattr(second, what)
        finding = Difference.SAME if left == right else Difference.FACT
        yield Row(RowSubject.ROUTE, f"{name}: {what}", left or NONE, right or NONE, finding)


def _states(first: qpm_diff_observe.RunOutcome, second: qpm_diff_observe.RunOutcome) -> Row:
    """Return the row of outcomes, with the observed states; a short run may not be seen as
    running."""
    same = first.outcome == second.outcome
    return Row(
        RowSubject.STATES,
        first.circuit,
        _states_text(first, with_message=not same),
        _states_text(second, with_message=not same),
        Difference.SAME if same else Difference.BEHAVIOUR,
    )


def _states_text(run: qpm_diff_observe.RunOutcome, with_message: bool) -> str:
    way = " > ".join(run.states) or run.outcome
    return f"{way}: {run.words}" if with_message and run.words else way


def _counts(
    first: qpm_diff_observe.RunOutcome, second: qpm_diff_observe.RunOutcome, bound: float | None
) -> Row:
    result = distance(first.counts, second.counts)
    return Row(
        RowSubject.COUNTS,
        first.circuit,
        _shots(first),
        _shots(second),
        _finding(first, second, result, bound),
        result,
    )


def _finding(
    first: qpm_diff_observe.RunOutcome,
    second: qpm_diff_observe.RunOutcome,
    distance: qpm_diff_observe.SampleDistance,
    bound: float | None,
) -> Difference:
    if first.counts == second.counts:
        return Difference.SAME
    if distance.is_noise:
        return Difference.NOISE
    if bound is not None and distance.total_variation > bound:
        return Difference.BOUND
    return Difference.COUNTS


def _shots(run: qpm_diff_observe.RunOutcome) -> str:
    return f"{sum(run.counts.values())} shots, {len(run.counts)} outcomes"


def _facts(
    first: qpm_diff_observe.PoolObservations, second: qpm_diff_observe.PoolObservations
) -> Iterator[Row]:
    for name in {**first.facts, **second.facts}:
        left, right = first.facts.get(name, NONE), second.facts.get(name, NONE)
        finding = Difference.SAME if left == right else Difference.FACT
        yield Row(RowSubject.DEVICE, name, left, right, finding)


# `simenv qpm diff`: read the circuits, observe both pools, compare, and print the comparison.

_WIDTH = 160  # without a terminal
_MOST_CHARS = 160  # of a cell, for each of two lines
_COLOURS = {
    Difference.SAME: "dim", Difference.FACT: "cyan", Difference.NOISE: "green",
    Difference.COUNTS: "yellow",
    Difference.BEHAVIOUR: "red", Difference.BOUND: "red",
}  # fmt: skip


def table(comparison: qpm_diff_observe.Comparison, *, everything: bool, stream: Any) -> None:
    """Write the rows that differ, or all rows, and a summary to `stream`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, width=None if stream.isatty() else _WIDTH, highlight=False)
    shown = [row for row in comparison.rows if everything or row.finding is not Difference.SAME]
    if shown:
        grid = Table(box=None, pad_edge=False, show_edge=False)
        grid.add_column("FINDING", no_wrap=True)
        for header in ("ABOUT", "WHAT", comparison.first, comparison.second):
            grid.add_column(terminal.clean(header), no_wrap=header == "ABOUT")
        for row in shown:
            grid.add_row(
                Text(str(row.finding), _COLOURS[row.finding]),
                str(row.aspect),
                Text(_short(_row_label(row))),
                Text(_short(row.first)),
                Text(_short(row.second)),
            )
        console.print(grid)
    console.print(Text(summary(comparison)))


def summary(comparison: qpm_diff_observe.Comparison) -> str:
    """Return one line: whether the pools behave alike, and the number of each kind of row."""
    pair = f"{comparison.first} and {comparison.second}"
    counts = ", ".join(
        f"{comparison.count(each)} {each}" for each in Difference if comparison.count(each)
    )
    if comparison.alike:
        return f"{pair} behave alike: {counts}"
    return f"{pair} do not behave alike: {counts}"


def plain(comparison: qpm_diff_observe.Comparison) -> dict[str, Any]:
    """Return the object of `--json`."""
    return {
        "pools": [comparison.first, comparison.second],
        "alike": comparison.alike,
        **{str(finding): comparison.count(finding) for finding in Difference},
        "rows": comparison.rows,
    }


def _row_label(row: Row) -> str:
    distance = row.distance
    if distance is None:
        return row.what
    return (
        f"{row.what}: total variation {distance.total_variation:.4f}"
        f" (shot noise {distance.noise_total_variation:.4f}, at most"
        f" {distance.most_total_variation:.4f}),"
        f" Hellinger {distance.hellinger:.4f}"
        f" (shot noise {distance.noise_hellinger:.4f}, at most {distance.most_hellinger:.4f})"
    )


def _short(text: str) -> str:
    text = terminal.clean(" ".join(text.split()))
    return text if len(text) <= 2 * _MOST_CHARS else f"{text[: 2 * _MOST_CHARS]}..."


NOT_ALIKE = 1
MAX_FILE_BYTES = 16 * 2**20


def diff(
    context: typer.Context,
    pool1: Annotated[str, typer.Argument(help="A pool of the environment that is up.")],
    pool2: Annotated[str, typer.Argument(help="Another pool, such as that of a device.")],
    files: Annotated[list[Path], typer.Argument(help="OpenQASM files, or folders of *.qasm.")],
    shots: Annotated[int, typer.Option(min=1, help="Shots of each circuit on each pool.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the circuits; devices ignore it.")] = 7,
    bound: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0,
            help="Maximum total variation distance of the counts, beyond statistical noise.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(callback=app.seconds, help="Timeout of a circuit in seconds.")
    ] = 600.0,
    every: Annotated[bool, typer.Option("--all", help="Show also what is equal.")] = False,
) -> None:  # fmt: skip
    """Compare two pools by what an application observes through a QPM.

    Runs the same circuits and invalid requests through a QPM on both pools, and compares calls,
    errors, states, times, devices and counts. The exit code is 1 if their behaviour differs, 4 if
    there is no such pool or file.
    """
    from simenv.cli.admin.qpm_diff_observe import observed

    common = app.settings_of(context)
    sources = read(files)
    with common.connect() as watch:
        pools = watch.pools()
        for pool in (pool1, pool2):
            if pool not in pools:
                raise NotFoundError(f"there is no pool {pool!r}", hint=f"pools: {', '.join(pools)}")
        seen = []
        for pool in (pool1, pool2):
            with common.connect() as own:  # a connection, and so a QPM, for each pool

                def announce(name: str, pool: str = pool) -> None:
                    if sys.stderr.isatty() and not common.as_json:
                        terminal.note(f"{pool}: {terminal.clean(name)}")

                seen.append(observed(own, watch, pool, sources, shots, seed, timeout, announce))
    result = compare(seen[0], seen[1], bound)
    if common.as_json:
        terminal.json_line(plain(result))
    else:
        table(result, everything=every, stream=sys.stdout)
    if not result.alike:
        raise typer.Exit(NOT_ALIKE)


def read(files: Sequence[Path]) -> list[CircuitSource]:
    """Read the circuits, named by their files. Raises NotFoundError, ProgramError."""
    from simenv.cli.admin.qpm_diff_observe import CircuitSource

    results = [path for file in files for path in _circuit_files(file)]
    names = [path.name for path in results]
    return [
        CircuitSource(path.name if names.count(path.name) == 1 else str(path), *_text(path))
        for path in results
    ]


def _circuit_files(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    result = sorted(file.glob("*.qasm"))
    if not result:
        raise NotFoundError(f"there is no *.qasm in {file}", hint="name the files")
    return result


def _text(path: Path) -> tuple[str, str]:
    """Return a circuit and its format. Raises ProgramError for one that any pool would refuse."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(
            f"{path}: {error.strerror}", hint="give an OpenQASM file or a folder"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ProgramError(f"{path}: more than {MAX_FILE_BYTES} bytes", hint="is it OpenQASM?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ProgramError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}", hint="OpenQASM as a text"
        ) from error
    read_circuit(str(path))
    return text, _format(text)


def _format(text: str) -> str:
    for line in text.splitlines():
        tokens = line.split("//")[0].split()
        if tokens[:1] == ["OPENQASM"] and len(tokens) > 1:
            return "openqasm3" if tokens[1].startswith("3") else "openqasm2"
    return "openqasm2"
