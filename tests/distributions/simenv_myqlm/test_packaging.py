"""The wheel of simenv-myqlm: small, pure, and of use without simenv and without myQLM."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import simenv

DISTRIBUTION = Path(__file__).parents[3] / "distributions" / "simenv-myqlm"
CODE = """
import sys
import simenv_myqlm
from simenv_myqlm.programs import program_of
from simenv_myqlm.records import Circuit, Gate, Job
print(simenv_myqlm.__file__)
print(program_of(Job(Circuit(1, (Gate("H", (), (0,)),)), 1)).text())
assert not {"simenv", "qiskit", "qat"} & {name.partition(".")[0] for name in sys.modules}
try:
    simenv_myqlm.SimenvQPU
except simenv_myqlm.SimenvQPUError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=DISTRIBUTION, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_works_in_an_environment_without_simenv(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    with zipfile.ZipFile(wheel) as files:  # a pure wheel is its installed files
        files.extractall(packages)
    numpy = Path(np.__file__).parent
    for folder in (numpy, numpy.with_name("numpy.libs")):
        (packages / folder.name).symlink_to(folder)
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "-I", "-c", CODE],
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, *rest = done.stdout.splitlines()
    assert Path(where).is_relative_to(packages)
    assert "h q[0];" in rest
    assert "myQLM cannot be imported" in done.stdout


def test_version_is_that_of_simenv(wheel: Path) -> None:
    import simenv_myqlm

    assert simenv_myqlm.__version__ == simenv.__version__
    assert wheel.name == f"simenv_myqlm-{simenv.__version__}-py3-none-any.whl"


def test_wheel_needs_numpy_alone_and_holds_its_own_modules(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        lines = files.read(metadata).decode().splitlines()
        (licence,) = (name for name in names if name.endswith("LICENSE"))
        assert b"Version 2.0, January 2004" in files.read(licence)
    assert [line for line in lines if line.startswith("Requires-Dist")] == [
        "Requires-Dist: numpy>=1.24"
    ]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"simenv_myqlm"}


def imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "").partition(".")[0])
    return found


def test_qat_is_imported_inside_functions_of_one_module_and_simenv_nowhere() -> None:
    for path in (DISTRIBUTION / "simenv_myqlm").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = set(imports(tree))
        assert "simenv" not in names, path
        assert ("qat" in names) == (path.name == "handler.py"), path
        at_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "qat" not in imports(ast.Module(at_top, []))
        assert names <= {"qat", "simenv_myqlm", "numpy", "__future__"} | sys.stdlib_module_names


def test_what_installs_packages_names_no_part_of_myqlm() -> None:
    """Its licence: docs/guides/myqlm.md."""
    root = DISTRIBUTION.parents[1]
    folders = [root / name for name in ("requirements", "packaging", ".ci")]
    files = [root / "pyproject.toml", root / "Makefile", *(root / "scripts").glob("*.sh")]
    files += [path for each in folders for path in each.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_text(errors="replace").lower().replace("simenv-myqlm", "")
        assert "myqlm" not in text, path
