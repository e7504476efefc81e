"""Damage of a journal, table by table, and what a start makes of it.

The environment has accepted tasks, some of them ended, and rows in all tables of the journal. One
fault is made in its files, or in rows of its database: a bit, a page of zeros or of garbage, a cut
file. Then a service is built from it, as `simenv up` does, and all tasks that were accepted are
looked for.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from simenv import config as configs
from simenv.config import Config, EnvironmentPaths
from simenv.model import Origin, TaskOptions, TaskSpec, TaskState, Timing
from simenv.scheduler.core import Route, pack_routes
from simenv.service.bootstrap import build_service
from simenv.service.journal import copying, database, salvage, tables, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.schema import ACCEPTED, Columns
from simenv.wire import codec
from simenv.wire.messages import client as m

SUBMITS, TASKS_EACH = 150, 2
TASKS = SUBMITS * TASKS_EACH
COPIED = SUBMITS // 2  # submits that the copy has
ENDED = 2 * TASKS // 3
INDEXED = TASKS // 3
ALL = tables.ALL
KINDS = ("bit", "zeros", "garbage", "cut")


class Found(NamedTuple):
    """What a start made of one fault. `lost`: tasks that it does not know; `ended`: those that
    ended as FAILED, `damaged`; `unexpected`: of these, ones that the fault did not hit; `reused`:
    the next id was given before."""

    error: str
    lost: list[int]
    ended: list[int]
    unexpected: list[int]
    reused: bool

    @property
    def is_good(self) -> bool:
        return not (self.error or self.lost or self.unexpected or self.reused)


def settings(name: str, journal: str = "") -> Config:
    pool = {"name": "main", "engine": "statevector", "min": 1, "max": 1}
    given = {"name": name, "pools": [pool], "journal": journal, "durability": "process"}
    return configs.convert({**given, "launcher": "local"})


def fill(paths: EnvironmentPaths, config: Config) -> None:
    """Write the environment's journal, its mark, and, of a file, its copy."""
    for folder in (paths.home, paths.state):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = database.place_of(config, paths.journal)
    journal = writer.Journal(place, config.durability, paths.mark)
    for table in tables.ALL:
        if table.name in ("accepted", "finished", "ended", "meta", "quarantine", "sent"):
            continue
        journal.put([table.put(*_values(table, n)) for n in range(900, 912)], forced=False)
    for number in range(SUBMITS):
        first = 1 + number * TASKS_EACH
        specs = [TaskSpec(random.Random(first + k).randbytes(300), 10, k) for k in (0, 1)]
        body = codec.encode(m.Submit(0, f"k{first}", 0, TaskOptions(), specs))
        routes = pack_routes([Route("statevector", "", "main", 2, 64, 1.0, 1.0, 1)] * TASKS_EACH)
        journal.accept(
            AcceptedRow(first, TASKS_EACH, 1.7e9, f"k{first}", 0, b"d", routes, body, "", "")
        )
        journal.commit()
        if number + 1 == COPIED and isinstance(place, Path):
            copying.copy_into(_sqlite(journal), paths.copy)
    origin = Origin("main-0", "here", 1, "0.1.0")
    for task in range(1, ENDED + 1):
        end = m.Completion(task, 2, 1, 1, _payload(task), zlib.crc32(_payload(task)), _TIMING)
        completed = m.Completed(origin, "statevector", "", [end], task)
        journal.finish(task, [TaskState.DONE], codec.encode(completed))
        journal.sent([task])
    journal.commit()
    journal.index([(task, 1, task) for task in range(1, INDEXED + 1)], up_to=INDEXED)
    journal.abandon()  # as a service that was killed


_TIMING = Timing(0, 0, 0)


def _sqlite(journal: writer.Journal) -> sqlite3.Connection:
    assert isinstance(journal.database.db, sqlite3.Connection)
    return journal.database.db


def _payload(task: int) -> bytes:
    return b"result of %d" % task


def _values(table: Columns, number: int) -> list[Any]:
    """Return a row of a table, which its readers may find to make no sense."""
    if table.name == "replaced":
        return [10**6 + number, 10**6 + number, str(TaskState.DONE)]
    of_kind = {"int": number, "integer": number, "real": float(number), "text": f"x{number}"}
    return [of_kind.get(kind, msgspec.msgpack.encode(None)) for kind in table.kinds]


def copied(source: EnvironmentPaths, folder: Path) -> EnvironmentPaths:
    """Copy the files of an environment, whose service was killed."""
    result = EnvironmentPaths(folder / source.home.name, folder / source.home.name)
    shutil.copytree(source.home, result.home)
    return result


def hit_row(db: Any, table: Columns, chance: random.Random) -> list[int]:
    """Flip one bit of one row, in a statement of its own; return the tasks of a submission."""
    rows = db.execute(table.checked).fetchall()
    if not rows:
        return []
    row = chance.choice(rows)
    index = chance.randrange(len(table.names))
    while True:  # a bit whose change makes no second row of one key
        changed = [*row[:index], _flipped(row[index], chance), *row[index + 1 :]]
        key = table.key_of(changed)
        same = f"select 1 from {table.name} where {table.where_key()}"
        if key == table.key_of(row) or not db.execute(same, key).fetchall():
            break
    values = [changed[index], *table.key_of(row)]
    with suppress(sqlite3.IntegrityError):
        db.execute(f"update {table.name} set {table.names[index]} = ? where {table.where_key()}",
                   values)  # fmt: skip
    return [*range(row[0], row[0] + row[1])] if table is ACCEPTED else []


def _flipped(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, int):
        return value ^ (1 << chance.randrange(40))
    if isinstance(value, float):
        (bits,) = struct.unpack("<q", struct.pack("<d", value))
        return struct.unpack("<d", struct.pack("<q", bits ^ (1 << chance.randrange(52))))[0]
    if isinstance(value, str):
        return chr(ord(value[0]) ^ 1) + value[1:] if value else "a"
    at = chance.randrange(len(value)) if value else 0
    return bytes(value[:at]) + bytes([value[at] ^ (1 << chance.randrange(8))]) + bytes(
        value[at + 1 :]
    ) if value else b"\1"  # fmt: skip


def pages_of(path: Path) -> dict[str, dict[int, list[Any]]]:
    """Return the pages on which rows of each table are, and the keys of these rows."""
    found: dict[str, dict[int, list[Any]]] = {}
    for number, table, row in salvage.rows_by_page(path):
        found.setdefault(table.name, {}).setdefault(number, []).append(row)
    return found


def hit_file(path: Path, table: Columns, kind: str, chance: random.Random) -> list[int]:
    """Make a fault on one page of a table; return the tasks of submissions that were hit."""
    places = pages_of(path)
    of_table = places.get(table.name, {})
    page = chance.choice(sorted(of_table)) if of_table else chance.randrange(2, 8)
    content = bytearray(path.read_bytes())
    begin, end = (page - 1) * 4_096, page * 4_096
    if kind == "cut":
        del content[begin + chance.randrange(4_096) :]
        hit = [row for n, rows in places.get("accepted", {}).items() if n >= page for row in rows]
    else:
        content[begin:end] = bytes(4_096) if kind == "zeros" else chance.randbytes(4_096)
        hit = places.get("accepted", {}).get(page, [])
    path.write_bytes(content)
    return [task for row in hit for task in range(row[0], row[0] + row[1])]


def start(paths: EnvironmentPaths, config: Config, hit: list[int]) -> Found:
    """Build a service from the files of an environment, and look for all tasks."""
    environ = {"SIMENV_HOME": str(paths.home.parent)}
    try:
        service = build_service(config, paths.home, environ)
    except Exception as error:  # noqa: BLE001 - it is what is measured
        return Found(f"{type(error).__name__}: {error}", [], [], [], False)
    loop = service.loop
    try:
        lost, ended = [], []
        for task in range(1, TASKS + 1):
            if task in loop.state.tasks:
                continue
            end = loop.completions.end_of(task)
            if end is None:
                # One whose record is damaged runs again when it is asked for.
                seq = loop.completions.first_seq_of(task)
                if seq is None or not loop.journal.records.finished.count_at(seq):
                    lost.append(task)
            elif end.reason == "damaged":
                ended.append(task)
        unexpected = [task for task in ended if task not in hit]
        reused = loop.journal.records.next_task() <= TASKS
        return Found("", lost, ended, unexpected, reused)
    finally:
        loop.close(lost=True)
        service.leave()


def faults(
    folder: Path, places: int, kinds: tuple[str, ...] = KINDS, seed: int = 1
) -> Iterator[tuple[str, str, Found]]:
    """Yield table, kind and outcome of `places` faults of each kind in each table of SQLite."""
    config = settings("drill")
    intact = EnvironmentPaths(folder / "intact" / "drill", folder / "intact" / "drill")
    fill(intact, config)
    for table in ALL:
        for kind in kinds:
            for place in range(places):
                chance = random.Random(f"{seed} {table.name} {kind} {place}")
                paths = copied(intact, folder / "trial")
                if place % 2 or kind != "bit":
                    _checkpoint(paths.journal)
                hit = []
                if kind == "bit":
                    with closing(sqlite3.connect(paths.journal, isolation_level=None)) as db:
                        hit = hit_row(db, table, chance)
                else:
                    hit = hit_file(paths.journal, table, kind, chance)
                configs.write(config, paths.config)
                yield table.name, kind, start(paths, config, hit)
                shutil.rmtree(folder / "trial")


def _checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma wal_checkpoint(truncate)")


def faults_of_rows(
    folder: Path, url: str, name: str, places: int, seed: int = 1
) -> Iterator[tuple[str, str, Found]]:
    """Yield table, kind and outcome of `places` faults in rows of each table of PostgreSQL, one
    after the other in one journal."""
    config = settings(name, url)
    paths = EnvironmentPaths(folder / name, folder / name)
    fill(paths, config)
    configs.write(config, paths.config)
    hit: list[int] = []
    for table in ALL:
        for place in range(places):
            journal = writer.Journal(database.place_of(config, paths.journal), "process")
            with journal.transaction("NORMAL") as db:
                hit += hit_row(db, table, random.Random(f"{seed} {table.name} {place}"))
            journal.close()
            yield table.name, "bit", start(paths, config, hit)
