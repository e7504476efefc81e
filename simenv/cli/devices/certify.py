"""`simenv certify`, and error ledgers of circuits.

`simenv certify` measures a device and compares it with what its snapshot claims. `simenv explain
CIRCUIT --device D --ledger` prints the losses of fidelity of a circuit on a device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.cli.listing import Column, Style, listing
from simenv.cli.tasks.circuit_input import errors_for_command_line, noise_of, read_circuit
from simenv.errors import NotAllowedError, NotFoundError, OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.certify import Certificate
    from simenv.calibration.ledger import EdgeLoss, ErrorLedger
    from simenv.model.views import DeviceInfo

_WORKERS = 2  # workers of a private environment


def certify(
    context: typer.Context,
    device: Annotated[str, typer.Argument(help="Device or pool that `simenv devices` lists.")],
    qubits: Annotated[
        str, typer.Option(help="Qubits such as 0-6,9 and the pairs among them; by default all.")
    ] = "",
    claims: Annotated[
        str, typer.Option(help="Device whose snapshot is compared; by default that of DEVICE.")
    ] = "",
    plot: Annotated[
        Path | None, typer.Option(help="Draw claimed against recovered into this PNG file.")
    ] = None,
    out: Annotated[
        str, typer.Option(help="Save the recovered snapshot as a device of this name.")
    ] = "",
    effort: Annotated[float, typer.Option(min=0.01, help="Factor of all numbers of shots.")] = 1.0,
    longest_delay: Annotated[
        float,
        typer.Option(
            min=1e-5, help="Longest delay, s; a longer T1 or T2 is confirmed by a lower limit."
        ),
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sequences and shots.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="Print every quantity.")] = False,
) -> None:
    """Measure a device by benchmarking; compare the values with its calibration snapshot.

    Exits with 1 where a quantity is outside its bound or is not resolved.
    """
    common = app.settings_of(context)
    if out:
        config.check_name(out, "device")
    with errors_for_command_line(), contextlib.ExitStack() as stack:
        from simenv.calibration import certify
        from simenv.calibration.experiments.procedure import ExperimentShots
        from simenv.cli import execute
        from simenv.cli.devices import details

        client = execute.client_of(common, stack)
        if client is None:
            client = stack.enter_context(execute.started(_WORKERS))
        info, _ = certify.device_under_test(client, device)
        claimed = _claims(claims, device, info)
        shots = ExperimentShots(longest_delay_ns=1e9 * longest_delay).scaled(effort)
        result = certify.certify(
            client, device, claimed, qubits=_qubits(qubits), seed=seed, effort=shots,
            progress=details.progress,
        )  # fmt: skip
        with contextlib.suppress(NotAllowedError, NotFoundError):  # it is no pool's device
            client.record_device_figure(device, "certified", result.confirmed)
        if out:
            _save(out, result, claimed, info)
        if plot is not None:
            _plot(result, plot)
    if common.as_json:
        details.as_json(result)
    else:
        details.show_certificate(result, every=every)
    if not result.passed:
        raise typer.Exit(1)


def _claims(name: str, device: str, info: DeviceInfo) -> CalibrationSnapshot:
    """Return the snapshot to compare with. Raises NotFoundError for an unknown name."""
    from simenv.calibration.certify import published

    if name:
        return overview.load(name)[0]
    for candidate in (device, info.model):
        with contextlib.suppress(NotFoundError):
            snapshot = overview.load(candidate)[0]
            if snapshot.digest.hex() == info.calibration_id:
                return snapshot
    return published(info)


def _save(
    name: str, certificate: Certificate, claimed: CalibrationSnapshot, info: DeviceInfo
) -> None:
    from noise_models import snapshot
    from simenv.calibration.certify import recovered

    built = recovered(claimed, certificate.measured, time.time(), name)
    path, replaced = overview.save(name, snapshot.dump(built))
    action = "replaced" if replaced else "saved"
    terminal.note(f"{action} device {name}, the recovered snapshot of {info.name}: {path}")


def _qubits(text: str) -> list[int] | None:
    """Parse a list of numbers such as 0-6,9; None for "". Raises OptionError."""
    if not text:
        return None
    results: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"--qubits {text!r:.80}", hint="numbers and ranges, such as 0-6,9")
        results += range(int(first), int(last or first) + 1)
    return results


def _plot(certificate: Certificate, path: Path) -> None:
    """Draw the certificate. Raises ConfigError, OptionError."""

    def draw() -> None:
        from simenv.cli import plots

        plots.draw_certificate(certificate, path)

    terminal.plot(path, "certificate", draw)


_SHOWN = 12  # shown rows of gates and of qubits
_MIXED = "a maximally mixed state: the circuit is too wide for its own"


def show(
    file: str, device: str, noise: str, compiled: str, plot: Path | None, *, as_json: bool
) -> None:
    """Compute the ledger in this process and show it. Raises SimenvError."""
    with errors_for_command_line():
        if plot is not None:
            terminal.require_matplotlib("--plot")
        from simenv.calibration.ledger import circuit_ledger

        result = circuit_ledger(
            read_circuit(file).program, device, noise=noise_of(noise), compile=compiled
        )
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
