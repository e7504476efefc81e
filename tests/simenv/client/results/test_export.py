"""Results: decoded counts, bit strings, export."""

import json
import os
import struct
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from failing import fails
from hypothesis import given, settings, strategies as st

from simenv.client import result_data
from simenv.client.result import Result
from simenv.client.result_data import DecodedResult, Provenance, Stages
from simenv.errors import OptionError, StoreError
from simenv.model import RESULT_FORMAT, Origin, ResultData

STATE = np.array([0.6, 0, 0, 0.8j], "<c16")
DATA = ResultData(
    RESULT_FORMAT, (("a", 1), ("b", 1)), 2, 1024, 2**64 - 1, 1, b"\x00\x03",
    struct.pack("<2I", 1000, 24), b"\x00\x03", 1, struct.pack("<2d", 0.36, 0.64), STATE.tobytes(),
    struct.pack("<2d", 0.28, 0.01), remark="one\ntwo",
)  # fmt: skip
PROVENANCE = Provenance(
    "t-8k2f", "bell", "statevector", "small", Origin("main-0", "here", 1, "0.1.0"), 1, 2,
    Stages(0.001, 0.002, 0.003, 0.004, 0.005, 0.014),
)  # fmt: skip
FOUND = Result(DecodedResult.of(DATA, PROVENANCE.task), PROVENANCE)
TOLD = {
    "task": "t-8k2f", "name": "bell", "state": "DONE", "shots": 1024, "seed": 2**64 - 1,
    "binding": 0, "engine": "statevector", "route": "small", "precision": "double", "node": "here",
    "worker": "main-0", "version": "0.1.0", "ranks": 1, "slots": 1, "attempts": 2, "num_qubits": 2,
    "remark": "one\ntwo", "format": 1, "content": "a simenv result",
}  # fmt: skip
ARRAYS = {
    "statevector": STATE, "counts/outcomes": np.array([0, 3], "u1"),
    "counts/counts": np.array([1000, 24], "<u4"), "probabilities/outcomes": np.array([0, 3], "u1"),
    "probabilities/values": np.array([0.36, 0.64]), "expectations": np.array([[0.28, 0.01]]),
}  # fmt: skip


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


def test_files_have_all_of_the_result(tmp_path: Path) -> None:
    FOUND.save(str(tmp_path / "r.npz"))
    with np.load(tmp_path / "r.npz") as file:
        assert set(file.files) == {*ARRAYS, "metadata"}
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file[name], array)
        document = json.loads(str(file["metadata"]))
    assert {key: document[key] for key in TOLD} == TOLD
    FOUND.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == FOUND.to_dict()


@pytest.mark.parametrize("name", ["r.txt", "r", "missing/r.h5", "missing/r.npz"])
def test_save_to_unsupported_or_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    fails(OptionError, "cannot save", FOUND.save, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.h5", "r.npz", "r.json"])
def test_failed_save_keeps_old(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fails((OptionError, StoreError), "No space left", FOUND.save, tmp_path / name)
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
    Result(DecodedResult.of(data, "t-1"), PROVENANCE, 1).save(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["statevector"][()].tolist() == [0, 0, 0, 1]
        assert file["counts/outcomes"][()].tolist() == [3]
        assert file["counts/counts"][()].tolist() == [24]
        assert file["probabilities/values"][()].tolist() == [0.64]
        assert file["expectations"][()].tolist() == [[-1.0, 0.0]]
        assert file.attrs["task"] == "t-8k2f.1"


def pack(values: list[int], width: int) -> tuple[bytes, bytes]:
    rows = b"".join(value.to_bytes(width, "little") for value in values)
    return rows, struct.pack(f"<{len(values)}I", *range(1, len(values) + 1))


def expected(value: int, sizes: list[int]) -> str:
    """Written the slow way: registers from clbit 0 up, each to the left of the last."""
    parts = []
    for size in sizes:
        parts.append("".join(str(value >> k & 1) for k in reversed(range(size))))
        value >>= size
    return " ".join(reversed(parts))


@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
@settings(derandomize=True, deadline=None)
def test_counts_keys_agree_with_reference_formatting(data: st.DataObject, sizes: list[int]) -> None:
    bits = sum(sizes)
    width = next((w for w in (1, 2, 4, 8) if 8 * w >= bits), -(-bits // 8))
    values = sorted(data.draw(st.sets(st.integers(0, 2**bits - 1), min_size=1, max_size=20)))
    registers = tuple((f"r{k}", size) for k, size in enumerate(sizes))
    counts = result_data.counts(*pack(values, width)[:1], width, pack(values, width)[1], registers)
    assert counts == {expected(value, sizes): k for k, value in enumerate(values, 1)}


def test_outcomes_and_probabilities_have_keys_of_their_width() -> None:
    rows, value = pack([0, 2, 3], 2)
    assert result_data.counts(rows, 2, value, (("c", 2),)) == {"00": 1, "10": 2, "11": 3}
    rows, value = pack([0b10_01], 1)
    assert result_data.counts(rows, 1, value, (("c", 2), ("", 2))) == {"10 01": 1}
    assert result_data.counts(b"", 0, struct.pack("<I", 5), ()) == {"": 5}
    assert result_data.counts(b"", 0, struct.pack("<I", 5), (("c", 2), ("d", 1))) == {"0 00": 5}
    fails(ValueError, "zip", result_data.counts, b"\0\1", 1, struct.pack("<I", 5), (("c", 1),))
    result = result_data.probabilities(b"\0\3", 1, struct.pack("<2d", 0.25, 0.75), (("c", 2),))
    assert result == {"00": 0.25, "11": 0.75}


def test_caches_are_bounded() -> None:
    few = 50  # strings of more of them are not kept
    for first in range(0, 3 * result_data.STRINGS_KEPT, few):
        values = list(range(first, first + few))
        rows, result = pack(values, 2)
        for _ in range(2):
            counts = result_data.counts(rows, 2, result, (("c", 16),))
            assert list(counts) == [format(value, "016b") for value in values]
    assert len(result_data._strings((16,))) == result_data.STRINGS_KEPT
    registers = (("c", 6),)
    for values in ([low, high] for low in range(40) for high in range(low + 1, 64)):
        rows, result = pack(values, 1)
        counts = result_data.counts(rows, 1, result, registers)
        assert list(counts) == [format(value, "06b") for value in values]
    assert len(result_data._outcome_sets((6,))) <= result_data.SETS_KEPT
