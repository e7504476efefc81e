"""`simenv devices link`: a device of several QPUs and the links between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.errors import OptionError

if TYPE_CHECKING:
    from noise_models.linked import LinkDesign

_FIELDS = ("fidelity", "rate_hz", "herald_ns", "latency_ns", "attempts_max")
_LINK_HINT = "a.0-b.0:fidelity=0.97,rate_hz=1e5"


def link(
    context: typer.Context,
    modules: Annotated[
        list[str], typer.Argument(metavar="NAME=DEVICE...", help="Each module and its device.")
    ],
    device: Annotated[str, typer.Option("--name", help="Name of the new device.")],
    links: Annotated[
        list[str],
        typer.Option(
            "--link",
            metavar="A.Q-B.Q:FIELD=VALUE,...",
            help="Link of two qubits; may be repeated. Fields: fidelity or the probabilities of"
            " Pauli errors (IZ=0.02), rate_hz, herald_ns, latency_ns, attempts_max.",
        ),
    ],
) -> None:
    """Join QPUs to one device by links that make Bell pairs.

    The ends of links are communication qubits, which hold no data.
    """
    from noise_models import linked, snapshot as snapshots

    config.check_name(device, "device")
    devices: dict[str, str] = {}
    for text in modules:
        key, equals, module = text.partition("=")
        if not equals or not module or key in devices:
            raise OptionError(f"module {text[:80]!r}", hint="NAME=DEVICE, each name once")
        devices[key] = module
    with overview.calibration_errors():
        loaded = {key: overview.load(module)[0] for key, module in devices.items()}
        result = linked.linked(device, loaded, [_design(text) for text in links])
        data = snapshots.dump(result)
    path, replaced = overview.save(device, data)
    count, ends = len(result.links), len({q for each in result.links for q in each.pair})
    answer = {
        "name": device, "file": str(path), "replaced": replaced, "digest": result.digest.hex(),
        "num_qubits": result.num_qubits, "modules": devices, "links": count,
    }  # fmt: skip
    verb, parts = "replaced" if replaced else "made", terminal.counted(len(devices), "module")
    text = (
        f"{verb} {device}: {parts}, {terminal.counted(result.num_qubits, 'qubit')},"
        f" {terminal.counted(count, 'link')} of {terminal.counted(ends, 'communication qubit')}"
    )
    app.settings_of(context).answer(answer, [text])


def _design(text: str) -> LinkDesign:
    """Parse a link. Raises OptionError."""
    from noise_models import linked
    from noise_models.calibration import PauliError

    ends, _, values = text.partition(":")
    found = linked.LINK_ENDS.fullmatch(ends)
    numbers: dict[str, float] = {}
    for item in filter(None, values.split(",")):
        key, _, value = item.partition("=")
        is_pauli = len(key) == 2 and not key.strip("IXYZ")
        try:
            if key in numbers or not (is_pauli or key in _FIELDS):
                raise ValueError(key)
            numbers[key] = float(value)
            if not math.isfinite(numbers[key]):
                raise ValueError(value)
        except ValueError:
            hint = (
                f"{', '.join(_FIELDS)}, or two letters of I, X, Y and Z, with a finite number each"
            )
            raise OptionError(f"--link {text[:80]!r}: {item[:40]!r}", hint=hint) from None
    if found is None:
        raise OptionError(f"--link {text[:80]!r} names no two qubits", hint=_LINK_HINT)
    attempts = numbers.pop("attempts_max", 0.0)
    if attempts != round(attempts):
        raise OptionError(f"--link {text[:80]!r}: attempts_max is no whole number", hint=_LINK_HINT)
    fields: dict[str, Any] = {key: numbers.pop(key) for key in _FIELDS if key in numbers}
    paulis = tuple(PauliError(key, value) for key, value in numbers.items())
    return linked.LinkDesign(
        (found[1], found[2]), paulis=paulis, attempts_max=int(attempts), **fields
    )
