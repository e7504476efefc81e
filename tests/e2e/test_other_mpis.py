"""An environment where a site's MPI is on PATH, and pip's is not there."""

from __future__ import annotations

import json
from pathlib import Path

import mpis
import pytest
from bare import command_line

PROGRAM = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[4];
creg c[4];
h q[0];
cx q[0],q[3];
ry(0.7) q[1];
cx q[3],q[2];
measure q -> c;
"""


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("name", ["openmpi4", "mpich"])
def test_counts_of_two_ranks_with_site_mpi_equal_counts_of_one(name: str, tmp_path: Path) -> None:
    mpi = mpis.real(name)
    (tmp_path / "bin").mkdir()
    path = Path(mpi.mpirun.path)
    if path.name.startswith("mpirun."):  # Debian's name for it, where there may be another
        (tmp_path / "bin" / "mpirun").symlink_to(path)
        path = tmp_path / "bin" / "mpirun"
    own = {"PATH": f"{path.parent}:/usr/bin:/bin", "SIMENV_HOME": str(tmp_path / "home")}
    simenv = command_line(tmp_path, {**mpi.environ, **own})
    (tmp_path / "it.qasm").write_text(PROGRAM)

    def counts(*words: str) -> dict[str, int]:
        entries = ("submit", "it.qasm", "--shots", "500", "--seed", "3", "--wait", "--json", *words)
        done = simenv(*entries)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["ranks"] == (2 if words else 1)
        return answer["counts"]  # type: ignore[no-any-return]

    up = simenv("up")
    try:
        assert up.returncode == 0, up.stderr
        assert f"local+mpirun: {mpi.mpirun}" in up.stdout + up.stderr
        assert counts("--ranks", "2") == counts()
    finally:
        down = simenv("down")
    assert down.returncode == 0, down.stderr
