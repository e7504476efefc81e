"""`simenv explain`: the engine that would run a circuit, its expected cost, and why not another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.calibration import error_ledger
from simenv.cli.listing import Column, Style, keyed, listing
from simenv.cli.output import terminal
from simenv.cli.tasks import explain_plan
from simenv.cli.tasks.circuit_input import client_and_circuit
from simenv.cli.tasks.circuit_options import (
    NAMES,
    SENT,
    CircuitOptions,
    errors_for_command_line,
)
from simenv.cli.tasks.waiting import answer_progress
from simenv.errors import OptionError, with_names
from simenv.wire.messages.queries import Choice, Explanation

_DEPENDS = {
    "--plan": "the sweeps of the engine statevector depend on the circuit, --output, --observable"
    " and --precision",
    "--ledger": "the losses depend on the circuit, --device, --noise and --compile",
}
_ONE_ANSWER = "--plan lists sweeps, --ledger losses: ask for one of them"

COLUMNS: tuple[Column[Choice], ...] = (
    Column("ENGINE", lambda row: row.engine),
    Column("TAKEN", lambda row: "yes" if row.chosen else "able" if row.able else "no"),
    Column("TIME", lambda row: duration(row.seconds) if row.able else "-", right=True),
    Column("MEMORY", lambda row: memory(row) if row.able else "-", right=True),
    Column("ERROR", lambda row: lost(row) if row.able else "-", right=True),
    Column("WHY", lambda row: row.why),
)


@options.with_options(
    CircuitOptions,
    *("seed", "param", "priority", "queue_timeout", "run_timeout", "after", "task_name"),
)
def explain(
    context: typer.Context,
    asked: CircuitOptions,
    file: Annotated[
        str | None, typer.Argument(help="OpenQASM 2 or 3, or QPY; - is stdin.", show_default=False)
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="List the sweeps of the engine statevector.")
    ] = False,
    ledger: Annotated[
        bool,
        typer.Option(
            "--ledger", help="Show what costs fidelity on --device: components, gates, qubits."
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --ledger: write a picture.")
    ] = None,
) -> None:
    """Show which engine would run a circuit, and why.

    Uses memory, pools and engines of the environment. With none up, a private one is started.
    `--plan` and `--ledger` work without an environment; `--noise FILE` in place of FILE is
    `--ledger FILE`.
    """
    common, noise = options.settings_of(context), asked.noise
    if file is None:
        if noise == "auto":
            raise OptionError("no circuit", hint="simenv explain FILE")
        if plan:
            raise OptionError("--plan and --noise FILE, which is --ledger FILE", hint=_ONE_ANSWER)
        file, noise, ledger = noise, "auto", True
    if plan and ledger:
        raise OptionError("--plan and --ledger", hint=_ONE_ANSWER)
    if plot is not None and not ledger:
        raise OptionError("--plot without --ledger", hint="--ledger draws; --plan lists sweeps")
    if ledger:
        with errors_for_command_line():
            _refuse_others(context, "--ledger", ("device", "noise", "compiled"))
            if not asked.device:
                raise OptionError("--ledger without --device", hint="--device NAME")
            mode = asked.compiled.value
            error_ledger.show(file, asked.device, noise, mode, plot, as_json=common.as_json)
        return
    if plan:
        with errors_for_command_line():
            _refuse_others(context, "--plan", ("observable", "output", "precision"))
            wanted = tuple(each.value for each in asked.output or ())
            sums = asked.observable or []
            explain_plan.show(file, asked.precision.value, wanted, sums, as_json=common.as_json)
        return
    with errors_for_command_line(), contextlib.ExitStack() as stack:
        client, _, loaded = client_and_circuit(common, file, stack)
        with answer_progress():
            result = client.explain(loaded.program, **asked.arguments())
    if common.as_json:
        terminal.json_line(
            {
                "engine": result.engine,
                "program": keyed(result.sizes),
                "engines": [keyed(each) for each in result.engines],
            }
        )
        return
    terminal.fitted(f"{'stdin' if file == '-' else file}: {summary(result)}", indent=2)
    listing(COLUMNS, Style(False, aligned=True), lambda: result.engines)
    if error := max((each.sampling_error for each in result.engines), default=0.0):
        terminal.note(
            f"{asked.shots:,} shots: a probability has a standard error of up to {error:.2g}"
        )
    for each in result.engines:
        if each.runs:
            terminal.note(learned(each))
    if not result.engine:
        terminal.note("this request would be refused; possible changes:")
    for each in result.engines:
        if each.hint and not each.able:
            terminal.note(f"{each.engine}: {with_names(each.hint, NAMES)}")


def _refuse_others(context: typer.Context, mode: str, own: tuple[str, ...]) -> None:
    """Raise OptionError for given options on which the answer of this mode does not depend."""
    others = [name for name in SENT if name not in (*own, "engine")]
    settings = {name: context.get_parameter_source(name) for name in others}
    names = sorted(
        name for name, by in settings.items() if by is not None and by.name == "COMMANDLINE"
    )
    if context.params["engine"] not in ("auto", "statevector"):
        names.append("engine")
    if names:
        raise OptionError(
            f"{mode} and {', '.join(map(_option, names))}",
            hint=_DEPENDS[mode],
        )


def _option(name: str) -> str:
    """Return the option of a parameter of `explain`."""
    return "--compile" if name == "compiled" else f"--{name.replace('_', '-')}"


def summary(explanation: Explanation) -> str:
    """Return a program's sizes as one line."""
    sizes = explanation.sizes
    gates = sizes.gates_1q + sizes.gates_2q + sizes.gates_many
    kinds = [
        terminal.counted(sizes.num_qubits, "qubit"),
        f"{terminal.counted(gates, 'gate')} "
        f"({sizes.gates_2q + sizes.gates_many} on several qubits)",
        terminal.counted(sizes.measurements, "measurement"),
    ]
    if sizes.clifford:
        kinds.append("Clifford")
    if sizes.dynamic:
        kinds.append("dynamic")
    if sizes.bond_bits >= 0:
        kinds.append(f"bonds up to 2^{sizes.bond_bits}")
    if sizes.trial_bond:
        kinds.append(f"{sizes.trial_bond} in a trial")
    return ", ".join(kinds)


def memory(choice: Choice) -> str:
    """Return the memory of a choice: '1.1 GiB', or '4 x 384 MiB on 2 nodes'."""
    each = terminal.size(choice.memory_bytes)
    if choice.ranks == 1:
        return each
    return f"{choice.ranks} x {each} on {terminal.counted(choice.nodes, 'node')}"


def lost(row: Choice) -> str:
    """Return the weight that may be cut off from the state: '0', '<1e-6', or '?' if it is
    unknown."""
    if row.truncation < 0.0:
        return "?"
    return f"<{float(f'{row.truncation:.0e}'):.0e}" if row.truncation else "0"


def learned(row: Choice) -> str:
    """Return the number of runs behind an expected time, and the typical error of such times."""
    runs = terminal.counted(row.runs, "run")
    return f"{row.engine}: TIME was learned from {runs}, and typically off by {row.off_by:.2g} x"


def duration(seconds: float) -> str:
    """Format a duration with two digits and a unit."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{float(f'{seconds * factor:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"
