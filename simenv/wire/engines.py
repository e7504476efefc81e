"""Questions about engines, and their answers: a part of `messages`."""

from __future__ import annotations

import msgspec

from simenv.model import EngineInfo, Terms
from simenv.wire.numbers import Number


class GetEngines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    request: Number


class Engines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """In the order of preference; one that is not installed says what is missing."""

    request: int
    engines: list[EngineInfo]


class Explain(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Which engine would run this program, and why; nothing is run. Answered by Explained."""

    request: Number
    terms: Terms
    program: bytes
    shots: Number
    count: Number = 1  # bindings


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """One engine that was considered."""

    engine: str
    chosen: bool
    able: bool  # it could run the program
    why: str  # it was chosen, or was not
    hint: str  # what would change that; "" if nothing would
    pool: str  # "": it is able to run nowhere
    memory_bytes: int  # of each rank; 0: unknown, it is not able
    seconds: float  # expected, of all bindings on one slot
    reproducible: bool  # the same bits on every machine and version
    ranks: int = 1
    nodes: int = 1  # that its ranks would be on, with nothing else about


class Sizes(msgspec.Struct, frozen=True, array_like=True):
    """What was looked at of the program."""

    num_qubits: int
    operations: int
    gates_1q: int
    gates_2q: int
    gates_many: int
    measurements: int
    dynamic: bool  # it measures, resets or branches before its end
    clifford: bool
    bond_bits: int  # at most 2 to this power values cross any cut between its qubits; -1: unknown


class Explanation(msgspec.Struct, frozen=True, array_like=True):
    """The engines considered, the chosen one first."""

    sizes: Sizes
    engines: list[Choice]

    @property
    def engine(self) -> str:
        """The chosen engine; "" if none can run the program here."""
        return next((each.engine for each in self.engines if each.chosen), "")


class Explained(msgspec.Struct, frozen=True, array_like=True, tag=24):
    request: int
    explanation: Explanation
