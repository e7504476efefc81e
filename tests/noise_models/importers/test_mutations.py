"""Mutated calibration files of all formats: an error that names the field, or a valid snapshot.

Each mutation of a seed is applied to one file. The outcome is a SnapshotError with a field, or a
snapshot that passes all checks; a value out of its range that is accepted is reported as clamped
or ignored. No other exception may leave the importers.
"""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import calibration_samples as samples
import pytest

from noise_models import library, snapshot
from noise_models.calibration import CalibrationSnapshot
from noise_models.errors import SnapshotError
from noise_models.importers import ImportReport, import_snapshot

MUTATIONS = 5_000
FORMS = (*sorted(samples.files()), "simenv")
EACH = MUTATIONS // len(FORMS)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "\x00", "\ud800", "\u0661", "1e5", "9" * 500, "a" * 20_000),
    *(0, -1, 1, 2**31, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf, [], {}, [[]], [0, 0], {"a": 1}, [None], "2026-13-45"),
)


def forms() -> dict[str, dict[str, bytes]]:
    files = samples.files()
    files["simenv"] = {"snapshot.json": snapshot.dump(library.load("superconducting-lattice"))}
    return files


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in a JSON tree."""
    entries: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        at = stack.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at))
        for key in keys:
            entries.append((at, key))
            if isinstance(at[key], dict | list):
                stack.append(at[key])
    return entries


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def mutated_tree(tree: Any, chance: random.Random) -> tuple[bytes, bool]:
    """JSON with one change; True where the change is a value that no field allows."""
    tree = copy.deepcopy(tree)
    at, key = chance.choice(nodes(tree))
    kind = chance.randrange(8)
    forbidden = False
    if kind <= 2:
        value = chance.choice(VALUES)
        at[key] = value
        forbidden = isinstance(value, float) and not math.isfinite(value)
    elif kind == 3:
        del at[key]
    elif kind == 4 and isinstance(at[key], int | float) and not isinstance(at[key], bool):
        at[key] = at[key] * chance.choice((-1, 1e6, 1e30, 0))
    elif kind == 5:
        at[key] = deep(chance.choice((1, 3, 500)))
    elif kind == 6 and isinstance(at, dict):
        name = chance.choice(("\u2603", "x" * 5_000, "", "\x1b[31m", str(key).upper()))
        at[name] = at.pop(key)
    elif isinstance(at, list):
        at.append(copy.deepcopy(at[key]))
    else:
        other, name = chance.choice(nodes(tree))
        at[key] = copy.deepcopy(other[name])
    return json.dumps(tree).encode(), forbidden


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Truncated, overwritten or repeated bytes."""
    kind = chance.randrange(5)
    at = chance.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + chance.choice((b"\xff", b"\x00", b'"', b",", b"NaN", b"-")) + data[at:]
    if kind == 3:
        return data[:at] + data[max(0, at - 20) :]
    return b"[" * 50_000 if chance.random() < 0.1 else data[at:]


def outcome(
    files: dict[str, bytes], form: str
) -> tuple[CalibrationSnapshot, ImportReport] | SnapshotError:
    """Result of an import, or its error."""
    try:
        return import_snapshot(files, form)
    except SnapshotError as error:
        return error


@pytest.mark.parametrize("form", FORMS)
def test_a_mutated_file_gives_an_error_with_its_field_or_a_valid_snapshot(form: str) -> None:
    originals = forms()[form]
    original = import_snapshot(originals, form)
    trees = {name: json.loads(data) for name, data in originals.items() if data[:1] in (b"{", b"[")}
    refused = unchanged = 0
    for seed in range(EACH):
        chance = random.Random(f"{form} {seed}")
        name = chance.choice(sorted(originals))
        forbidden = False
        if name in trees and chance.random() < 0.75:
            data, forbidden = mutated_tree(trees[name], chance)
        else:
            data = mutated_bytes(originals[name], chance)
        result = outcome({**originals, name: data}, form)
        if isinstance(result, SnapshotError):
            assert result.field.isprintable(), seed
            assert result.field, seed
            assert str(result).startswith(result.field), seed
            assert str(result).isprintable(), seed
            assert len(str(result)) < 2_000, seed
            refused += 1
            continue
        value, report = result
        assert snapshot.load(snapshot.dump(value)) == value, seed
        assert {field for field, _ in snapshot.clamps(value)} <= {
            line.field for line in report.clamped
        }, seed
        if forbidden:  # it may stand in a field that nothing reads, which the report then lists
            assert report.ignored, seed
        unchanged += (value, report) == original
    assert refused >= EACH // 4
    assert unchanged < EACH // 2
