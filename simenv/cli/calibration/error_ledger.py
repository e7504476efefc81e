"""`simenv explain CIRCUIT --device D --ledger`: losses of fidelity of a circuit on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.cli.listing import Column, Style, listing
from simenv.cli.output import pictures, terminal
from simenv.cli.tasks.circuit_input import noise_of, read_circuit
from simenv.cli.tasks.circuit_options import errors_for_command_line
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.calibration.ledger.ledger import EdgeLoss, ErrorLedger, GateLoss

_SHOWN = 12  # shown rows of gates and of qubits
_MIXED = "a maximally mixed state: the circuit is too wide for its own"


def show(
    file: str, device: str, noise: str, compiled: str, plot: Path | None, *, as_json: bool
) -> None:
    """Compute the ledger in this process and show it. Raises SimenvError."""
    with errors_for_command_line():
        if plot is not None:
            pictures.require_matplotlib("--plot")
        from simenv.calibration.ledger.circuits import circuit_ledger

        result = circuit_ledger(
            read_circuit(file).program, device, noise=noise_of(noise), compile=compiled
        )
    if as_json:
        terminal.json_line({"device": device, **msgspec.to_builtins(_record(result))})
    else:
        _print(result, "stdin" if file == "-" else file, device)
    if plot is not None:
        from simenv.cli.calibration import ledger_plot

        try:
            with pictures.write_errors(plot):
                ledger_plot.draw(result, f"{Path(file).name} on {device}", plot)
        except ValueError as error:
            raise OptionError(f"--plot {plot}: {error}", hint="a file that ends in .png") from error
        terminal.note(f"{plot} written")


def _record(ledger: ErrorLedger) -> dict[str, Any]:
    """Return the object that --json prints."""
    return {
        "loss": ledger.loss,
        "fidelity": ledger.fidelity,
        "state": ledger.state,
        "components": dict(ledger.components),
        "gates": ledger.gates,
        "edges": [_edge(edge) for edge in ledger.edges],
        "qubits": [{"qubit": qubit, "loss": loss} for qubit, loss in ledger.qubits],
        "avoid": None if ledger.avoid is None else _edge(ledger.avoid),
    }


def _edge(edge: EdgeLoss) -> dict[str, Any]:
    return {**msgspec.structs.asdict(edge), "loss": edge.loss}


def _print(ledger: ErrorLedger, file: str, device: str) -> None:
    state = "the ideal state" if ledger.state == "ideal" else _MIXED
    terminal.fitted(
        f"{file} on {device}: fidelity about {ledger.fidelity:.4f}, a loss of {ledger.loss:.3g}"
        f" (first order, for {state})",
        indent=2,
    )
    style = Style(False, aligned=True)
    full = ledger.loss or 1.0
    components: tuple[Column[tuple[str, float]], ...] = (
        Column("COMPONENT", lambda row: row[0]),
        Column("LOSS", lambda row: f"{row[1]:.2e}", right=True),
        Column("SHARE", lambda row: _share(row[1] / full), right=True),
    )
    gates: tuple[Column[GateLoss], ...] = (
        Column("GATE", lambda row: row.name),
        Column("QUBITS", lambda row: "-".join(map(str, row.qubits))),
        Column("USES", lambda row: str(row.uses), right=True),
        Column("LOSS", lambda row: f"{row.loss:.2e}", right=True),
        Column("SHARE", lambda row: _share(row.loss / full), right=True),
    )
    qubits: tuple[Column[tuple[int, float]], ...] = (
        Column("QUBIT", lambda row: str(row[0])),
        Column("LOSS", lambda row: f"{row[1]:.2e}", right=True),
        Column("SHARE", lambda row: _share(row[1] / full), right=True),
    )
    for columns, rows in ((components, ledger.components), (gates, ledger.gates)):
        terminal.line()
        listing(columns, style, lambda rows=rows: rows[:_SHOWN])  # type: ignore[misc]
    terminal.line()
    listing(qubits, style, lambda: ledger.qubits[:_SHOWN])
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
        " as much for each use as the median of the other pairs (qubit_mapping= chooses qubits)"
    )
