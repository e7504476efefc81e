"""The pipeline of numba, and stored code."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import types
from numba.core import event
from numba.core.errors import TypingError

from simulators.compiler import kernel, numba_pipeline
from simulators.compiler.kernel import _OPTIONS, TYPES, device_function

I64, INT, REAL = TYPES["I64"], TYPES["INT"], TYPES["REAL"]
REALS, REALS2, WORD = TYPES["REALS"], TYPES["REALS2"], TYPES["WORD"]


@device_function
def _inside(values, at):  # type: ignore[no-untyped-def]
    return values[at] + 1


@device_function
def _between(values, first, last):  # type: ignore[no-untyped-def]
    total = _inside(values, 0) - _inside(values, 0)  # with a number, as below with a variable
    for at in range(first, last):
        total += _inside(values, at)
    return total, last - first


def _mean(values):  # type: ignore[no-untyped-def]
    total, value = _between(values, 0, values.size)
    return total / value


def _compiled(function: Any, *signature: Any) -> Any:
    return numba.njit(types.float64(*signature), **_OPTIONS)(function)


def test_device_functions_are_inlined_and_have_no_symbol_of_their_own() -> None:
    with numba_pipeline.patched_numba():
        result = _compiled(_mean, I64)
    assert result(np.array([1, 2, 6])) == 4.0
    engine = numba.core.registry.cpu_target.target_context.codegen()._engine
    (kernel,) = result.overloads.values()
    assert engine.is_symbol_defined(kernel.fndesc.llvm_func_name)
    for each in (_inside, _between):
        (value,) = each.overloads.values()
        assert not engine.is_symbol_defined(value.fndesc.llvm_func_name)


def test_each_device_function_is_lowered_once_per_signature() -> None:
    lowered: list[str] = []

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, happened: event.Event) -> None:
            lowered.append(happened.data["name"].split()[0])

        def on_end(self, happened: event.Event) -> None:
            pass

    with event.install_listener("numba:run_pass", Listener()), numba_pipeline.patched_numba():
        _compiled(_mean, REALS)
    assert lowered.count("lowering_of_a_device_function") == 2
    assert lowered.count("lowering_of_a_kernel") == 1


def test_the_installed_numba_is_one_that_the_pipeline_was_tested_with() -> None:
    assert _OPTIONS["pipeline_class"] is numba_pipeline.COMPILER


def test_numba_and_gc_settings_are_restored_after_compilation() -> None:
    with numba_pipeline.patched_numba():
        assert not gc.isenabled()
    with pytest.raises(TypingError), numba_pipeline.patched_numba():
        _compiled(_mean, INT)
    assert gc.isenabled()
    assert types.Function.get_call_type is numba_pipeline._operator_call_type
    assert types.Dispatcher.get_call_type is numba_pipeline._function_call_type


def test_numba_writes_no_escape_codes_to_terminal_at_exit() -> None:
    """PRTE gives ranks a terminal as stdout, whose bytes are JSON."""
    pytest.importorskip("colorama")
    code = "import simulators; from numba.core.errors import termcolor; termcolor().errmsg('x')"
    value, result = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", code], stdout=result, check=True)
        os.write(result, b"end")
        assert os.read(value, 1_024) == b"end"
    finally:
        os.close(value)
        os.close(result)


# Loads and calls a kernel of the project; prints the modules of numba's compiler that it needed.
LOAD = """
import sys
from pathlib import Path
import numpy as np
from simulators.compiler import folder
folder.choose(Path(sys.argv[1]))
from simulators.circuit.passes.noise_locations import insert_timed
keys, rows = np.full((4, 3), -1), np.ones((1, 3), np.int64)
insert_timed(rows, keys)
assert keys.sum() == 3 - 9
print([name for name in ("numba.np.arraymath", "numba.np.linalg") if name in sys.modules])
"""


def _kernel() -> kernel.Kernel:
    def increment(number):  # type: ignore[no-untyped-def]
        return number + 1

    return kernel.Kernel(increment, kernel.signature_of("INT -> INT"), "wide")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "_folder", lambda: tmp_path)
    return tmp_path


def _loads(folder: Path) -> str:
    argv = [sys.executable, "-P", "-c", LOAD, str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_stored_kernel_is_called_without_loading_the_compiler(tmp_path: Path) -> None:
    assert "numba.np.arraymath" in _loads(tmp_path)
    assert _loads(tmp_path) == "[]"


def test_code_is_stored_once_and_read_again(folder: Path) -> None:
    assert _kernel()(1) == 2
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
    assert numba_pipeline.read(file) is None
    assert _kernel()(1) == 2
    assert numba_pipeline.read(file) is not None


def test_code_of_other_processor_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _kernel()(1) == 2
    monkeypatch.setattr(numba_pipeline, "_processor", lambda: "00000000")
    assert not numba_pipeline.path(folder, _kernel().name).exists()


def test_an_unwritable_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(kernel, "_folder", lambda: blocked)
    assert _kernel()(1) == 2
