"""Faults in each table of the journal, and what a start makes of them."""

from __future__ import annotations

import logging
import subprocess
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import Report, benchmark
from simenv.service.journal import tables
from testbed import damaged_journal
from testbed.postgres_server import PostgresServer, programs

ROW_PLACES = 5  # in PostgreSQL


@benchmark(places=(10, 1), seed=1)
def journal_damage(report: Report, options: Namespace) -> None:
    """Faults in each table of the journal: starts, lost tasks, ids given twice.

    An environment with accepted and ended tasks and rows in all tables, whose service was killed.
    In each table, at `--places` places: one bit of a row, a page of zeros, a page of garbage, a cut
    file; five bits of rows in PostgreSQL, if its programs are here. A service is built from each,
    and asked for all tasks. Faults follow from `--seed`.
    """
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as scratch:
        faults = damaged_journal.faults(Path(scratch), options.places, seed=options.seed)
        _add(report, "SQLite", faults)
    places = min(ROW_PLACES, options.places)
    if not programs():
        print("left out: the programs of PostgreSQL are not installed")
        return
    with TemporaryDirectory(dir="/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # the server is nobody's
        (folder / "server").mkdir()
        server = PostgresServer(folder / "server", partial(subprocess.run, check=True))
        server.start()
        try:
            of_rows = damaged_journal.faults_of_rows(
                folder, server.url, "drill", places, options.seed
            )
            _add(report, "PostgreSQL", of_rows)
        finally:
            server.stop()


def _add(
    report: Report, case: str, outcomes: Iterable[tuple[str, str, damaged_journal.Found]]
) -> None:
    failed = lost = reused = unexpected = count = 0
    damaged = Counter[tuple[str, str]]()
    for table, kind, found in outcomes:
        count += 1
        failed += bool(found.error)
        lost += len(found.lost)
        reused += found.reused
        unexpected += len(found.unexpected)
        damaged[table, kind] += len(found.ended)
        if not found.is_good:
            print(f"{case} {table} {kind}: {found}")
    for name in (each.name for each in tables.ALL):
        shown = {kind: damaged[name, kind] for kind in damaged_journal.KINDS}
        print(f"{case:11}{name:16} tasks ended as damaged: {shown}")
    print(f"{case}: {count} faults")
    report.at_most("starts_failed", failed, case)
    report.at_most("tasks_lost", lost, case)
    report.at_most("tasks_not_hit", unexpected, case)
    report.at_most("ids_twice", reused, case)
