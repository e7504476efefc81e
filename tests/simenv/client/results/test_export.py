"""A saved result holds all that was found and told, and is whole or not there."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest

from simenv.client.results.decoded import DecodedResult, Provenance, Stages
from simenv.client.results.result import Result
from simenv.errors import OptionError, StoreError
from simenv.model import RESULT_FORMAT, Origin, ResultData

STATE = np.array([0.6, 0, 0, 0.8j], "<c16")
DATA = ResultData(
    RESULT_FORMAT,
    (("a", 1), ("b", 1)),
    2,
    1024,
    2**64 - 1,
    1,
    b"\x00\x03",
    struct.pack("<2I", 1000, 24),
    b"\x00\x03",
    1,
    struct.pack("<2d", 0.36, 0.64),
    STATE.tobytes(),
    struct.pack("<2d", 0.28, 0.01),
    remark="one\ntwo",
)
PROVENANCE = Provenance(
    "t-8k2f", "bell", "statevector", "small", Origin("main-0", "here", 1, "0.1.0"), 1, 2,
    Stages(0.001, 0.002, 0.003, 0.004, 0.005, 0.014),
)  # fmt: skip
FOUND = Result(DecodedResult(DATA, PROVENANCE.task), PROVENANCE)
TOLD = {
    "task": "t-8k2f", "name": "bell", "state": "DONE", "shots": 1024, "seed": 2**64 - 1,
    "binding": 0, "engine": "statevector", "route": "small", "precision": "double", "node": "here",
    "worker": "main-0", "version": "0.1.0", "ranks": 1, "slots": 1, "attempts": 2, "num_qubits": 2,
    "remark": "one\ntwo", "format": 1, "content": "a simenv result",
}  # fmt: skip
ARRAYS = {
    "statevector": STATE,
    "counts/outcomes": np.array([0, 3], "u1"),
    "counts/counts": np.array([1000, 24], "<u4"),
    "probabilities/outcomes": np.array([0, 3], "u1"),
    "probabilities/values": np.array([0.36, 0.64]),
    "expectations": np.array([[0.28, 0.01]]),
}


def test_hdf5_file_has_all_arrays_and_metadata(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        for name, array in ARRAYS.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name][()], array)
        table = dict(file.attrs)
    assert {key: table[key] for key in TOLD} == TOLD
    assert json.loads(table["registers"]) == [["a", 1], ["b", 1]]
    assert json.loads(table["timing"])["total_s"] == 0.014


def test_npz_file_has_all_arrays_and_metadata(tmp_path: Path) -> None:
    FOUND.save(str(tmp_path / "r.npz"))
    with np.load(tmp_path / "r.npz") as file:
        assert set(file.files) == {*ARRAYS, "metadata"}
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file[name], array)
        document = json.loads(str(file["metadata"]))
    assert {key: document[key] for key in TOLD} == TOLD


def test_json_file_equals_json_of_result(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == FOUND.to_dict()


@pytest.mark.parametrize("name", ["r.txt", "r", "missing/r.h5", "missing/r.npz"])
def test_save_to_unsupported_or_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="cannot save"):
        FOUND.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.h5", "r.npz", "r.json"])
def test_failed_save_leaves_old_file_unchanged(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OptionError, StoreError), match="No space left"):
        FOUND.save(tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_saved_binding_of_sweep_has_only_its_own_values(tmp_path: Path) -> None:
    data = msgspec.structs.replace(
        DATA,
        count=2,
        rows=struct.pack("<2I", 1, 1),
        probability_rows=struct.pack("<2I", 1, 1),
        statevector=np.array([[1, 0, 0, 0], [0, 0, 0, 1]], "<c16").tobytes(),
        expectations=struct.pack("<4d", 1.0, 0.0, -1.0, 0.0),
    )
    Result(DecodedResult(data, "t-1"), PROVENANCE, 1).save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["statevector"][()].tolist() == [0, 0, 0, 1]
        assert file["counts/outcomes"][()].tolist() == [3]
        assert file["counts/counts"][()].tolist() == [24]
        assert file["probabilities/values"][()].tolist() == [0.64]
        assert file["expectations"][()].tolist() == [[-1.0, 0.0]]
        assert file.attrs["task"] == "t-8k2f.1"
