"""Parse the drift of a pool's device: `replay` or `walk`, and `key=value` pairs joined by colons.

`replay:factor=86400` replays the dated snapshots of the device's folder, one day per second.
`walk:seed=7:every_s=3600:spread=0.1` is a random walk. `outages=7200+600/90000+60`: begins and
lengths in seconds of the device's time, from the start of the drift.
"""

from __future__ import annotations

import msgspec

from simenv.config.syntax import nearest
from simenv.errors import ConfigError

KINDS = ("replay", "walk")
_OF_WALK = ("seed", "every_s", "spread")
MAX_FACTOR = 1e9
EXAMPLE = "walk:seed=7:every_s=3600:spread=0.1:factor=60:outages=7200+600"


class DriftSpec(msgspec.Struct, frozen=True):
    """Drift of the device of a pool."""

    kind: str
    factor: float = 1.0  # seconds of the device in one second of the clock
    seed: int = 0
    every_s: float = 3600.0  # of the device's time, between two steps of a walk
    spread: float = 0.1  # relative standard deviation of each value of a walk
    outages: tuple[tuple[float, float], ...] = ()  # begin and length


def drift_of(text: str, source: str) -> DriftSpec:
    """Parse the value of `drift`. Raises ConfigError, which names the key, the value and the
    allowed ones."""
    kind, *pairs = text.split(":")
    if kind not in KINDS:
        raise ConfigError(
            f"{source}: drift = {text[:80]!r} is not known", hint=nearest(kind[:64], KINDS)
        )
    values: dict[str, object] = {"kind": kind}
    keys = [key for key in DriftSpec.__struct_fields__[1:] if kind == "walk" or key not in _OF_WALK]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in keys or key in values:
            raise ConfigError(
                f"{source}: drift: {pair[:80]!r} is not understood",
                hint=f"{kind} has {', '.join(keys)}, each once; {EXAMPLE}",
            )
        values[key] = _outages(value, source) if key == "outages" else value
    try:
        result = msgspec.convert(values, DriftSpec, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: drift: {error}", hint=EXAMPLE) from error
    if not (
        0 < result.factor <= MAX_FACTOR
        and 0 < result.every_s <= MAX_FACTOR
        and 0 <= result.spread <= 2
        and 0 <= result.seed < 2**63
    ):
        raise ConfigError(
            f"{source}: drift = {text[:80]!r} is out of range",
            hint="factor and every_s above 0, at most 1e9; spread 0 to 2; seed 0 or more",
        )
    return result


def _outages(text: str, source: str) -> tuple[tuple[float, float], ...]:
    results = []
    for part in text.split("/"):
        begin, _, length = part.partition("+")
        try:
            pair = float(begin), float(length)
        except ValueError:
            pair = (-1.0, 0.0)
        if not (0 <= pair[0] <= 1e12 and 0 < pair[1] <= 1e12):
            raise ConfigError(
                f"{source}: drift: outages={text[:80]!r} is not understood", hint=EXAMPLE
            )
        results.append(pair)
    return tuple(sorted(results))
