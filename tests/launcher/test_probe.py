"""What two ranks must say before a launcher is believed, and that a probe always ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mpis
import pytest

from launcher import probe
from launcher.base import Command, Exit, LaunchError
from launcher.process.local import LocalLauncher

ENVIRON = {**os.environ, "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self"}
DONE = Exit("hello", 1, 0, "exit 0")


def said(rank: int, size: int, library: str = "Open MPI v5.0.11, package: x") -> str:
    return f'{{"rank": {rank}, "size": {size}, "library": "{library}"}}\n'


def test_two_ranks_in_one_comm_world_pass_probe() -> None:
    assert probe.evaluate(said(1, 2) + "noise\n" + said(0, 2), DONE, "it", 10) == (
        True,
        "Open MPI v5.0.11",
    )
    assert probe.evaluate(said(0, 2, "MPICH Version:      5.0.2") + said(1, 2), DONE, "it", 10) == (
        True,
        "MPICH Version: 5.0.2",
    )


@pytest.mark.parametrize(
    ("text", "end", "words"),
    [
        (
            said(0, 1, "MPICH Version: 4") * 2,
            DONE,
            "its ranks do not see one another: COMM_WORLD has size 1 in each; mpi4py is bound to "
            "MPICH Version: 4, the launcher is it",
        ),
        (said(0, 2), DONE, "two ranks ended with exit 0"),
        (said(0, 2) + said(1, 2), Exit("", 0, 1, "exit 1"), "two ranks ended with exit 1"),
        ('{"error": "mpi4py: no libmpi"}\n' * 2, Exit("", 0, 5, "exit 5"), "mpi4py: no libmpi"),
        ("----\n  refused: root\nbye\n", Exit("", 0, 1, "exit 1"), "exit 1: refused: root"),
        (said(0, 2), None, "two ranks did not report within 10 s"),
        ("{broken\n[1]\n", DONE, "exit 0: {broken"),
    ],
)
def test_failed_probe_is_reported_with_reason(text: str, end: Exit | None, words: str) -> None:
    works, value = probe.evaluate(text, end, "it", 10)
    assert not works
    assert words in value


class Odd(LocalLauncher):
    """Starts something else than it was told, for each of the ranks."""

    max_ranks = 2

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def start(self, command: Command) -> int:
        argv = (sys.executable, "-c", self.program)
        return super().start(replace(command, argv=argv, shares=()))


def hello(
    make: Callable[[], LocalLauncher], folder: Path, timeout_s: float = 60
) -> probe.ProbeResult:
    return probe.probe_launcher("odd", "it", "/it", make, ENVIRON, folder, timeout_s)


def test_probe_of_hanging_ranks_ends_at_its_timeout(tmp_path: Path) -> None:
    entries = []

    def make() -> LocalLauncher:
        entries.append(Odd("import signal; signal.pause()"))
        return entries[-1]

    outcome = hello(make, tmp_path, 0.3)
    assert not outcome.works
    assert outcome.detail == "two ranks did not report within 0.3 s"
    assert entries[0].running() == []
    assert list(tmp_path.iterdir()) == []


def test_launcher_that_fails_to_start_gives_a_failed_probe(tmp_path: Path) -> None:
    def make() -> LocalLauncher:
        raise LaunchError("no room here")

    assert hello(make, tmp_path).detail == "no room here"
    outcome = hello(LocalLauncher, tmp_path)  # one rank at most
    assert not outcome.works
    assert "plain processes have one each" in outcome.detail


def test_ranks_that_are_plain_processes_fail_the_probe(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    program = "import runpy; runpy.run_module('launcher.probe_rank', run_name='__main__')"
    outcome = hello(lambda: Odd(program), tmp_path)
    assert not outcome.works
    assert "its ranks do not see one another" in outcome.detail
