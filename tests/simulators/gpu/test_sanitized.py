"""Kernels under address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from host_device import KERNELS, SANITIZED, SUPPORT, build_library

ROOT = Path(__file__).parents[3]


def exercise(library: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(SUPPORT)])
    return subprocess.run(
        [sys.executable, str(SUPPORT / "gpu_exercise.py"), str(library)],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def sanitizer_runtime() -> str:
    """Path of the library that has to be loaded before Python."""
    process = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = process.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip("g++ has no address sanitizer")
    return path


def sanitized(library: Path) -> subprocess.CompletedProcess[str]:
    return exercise(
        library,
        LD_PRELOAD=sanitizer_runtime(),
        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0:use_sigaltstack=0",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def test_kernels_touch_no_memory_outside_and_have_defined_behaviour(library: Path) -> None:
    result = sanitized(build_library(*SANITIZED, optimize="-O1"))
    assert result.returncode == 0, result.stderr[-4000:]


def test_sanitizer_finds_shared_memory_that_is_16_bytes_too_small(
    library: Path, tmp_path: Path
) -> None:
    short = copied(tmp_path, "small.cuh", "const u32 size = 1u << n;", "const u32 size = 2u << n;")
    result = sanitized(build_library(*SANITIZED, kernels=short, optimize="-O1"))
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


def copied(folder: Path, name: str, old: str, new: str, count: int = 1) -> Path:
    """A copy of the kernels in which a text was replaced."""
    target = folder / "kernels"
    shutil.copytree(KERNELS, target)
    text = (target / name).read_text()
    assert old in text
    (target / name).write_text(text.replace(old, new, count))
    return target
