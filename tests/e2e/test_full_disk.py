"""A disk that results have filled: prune frees what the hint names."""

import re
import shutil
from pathlib import Path

import pytest
from failing import fails
from live import environment
from shell import shell_of
from small_disk import fill, small_disk
from waiting import until

from simenv.errors import JournalError, TaskFailedError

pytestmark = pytest.mark.usefixtures("no_leaks")
MIB = 2**20
QUBITS = 18  # 4 MiB of amplitudes
BELL = 'OPENQASM 2.0;include "qelib1.inc";qreg q[2];creg c[2];h q[0];cx q[0],q[1];measure q -> c;'
NAMED = re.compile(r"`simenv (.*)` frees ([\d.]+) MiB: (\d+) files")
WIDE = f'OPENQASM 2.0;include "qelib1.inc";qreg q[{QUBITS}];h q;'


def test_prune_frees_what_the_hint_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        small_disk(tmp_path / "disk", 64 * MIB) as disk,
        environment(state_dir=str(disk)) as live,
        live.client() as env,
    ):
        shell = shell_of(live.name, capfd)
        for task in env.submit_many([BELL] * 60, shots=10):  # first: they free nothing
            task.result()

        def fill_with_results() -> None:
            for _ in range(20):
                env.run(WIDE, shots=None, outputs=("statevector",))

        def fill_with_tasks() -> None:
            for _ in range(5_000):
                env.run(BELL, shots=10)

        failed = fails(TaskFailedError, "No space left", fill_with_results)
        assert "the event disk.full says what `simenv prune` frees" in failed.hint
        fill(disk)
        refused = fails(JournalError, "disk is full", fill_with_tasks)
        named = NAMED.search(refused.hint)
        assert named is not None, refused.hint
        command, size, files = named.groups()

        def kinds() -> str:
            return shell("events", "--kind", "disk").out

        until(lambda: "disk.full" in kinds())
        assert f"frees {size} MiB: {files} files of results" in kinds()
        assert any("new tasks are refused" in each for each in env.status().warnings)
        before = shutil.disk_usage(disk).free
        answer = shell(*command.split(), "--json")
        assert answer.code == 0, answer.err
        freed = answer.object["freed"]
        # Results that were written since the event are freed, too.
        assert freed["files"] >= int(files)
        assert freed["file_bytes"] / MIB >= float(size) - 0.05
        assert shutil.disk_usage(disk).free - before >= freed["file_bytes"] - 8 * MIB
        until(lambda: "disk.freed" in kinds())
        assert env.status().warnings == ()
        assert sum(env.run(BELL, shots=10).counts.values()) == 10
