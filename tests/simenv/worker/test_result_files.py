"""Large results of workers on any node: in the folder that the service sees, or a word why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from failing import fails

from simenv.errors import StoreError
from simenv.model import Program, ResultFile, TaskOptions
from simenv.result_files import UNFINISHED
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simenv.worker.result_files import ResultFileWriter, file_name
from simulators.engine import EngineResult

PROGRAM = Program(1, 17, 0, (), (), b"", b"", b"", b"", b"")
CHUNK = AssignChunk(1, 2**30, False, "statevector", "test", [TaskOptions()], [])
TASK = AssignedTask(5, 65_537, 0, b"", 0, 1, b"", 0)
LARGE = EngineResult(statevector=np.ones((1, 2**17), np.complex128))
SMALL = EngineResult(statevector=np.ones((1, 2**4), np.complex128))


def put(shelf: ResultFileWriter, found: EngineResult) -> object:
    return shelf.put(found, PROGRAM, TASK, TaskOptions(), CHUNK)


def test_large_result_fails_with_reason_when_results_folder_is_not_visible(tmp_path: Path) -> None:
    shelf = ResultFileWriter(
        tmp_path, unavailable="the results folder /home/results cannot be seen from node7"
    )
    error = fails(StoreError, "node7", put, shelf, LARGE)
    assert str(LARGE.statevector.nbytes) in error.message  # type: ignore[union-attr]
    assert "share" in error.hint
    assert list(tmp_path.iterdir()) == []


def test_small_result_needs_no_results_folder(tmp_path: Path) -> None:
    assert put(ResultFileWriter(tmp_path, unavailable="it cannot be seen"), SMALL) is None


def test_unfinished_file_names_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def replace(path: Path, target: Path) -> Path:
        lines.append(path.name)
        raise OSError(5, "as if the machine stopped here")

    monkeypatch.setattr(Path, "replace", replace)
    fails(StoreError, "", put, ResultFileWriter(tmp_path, mark="main.x4-0.17"), LARGE)
    name = file_name(5, 65_537).rpartition("/")[2]
    assert lines == [f".{name}.main.x4-0.17{UNFINISHED}"]


def test_large_gradients_are_written_to_a_file(tmp_path: Path) -> None:
    values, slopes = np.zeros((1, 2, 2)), np.arange(2.0**18)
    engine_result = EngineResult(expectations=values.tobytes(), gradients=slopes.tobytes())
    file = put(ResultFileWriter(tmp_path), engine_result)
    assert isinstance(file, ResultFile)
    (array,) = file.arrays
    assert (array.field, array.size_bytes) == ("gradients", slopes.nbytes)
