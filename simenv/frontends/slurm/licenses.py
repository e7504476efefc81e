"""Licences of Slurm: one for each worker of a pool that a job can reserve.

`simenv slurm sync` writes the file that slurm.conf includes, and asks the controller to read it
again. Invariants: names that are no pools of the environment stay in the file as they are; a pool
that is gone has 0 licences, so that jobs that wait for it stay valid; the file is replaced as a
whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simenv import model
from simenv.errors import ConfigError, NotFoundError
from simenv.frontends.slurm import MARK, jobs, write
from simenv.model.reservations import JOB_SCOPE
from simenv.wire.messages import admin

if TYPE_CHECKING:
    from simenv.client.client import Client

_LINE = re.compile(r"\s*Licenses\s*=\s*(\S*)\s*\Z", re.IGNORECASE)
_SHOWN = re.compile(r"LicenseName=(\S+)\s+Total=(\d+)\s+Used=(\d+)")


class License(msgspec.Struct, frozen=True):
    """A licence as the controller counts it."""

    total: int
    used: int


def capacities(client: Client, cluster: str, names: Sequence[str] = ()) -> dict[str, int]:
    """Return how many workers of each pool jobs of a cluster can reserve: the pool's largest number
    of workers, less those in reservations that are not the cluster's; 0 while the pool is
    quarantined or its device drains. `names`: these pools alone. Raises NotFoundError."""
    pools = {name: pool for name, pool in client.pools().items() if not pool.on_demand}
    for name in names:
        if name not in pools:
            raise NotFoundError(f"there is no pool {name!r}", hint=f"pools: {', '.join(pools)}")
    slots = sum(node.slots for node in client.nodes().values())
    others: dict[str, int] = {}
    for each in client.reservations():
        if each.state is model.ReservationState.ACTIVE and each.scope != JOB_SCOPE + cluster:
            others[each.device] = others.get(each.device, 0) + each.workers
    counts = {}
    for name in names or pools:
        pool = pools[name]
        # A machine's workers need no slots.
        most = pool.most if pool.engine == "hardware" else min(pool.most, slots)
        closed = pool.ranks > 1 or pool.state == "quarantined" or _drains(client, name)
        counts[name] = 0 if closed else max(0, most - others.get(name, 0))
    return counts


def _drains(client: Client, name: str) -> bool:
    state = client.session.request(admin.TargetReply, admin.GetTarget, device=name).info.state
    return state == "draining"


def counts_of(text: str) -> dict[str, str]:
    """Return the licences of the file: names, and their counts as written. Raises ConfigError for a
    file with more than comments and one line."""
    counts: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.match(line)
        if parts is None or counts:
            hint = "one line Licenses=NAME:COUNT,... of all licences of the site"
            raise ConfigError(f"the file of licences has the line {line[:80]!r}", hint=hint)
        for word in filter(None, re.split("[,;]", parts[1])):
            name, _, count = word.partition(":")
            counts[name] = count or "1"
    return counts


def updated(text: str, present: Mapping[str, int], former: Sequence[str] = ()) -> str:
    """Return the text of the file with these counts. `former`: pools that have gone."""
    counts = counts_of(text) | {name: str(count) for name, count in present.items()}
    counts |= {name: "0" for name in former if name in counts and name not in present}
    line = ",".join(f"{name}:{count}" for name, count in counts.items())
    return f"{MARK}: the counts of pools are written by `simenv slurm sync`\nLicenses={line}\n"


def write_counts(path: Path, present: Mapping[str, int], former: Sequence[str] = ()) -> bool:
    """Write the counts, and let the controller read them. Returns False if they were there. Raises
    NotFoundError, ConfigError, SimenvError if the controller does not answer."""
    if not path.exists():
        raise NotFoundError(f"there is no {path}", hint="simenv slurm install")
    text = path.read_text(encoding="utf-8")
    wanted = updated(text, present, former)
    in_force = {name: each.total for name, each in controller_licenses().items()}
    if wanted == text and all(in_force.get(name) == count for name, count in present.items()):
        return False
    if wanted != text:
        write(path, wanted)
    jobs.run(["scontrol", "reconfigure"])
    return True


def controller_licenses() -> dict[str, License]:
    """Return the licences that the controller counts, by name. Raises SimenvError."""
    shown = jobs.run(["scontrol", "show", "licenses"])
    return {name: License(int(total), int(used)) for name, total, used in _SHOWN.findall(shown)}
