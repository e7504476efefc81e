"""`simenv devices`: list, show, import and remove devices."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from simenv import config
from simenv.calibration import device_files
from simenv.cli import app, terminal
from simenv.cli.devices import details, overview
from simenv.cli.devices.encode import encode
from simenv.cli.devices.link import link
from simenv.cli.devices.new import answer, new
from simenv.cli.listing import Columns, NoHeader, Style, Watch, listing
from simenv.errors import ConfigError, NotFoundError, OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

_CHARS = 300  # of a provider's error message


def backend_of(provider: str) -> Any:
    """Return the backend that the function of `module:function` returns. The module is searched in
    installed packages, then in the working directory. Raises ConfigError."""
    if (cwd := str(Path.cwd())) not in sys.path:
        sys.path.append(cwd)
    module, _, function = provider.partition(":")
    try:
        backend = getattr(importlib.import_module(module), function)()
        if not hasattr(backend, "target"):
            raise TypeError(f"it returned a {type(backend).__name__}, no BackendV2 of Qiskit")
    except Exception as error:  # a provider may raise anything
        message = " ".join(f"{type(error).__name__}: {error}".split())[:_CHARS]
        raise ConfigError(f"provider {provider}: {message}") from error
    return backend


devices = typer.Typer(help="List devices; import, show and remove calibration data.")

Name = Annotated[str, typer.Argument(help="A name that `simenv devices` lists.")]


@devices.callback(invoke_without_command=True)
def list_devices(
    context: typer.Context,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also read every device of an installed qiskit-ibm-runtime."),
    ] = False,
) -> None:
    """List pools as devices, imported devices, and bundled profiles."""
    if context.invoked_subcommand is not None:
        return
    common = app.settings_of(context)
    style = Style(common.as_json, columns, no_header, watch)
    with overview.environment(common) as client:
        result = overview.Overview(client, every)
        listing(overview.columns(result), style, result.rows)


@devices.command("import")
def import_device(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of one device, e.g. props_x.json conf_x.json.", dir_okay=False),
    ] = None,
    device: Annotated[
        str, typer.Option("--name", help="Name of the device; by default that in the files.")
    ] = "",
    source_format: Annotated[
        str, typer.Option("--format", help="Format of the files; by default it is detected.")
    ] = "auto",
    provider: Annotated[
        str,
        typer.Option(
            help="MODULE:FUNCTION that returns a Qiskit BackendV2, whose Target is read instead"
            " of files; or MODULE:NAME of a device of Pulser, as pulser:AnalogDevice."
        ),
    ] = "",
    allow_ignored: Annotated[
        bool,
        typer.Option(
            "--allow-ignored",
            help="Accept fields that look like noise and that the format does not have.",
        ),
    ] = False,
) -> None:
    """Import calibration data as a device, and report which fields were used."""
    from simenv.calibration.device_import import import_device as imported

    if bool(files) == bool(provider):
        raise OptionError("give either FILES or --provider", hint="see: simenv devices import -h")
    source = _provided(provider) if provider else files
    with overview.calibration_errors():
        made = imported(source, device, source_format=source_format, allow_ignored=allow_ignored)
    result, report, saved = made.snapshot, made.report, overview.noted(made.name, made.saved)
    done = (
        f"{'replaced' if saved.replaced else 'imported'} {made.name}: {result.num_qubits}"
        f" {'qubits' if result.analog is None else 'atoms'},"
        f" format {report.format}, snapshot {result.digest.hex()[:12]}"
    )
    answer(context, made.name, saved.path, result, report, replaced=saved.replaced, done=done)


devices.command("new")(new)
devices.command("link")(link)
devices.command("encode")(encode)


@devices.command()
def layers(
    context: typer.Context,
    name: Name,
    file: Annotated[
        Path,
        typer.Argument(
            help="Result of qiskit-ibm-runtime's NoiseLearner, as its RuntimeEncoder writes JSON.",
            dir_okay=False,
        ),
    ],
    date: Annotated[str, typer.Option(help="When the errors were learned, ISO 8601.")] = "",
    device: Annotated[
        str, typer.Option("--to", help="Name of a new device that gets them; by default NAME.")
    ] = "",
) -> None:
    """Add learned errors of layers to a device: gates that act at the same time."""
    from noise_models import snapshot as snapshots
    from noise_models.layers import with_layers
    from simenv.calibration.device_import import read_files
    from simenv.calibration.noise_learner import SOURCE, read_layers

    device = config.check_name(device or name, "device")
    before, _ = overview.load(name)
    (data,) = read_files([file]).values()
    source = f"{SOURCE}, {hashlib.sha256(data).hexdigest()[:12]}"
    with overview.calibration_errors(str(file)):
        learned = read_layers(data, calibrated=date, source=source)
        result = with_layers(before, learned)
        body = snapshots.dump(result)
    path, _ = overview.save(device, body)
    replaced = len(before.layers) + len(learned) - len(result.layers)
    value = {
        "name": device, "file": str(path), "digest": result.digest.hex(),
        "added": len(learned) - replaced, "replaced": replaced, "layers": len(result.layers),
    }  # fmt: skip
    done = f"{terminal.counted(len(learned), 'layer')} of {device}, {replaced} of them replaced"
    app.settings_of(context).answer(
        value, [done, *(f"  {each}" for each in details.layer_lines(learned))]
    )


@devices.command()
def refresh(context: typer.Context, name: Name) -> None:
    """Run the command that fetches a device's calibration data now: `refresh` of [devices.NAME]."""
    from simenv.service.devices.refresh import refresh_now

    common = app.settings_of(context)
    path = config.home_root() / common.environment / "config.json"
    settings = config.read(path).devices.get(name)
    if settings is None:
        hint = "a table [devices.NAME] with refresh = COMMAND; simenv up reads it"
        raise NotFoundError(f"device {name!r} has no refresh in {path}", hint=hint)
    outcome = refresh_now(name, device_files.folder(), settings)
    if outcome.error:
        raise ConfigError(f"{outcome.error}; device {name} is kept", hint=outcome.hint)
    state = "changed" if outcome.changed else "unchanged"
    common.answer(
        msgspec.to_builtins(outcome),
        [
            f"{state} {name}: {outcome.num_qubits} qubits, snapshot {outcome.digest[:12]}",
            *(f"the device does not have {line}" for line in outcome.missing),
            f"values used {outcome.used}, ignored {outcome.ignored},"
            f" defaulted {outcome.defaulted}, clamped {outcome.clamped}",
        ],
    )


@devices.command()
def show(
    context: typer.Context,
    name: Name,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the lattice into this PNG file (needs matplotlib).")
    ] = None,
    qubit: Annotated[
        int | None, typer.Option(min=0, help="Show the values of one qubit and of its gates.")
    ] = None,
) -> None:
    """Show calibration data: medians, and the lattice coloured by error."""
    from simenv.cli.devices import drawing

    result, source = overview.load_shown(name, app.settings_of(context))
    if plot is not None:
        _plot(name, result, plot)
    if qubit is not None and qubit >= result.num_qubits:
        raise OptionError(f"--qubit {qubit}: {name} has {result.num_qubits} qubits")
    if app.settings_of(context).as_json:
        terminal.json_line(details.as_object(name, result, source, qubit))
        return
    if qubit is not None:
        details.show_qubit(result, qubit)
        return
    details.show(name, result, source)
    if result.analog is None:
        drawing.show(result)


@devices.command()
def remove(context: typer.Context, name: Name) -> None:
    """Remove an imported device. Running tasks are not affected."""
    path = device_files.remove(name)
    value = {"name": name, "file": str(path), "removed": True}
    app.settings_of(context).answer(value, [f"device {name} is removed"])


def _provided(provider: str) -> Any:
    """Return the backend of Qiskit, or the device of pulser, that `provider` names."""
    if not all(provider.partition(":")):
        raise OptionError(f"--provider {provider}", hint="MODULE:FUNCTION")
    machine = _machine_of(provider)
    return backend_of(provider) if machine is None else machine


def _machine_of(provider: str) -> Any:
    """Return the device of pulser with this name; None: the name is of something else."""
    module, _, name = provider.partition(":")
    if module.partition(".")[0] != "pulser":
        return None
    try:
        result = getattr(importlib.import_module(module), name)
        return (
            result if hasattr(result, "to_abstract_repr") and hasattr(result, "channels") else None
        )
    except (ImportError, AttributeError) as error:
        hint = "pip install 'simenv[analog]'; such as pulser:AnalogDevice"
        raise ConfigError(f"provider {provider}: {error}"[:_CHARS], hint=hint) from error


def _plot(name: str, calibration: CalibrationSnapshot, path: Path) -> None:
    def draw() -> None:
        from simenv.cli import plots

        plots.draw_lattice(name, calibration, path)

    terminal.plot(path, "lattice", draw)
