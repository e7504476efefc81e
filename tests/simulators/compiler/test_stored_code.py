"""Stored machine code: loaded without numba's compiler, compiled again where it is damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulators.compiler import kernel, stored_code

# Loads and calls a kernel of the project; prints the modules of numba's compiler that it needed.
LOAD = """
import sys
from pathlib import Path
import numpy as np
from simulators.compiler import kernel
kernel.use_cache(Path(sys.argv[1]))
from simulators.circuit.passes.noise_locations import append_locations
rows, ones = np.zeros((3, 4), np.int64), np.ones(2, np.int64)
assert append_locations(ones, ones, ones, ones, rows, 0) == 2
assert rows.sum() == 8
print([name for name in ("numba.np.arraymath", "numba.np.linalg") if name in sys.modules])
"""


def _kernel() -> kernel.Kernel:
    def increment(number):  # type: ignore[no-untyped-def]
        return number + 1

    return kernel.Kernel(increment, kernel.INT(kernel.INT), "wide")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "_chosen", [tmp_path])
    return tmp_path


def _loads(folder: Path) -> str:
    argv = [sys.executable, "-P", "-c", LOAD, str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_stored_kernel_is_called_without_loading_the_compiler(tmp_path: Path) -> None:
    assert "numba.np.arraymath" in _loads(tmp_path)
    assert _loads(tmp_path) == "[]"


def test_code_is_stored_once_and_read_again(folder: Path) -> None:
    first = _kernel()
    assert first(1) == 2
    (file,) = folder.glob("*.code")
    written = file.stat().st_mtime_ns
    assert _kernel()(2) == 3
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_damaged_code_is_compiled_again(folder: Path, damage: str) -> None:
    assert _kernel()(1) == 2
    (file,) = folder.glob("*.code")
    data = file.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    damaged = {"truncated": data[:-7], "changed": bytes(changed), "empty": b""}[damage]
    file.write_bytes(damaged)
    assert stored_code.read(file) is None
    assert _kernel()(1) == 2
    assert stored_code.read(file) is not None


def test_code_for_another_processor_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _kernel()(1) == 2
    monkeypatch.setattr(stored_code, "_processor", lambda: "00000000")
    assert not stored_code.path(folder, _kernel().name).exists()


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(kernel, "_chosen", [blocked])
    assert _kernel()(1) == 2
