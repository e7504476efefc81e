"""Machines of several QPUs that a program describes: devices by name, and the links between them.

The service joins the devices, as calibrated when it receives the description, and stores the result
as it stores noise documents; its name is that of its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


class Machine:
    """QPUs, each a device by its name, with links between them: one device for `device=`."""

    def __init__(
        self, modules: Mapping[str, str], links: Iterable[Link], name: str = "machine"
    ) -> None:
        """`modules`: the device of each module, by the module's name. Raises OptionError for values
        of other types; the service checks the rest when the machine is first used."""
        self.modules, self.links, self.name = dict(modules), tuple(links), name
        if not all(isinstance(text, str) for item in self.modules.items() for text in item):
            raise OptionError(f"modules={short_repr(self.modules)}", hint=_HINT)
        if not all(isinstance(each, Link) for each in self.links):
            raise OptionError(f"links={short_repr(self.links)}", hint=_HINT)

    def document(self) -> bytes:
        """Return the JSON that the service reads."""
        links = []
        for each in self.links:
            paulis = [{"pauli": p, "probability": v} for p, v in (each.paulis or {}).items()]
            fields = {
                "ends": [each.first, each.second], "fidelity": each.fidelity, "paulis": paulis,
                "rate_hz": each.rate_hz, "herald_ns": each.herald_ns,
                "latency_ns": each.latency_ns, "attempts_max": each.attempts_max,
            }  # fmt: skip
            links.append(fields)
        machine = {"kind": "machine", "name": self.name, "modules": self.modules, "links": links}
        try:
            return msgspec.json.encode(machine)
        except (TypeError, ValueError) as error:
            raise OptionError(f"links={short_repr(self.links)}: {error}", hint=_HINT) from error

    def __repr__(self) -> str:
        joined = ", ".join(f"{each.first}-{each.second}" for each in self.links)
        return f"<Machine {self.name}: {', '.join(self.modules)} | {joined}>"
