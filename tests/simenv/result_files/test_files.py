"""Files of results: whole or not there, and any byte that changed is noticed."""

import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from failing import fails

from simenv import result_files
from simenv.errors import StoreError
from simenv.model import ResultFile

ARRAYS = {
    "statevector": np.linspace(0, 1, 4096).astype("<c16").reshape(2, 2048),
    "outcomes": np.arange(3000, dtype="<u2"),
    "counts": np.arange(3000, dtype="<u4"),
}


def written(folder: Path) -> tuple[Path, ResultFile]:
    path = folder / "deep" / "t-1.h5"
    path.parent.mkdir(exist_ok=True)
    return path, result_files.write(path, ARRAYS, {"task": "t-1", "shots": 3}, name="deep/t-1.h5")


def test_result_file_is_readable_with_h5py(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    assert (stored.name, stored.size_bytes) == ("deep/t-1.h5", path.stat().st_size)
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"task": "t-1", "shots": 3}
        for name, array in ARRAYS.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name][()], array)


def test_empty_arrays_are_stored_beside_others(tmp_path: Path) -> None:
    """HDF5 allocates no place for them."""
    arrays = ARRAYS | {"parameters": np.empty((0, 4), "<f8"), "values": np.empty(0, "<f8")}
    path = tmp_path / "t-2.h5"
    stored = result_files.write(path, arrays, {})
    assert result_files.damage(path.parent, path.name, stored) == ""
    with h5py.File(path) as file:
        assert {name: file[name].shape for name in file} == {k: v.shape for k, v in arrays.items()}
    descriptor = result_files.open_file(path.parent, path.name)
    sizes = {each.field: len(result_files.mapped(descriptor, each)) for each in stored.arrays}
    os.close(descriptor)
    assert sizes == {name: array.nbytes for name, array in arrays.items()}
    size, parts = result_files.parts(arrays, {})
    assert (size, b"".join(parts)) == (path.stat().st_size, path.read_bytes())


def test_mapped_arrays_are_equal_aligned_and_read_only(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    fd = result_files.open_file(path.parent, path.name)
    for array in stored.arrays:
        view = np.frombuffer(result_files.mapped(fd, array), array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(view, ARRAYS[array.field])
        assert view.flags.aligned
        assert not view.flags.writeable


def test_flipped_bit_anywhere_is_found_by_checksum(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    good = path.read_bytes()
    assert result_files.damage(path.parent, path.name, stored) == ""
    chance = random.Random(5)
    edges = [place for gap in result_files.gaps(stored) for place in (gap[0], gap[1] - 1)]
    for place in [*edges, *(chance.randrange(len(good)) for _ in range(200))]:
        flipped = bytes([good[place] ^ (1 << chance.randrange(8))])
        path.write_bytes(good[:place] + flipped + good[place + 1 :])
        assert "checksum" in result_files.damage(path.parent, path.name, stored), place


@pytest.mark.parametrize("size", [0, 1, 5000, -1])
def test_truncated_file_is_reported_as_damaged(tmp_path: Path, size: int) -> None:
    path, stored = written(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert "bytes, it was written with" in result_files.damage(path.parent, path.name, stored)
    if size == -1:  # of what HDF5 writes behind the arrays
        return
    descriptor = result_files.open_file(path.parent, path.name)
    fails(StoreError, "shorter", result_files.mapped, descriptor, stored.arrays[-1])


def test_missing_file_is_reported_as_damaged(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    path.unlink()
    assert "No such file" in result_files.damage(path.parent, path.name, stored)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../../secret", "a/../../b"])
def test_file_name_outside_result_folder_is_refused(tmp_path: Path, name: str) -> None:
    fails(StoreError, "not the name of a file", result_files.open_file, tmp_path, name)


def test_full_disk_leaves_no_partial_file_and_the_first_one_intact(tmp_path: Path) -> None:
    with limited_files(40_000):
        assert "simenv prune" in fails(StoreError, "File too large", written, tmp_path).hint
    assert list(tmp_path.rglob("*.*")) == []
    path, stored = written(tmp_path)
    with limited_files(40_000):
        fails(StoreError, "", written, tmp_path)
    assert result_files.damage(path.parent, path.name, stored) == ""


@contextmanager
def limited_files(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond; as EFBIG, for Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pipe_in_place_of_a_file_is_damage_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    path, stored = written(tmp_path)
    path.unlink()
    os.mkfifo(path)
    text = f"{path.name} is a pipe, not a file"
    assert text in result_files.damage(path.parent, path.name, stored)
    fails(StoreError, text, result_files.open_file, path.parent, path.name)
