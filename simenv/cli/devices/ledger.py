"""`simenv explain CIRCUIT --device D --ledger`: losses of fidelity of a circuit on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.cli import terminal
from simenv.cli.listing import Column, Style, listing
from simenv.cli.tasks.circuit_input import errors_for_command_line, noise_of, read_circuit
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.calibration.ledger import EdgeLoss, ErrorLedger


_SHOWN = 12  # shown rows of gates and of qubits
_MIXED = "a maximally mixed state: the circuit is too wide for its own, resets or branches"


def show(
    file: str, device: str, noise: str, compiled: str, plot: Path | None, *, as_json: bool
) -> None:
    """Compute the ledger in this process and show it. Raises SimenvError."""
    with errors_for_command_line():
        if plot is not None:
            terminal.require_matplotlib("--plot")
        from simenv.calibration.ledger import circuit_ledger

        program = read_circuit(file, purpose="a ledger of losses").program
        result = circuit_ledger(program, device, noise=noise_of(noise), compile=compiled)
    if as_json:
        terminal.json_line({"device": device, **msgspec.to_builtins(_record(result))})
    else:
        _print(result, "stdin" if file == "-" else file, device)
    if plot is not None:
        from simenv.cli import plots

        try:
            with terminal.write_errors(plot):
                plots.draw_ledger(result, f"{Path(file).name} on {device}", plot)
        except ValueError as error:
            raise OptionError(f"--plot {plot}: {error}", hint="a file that ends in .png") from error
        terminal.note(f"{plot} written")


def _record(ledger: ErrorLedger) -> dict[str, Any]:
    """Return the object that --json prints."""
    return {
        "loss": ledger.loss, "fidelity": ledger.fidelity, "state": ledger.state,
        "logical": ledger.logical, "outside_fit": ledger.outside_fit,
        "components": dict(ledger.components), "gates": ledger.gates,
        "edges": [_edge(edge) for edge in ledger.edges],
        "qubits": [{"qubit": qubit, "loss": loss} for qubit, loss in ledger.qubits],
        "avoid": None if ledger.avoid is None else _edge(ledger.avoid),
    }  # fmt: skip


def _edge(edge: EdgeLoss) -> dict[str, Any]:
    return {**msgspec.structs.asdict(edge), "loss": edge.loss}


def _print(ledger: ErrorLedger, file: str, device: str) -> None:
    state = "the ideal state" if ledger.state == "ideal" else _MIXED
    terminal.fitted(
        f"{file} on {device}: fidelity about {ledger.fidelity:.4f}, a loss of {ledger.loss:.3g}"
        f" (first order, for {state})",
        indent=2,
    )
    if ledger.logical:
        terminal.fitted(
            f"the qubits of {device} are logical: all losses are by the errors that decoding leaves"
            f" of the {ledger.logical}",
            indent=2,
        )

    if ledger.outside_fit:
        from simulators.circuit.analysis.fit_scope import outside_text

        terminal.fitted(outside_text(ledger.outside_fit), indent=2)

    def table(rows: Sequence[Any], loss: Callable[[Any], float], *names: Column[Any]) -> None:
        columns = (
            *names,
            Column("LOSS", lambda row: f"{loss(row):.2e}", right=True),
            Column("SHARE", lambda row: _share(loss(row) / (ledger.loss or 1.0)), right=True),
        )
        terminal.line()
        listing(columns, Style(False, aligned=True), lambda: rows[:_SHOWN])

    table(ledger.components, lambda row: row[1], Column("COMPONENT", lambda row: row[0]))
    table(
        ledger.gates,
        lambda row: row.loss,
        Column("GATE", lambda row: row.name),
        Column("QUBITS", lambda row: "-".join(map(str, row.qubits))),
        Column("USES", lambda row: str(row.uses), right=True),
        *(
            (Column("ROTATIONS", lambda row: str(row.turns) or "-"),)
            if any(each.turns for each in ledger.gates)
            else ()
        ),
    )
    table(ledger.qubits, lambda row: row[1], Column("QUBIT", lambda row: str(row[0])))
    terminal.line()
    terminal.fitted(_advice(ledger), indent=2)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _advice(ledger: ErrorLedger) -> str:
    """Return a sentence about the pair of qubits to avoid."""
    used = [edge for edge in ledger.edges if edge.uses]
    if not used:
        return "no gates on two qubits"
    if ledger.avoid is None:
        return "no pair of qubits stands out"
    worst = ledger.avoid
    a, b = worst.qubits
    others = sorted(edge.loss / edge.uses for edge in used if edge is not worst)
    times = worst.loss / worst.uses / others[len(others) // 2]
    return (
        f"avoid the pair {a}-{b}: {_share(worst.loss / ledger.loss)} of the loss, {times:.1f} times"
        " as much for each use as the median of the other pairs (--qubit-mapping chooses qubits)"
    )
