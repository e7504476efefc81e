"""Workers of one rank and of several, side by side through two launchers."""

import os
import sys
from pathlib import Path

from failing import fails
from waiting import until

from launcher.base import Command, Exit, Launcher, LaunchError, Share
from launcher.mpirun import SplitLauncher
from launcher.process.children import LocalLauncher

HERE = os.uname().nodename


class Several(LocalLauncher):
    """Takes several ranks and starts one process: what counts is which launcher was asked."""

    max_ranks = 8


def command(folder: Path, name: str, ranks: int) -> Command:
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    shares = (Share(HERE, ranks),)
    return Command(name, argv, (), folder / f"{name}.log", folder, 7, shares)


def test_one_rank_workers_use_local_launcher_and_others_one_mpi_launcher(tmp_path: Path) -> None:
    entries: list[Launcher] = []

    def make() -> Launcher:
        entries.append(Several())
        return entries[-1]

    launcher = SplitLauncher(LocalLauncher(), make, "local+mpirun", "why", 8)
    try:
        launcher.start(command(tmp_path, "small", 1))
        assert not entries
        launcher.start(command(tmp_path, "large", 2))
        launcher.start(command(tmp_path, "larger", 4))
        assert (len(entries), entries[0].running()) == (1, ["large", "larger"])
        assert sorted(launcher.running()) == ["large", "larger", "small"]
        for name in ("large", "small"):
            launcher.kill(name)
        launcher.terminate("larger")
        ends: list[Exit] = []
        until(lambda: ends.extend(launcher.poll_exits()) or len(ends) == 3)
        codes = {end.name: (end.code, end.start) for end in ends}
        assert codes == {"large": (-9, 7), "small": (-9, 7), "larger": (-15, 7)}
        assert launcher.poll_events() == []
    finally:
        launcher.close()


def test_one_rank_worker_starts_when_mpi_launcher_cannot(tmp_path: Path) -> None:
    def make() -> Launcher:
        raise LaunchError("no room for its files")

    launcher = SplitLauncher(LocalLauncher(), make, "local+prte", "why", 8)
    try:
        fails(LaunchError, "no room", launcher.start, command(tmp_path, "large", 2))
        launcher.start(command(tmp_path, "small", 1))
        assert launcher.running() == ["small"]
    finally:
        launcher.close()
    assert launcher.running() == []
