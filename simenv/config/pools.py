"""Parse pools: a table of `simenv.toml`, or NAME:key=value,... of a command line.

Both have the same keys. `workers=N` means min=N,max=N; `workers=auto` means one worker for each
GPU. `memory` is a size. Node patterns are joined by `+` on a command line, where a comma separates
keys, and are a list in `simenv.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from simenv.config.commands import EXTERNAL, check_command
from simenv.config.drift import drift_of
from simenv.config.syntax import check_name, nearest, size
from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.model.task_rules import MAX_RANKS, MAX_WORKERS

KEYS = (
    *("name", "engine", "workers", "min", "max", "ranks", "memory", "idle_s", "nodes"),
    *("provider", "device", "pace", "drift", "command"),
)
AUTO = "auto"  # of workers: one for each GPU
MAX_IDLE_S = 10**8
_EXAMPLE = "NAME:engine=statevector,workers=4,ranks=2,memory=2GiB,nodes=gpu*+node7"
_ON_DEMAND = re.compile(r"(.+)\.x\d+\Z")
MACHINE = "hardware"  # the engine whose one worker holds a machine
_PROVIDER = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*\Z")
_PROVIDER_CHARS = 256
_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9_.*?-]{0,254}\Z")


def pool_text(text: str) -> PoolSpec:
    """Parse `NAME:engine=E,workers=N`. Raises ConfigError."""
    name, _, rest = text.partition(":")
    settings: dict[str, object] = {"name": name}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or key == "name":
            raise ConfigError(f"--pool {text[:80]!r}: {part!r} is not understood", hint=_EXAMPLE)
        if key in settings:
            raise ConfigError(f"--pool {text[:80]!r}: {key} is given twice")
        if key == "device" and not value:
            raise ConfigError(f"--pool {text[:80]!r}: device is empty", hint="device=NAME, or none")
        settings[key] = value
    return pool_of(settings, f"--pool {text[:80]!r}")


def pool_of(table: Mapping[str, object], source: str) -> PoolSpec:
    """Return the pool that a table specifies; its values may be text. Raises ConfigError, which
    names the key, the value and the allowed values."""
    values = dict(table)
    if "memory_bytes" in values:  # its name in a PoolSpec
        values["memory"] = values.pop("memory_bytes")
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{source}: unknown key {key!r}", hint=nearest(key, KEYS))
    if "memory" in values:
        values["memory_bytes"] = size(values.pop("memory"), f"{source}: memory")
    workers = values.pop("workers", None)
    if workers is not None and {"min", "max"} & set(values):
        raise ConfigError(
            f"{source}: workers cannot be combined with min or max",
            hint="workers=N means min=N,max=N; min=0,max=8: as many as are needed",
        )
    nodes = values.get("nodes")
    if isinstance(nodes, list | tuple):
        nodes = "+".join(map(str, nodes))
    if isinstance(nodes, str):
        values["nodes"] = nodes.replace("+", ",")
    try:
        if workers == AUTO:
            values["auto_workers"] = True
        elif workers is not None:
            least = msgspec.convert(workers, int, strict=False)
            values |= {"min": least, "max": max(1, least)}
        spec = msgspec.convert(values, PoolSpec, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}", hint=_EXAMPLE) from error
    if "max" not in values and spec.min > spec.max:
        spec = msgspec.structs.replace(spec, max=spec.min)
    check_pool(spec, source)
    return spec


def check_pool(pool: PoolSpec, source: str) -> None:
    """Check a pool by itself. Raises ConfigError if no environment can have such a pool."""
    check_name(pool.name, "pool")
    subject = f"{source}: pool {pool.name!r}"
    if match := _ON_DEMAND.match(pool.name):
        raise ConfigError(
            f"{subject} has a name of the form that gangs have",
            hint=f"{match[1]}-x, or another name that does not end in .x and a number",
        )
    if not 0 <= pool.min <= pool.max <= MAX_WORKERS or pool.max < 1:
        raise ConfigError(
            f"{subject} wants min={pool.min}, max={pool.max} workers",
            hint=f"0 <= min <= max, 1 <= max <= {MAX_WORKERS}",
        )
    if not 0 <= pool.idle_s <= MAX_IDLE_S:
        raise ConfigError(f"{subject}: idle_s = {pool.idle_s} is outside 0 .. {MAX_IDLE_S}")
    if not 1 <= pool.ranks <= MAX_RANKS:
        raise ConfigError(f"{subject}: ranks = {pool.ranks} is outside 1 .. {MAX_RANKS}")
    size(pool.memory_bytes, f"{subject}: memory")
    _check_provider(pool, subject)
    _check_program(pool, subject)
    if pool.device:
        check_name(pool.device, f"{subject}: device")
    if (pool.pace or pool.drift) and not pool.device:
        raise ConfigError(
            f"{subject}: {'pace' if pool.pace else 'drift'} without a device",
            hint="NAME:device=DEVICE,pace=true,drift=replay",
        )
    if pool.drift:
        drift_of(pool.drift, subject)
    for pattern in pool.nodes.split(",") if pool.nodes else ():
        if not _PATTERN.match(pattern):
            raise ConfigError(
                f"{subject}: nodes = {pattern[:80]!r} is not a node's name or a pattern of them",
                hint="* and ? stand for what differs; several are joined by +: gpu*+node7",
            )


def _check_provider(pool: PoolSpec, subject: str) -> None:
    """Check `provider`. One worker of one rank holds a machine for the whole life of its pool."""
    example = "NAME:engine=hardware,provider=MODULE:FACTORY"
    if pool.provider and pool.device:
        raise ConfigError(
            f"{subject} has a provider and a device", hint=f"a machine's is {example}"
        )
    if (pool.engine == MACHINE) != bool(pool.provider):
        lacks = "no provider" if pool.engine == MACHINE else f"engine={pool.engine} with a provider"
        raise ConfigError(f"{subject} has {lacks}", hint=f"a machine's pool is {example}")
    if not pool.provider:
        return
    if not _PROVIDER.match(pool.provider) or len(pool.provider) > _PROVIDER_CHARS:
        raise ConfigError(
            f"{subject}: provider = {pool.provider[:80]!r} is no MODULE:FACTORY",
            hint="a module found from here or on PYTHONPATH, and a function in it that takes no"
            " arguments and returns a BackendV2 of Qiskit",
        )
    if (pool.min, pool.max, pool.ranks) != (1, 1, 1):
        raise ConfigError(
            f"{subject} wants {pool.min} to {pool.max} workers of {pool.ranks} ranks",
            hint="a machine is held by one worker of one rank: leave workers and ranks out",
        )


def _check_program(pool: PoolSpec, subject: str) -> None:
    """Check `command`. Workers of one rank start the program, which starts ranks of its own."""
    example = "NAME:engine=external,command=PROGRAM {circuit} {shots}"
    if (pool.engine == EXTERNAL) != bool(pool.command):
        lacks = "no command" if pool.engine == EXTERNAL else f"engine={pool.engine} with a command"
        raise ConfigError(f"{subject} has {lacks}", hint=f"an external simulator's is {example}")
    if not pool.command:
        return
    check_command(pool.command, subject)
    if pool.ranks != 1 or pool.device:
        conflict = f"device={pool.device}" if pool.device else f"ranks={pool.ranks}"
        raise ConfigError(
            f"{subject} has a command and {conflict}",
            hint="a program starts its own ranks: 'mpirun -n {ranks} PROGRAM ...', and has no noise"
            " of a device",
        )
