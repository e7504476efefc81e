"""What a process loads: a user's `import simenv`, and a command that must answer at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("h5py", "numpy", "qiskit", "numba", "rich", "matplotlib", "psutil")
ROOT = Path(__file__).parents[2]
GENERIC = ("simulators", "launcher", "noise_models")


def loaded(statement: str, folder: Path) -> set[str]:
    """Top-level names in sys.modules after `statement`, in a process of its own."""
    program = f"{statement}\nimport sys; print(*{{n.split('.')[0] for n in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_simenv_loads_a_library(tmp_path: Path) -> None:
    assert loaded("import simenv", tmp_path).isdisjoint({*HEAVY, *GENERIC, "typer"})


@pytest.mark.parametrize("generic", GENERIC)
def test_a_users_file_with_a_generic_name_is_loaded(generic: str, tmp_path: Path) -> None:
    (tmp_path / f"{generic}.py").write_text("raise SystemExit('loaded')")
    statement = "import simenv; from simenv import Client, Task, Result, connect, local"
    assert generic not in loaded(statement, tmp_path)


def test_a_short_command_loads_a_library(tmp_path: Path) -> None:
    everything = "from simenv.cli.app import application; application()"
    assert loaded(everything, tmp_path).isdisjoint({*HEAVY, *GENERIC})


def test_a_service_is_started_after_what_speaks_to_it_is_loaded(tmp_path: Path) -> None:
    needed = "import simenv.cli.tasks.submit, simenv.client.environments.local"
    assert loaded(needed, tmp_path).isdisjoint({*HEAVY, *GENERIC, "zmq", "asyncio", "email"})


def test_the_service_loads_what_only_workers_need() -> None:
    everything = "import simenv.service.__main__, simenv.service.queries.engines"
    assert loaded(everything, ROOT).isdisjoint({"h5py", "qiskit"})


def test_workers_wait_for_what_judges_circuits() -> None:
    assert loaded("import simenv.service.__main__", ROOT).isdisjoint({*HEAVY, "email"})


def test_a_worker_loads_hdf5_before_it_writes_a_file(tmp_path: Path) -> None:
    assert "h5py" not in loaded("import simenv.worker.session", ROOT)
