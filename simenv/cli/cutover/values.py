"""What was seen of one pool through its QPM, and what came of comparing two. Frozen, no I/O."""

from __future__ import annotations

import enum

import msgspec


class Source(msgspec.Struct, frozen=True):
    """A circuit as a host hands it over. `format`: openqasm2 or openqasm3."""

    name: str
    text: str
    format: str = "openqasm2"


class Answer(msgspec.Struct, frozen=True):
    """How one call ended. `outcome`: of an envelope, or the error's class and reason as a host
    of the transport sees it; `shape`: see `shapes.shape`; `words`: for people."""

    call: str
    outcome: str
    shape: dict[str, str] = {}
    words: str = ""


class Ran(msgspec.Struct, frozen=True):
    """One circuit. `states`: those of its envelope that were seen, which depends on the moment;
    `reached`: its times that were reached, in the order of their clocks; `form`: of its outcomes,
    such as "2+1 bits"; `words`: why it has no counts."""

    circuit: str
    outcome: str
    states: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    form: str = ""
    engine: str = ""
    route: str = ""
    remark: str = ""
    words: str = ""


class Observed(msgspec.Struct, frozen=True):
    """All of one pool. `facts`: what it says of itself, by name."""

    pool: str
    answers: tuple[Answer, ...]
    runs: tuple[Ran, ...]
    facts: dict[str, str]


class Aspect(enum.StrEnum):
    """What a row is about."""

    CALL = "call"
    STATES = "states"
    TIMES = "times"
    DEVICE = "device"
    COUNTS = "counts"
    ROUTE = "route"


class Finding(enum.StrEnum):
    """What a row says."""

    SAME = "same"
    BEHAVIOUR = "behaviour"  # an application can trip over it
    FACT = "fact"  # only who asks learns it
    NOISE = "noise"  # counts as different as two samples of one distribution are
    COUNTS = "counts"  # more than that
    BOUND = "bound"  # and more than was allowed


class Distance(msgspec.Struct, frozen=True):
    """How far two samples lie apart, beside what shot noise alone makes of one distribution: its
    mean, and `most`, mean plus five standard deviations."""

    total_variation: float
    hellinger: float
    noise_total_variation: float
    noise_hellinger: float
    most_total_variation: float
    most_hellinger: float

    @property
    def is_noise(self) -> bool:
        return (
            self.total_variation <= self.most_total_variation
            and self.hellinger <= self.most_hellinger
        )


class Row(msgspec.Struct, frozen=True):
    """One thing looked at on both pools."""

    aspect: Aspect
    what: str
    first: str
    second: str
    finding: Finding
    distance: Distance | None = None


class Comparison(msgspec.Struct, frozen=True):
    """All rows. Alike: no application can tell, except by asking or by statistics."""

    first: str
    second: str
    rows: tuple[Row, ...]

    def count(self, finding: Finding) -> int:
        return sum(row.finding is finding for row in self.rows)

    @property
    def alike(self) -> bool:
        return not self.count(Finding.BEHAVIOUR) and not self.count(Finding.BOUND)
