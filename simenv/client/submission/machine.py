"""Machines of several QPUs that a program describes: devices by name, and the links between them.

The service joins the devices, as calibrated when it receives the description, and stores the result
as it stores noise documents; its name is that of its digest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import msgspec

from simenv.errors import OptionError
from simenv.text import short_repr

_HINT = 'Machine({"a": "fez", "b": "torino"}, links=[Link("a.0", "b.0", fidelity=0.97)])'


@dataclass(frozen=True, slots=True)
class Link:
    """A source of Bell pairs of two qubits, such as `a.0` and `b.0`, and the classical channel
    beside it. One of `fidelity` (of a Werner state) and `paulis` is given.

    `paulis`: probabilities of the Pauli errors of a pair, such as `{"IZ": 0.02}`; `rate_hz`: 1 /
    mean time of the attempts that fail, None: none does; `herald_ns`: time of one attempt with its
    herald; `latency_ns`: of a classical message; `attempts_max`: after which a shot is given up, 0:
    no limit."""

    first: str
    second: str
    fidelity: float | None = None
    paulis: Mapping[str, float] | None = None
    rate_hz: float | None = None
    herald_ns: float = 0.0
    latency_ns: float = 0.0
    attempts_max: int = 0


def _check_values(link: Link) -> None:
    """Raise OptionError for values that JSON cannot carry: it has null in place of NaN and of
    infinities, which would be a value that was not given."""
    label = f"link {link.first}-{link.second}"
    if link.paulis is not None and not isinstance(link.paulis, Mapping):
        hint = 'probabilities by Pauli error: {"IZ": 0.02}'
        raise OptionError(f"{label}: paulis={short_repr(link.paulis)}", hint=hint)
    values = {field.name: getattr(link, field.name) for field in fields(link)}
    for name, value in (*values.items(), *(link.paulis or {}).items()):
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{label}: {name}={value}", hint="a finite number")


class Machine:
    """QPUs, each a device by its name, with links between them: one device for `device=`."""

    def __init__(
        self, modules: Mapping[str, str], links: Iterable[Link], name: str = "machine"
    ) -> None:
        """`modules`: the device of each module, by the module's name. Raises OptionError for values
        of other types; the service checks the rest when the machine is first used."""
        try:
            self.modules, self.links, self.name = dict(modules), tuple(links), name
        except (TypeError, ValueError):
            text = f"modules={short_repr(modules)}, links={short_repr(links)}"
            raise OptionError(text, hint=_HINT) from None
        if not all(isinstance(text, str) for item in self.modules.items() for text in item):
            raise OptionError(f"modules={short_repr(self.modules)}", hint=_HINT)
        for each in self.links:
            if not isinstance(each, Link):
                raise OptionError(f"link {short_repr(each)}", hint=_HINT)
            _check_values(each)

    def document(self) -> bytes:
        """Return the JSON that the service reads."""
        links = []
        for each in self.links:
            paulis = [{"pauli": p, "probability": v} for p, v in (each.paulis or {}).items()]
            values = {
                "ends": [each.first, each.second], "fidelity": each.fidelity, "paulis": paulis,
                "rate_hz": each.rate_hz, "herald_ns": each.herald_ns,
                "latency_ns": each.latency_ns, "attempts_max": each.attempts_max,
            }  # fmt: skip
            links.append(values)
        machine = {"kind": "machine", "name": self.name, "modules": self.modules, "links": links}
        try:
            return msgspec.json.encode(machine)
        except (TypeError, ValueError) as error:
            raise OptionError(f"links={short_repr(self.links)}: {error}", hint=_HINT) from error

    def __repr__(self) -> str:
        joined = ", ".join(f"{each.first}-{each.second}" for each in self.links)
        return f"<Machine {self.name}: {', '.join(self.modules)} | {joined}>"
