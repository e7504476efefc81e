"""Output of an ended task: counts, values, amplitudes, and their provenance.

Answers go to stdout; the line with id, engine, seed and time goes to stderr, so that a pipe gets
only the answer.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv import errors
from simenv.cli import app, terminal
from simenv.client.tasks.progress import LOG
from simenv.model import Observable
from simenv.model.calls import decode_call
from simenv.model.pulses import PulseCall
from simenv.text import run_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.client.client import Client
    from simenv.client.result import Result
    from simenv.client.submission.pulses import PulseResult
    from simenv.client.tasks.task import Task

Save = Annotated[
    Path | None,
    typer.Option(help="Write the whole result to FILE.h5, FILE.npz or FILE.json.", dir_okay=False),
]
SHOWN = 32  # amplitudes on the screen
ROWS = 32  # bindings of a sweep on the screen
BLOCK = 2**20  # amplitudes compared at a time
COMPILED_S = 0.5  # a task that waited so long for kernels says so
PAIRS = 12  # atoms whose correlations are on the screen
COLUMNS = 6  # values at each time on the screen
LABEL_CHARS = 60  # most characters of an observable on the screen


def present(
    client: Client,
    task: Task,
    as_json: bool,
    timeout: float | None,
    save: Path | None = None,
    is_private: bool = False,
) -> None:
    """Wait for the end and show the result; exit code 1 if the task did not end as DONE.
    `is_private`: the environment exists for this call only."""
    _wait(task, timeout, is_private)
    from simenv.client.submission.calls import CallTask

    try:
        result = [task.details] if isinstance(task, CallTask) else task.results(0.0)
    except (errors.TaskFailedError, errors.TaskCancelledError, errors.TaskExpiredError) as error:
        if is_private:  # its journal ends with it
            error.hint = error.hint.replace("all that", "after `simenv up`, all that", 1)
        app.show_error(error)
        if as_json:
            ended = {"task": task.id, "state": str(task.state), "error": app.as_object(error)}
            terminal.json_line(ended)
        raise typer.Exit(error.exit_code) from error
    if save is not None and len(result) > 1:
        message = f"--save {save}: task {task.id} carries {len(result)} bindings"
        hint = f"one by one: simenv result {task.id}.0 --save {save}"
        raise errors.OptionError(message, hint=hint)
    observables: Sequence[Observable] = ()
    if result[0].has("expectations") and not as_json:
        observables = client.history.submitted(task).terms.pauli_sums
    elif _pulses(result[0]) is not None and not as_json:
        call = decode_call(result[0].engine, client.history.submitted(task).spec.program)
        observables = call.observables if isinstance(call, PulseCall) else ()
    print_results(result, as_json, save, observables)


def print_results(
    results: list[Result],
    as_json: bool,
    save: Path | None = None,
    observables: Sequence[Observable] = (),
) -> None:
    """Show the results of a task; `save`: file for the whole result, only for a single binding.
    `observables`: those of the expectation values."""
    if save is not None:
        _save(results[0], save)
    if as_json:
        for each in results:
            terminal.json_line(_builtins(each))
        return
    labels = [label(observable, results[0].layout) for observable in observables]
    if save is None and len(results) == 1:
        _show(results[0], labels)
    elif save is None:
        _sweep(results, labels)
    for text in dict.fromkeys(text for each in results for text in each.warnings):
        terminal.note(terminal.clean(f"warning: {text}"))
    terminal.note(summary(results))


def _pulses(result: Result) -> PulseResult | None:
    """Return the outcomes of a pulse sequence; None: the task ran something else."""
    if not result.has("value"):
        return None
    from simenv.client.submission.pulses import pulse_result

    return pulse_result(result)


def _builtins(result: Result) -> dict[str, Any]:
    pulses = _pulses(result)
    return result.to_dict() | ({} if pulses is None else {"pulses": pulses.to_dict()})


def _save(result: Result, path: Path) -> None:
    """Write a result to a file. Raises OptionError, StoreError."""
    if path.suffix.lower() != ".json" or _pulses(result) is None:
        result.save(path)
        return
    import msgspec

    from simenv.files import replacing

    try:
        with replacing(path, mode=0o666, sync=True) as file:
            file.write(msgspec.json.format(msgspec.json.encode(_builtins(result))) + b"\n")
    except OSError as error:
        raise errors.OptionError(f"cannot save {path}: {error.strerror}") from error


def summary(results: list[Result]) -> str:
    """Return a summary: `t-1: statevector, 2 qubits, 1 024 shots, seed 7, 0.3 ms on main-0`."""
    first = results[0]
    pulses = _pulses(first)
    parts = [
        first.engine,
        terminal.counted(first.num_qubits, "qubit")
        if pulses is None
        else terminal.counted(len(pulses.atoms), "atom"),
        terminal.counted(first.shots, "shot") if first.shots else "exact",
        f"seed {first.seed}",
        run_time(first.timing.run_s) + (f" on {first.worker}" if first.worker else ""),
    ]
    if first.timing.compile_s >= COMPILED_S:
        waited = f"{first.timing.compile_s:.3g} s"
        parts.append(f"after {waited} of compiling or loading")
    if first.device_time_s:
        parts.append(f"{first.device_time_s:.3g} s on device {first.device}")
    if first.remark and len(results) == 1:
        parts.append(first.remark)
    if len(results) > 1:
        parts.insert(2, terminal.counted(len(results), "binding"))
    task = first.task.partition(".")[0] if len(results) > 1 else first.task
    return terminal.clean(f"{task}: {', '.join(parts)}")


def label(observable: Observable, layout: tuple[int, ...] | None = None) -> str:
    """Format an observable as users type it: `ZZ:0.5,XX:2`; a coefficient of 1 is left out.
    `layout`: the device's qubit of each circuit qubit, where the observable is that of a device."""
    values = struct.unpack(f"<{len(observable.labels)}d", observable.coefficients)
    labels = observable.labels
    if layout is not None:
        labels = tuple("".join(each[-1 - k] for k in reversed(layout)) for each in labels)
    terms = zip(labels, values, strict=True)
    text = ",".join(pauli if value == 1 else f"{pauli}:{value:g}" for pauli, value in terms)
    return text if len(text) <= LABEL_CHARS else text[: LABEL_CHARS - 3] + "..."


def _wait(task: Task, timeout: float | None, is_private: bool) -> None:
    try:
        task.wait(progress=LOG, timeout_s=timeout)
    except KeyboardInterrupt:
        if not is_private:
            terminal.note(
                f"{task.id} continues: simenv result {task.id}, or simenv cancel {task.id}"
            )
        raise
    except errors.TimedOutError as error:
        if is_private:
            error.hint = "it ended with its private environment; simenv up keeps one"
        raise


def _sweep(results: list[Result], labels: Sequence[str]) -> None:
    """Print the first bindings of a sweep, each under its own id."""
    for each in results[:ROWS]:
        terminal.line(each.task)
        _show(each, labels)
    if len(results) > ROWS:
        terminal.note(f"the first {ROWS} of {len(results)}; --json prints all")


def _show(result: Result, labels: Sequence[str]) -> None:
    if result.has("counts"):
        terminal.bars(result.counts, {key: str(count) for key, count in result.counts.items()})
    if result.has("memory"):
        for key in result.memory_strings()[:SHOWN]:
            terminal.line(key)
        if result.shots > SHOWN:
            terminal.note(f"the first {SHOWN} of {result.shots} shots; --json prints all")
    if result.has("probabilities"):
        shares = result.probabilities
        terminal.bars(shares, {key: f"{share:.6f}" for key, share in shares.items()})
    if result.has("statevector"):
        _amplitudes(result.statevector, result.num_qubits)
    if result.has("amplitudes"):
        for text, value in result.amplitudes.items():
            terminal.line(f"{text} = {value.real:+.12g} {value.imag:+.12g}j")
    if result.has("expectations"):
        for name, value, error in zip(labels, result.expectations, result.std_errors, strict=True):
            terminal.line(
                f"{name} = {value:.9g} +- {error:.2g}" if error else f"{name} = {value:.12g}"
            )
    if result.has("gradients"):
        for name, slopes in zip(labels, result.gradients.tolist(), strict=True):
            terminal.line(f"gradient of {name} = " + " ".join(f"{slope:.9g}" for slope in slopes))
    if (pulses := _pulses(result)) is not None:
        _show_pulses(pulses, labels)
    elif result.has("value"):
        terminal.line(f"a value of {terminal.size(len(result.value))}, readable only in Python")
    if (stated := result.error) is not None:
        local, subset = stated["local"], stated["subset"]
        terminal.note(
            f"approximate: values on one and two qubits are off by {local['rms']:.1e} +-"
            f" {local['standard_error']:.1e} (root mean square), the distribution of"
            f" {subset['bits']:.0f} bits by at most {subset['tvd']:.1e}, measured on regions"
        )
    elif result.truncation:
        terminal.note(
            f"approximate: truncation {result.truncation:.2g}, 1 minus the fidelity expected"
        )


def _show_pulses(result: PulseResult, labels: Sequence[str]) -> None:
    """Print the outcomes of a pulse sequence: bit strings have the first atom first. `labels`: of
    its observables."""
    if result.has("counts"):
        counts = dict(itertools.islice(result.counts.items(), SHOWN))
        terminal.bars(counts, {key: str(count) for key, count in counts.items()})
        if len(result.counts) > SHOWN:
            terminal.note(f"the {SHOWN} most frequent of {len(result.counts)}; --json prints all")
    if result.has("memory"):
        memory = result.memory
        for key in memory[:SHOWN]:
            terminal.line(key)
        if len(memory) > SHOWN:
            terminal.note(f"the first {SHOWN} of {len(memory)} shots; --json prints all")
    if result.has("statevector"):
        _amplitudes(result.statevector, len(result.atoms))
    if result.has("expectation"):
        deviations = result.standard_error("expectation_at")[-1].tolist()
        for name, value, error in zip(labels, result.expectation.tolist(), deviations, strict=True):
            terminal.line(
                f"{name} = {value:.9g} +- {error:.2g}" if error > 0 else f"{name} = {value:.12g}"
            )
    if result.has("energy"):
        variance = result.energy_variance[-1]
        terminal.line(f"energy = {result.energy[-1]:.9g} rad/us, variance {variance:.6g}")
    names = [terminal.clean(name) for name in result.atoms]
    if result.has("correlation"):
        _correlations(names, result.correlation[-1])
    terminal.note("occupation of each atom, the probability of 1:")
    _occupations(names, result.occupations.tolist())
    if len(result.evaluation_times) > 1:
        _at_times(result, labels)
    drawn = f", {result.trajectories} trajectories" if result.trajectories > 1 else ""
    bound = f"1 - fidelity below {result.error:.1g}"
    if math.isnan(result.error):
        bound = "no bound on its error is known"
    terminal.note(f"{result.simulator}: {bound}{drawn}")


def _occupations(names: Sequence[str], values: Sequence[float]) -> None:
    """Print a bar of each atom, in the register's order."""
    width = max(map(len, names))
    for name, value in itertools.islice(zip(names, values, strict=True), SHOWN):
        terminal.line(f"{name.ljust(width)}  {value:.6f}  {'#' * round(20 * value)}".rstrip())
    if len(names) > SHOWN:
        terminal.note(f"the first {SHOWN} of {len(names)} atoms; --json prints all")


def _correlations(names: Sequence[str], table: NDArray[np.float64]) -> None:
    """Print the probabilities that both atoms of a pair are 1. `table`: [atoms, atoms]."""
    if len(names) > PAIRS:
        terminal.note(f"correlations of {len(names)} atoms: --json prints them")
        return
    rows = [
        [name, *(f"{value:.4f}" for value in row)]
        for name, row in zip(names, table.tolist(), strict=True)
    ]
    terminal.table([["BOTH 1", *names], *rows], left=1)


def _at_times(result: PulseResult, labels: Sequence[str]) -> None:
    """Print a line of each time: the number of atoms that are 1, energy, observables."""
    columns = {"ATOMS IN 1": result.occupation.sum(axis=1)}
    if result.has("energy"):
        columns |= {"ENERGY RAD/US": result.energy, "VARIANCE": result.energy_variance}
    if result.has("expectation"):
        columns |= dict(zip(labels, result.expectation_at.T, strict=True))
    shown = dict(itertools.islice(columns.items(), COLUMNS))
    rows = [
        [f"{time * result.duration_ns:.1f}", *(f"{values[k]:.6g}" for values in shown.values())]
        for k, time in enumerate(result.evaluation_times.tolist()[:SHOWN])
    ]
    terminal.table([["NS", *shown], *rows], left=0)
    if len(shown) < len(columns) or len(rows) < len(result.evaluation_times):
        terminal.note(f"{len(result.evaluation_times)} times; --json prints all")


def _amplitudes(vector: NDArray[np.complexfloating], width: int) -> None:
    """Print the largest amplitudes, in blocks: a vector may fill the memory. `vector`: [2**width],
    the first digit of a bit string is the highest bit of an index."""
    import numpy as np

    best = np.zeros(0, np.int64)
    for start in range(0, len(vector), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(vector)))
        both = np.concatenate([best, places])
        weights = np.abs(vector[both])
        best = both[np.argsort(-weights, kind="stable")[:SHOWN]]
    shares = {format(k, f"0{width}b"): float(abs(vector[k]) ** 2) for k in np.sort(best).tolist()}
    texts = {
        key: f"{vector[int(key, 2)].real:+.6f} {vector[int(key, 2)].imag:+.6f}j" for key in shares
    }
    terminal.bars(shares, texts)
    if len(vector) > SHOWN:
        terminal.note(f"the {SHOWN} largest of {len(vector)}; --save FILE.h5 writes all")
