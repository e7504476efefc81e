"""`simenv certify`: measure a device, and compare it with what its snapshot claims."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.cli.tasks.circuit_input import errors_for_command_line
from simenv.errors import NotAllowedError, NotFoundError, OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.certify import Certificate
    from simenv.model.devices import DeviceInfo

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
        if info.analog is None:
            shots = ExperimentShots(longest_delay_ns=1e9 * longest_delay).scaled(effort)
            result = certify.certify(
                client, device, claimed, qubits=_qubits(qubits), seed=seed, effort=shots,
                progress=details.progress,
            )  # fmt: skip
        else:
            from simenv.calibration import atom_certify
            from simenv.calibration.atom_experiments import AtomShots

            result = atom_certify.certify(
                client, device, claimed, seed=seed, effort=AtomShots().scaled(effort),
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
        if info.logical is not None:
            origin = info.logical
            terminal.line(
                f"the qubits of {device} are logical: these are the errors that decoding leaves of"
                f" the {origin.code} of distance {origin.distance} on {origin.chip}"
            )
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

    if claimed.analog is not None:
        from simenv.calibration import atom_certify

        built = atom_certify.recovered(claimed, certificate.measured.estimates, name)
    else:
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
