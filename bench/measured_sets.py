"""Sets of measured counts: where they are, whose calibration they belong to, and their split.

A folder of sets has files of counts (`simenv.calibration.data`). A calibration of the machine, in
any form that `simenv devices import` reads, stands beside the counts: `NAME.calibration.json`, or
another suffix, or a folder, for `NAME.json` or `NAME.jsonl`; without it, the machine is the device
of that name in the library. `splits.json` names the test circuits of files; the rows of others
state it (`split`), or half of their bodies are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import networkx
import numpy as np

from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import import_snapshot
from simenv.calibration.data import CountsData, read

DATA = Path(__file__).parents[1] / ".." / "shared" / "noise_data"
COUNTS = (".json", ".jsonl")
_MARK = ".calibration"


class MeasuredSet(msgspec.Struct, frozen=True, eq=False):
    """Counts of one machine with its calibration. `name`: path of the counts in the folder without
    the suffix; `text`: of the calibration, if it is one file."""

    name: str
    data: CountsData
    snapshot: CalibrationSnapshot
    text: str
    from_library: bool  # the calibration is that of the library


def sets(folder: Path, seed: int) -> Iterator[MeasuredSet]:
    """Yield the sets of a folder in the order of their names. `seed`: of the bodies that are drawn.
    Raises DataError, SnapshotError, OSError."""
    splits = {}
    if (folder / "splits.json").is_file():
        splits = msgspec.json.decode((folder / "splits.json").read_bytes())["files"]
    for path in sorted(each for each in folder.rglob("*") if each.suffix in COUNTS):
        if path.name == "splits.json" or path.stem.endswith(_MARK) or _MARK in path.parent.name:
            continue
        name = path.relative_to(folder).as_posix()
        data = read(path)
        if name in splits:
            data = with_split(data, splits[name])
        elif not any(each.is_test for each in data.records):
            data = halved(data, [seed])
        beside = _calibration(path, data.device)
        snapshot, text = beside or (library.load(data.device), "")
        short = Path(name).with_suffix("").as_posix()
        yield MeasuredSet(short, without_tests(data), snapshot, text, beside is None)


def _calibration(path: Path, device: str) -> tuple[CalibrationSnapshot, str] | None:
    """Return the calibration beside a file of counts with its text; None: there is none."""
    for beside in sorted(path.parent.glob(f"{path.stem}{_MARK}*")):
        files = sorted(beside.iterdir()) if beside.is_dir() else [beside]
        content = {each.name: each.read_bytes() for each in files}
        snapshot, _ = import_snapshot(content, name=device or path.stem, allow_ignored=True)
        return snapshot, "" if beside.is_dir() else files[0].read_text()
    return None


def halved(data: CountsData, seed: list[int]) -> CountsData:
    """Return the data with half of its bodies, drawn by a seed, as tests."""
    bodies = groups(data)
    names = sorted(set(bodies.values()))
    chosen = set(np.random.default_rng(seed).permutation(names)[: len(names) // 2].tolist())
    changed = msgspec.structs.replace
    records = [changed(each, is_test=bodies[each.body] in chosen) for each in data.records]
    return changed(data, records=tuple(records))


def with_split(data: CountsData, split: dict[str, Any]) -> CountsData:
    """Return the data with `is_test` and `body` set according to `splits.json`."""
    records = []
    for each in data.records:
        body = each.name if split["key"] == "name" else each.name.partition("_step")[2][:2]
        is_test = body in split["test"]
        records.append(msgspec.structs.replace(each, is_test=is_test, body=body))
    return msgspec.structs.replace(data, records=tuple(records))


def without_tests(data: CountsData) -> CountsData:
    """Return the data without those training runs whose circuit is a test circuit as well."""
    tests = {each.source.text for each in data.records if each.is_test}
    records = [each for each in data.records if each.is_test or each.source.text not in tests]
    return msgspec.structs.replace(data, records=tuple(records))


def groups(data: CountsData) -> dict[str, str]:
    """Return a name for each body; bodies that share a circuit have the same one."""
    shared = networkx.Graph([("b" + each.body, "t" + each.source.text) for each in data.records])
    found: dict[str, str] = {}
    for group in networkx.connected_components(shared):
        bodies = [each[1:] for each in group if each.startswith("b")]
        found |= dict.fromkeys(bodies, min(bodies))
    return found
