"""`simenv devices`: list, show, import and remove devices; and Qiskit's Targets as JSON.

`noise_models.importers.qiskit_target` reads the JSON form of a Qiskit Target. Qiskit is imported
here, never by noise_models. Times are in seconds, frequencies in hertz.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from collections.abc import Callable, Iterable
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
    from qiskit.transpiler import Target

    from noise_models.atoms import AnalogCalibration
    from noise_models.calibration import CalibrationSnapshot
    from simulators.hardware.engine import MachineDescription

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


def document(description: MachineDescription, target: Target) -> bytes:
    """Return the JSON of a backend's Target with the backend's description."""
    qubits = [
        {
            "t1_s": _number(getattr(each, "t1", None)),
            "t2_s": _number(getattr(each, "t2", None)),
            "frequency_hz": _number(getattr(each, "frequency", None)),
        }
        for each in target.qubit_properties or ()
    ]
    operations = [each for name in target.operation_names for each in _operations(target, name)]
    return msgspec.json.encode(
        {
            "kind": "qiskit-target", "format": 1, "name": description.model,
            "provider": description.provider, "version": description.version,
            "technology": description.technology, "max_shots": description.max_shots,
            "calibrated": description.calibration_id, "num_qubits": target.num_qubits or 0,
            "dt_s": _number(target.dt), "qubits": qubits, "operations": operations,
        }
    )  # fmt: skip


def _operations(target: Target, name: str) -> list[dict[str, Any]]:
    """Return one entry for each set of qubits, or one with `qubits` null for all."""
    from qiskit.circuit import Gate

    operation = target.operation_from_name(name)
    is_gate = isinstance(operation, Gate)
    angles = [] if not is_gate else [_number(each) for each in operation.params]
    bounds = None
    if hasattr(target, "gate_has_angle_bounds") and target.gate_has_angle_bounds(name):
        bounds = [_bounds(target, name, index, len(angles)) for index in range(len(angles))]
    return [
        {
            "name": name, "gate": is_gate,
            "num_qubits": operation.num_qubits if is_gate else len(qubits or ()),
            "num_params": len(angles), "fixed": any(each is not None for each in angles),
            "angle_bounds": bounds,
            "qubits": None if qubits is None else list(qubits),
            "error": _number(getattr(properties, "error", None)),
            "duration_s": _number(getattr(properties, "duration", None)),
        }
        for qubits, properties in target[name].items()
    ]  # fmt: skip


def _bounds(target: Target, name: str, index: int, count: int) -> list[float] | None:
    """Return the smallest and the largest angle of a gate's parameter, found by bisection: a Target
    only answers whether angles are supported. None: there is no such interval."""
    eighths = [math.pi / 8 * step for step in range(-32, 33)]
    for other in (0.0, math.pi / 8, -math.pi / 8):

        def has(angle: float, rest: float = other) -> bool:
            angles = [rest] * count
            angles[index] = angle
            return bool(target.supported_angle_bound(name, angles))

        supported = [angle for angle in eighths if has(angle)]
        if supported:
            low, high = supported[0], supported[-1]
            ends = [_edge(has, low, low - math.pi / 8), _edge(has, high, high + math.pi / 8)]
            return None if len(supported) == len(eighths) else ends
    return None


def _edge(has: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the last supported angle on the way from one inside to one outside."""
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if has(middle) else (inside, middle)
    return inside


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else None


_MAX_BYTES = 64 * 2**20  # of a file; 1,000 qubits take 2 MB

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
    from noise_models import snapshot as snapshots
    from noise_models.importers import import_snapshot

    if bool(files) == bool(provider):
        raise OptionError("give either FILES or --provider", hint="see: simenv devices import -h")
    values = _provided(provider) if provider else _read(files or [])
    if device:
        config.check_name(device, "device")
    with overview.calibration_errors():
        result, report = import_snapshot(values, source_format, allow_ignored=allow_ignored)
        if device and any(line.field == "name" for line in report.defaulted):
            result = msgspec.structs.replace(result, name=device)  # else it keeps its own name
        if result.analog is not None:
            _check_machine(result.analog)
        result = _laid_out(result)
        data = snapshots.dump(result)
    device = config.check_name(device or result.name.lower().replace(" ", "-"), "device")
    path, replaced = overview.save(device, data)
    done = (
        f"{'replaced' if replaced else 'imported'} {device}: {result.num_qubits}"
        f" {'qubits' if result.analog is None else 'atoms'},"
        f" format {report.format}, snapshot {result.digest.hex()[:12]}"
    )
    answer(context, device, path, result, report, replaced=replaced, done=done)


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
    from simenv.calibration.noise_learner import SOURCE, read_layers

    device = config.check_name(device or name, "device")
    before, _ = overview.load(name)
    (data,) = _read([file]).values()
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


def _laid_out(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Return a snapshot with coordinates: its own, or those of its couplings, computed once."""
    from simenv.transpiler import lattice

    if snapshot.coordinates or not snapshot.coupling or snapshot.num_qubits > lattice.MAX_QUBITS:
        return snapshot
    places = lattice.positions(snapshot.num_qubits, snapshot.coupling).round(3).tolist()
    return msgspec.structs.replace(snapshot, coordinates=tuple((x, y) for x, y in places))


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


def _read(paths: Iterable[Path]) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    for path in paths:
        if path.name in entries:
            raise OptionError(f"two files with the name {path.name}", hint="give each file once")
        try:
            with path.open("rb") as file:
                entries[path.name] = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise OptionError(f"cannot read {path}: {error.strerror}") from error
        if len(entries[path.name]) > _MAX_BYTES:
            hint = "name a file of one device"
            raise OptionError(f"{path} has more than {_MAX_BYTES:,} bytes", hint=hint)
    return entries


def _provided(provider: str) -> dict[str, bytes]:
    """Return the JSON of the Target of the backend that `provider` returns, or of the device of
    pulser that it names."""
    from simulators.hardware.engine import describe

    if not all(provider.partition(":")):
        raise OptionError(f"--provider {provider}", hint="MODULE:FUNCTION")
    if (machine := _machine_of(provider)) is not None:
        return {f"{provider}.json": machine.to_abstract_repr().encode()}
    backend = backend_of(provider)
    return {f"{provider}.json": document(describe(backend, backend.target), backend.target)}


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


def _check_machine(analog: AnalogCalibration) -> None:
    """Raise SnapshotError for a machine that an installed pulser does not take."""
    import importlib.util

    from noise_models.strict_json import SnapshotError
    from simenv.transpiler.atoms import machine_of, pulser_text

    if importlib.util.find_spec("pulser") is None:
        return
    try:
        machine_of(msgspec.json.encode(analog.device).decode())
    except Exception as error:  # pulser raises many types
        text = pulser_text(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise SnapshotError("analog.device", f"refused by pulser: {text[:_CHARS]}") from error


def _plot(name: str, calibration: CalibrationSnapshot, path: Path) -> None:
    def draw() -> None:
        from simenv.cli import plots

        plots.draw_lattice(name, calibration, path)

    terminal.plot(path, "lattice", draw)
