"""Sizes of modules and folders: whole thoughts, few enough for an overview."""

from __future__ import annotations

import ast
import collections
import statistics
from pathlib import Path

from source_trees import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("launcher", "noise_models", "simenv", "simulators")
MEDIAN_LINES = 220  # at least
SIMENV_MODULES = 400
FOLDER_MODULES = 14
IMPORT_SHARE = 0.052


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_median_module_has_at_least_220_lines() -> None:
    sizes = [lines(path) for path in modules(*PACKAGES) if path.stem != "__init__"]
    assert statistics.median(sizes) >= MEDIAN_LINES


def test_simenv_has_at_most_400_modules() -> None:
    assert len(modules("simenv")) <= SIMENV_MODULES


def test_a_folder_has_at_most_14_modules() -> None:
    counts = collections.Counter(
        str(path.parent.relative_to(ROOT)) for path in modules(*PACKAGES) if path.stem != "__init__"
    )
    assert {name: n for name, n in counts.items() if n > FOLDER_MODULES} == {}


def test_imports_are_at_most_five_percent_of_the_lines() -> None:
    """Long lists of imported names say less than the module before each name."""
    paths = modules(*PACKAGES)
    imports = [
        node.end_lineno - node.lineno + 1
        for path in paths
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and node.end_lineno is not None
    ]
    assert sum(imports) <= IMPORT_SHARE * sum(map(lines, paths))
