"""Licences of Slurm: one for each worker of a pool that a job can reserve.

The count in the file that slurm.conf includes is the most that the pool can have. What cannot be
had now is held back by a reservation of Slurm (LICENSE_ONLY), so that jobs wait for it: sbatch
refuses jobs above the count. Invariants: a count grows with its pool, and falls if an administrator
says so or the pool is gone; pools that share slots never have more licences free together than
there are free slots; names that are no pools of the environment stay in the file as they are; the
file is replaced as a whole. While the service is away, all licences of its pools are held back: no
job starts that could have no reservation. Which these are stands in the file, where also the submit
filter reads it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simenv import model
from simenv.errors import SlurmError, SlurmFileError
from simenv.frontends.slurm import MARK, jobs, unusable, write
from simenv.model.reservations import JOB_SCOPE

if TYPE_CHECKING:
    from simenv.client.client import Client

RECONFIGURE_S = 60.0  # least time between two: slurmctld reads all of its configuration each time
PREFIX = "simenv_"  # of the names of Slurm's reservations; a pool's name follows
UP = "up"  # state of a node whose slots can be had
_POOLS = f"{MARK} pools:"  # simenv_job_submit.lua looks for it
_LINE = re.compile(r"\s*Licenses\s*=\s*(\S*)\s*\Z", re.IGNORECASE)
_SHOWN = re.compile(r"LicenseName=(\S+)\s+Total=(\d+)\s+Used=(\d+)")
_RESERVATION = re.compile(rf"ReservationName={PREFIX}(\S+) .* Licenses=(\S+) ")


class License(msgspec.Struct, frozen=True):
    """A licence as the controller counts it."""

    total: int
    used: int


class LicenseCapacity(msgspec.Struct, frozen=True):
    """Workers of a pool. `most`: with all of its nodes. `available`: that jobs have or can have
    now."""

    most: int
    available: int


def capacities(
    client: Client, cluster: str, names: Sequence[str], known: Mapping[str, License] | None
) -> dict[str, LicenseCapacity]:
    """Return the workers of each pool for jobs of a cluster: on nodes that are up, less those in
    reservations that are not the cluster's; none are available while the pool is quarantined or its
    device is paused or drains. Slots that pools share go to the jobs that wait first, then evenly.
    `names`: these pools alone, those of them that there are; () all. `known`: the licences of the
    controller; None: it does not answer. Raises SlurmError."""
    pools = {name: pool for name, pool in client.pools().items() if not pool.on_demand}
    nodes = client.nodes().values()
    slots = sum(node.slots for node in nodes)
    free = sum(node.slots for node in nodes if node.state == UP)
    own, others = dict.fromkeys(pools, 0), dict.fromkeys(pools, 0)
    for each in client.reservations():
        if each.state is model.ReservationState.ACTIVE and each.device in pools:
            of_jobs = each.scope == JOB_SCOPE + cluster
            (own if of_jobs else others)[each.device] += each.workers
    # A job has its licences before its reservation.
    used = {name: license_.used for name, license_ in (known or {}).items()}
    taken = {name: max(own[name], used.get(name, 0)) for name in pools}
    on_nodes = {name for name, pool in pools.items() if not _is_machine(pool)}
    free -= sum(taken[name] + others[name] for name in on_nodes)
    most: dict[str, int] = {}
    room: dict[str, int] = {}  # licences that may be free, if no other pool needs the slots
    for name, pool in pools.items():
        if names and name not in names:
            continue
        most[name] = (
            0 if pool.ranks > 1 else min(pool.most, slots) if name in on_nodes else pool.most
        )
        if pool.ranks == 1 and not pool.closed and pool.state != "quarantined":
            room[name] = max(0, pool.most - others[name] - taken[name])
    shared = {name: count for name, count in room.items() if name in on_nodes}
    parts = dict(room)
    if sum(shared.values()) > free:
        waiting = [] if known is None else jobs.waiting_for_licenses()
        parts |= divided(max(0, free), shared, [job.licenses for job in waiting])
    return {
        name: LicenseCapacity(count, taken[name] + parts[name] if name in parts else 0)
        for name, count in most.items()
    }


def _is_machine(pool: model.PoolInfo) -> bool:
    """Return whether the workers of a pool need no slots."""
    return pool.engine == "hardware"


def divided(
    free: int, room: Mapping[str, int], waiting: Sequence[Mapping[str, int]]
) -> dict[str, int]:
    """Return the slots of each pool out of those that are free: as many as waiting jobs need, the
    first of them first, and an even part of the rest. `room`: the most of each; `waiting`: licences
    by job."""
    parts = dict.fromkeys(room, 0)
    for licenses in waiting:
        wanted = {name: count for name, count in licenses.items() if name in room}
        fits = all(parts[name] + count <= room[name] for name, count in wanted.items())
        if fits and sum(wanted.values()) <= free:
            free -= sum(wanted.values())
            parts |= {name: parts[name] + count for name, count in wanted.items()}
    left = sorted(room, key=lambda name: room[name] - parts[name])
    for done, name in enumerate(left):
        part = min(room[name] - parts[name], free // (len(left) - done))
        parts[name] += part
        free -= part
    return parts


# --- the file -------------------------------------------------------------------------------------


def counts_of(text: str) -> dict[str, str]:
    """Return the licences of the file: names, and their counts as written. Raises SlurmFileError
    for a file with more than comments and one line."""
    counts: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.match(line)
        if parts is None or counts:
            hint = "one line Licenses=NAME:COUNT,... of all licences of the site"
            raise SlurmFileError(f"the file of licences has the line {line[:80]!r}", hint=hint)
        for word in filter(None, re.split("[,;]", parts[1])):
            name, _, count = word.partition(":")
            counts[name] = count or "1"
    return counts


def pools_of(text: str) -> list[str]:
    """Return the names of the file that are pools of the environment."""
    lines = [line for line in text.splitlines() if line.startswith(_POOLS)]
    return [name for line in lines for name in line.removeprefix(_POOLS).split()]


def updated(
    text: str, present: Mapping[str, int], former: Sequence[str] = (), *, lower: bool = False
) -> str:
    """Return the text of the file with at least these counts; `lower`: with exactly these.
    `former`: pools that have gone."""
    counts = counts_of(text)
    gone = [name for name in former if name not in present]
    pools = sorted({*pools_of(text), *present} - set(gone))
    for name, most in present.items():
        earlier = counts.get(name, "")
        counts[name] = str(max(most, 0 if lower or not earlier.isdigit() else int(earlier)))
    counts |= {name: "0" for name in gone if name in counts}
    line = ",".join(f"{name}:{count}" for name, count in counts.items())
    heading = f"{MARK}: the counts of pools are written by `simenv slurm sync`"
    return f"{heading}\n{_POOLS} {' '.join(pools)}\nLicenses={line}\n"


# --- the controller -------------------------------------------------------------------------------


def controller_licenses() -> dict[str, License]:
    """Return the licences that the controller counts, by name. Raises SlurmError."""
    shown = jobs.run(["scontrol", "show", "licenses"])
    return {name: License(int(total), int(used)) for name, total, used in _SHOWN.findall(shown)}


def held_licenses() -> dict[str, int]:
    """Return the licences that are held back, by name. Raises SlurmError."""
    shown = jobs.run(["scontrol", "--oneliner", "show", "reservation"])
    found = {name: jobs.licenses_of(counts) for name, counts in _RESERVATION.findall(shown)}
    return {name: counts.get(name, 0) for name, counts in found.items()}


def hold_back(name: str, count: int, present: int | None) -> None:
    """Hold back so many licences of a name. `present`: those held back now; None: there is no
    reservation. Raises SlurmError."""
    reservation, licenses = f"ReservationName={PREFIX}{name}", f"Licenses={name}:{count}"
    if not count:
        jobs.run(["scontrol", "delete", reservation])
    elif present is not None:
        jobs.run(["scontrol", "update", reservation, licenses])
    else:  # after the year that UNLIMITED is, the next pass makes it anew
        span = ["StartTime=now", "Duration=UNLIMITED", "Users=root", "Flags=LICENSE_ONLY"]
        jobs.run(["scontrol", "create", "reservation", reservation, *span, licenses])


class LicenseUpdate(msgspec.Struct, frozen=True):
    """Outcome of one pass, by pool. `held`: licences that are held back; `changed`: the pools whose
    number of those is another than before; `reconfigured`: the file was written, or the controller
    had not read it; `missing`: of the named pools those that there are not, whose licences are all
    held back."""

    licenses: dict[str, int]
    held: dict[str, int]
    changed: list[str]
    reconfigured: bool
    missing: list[str] = []


class LicenseSynchroniser:
    """Keeps the licences of pools equal to their capacities. `names`: of these pools alone, () of
    all."""

    def __init__(self, path: Path, cluster: str, names: Sequence[str] = ()) -> None:
        self._path = path
        self._cluster = cluster
        self._names = tuple(names)
        self._former: set[str] = set()
        self._reconfigured_s: float | None = None

    def synchronise(self, client: Client, *, lower: bool = False) -> LicenseUpdate:
        """Write the counts, let the controller read them, and hold back what cannot be had.
        `lower`: write counts that have fallen, too. Raises SlurmFileError, SlurmError
        if the controller does not answer."""
        text = self._text()
        known = controller_licenses()
        present = capacities(client, self._cluster, self._names, known)
        self._former |= set(present)
        most = {name: capacity.most for name, capacity in present.items()}
        wanted = updated(text, most, sorted(self._former), lower=lower)
        counts = {name: int(count) for name, count in counts_of(wanted).items() if name in present}
        is_due = wanted != text or any(not _has(known, name, counts[name]) for name in present)
        if is_due and (is_due := self._may_reconfigure()):
            if wanted != text:
                write(self._path, wanted)
            jobs.run(["scontrol", "reconfigure"])
            known = controller_licenses()
        totals = {name: known[name].total if name in known else 0 for name in present}
        held = {name: max(0, totals[name] - each.available) for name, each in present.items()}
        gone = [name for name in self._names if name not in present]
        held |= {name: known[name].total for name in gone if name in known}
        changed = _hold(held)
        uncounted = [name for name in present if not _has(known, name, counts[name])]
        if is_due and uncounted:
            text = f"slurmctld does not count {counts[uncounted[0]]} licences {uncounted[0]}"
            raise SlurmError(text, hint=f"slurm.conf needs: include {self._path}")
        return LicenseUpdate(counts, held, changed, is_due, gone)

    @property
    def pools(self) -> Sequence[str]:
        """Pools whose licences are kept, as the last pass of any process has written them. Raises
        SlurmFileError."""
        return self._names or pools_of(self._text())

    def hold_all(self) -> LicenseUpdate:
        """Hold back all licences of the pools, for a service that does not answer; the next
        `synchronise` returns them. Raises SlurmFileError, SlurmError if the controller
        does not answer."""
        known = controller_licenses()
        held = {name: known[name].total for name in self.pools if name in known}
        return LicenseUpdate(dict(held), held, _hold(held), reconfigured=False)

    def _text(self) -> str:
        """Return the file's content. Raises SlurmFileError."""
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            hint = "simenv slurm install"
            raise SlurmFileError(f"there is no {self._path}", hint=hint) from None
        except OSError as error:
            raise unusable(self._path, "read", error) from error

    def _may_reconfigure(self) -> bool:
        now_s = time.monotonic()
        if self._reconfigured_s is not None and now_s - self._reconfigured_s < RECONFIGURE_S:
            return False
        self._reconfigured_s = now_s
        return True


def _hold(held: Mapping[str, int]) -> list[str]:
    """Hold back so many licences of each name; return the names of which others were held back
    before. Raises SlurmError."""
    before = held_licenses()
    changed = [name for name, count in held.items() if count != before.get(name, 0)]
    # What one pool loses is held before another has it.
    for name in sorted(changed, key=lambda name: held[name] < before.get(name, 0)):
        hold_back(name, held[name], before.get(name))
    return changed


def _has(known: Mapping[str, License], name: str, count: int) -> bool:
    return (known[name].total if name in known else 0) == count
