"""`simenv explain`: the engine that would run a circuit, its expected cost, and why not another.

`--plan` prints the passes of a large state through the circuit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from simenv import text
from simenv.cli import app, terminal
from simenv.cli.devices.ledger import show as show_ledger
from simenv.cli.listing import Column, Style, keyed, listing
from simenv.cli.tasks import circuit_input
from simenv.client.circuits import load_observables
from simenv.config import kernel_folder
from simenv.errors import InfeasibleError, OptionError, ProgramError, with_names
from simenv.model import Program
from simenv.wire.messages.explain import Choice, Explanation

if TYPE_CHECKING:
    from simulators.circuit.ir import Circuit
    from simulators.statevector.program import Instruction

_LANES = 5


class Line(msgspec.Struct, frozen=True):
    """One pass over the state."""

    number: int
    wires: str  # qubits of the tile
    operations: str
    memory_bytes: int  # bytes loaded and stored by one execution
    times: int  # product of the counts of all enclosing `for` loops
    under: str  # enclosing control flow that is decided at run time; "": none


COLUMNS: tuple[Column[Line], ...] = (
    Column("PASS", lambda row: str(row.number), right=True),
    Column("QUBITS", lambda row: row.wires),
    Column("OPERATIONS", lambda row: row.operations),
    Column("BYTES", lambda row: terminal.size(row.memory_bytes), right=True),
    Column("TIMES", lambda row: str(row.times), right=True),
    Column("INSIDE", lambda row: row.under or "-"),
)


class _EnclosingBlocks(msgspec.Struct, frozen=True):
    """Blocks that enclose an instruction."""

    times: int = 1
    under: tuple[str, ...] = ()

    def within(self, word: str) -> _EnclosingBlocks:
        """Return the blocks with one more, whose number of executions is unknown before the run."""
        return _EnclosingBlocks(self.times, (*self.under, word))


def show(
    file: str,
    precision: str,
    outputs: tuple[str, ...],
    observables: Sequence[str],
    *,
    as_json: bool = False,
) -> None:
    """Print the passes through the circuit of a file."""
    from simulators.compiler import warmup

    warmup.prepare(kernel_folder())
    program = circuit_input.read_circuit(file, purpose="a plan of passes").program
    sums = load_observables(list(observables), program.num_qubits) if observables else ()
    labels = [label for observable in sums for label in observable.labels]
    wanted = outputs or (("expectation",) if labels else ("counts",))
    result = lines(program, precision, wanted, labels)
    if not as_json:
        total = sum(each.memory_bytes * each.times for each in result.lines)
        num_passes = sum(each.times for each in result.lines)
        name = "stdin" if file == "-" else file
        terminal.line(f"{name}: {terminal.counted(num_passes, 'pass')} over {terminal.size(total)}")
        if result.left:
            terminal.line(result.left)
    listing(COLUMNS, Style(as_json, aligned=True), lambda: result.lines)
    if any(each.under for each in result.lines):
        terminal.note(
            "passes INSIDE control flow: the number of executions is known when the circuit runs"
        )


class PlanReport(msgspec.Struct, frozen=True):
    """Result of `lines`."""

    lines: tuple[Line, ...]
    left: str  # text about the part of the circuit that is kept; "": all of it


def lines(
    program: Program, precision: str, outputs: tuple[str, ...], labels: Sequence[str]
) -> PlanReport:
    """Return the passes of all segments of gates, in order. Raises InfeasibleError if there is no
    such plan."""
    from simulators.catalog import SMALL_QUBITS, card
    from simulators.circuit.ir import Circuit
    from simulators.circuit.passes.components import extract, partition
    from simulators.circuit.passes.light_cone import output_support
    from simulators.circuit.validation.admission import validation_error

    circuit = Circuit.from_program(program)
    if circuit.num_qubits <= SMALL_QUBITS:
        raise _unplanned(circuit, SMALL_QUBITS)
    if text := validation_error(circuit):
        raise ProgramError(text, hint="check the program that wrote it")
    determined = labels or "expectation" not in outputs  # else unknown observables
    result = partition(circuit, output_support(outputs, labels, circuit) if determined else None)
    engine, widest = card("statevector"), result.widest or circuit.num_qubits
    if engine is not None and widest > engine.max_qubits:
        message = f"{widest} qubits; the engine statevector takes {engine.max_qubits}"
        raise InfeasibleError(message, hint="explain without --plan shows which engine can run it")
    keep = not set(outputs) <= {"counts", "memory", "probabilities"}
    narrow = _compiled_qubits(circuit, outputs) if len(result.parts) < 2 else SMALL_QUBITS
    if not result.parts:
        if circuit.num_qubits <= narrow:
            raise _unplanned(circuit, narrow)
        every = tuple(range(circuit.num_qubits))
        return PlanReport(
            _numbered(_circuit_lines(circuit, every, precision, narrow, keep=keep)), ""
        )
    built = [
        line
        for part in extract(circuit, result)
        for line in _circuit_lines(part.circuit, part.qubits.tolist(), precision, narrow, keep=keep)
    ]
    left = (
        f"kept {result.num_qubits} of {terminal.counted(circuit.num_qubits, 'qubit')},"
        f" {int(result.kept.sum())} of {terminal.counted(circuit.ops.size, 'operation')}"
    )
    if len(result.parts) > 1:
        left += f"; in {len(result.parts)} unconnected parts"
    return PlanReport(_numbered(built), left)


def _compiled_qubits(circuit: Circuit, outputs: tuple[str, ...]) -> int:
    """Return the largest width of a circuit of this kind that runs without passes."""
    import numpy as np

    from simulators.catalog import SMALL_QUBITS
    from simulators.circuit.analysis.measurements import has_mid_circuit_ops
    from simulators.statevector.plan import compiled_qubits

    roles = np.empty(circuit.ops.size, np.int64)
    if outputs != ("counts",) or has_mid_circuit_ops(circuit, roles, keep=False):
        return SMALL_QUBITS
    return compiled_qubits(circuit)


def _unplanned(circuit: Circuit, narrow: int) -> InfeasibleError:
    message = f"{circuit.num_qubits} qubits need no plan"
    hint = f"such circuits of up to {narrow} qubits run in one compiled call"
    return InfeasibleError(message, hint=hint)


def _numbered(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(msgspec.structs.replace(line, number=k) for k, line in enumerate(lines))


def _circuit_lines(
    circuit: Circuit, qubits: Sequence[int], precision: str, narrow: int, *, keep: bool
) -> Iterator[Line]:
    """Yield the passes of one circuit; `qubits`: numbers of its qubits in the output; `narrow`:
    most qubits of a circuit that needs none."""
    from simulators.catalog import state_bytes
    from simulators.statevector.program import build_program

    size = state_bytes(circuit.num_qubits, precision)
    if circuit.num_qubits <= narrow:
        wires = ",".join(terminal.ranges(qubits))
        yield Line(0, wires, "all of a small state's", 2 * size, 1, "")
        return
    result = build_program(circuit, keep=False, precision=precision)
    if keep or not result.layout.measures:
        result = build_program(circuit, keep=True, precision=precision)
    for tile, operations, amplitudes, around in _sweeps(result.items, 1 << circuit.num_qubits):
        yield Line(
            0,
            ",".join(terminal.ranges([qubits[wire] for wire in tile])),
            operations or "-",
            2 * amplitudes * (size >> circuit.num_qubits),
            around.times,
            ", ".join(around.under),
        )


def _sweeps(
    items: Sequence[Instruction], size: int
) -> Iterator[tuple[list[int], str, int, _EnclosingBlocks]]:
    """Yield (wires, operations, visited amplitudes, enclosing blocks) of each pass, in program
    order."""
    from simulators.dynamic.instructions import Branch, JoinPoint, Jump, LoopExit, LoopPass
    from simulators.statevector.planning.planner import SegmentPlan, describe_sweeps
    from simulators.statevector.program import Gates, Unitary

    open_blocks = [_EnclosingBlocks()]
    for at, item in enumerate(items):
        around = open_blocks[-1]
        if isinstance(item, Gates) and isinstance(item.passes, SegmentPlan):
            for each in describe_sweeps(item.passes.sweeps):
                yield [*range(_LANES), *each.wires], each.text, each.amplitudes, around
        elif isinstance(item, Unitary):
            wires = item.dense.wires.tolist()
            yield sorted(wires), f"matrix of {len(wires)} qubits", size, around
        elif isinstance(item, LoopPass) and item.count < 0:
            open_blocks.append(around.within("while"))
        elif isinstance(item, LoopPass):
            inside = _EnclosingBlocks(around.times * item.count, around.under)
            early = Jump(item.end), Jump(item.end - 1)  # `break`, `continue`
            left = any(each in early for each in items[at : item.end] if isinstance(each, Jump))
            open_blocks.append(inside.within("break") if left else inside)
        elif isinstance(item, Branch) and item.kind != "while":
            open_blocks.append(around.within(item.kind))
        elif isinstance(item, JoinPoint | LoopExit):
            open_blocks.pop()


_DEPENDS = {
    "--plan": "the passes of the engine statevector depend on the circuit, --output, --observable"
    " and --precision",
    "--ledger": "the losses depend on the circuit, --device, --noise and --compile",
}
_AT_ONCE_S = 0.5
_ONE_ANSWER = "--plan lists passes, --ledger losses: ask for one of them"

CHOICE_COLUMNS: tuple[Column[Choice], ...] = (
    Column("ENGINE", lambda row: row.engine),
    Column("TAKEN", lambda row: "yes" if row.chosen else "able" if row.able else "no"),
    Column("TIME", lambda row: duration(row.seconds) if row.able else "-", right=True),
    Column("MEMORY", lambda row: memory(row) if row.able else "-", right=True),
    Column("ERROR", lambda row: lost(row) if row.able else "-", right=True),
    Column("WHY", lambda row: row.why),
)


@app.with_options(
    circuit_input.CircuitOptions,
    *("seed", "run_timeout", *circuit_input.QUEUED),
)
def explain(
    context: typer.Context,
    asked: circuit_input.CircuitOptions,
    file: Annotated[
        str | None, typer.Argument(help="OpenQASM 2 or 3, or QPY; - is stdin.", show_default=False)
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="List the passes of the engine statevector.")
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
    common, noise = app.settings_of(context), asked.noise
    if file is None:
        if noise == "auto":
            raise OptionError("no circuit", hint="simenv explain FILE")
        if plan:
            raise OptionError("--plan and --noise FILE, which is --ledger FILE", hint=_ONE_ANSWER)
        file, noise, ledger = noise, "auto", True
    if plan and ledger:
        raise OptionError("--plan and --ledger", hint=_ONE_ANSWER)
    if plot is not None and not ledger:
        raise OptionError("--plot without --ledger", hint="--ledger draws; --plan lists passes")
    if ledger:
        with circuit_input.errors_for_command_line():
            _refuse_others(context, "--ledger", ("device", "noise", "compile"))
            if not asked.device:
                raise OptionError("--ledger without --device", hint="--device NAME")
            mode = asked.compile.value
            show_ledger(file, asked.device, noise, mode, plot, as_json=common.as_json)
        return
    if plan:
        with circuit_input.errors_for_command_line():
            _refuse_others(context, "--plan", ("observable", "output", "precision"))
            wanted = tuple(each.value for each in asked.output or ())
            sums = asked.observable or []
            show(file, asked.precision.value, wanted, sums, as_json=common.as_json)
        return
    with circuit_input.errors_for_command_line(), contextlib.ExitStack() as stack:
        client, _, loaded = circuit_input.client_and_circuit(common, file, asked, stack)
        pulses = loaded if isinstance(loaded, circuit_input.PulseText) else None
        if pulses is None and asked.param:
            hint = "its costs do not depend on them; those of a pulse sequence do"
            raise OptionError("--param of a circuit", hint=hint)
        with circuit_input.answer_progress():
            result = client.explain(loaded.program, **asked.arguments(pulses))
    if common.as_json:
        terminal.json_line(
            {
                "engine": result.engine,
                "program": keyed(result.sizes),
                "engines": [keyed(each) for each in result.engines],
                "links": [keyed(each) for each in result.links],
                "remote_gates": result.remote_gates,
                "logical": None if result.logical is None else keyed(result.logical),
                "noise": None if result.noise is None else keyed(result.noise),
            }
        )
        return
    terminal.fitted(advice(file, result), indent=2)
    sizes = summary(result)
    if pulses is not None:
        sizes = terminal.counted(result.sizes.num_qubits, "atom")
    terminal.fitted(f"{'stdin' if file == '-' else file}: {sizes}", indent=2)
    listing(CHOICE_COLUMNS, Style(False, aligned=True), lambda: result.engines)
    if error := max((each.sampling_error for each in result.engines), default=0.0):
        terminal.note(
            f"{asked.shots:,} shots: a probability has a standard error of up to {error:.2g}"
        )
    for line in (*link_lines(result), *logical_lines(result), *noise_lines(result)):
        terminal.note(line)
    for each in result.engines:
        if each.runs:
            terminal.note(learned(each))
        if each.chosen and each.wait_s >= 0:
            terminal.note(starts(each))
    for each in result.engines:
        if each.hint and not (each.able and result.engine):
            terminal.note(f"{each.engine}: {with_names(each.hint, circuit_input.NAMES)}")


def noise_lines(explanation: Explanation) -> Iterator[str]:
    """Return lines about the noise of a pulse sequence, and warnings."""
    noise = explanation.noise
    if noise is None:
        return
    figures = ", ".join(f"{each.name} {each.value:.4g}" for each in noise.figures)
    if figures or not noise.warnings:
        yield f"noise: {figures or 'none'}"
    if noise.uncalibrated:
        yield f"not calibrated, acts as perfect: {', '.join(noise.uncalibrated)}"
    yield from noise.warnings


def _refuse_others(context: typer.Context, mode: str, own: tuple[str, ...]) -> None:
    """Raise OptionError for given options on which the answer of this mode does not depend."""
    others = set(circuit_input.FIELDS.values()) - {*own, "engine"}
    names = sorted(others.intersection(app.given(context)))
    if context.params["engine"] not in ("auto", "statevector"):
        names.append("engine")
    if names:
        raise OptionError(f"{mode} and {', '.join(map(_option, names))}", hint=_DEPENDS[mode])


def _option(name: str) -> str:
    """Return the option of a parameter of `explain`."""
    return f"--{name.replace('_', '-')}"


def advice(file: str, explanation: Explanation) -> str:
    """Return one sentence: the command that runs the circuit, or what to change."""
    chosen = next((each for each in explanation.engines if each.chosen), None)
    if chosen is not None:
        place = f"{duration(chosen.seconds)} in {memory(chosen)}"
        return f"run it: simenv run {file}   (engine {chosen.engine}, about {place})"
    able = sorted((each for each in explanation.engines if each.able), key=lambda row: row.seconds)
    if able:
        names = [
            f"--engine {each.engine} (about {duration(each.seconds)} in {memory(each)})"
            for each in able
        ]
        return f"this request would be refused; ask for an engine: {' or '.join(names)}"
    hints = [with_names(each.hint, circuit_input.NAMES) for each in explanation.engines]
    first = next(filter(None, hints), "another circuit, or another machine")
    return f"this request would be refused; possible change: {first}"


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
        of_gates = "" if sizes.trial_part == 1.0 else f" of {sizes.trial_part:.0%} of its gates"
        kinds.append(f"{sizes.trial_bond} in a trial{of_gates}")
    return ", ".join(kinds)


def link_lines(explanation: Explanation) -> list[str]:
    """Return a line for each link with Bell pairs: their number, wait and loss, and one about cuts
    in their place."""
    lines = []
    for use in explanation.links:
        wait = duration(1e-9 * use.pairs * use.wait_ns)
        infidelity = use.pairs * (1.0 - use.fidelity)
        lines.append(
            f"link {use.link}: {terminal.counted(use.pairs, 'Bell pair')} a shot, mean wait {wait};"
            f" their infidelities sum to {infidelity:.2g}"
        )
    if explanation.links and explanation.remote_gates:
        lines.append(
            f"{terminal.counted(explanation.remote_gates, 'gate')} between modules: cut in place of"
            f" the pairs, about {explanation.cutting_overhead:.2g} times the shots, without loss by"
            " links"
        )
    return lines


def logical_lines(explanation: Explanation) -> list[str]:
    """Return two lines about the costs on logical qubits; none for physical ones."""
    use = explanation.logical
    if use is None:
        return []
    made = ""
    if use.rotations:
        made = (
            f"; synthesis of {terminal.counted(use.rotations, 'rotation')}, with an error of up to"
            f" {use.synthesis_error:.1g} in all"
        )
    return [
        f"logical qubits: {terminal.counted(use.t_gates, 'T gate')}{made}",
        f"logical qubits: {terminal.counted(use.physical_qubits, 'physical qubit')} without those"
        f" of magic states, {duration(use.seconds)} a shot, a logical error in about"
        f" {100.0 * use.error:.2g} % of the shots",
    ]


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


def starts(row: Choice) -> str:
    """Return when such a task would start if it was submitted now, and the typical error."""
    if row.wait_s < _AT_ONCE_S:
        return f"a new task in pool {row.pool} would start at once"
    error = f", typically within a factor of {row.wait_off_by:.2g}" if row.wait_off_by else ""
    wait = text.duration(row.wait_s)
    return f"a new task in pool {row.pool} would start in about {wait}{error}"


def duration(seconds: float) -> str:
    """Format a duration with two digits and a unit."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{float(f'{seconds * factor:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"
