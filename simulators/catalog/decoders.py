"""Catalog of decoders of detection events: all that the service reads about them; imports none.

A distribution adds a decoder by an entry point of the group `simenv.decoders` that names a
`DecoderCard`.
"""

from __future__ import annotations

import functools

import msgspec

from simulators.catalog.cards import Package
from simulators.catalog.installed import installed
from simulators.errors import Unsupported

ENTRY_POINTS = "simenv.decoders"


class DecoderCard(msgspec.Struct, frozen=True):
    """A decoder of detection events. `module`: `package.module:Class`, see
    `simulators.stabilizer.decoders.DecoderFactory`. `decomposed`: its error models have errors
    split into parts that flip at most two detectors. `distinct`: it takes so long for a shot that
    each distinct syndrome is decoded once. The first module of `package` is named in results, with
    its version."""

    name: str
    module: str
    summary: str
    package: Package
    decomposed: bool = True
    distinct: bool = False

    @property
    def missing(self) -> str:
        """Command that installs the decoder; "" if it is installed."""
        return self.package.missing


_QEC = Package(("pymatching",), "pip install 'simenv[qec]'")
_PLACE = "simulators.stabilizer.decoders"
LDPC = DecoderCard(
    "ldpc",
    f"{_PLACE}:BeliefPropagation",
    "belief propagation and ordered statistics (BP+OSD), by ldpc",
    Package(("ldpc",), "pip install 'simenv[ldpc]'"),
    decomposed=False,
    distinct=True,
)
BUILTIN: tuple[DecoderCard, ...] = (
    DecoderCard(
        "pymatching",
        f"{_PLACE}:Matching",
        "minimum-weight perfect matching, by PyMatching",
        _QEC,
    ),
    DecoderCard(
        "pymatching-correlated",
        f"{_PLACE}:CorrelatedMatching",
        "matching in two passes, of which the first changes weights for the second",
        _QEC,
    ),
    LDPC,
    DecoderCard(
        "pymatching-sequential",
        "simulators.stabilizer.sequential_matching:SequentialMatching",
        "matching of one patch after the other, in the order of the detectors' coordinates",
        _QEC,
        decomposed=False,
    ),
)


@functools.cache
def decoder_cards() -> tuple[DecoderCard, ...]:
    """Cards of this distribution, then of the entry points by name. Raises Unsupported for an entry
    point that names no card, or whose name is taken."""
    return installed(BUILTIN, DecoderCard, ENTRY_POINTS, things="decoders", no="no")


def decoder_card(name: str) -> DecoderCard:
    """Card of an installed decoder. Raises Unsupported for an unknown name, and for a decoder whose
    packages are missing, with the command that installs them."""
    found = next((each for each in BUILTIN if each.name == name), None)
    found = found or next((each for each in decoder_cards() if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in decoder_cards())
        raise Unsupported(f"there is no decoder {name[:64]!r}", hint=f"one of: {names}; or None")
    if found.missing:
        text = f"decoder {name!r} needs {', '.join(found.package.modules)}"
        raise Unsupported(text, hint=found.missing)
    return found
