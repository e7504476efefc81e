"""The tables [policies.POOL] of `simenv.toml`: which figures belong to which policy."""

from __future__ import annotations

from collections.abc import Iterable

from simenv.config.names import nearest
from simenv.config.values import Policies
from simenv.errors import ConfigError

ALL = "all"  # the whole environment, in place of a pool
QUEUE_POLICIES = ("priority", "fifo", "ordered", "round_robin")
QUEUE_KEYS = ("priority", "shortest", "longest", "fifo")
ADMISSION_POLICIES = ("unlimited", "credit", "rate")
_FIGURES = {"": (), "unlimited": (), "credit": ("credits",), "rate": ("rate", "span_s")}


def check_policies(name: str, told: Policies, pools: Iterable[str], source: str) -> None:
    """ConfigError names the key, the value and what is allowed."""
    what = f"{source}: policies.{name[:64]}"
    known = (ALL, *pools)
    if name not in known:
        raise ConfigError(f"{what}: there is no such pool", hint=nearest(name, known))
    if told.queue and told.queue not in QUEUE_POLICIES:
        raise _unknown(f"{what}: queue", told.queue, QUEUE_POLICIES)
    if told.keys and told.queue != "ordered":
        raise ConfigError(f"{what}: keys go with queue = 'ordered' alone", hint="leave keys out")
    for key in told.keys:
        if key not in QUEUE_KEYS:
            raise _unknown(f"{what}: keys", key, QUEUE_KEYS)
    if told.admission and told.admission not in ADMISSION_POLICIES:
        raise _unknown(f"{what}: admission", told.admission, ADMISSION_POLICIES)
    for figure in ("credits", "rate", "span_s"):
        value = getattr(told, figure)
        belongs = figure in _FIGURES[told.admission]
        if value < 0 or bool(value) != belongs:
            raise ConfigError(
                f"{what}: {figure} = {value} with admission = {told.admission or 'unsaid'!r}",
                hint="credit needs credits; rate needs rate and span_s; unlimited takes no figures",
            )


def _unknown(what: str, told: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"{what} = {told[:64]!r} is not known", hint=nearest(told, known))
