"""Modules loaded by `import simenv`, and by commands that must answer at once."""

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


def test_import_simenv_loads_no_heavy_library(tmp_path: Path) -> None:
    assert loaded("import simenv", tmp_path).isdisjoint({*HEAVY, *GENERIC, "typer"})


@pytest.mark.parametrize("generic", GENERIC)
def test_user_file_with_generic_package_name_is_not_loaded(generic: str, tmp_path: Path) -> None:
    (tmp_path / f"{generic}.py").write_text("raise SystemExit('loaded')")
    statement = "import simenv; from simenv import Client, Task, Result, connect, local"
    assert generic not in loaded(statement, tmp_path)


def test_command_line_application_loads_no_heavy_library(tmp_path: Path) -> None:
    everything = "from simenv.cli.app import application; application()"
    assert loaded(everything, tmp_path).isdisjoint({*HEAVY, *GENERIC})


def test_submit_and_local_modules_load_no_transport_or_heavy_library(tmp_path: Path) -> None:
    needed = "import simenv.cli.tasks.submit, simenv.client.local"
    assert loaded(needed, tmp_path).isdisjoint({*HEAVY, *GENERIC, "zmq", "asyncio", "email"})


def test_service_does_not_load_h5py_or_qiskit() -> None:
    everything = "import simenv.service.__main__, simenv.service.queries.explain"
    assert loaded(everything, ROOT).isdisjoint({"h5py", "qiskit"})


def test_service_start_loads_no_heavy_library() -> None:
    assert loaded("import simenv.service.__main__", ROOT).isdisjoint({*HEAVY, "email"})


def test_gateway_does_not_load_what_decodes_jobs() -> None:
    of_jobs = {
        "qiskit",
        "qiskit_ibm_runtime",
        "samplomatic",
        "scipy",
        "numba",
        "ibm_quantum_schemas",
    }
    assert loaded("import simenv.gateway.__main__", ROOT).isdisjoint(of_jobs)


def test_worker_session_does_not_load_h5py_at_import(tmp_path: Path) -> None:
    assert "h5py" not in loaded("import simenv.worker.session", ROOT)
