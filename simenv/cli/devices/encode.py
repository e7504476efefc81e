"""`simenv devices encode`: a device of logical qubits from the calibration of a chip."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.cli.tasks.circuit_input import errors_for_command_line
from simenv.errors import ConfigError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.logical.encode import Encoded

_WORKERS = 2  # workers of a private environment
_SHOWN = 8  # logical qubits


@dataclass(frozen=True, slots=True)
class EncodeArguments:
    """Options of the command, with the names of `simenv.calibration.logical.options`."""

    code: Annotated[str, typer.Option(help="Error-correcting code: surface.")] = "surface"
    distance: Annotated[int, typer.Option(help="Distance of the code, odd.")] = 3
    decoder: Annotated[
        str, typer.Option(help="Decoder of the workers, such as pymatching-correlated.")
    ] = "pymatching-sequential"
    gate_decoder: Annotated[
        str,
        typer.Option(
            "--gate-decoder",
            help="Decoder of CX; by default pymatching-sequential for those of PyMatching.",
        ),
    ] = ""
    qubits: Annotated[int, typer.Option(help="Number of logical qubits.")] = 2
    shots: Annotated[int, typer.Option(help="Shots of each experiment.")] = 50_000
    seed: Annotated[int, typer.Option(help="Seed of shots and of drawn values.")] = 0
    deadline_us: Annotated[
        float,
        typer.Option(
            "--deadline",
            help="Latency of the decoder in us, for which conditions and T gates wait.",
        ),
    ] = 0.0
    interconnect: Annotated[
        str,
        typer.Option(
            help="Place of the decoder instead of --deadline: real-time, near-time, scale-out."
        ),
    ] = ""
    placement: Annotated[
        str, typer.Option(help="auto: patches on the chip as far as there is room; chip; drawn.")
    ] = "auto"
    cx: Annotated[str, typer.Option(help="transversal: 1 round, sampled; surgery: 2 d rounds.")] = (
        "transversal"
    )
    t_error: Annotated[
        float, typer.Option("--t-error", help="Error of a magic state, an assumption.")
    ] = 1e-4
    t_rounds: Annotated[
        int, typer.Option("--t-rounds", help="Rounds of a T gate; 0: 5 d, an assumption.")
    ] = 0


@app.with_options(EncodeArguments)
def encode(
    context: typer.Context,
    chip: Annotated[str, typer.Argument(help="Device whose qubits encode the logical ones.")],
    asked: Any,
    device: Annotated[
        str, typer.Option("--name", help="Name of the new device; by default CHIP-dDISTANCE.")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Sample anew, also what was sampled before.")
    ] = False,
) -> None:
    """Make a device of logical qubits: memory experiments on the pool, with the chip's noise.

    The same chip, code, decoder and options give the stored device at once.
    """
    common = app.settings_of(context)
    name = config.check_name((device or f"{chip}-d{asked.distance}").lower(), "device")
    with errors_for_command_line(), contextlib.ExitStack() as stack:
        from noise_models import snapshot as snapshots

        if importlib.util.find_spec("stim") is None:
            raise ConfigError("codes need stim", hint="pip install 'simenv[qec]'")
        from simenv.calibration.logical import encode as encoding
        from simenv.cli import execute

        source, _ = overview.load(chip)
        options = encoding.checked_options(asdict(asked))
        made = None if fresh else encoding.stored_device(source, name, options)
        if made is None:
            client = execute.client_of(common, stack)
            if client is None:
                client = stack.enter_context(execute.started(_WORKERS))
            made = encoding.encode(client, source, name, options, fresh=True)
        path, replaced = overview.save(name, snapshots.dump(made.snapshot))
    if common.as_json:
        _as_json(made, str(path), replaced=replaced)
        return
    for warning in made.warnings:
        terminal.note(warning)
    _show(made, replaced=replaced)
    terminal.line(f"file {path}")


def _as_json(made: Encoded, path: str, *, replaced: bool) -> None:
    snapshot = made.snapshot
    terminal.json_line(
        {
            "name": snapshot.name, "file": path, "replaced": replaced,
            "digest": snapshot.digest.hex(), "num_qubits": snapshot.num_qubits,
            "logical": snapshot.logical, "warnings": made.warnings, "stored": made.stored,
            "experiments": made.experiments, "seconds": round(made.seconds, 3),
        }
    )  # fmt: skip


def _show(made: Encoded, *, replaced: bool) -> None:
    """Print what the device is, and the errors of its first qubits."""
    from simenv.calibration.logical.error_rates import round_errors

    snapshot, origin = made.snapshot, made.snapshot.logical
    assert origin is not None
    how = "stored before" if made.stored else f"{made.experiments} experiments"
    verb = "replaced" if replaced else "made"
    terminal.line(
        f"{verb} {snapshot.name}: {terminal.counted(snapshot.num_qubits, 'logical qubit')} of"
        f" {origin.physical_qubits} qubits of {origin.chip}, {origin.code},"
        f" distance {origin.distance}, {origin.decoder} ({how}, {made.seconds:.1f} s)"
    )
    terminal.line(f"round {origin.round_ns * 1e-3:.3g} us; {origin.options}")
    if origin.suppression is not None:
        x, z = origin.suppression
        terminal.line(f"Lambda {x:.2f} for X, {z:.2f} for Z")
    rows = [["QUBIT", "X_ROUND", "Z_ROUND", "READOUT"]]
    for number, qubit in enumerate(snapshot.qubits[:_SHOWN]):
        errors = round_errors(qubit, origin.round_ns)
        rows.append([str(number), *(f"{each:.2e}" for each in (*errors, qubit.p01 or 0.0))])
    terminal.table(rows)
    if len(snapshot.qubits) > _SHOWN:
        terminal.line(f"and {len(snapshot.qubits) - _SHOWN} more")
    terminal.line(_gate_line(snapshot))


def _gate_line(snapshot: CalibrationSnapshot) -> str:
    """Text with the errors of the gates that have some."""
    parts = []
    for gate in snapshot.gates:
        if gate.paulis and gate.name != "tdg" and gate.qubits in ((), (0, 1)):
            total = sum(each.probability for each in gate.paulis)
            place = " on 0-1" if gate.qubits else ""
            parts.append(f"{gate.name}{place} {total:.2e}")
    return f"Pauli errors of gates: {', '.join(parts) or 'none'}; of others: those of their rounds"
