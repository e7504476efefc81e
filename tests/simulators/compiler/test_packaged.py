"""Machine code of kernels that a wheel carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import simulators
from simulators.compiler import numba_pipeline

ROOT = Path(simulators.__file__).parents[1]
pytestmark = pytest.mark.skipif(
    numba_pipeline.cpu_level() is None, reason="this processor has none of the levels"
)
ONE_KERNEL = """
import sys
from pathlib import Path
from numba.core import event
from simulators.compiler import kernel, warmup
warmup._MODULES = dict.fromkeys(warmup._MODULES, ())
kernel._kernels = {}

@kernel.kernel("INT -> INT", group="wide")
def doubled(number):
    return 2 * number

class Listener(event.Listener):
    def on_start(self, happened):
        compiled.append(happened.data)
    def on_end(self, happened):
        pass

compiled = []
listening = event.install_listener("numba:compile", Listener())
listening.__enter__()
packages, cache = Path(sys.argv[1]), Path(sys.argv[2])
"""
BUILD = """
warmup.compile_package(sys.argv[3], packages, cache)
"""
USE = """
kernel._PACKAGED = packages
print(doubled.is_stored, warmup.is_compiled(cache))
warmup.compile_all(cache)
print(doubled(21), len(compiled))
print(sorted(path.name for path in cache.rglob("*.code")))
"""


def output(code: str, *arguments: object, **environ: str) -> list[str]:
    """Lines that a fresh process prints."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})" + ONE_KERNEL + code
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, env={"PATH": "", **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def build(folder: Path, name: str) -> Path:
    packages = folder / name
    for level in numba_pipeline.LEVELS:
        output(BUILD, packages, folder / f"{name}-{level}", level, PYTHONHASHSEED="0")
    return packages


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("packages"), "built")


def test_packaged_kernels_are_used_and_nothing_is_compiled(packages: Path, tmp_path: Path) -> None:
    assert output(USE, packages, tmp_path / "cache") == ["True True", "42 0", "[]"]


def test_kernels_are_compiled_where_no_package_matches(packages: Path, tmp_path: Path) -> None:
    other = "kernel.numba.__version__ = 'another'" + USE
    lines = output(other, packages, tmp_path / "cache")
    assert lines[:2] == ["False False", "42 1"]
    assert "__main__.doubled" in lines[2]


def test_processor_named_by_numbas_variables_uses_no_package(
    packages: Path, tmp_path: Path
) -> None:
    lines = output(USE, packages, tmp_path / "cache", NUMBA_CPU_NAME="generic")
    assert lines[:2] == ["False False", "42 1"]


def test_damaged_package_is_compiled_again(packages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for file in packages.rglob("*.code"):
        target = copy / file.relative_to(packages)
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes()[:-1])
    assert output(USE, copy, tmp_path / "cache")[1] == "42 1"


def test_second_build_has_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    again = build(tmp_path, "again")
    files = sorted(path.relative_to(packages) for path in packages.rglob("*.code"))
    assert len(files) == len(numba_pipeline.LEVELS)
    assert [(again / file).read_bytes() for file in files] == [
        (packages / file).read_bytes() for file in files
    ]
