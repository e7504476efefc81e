"""Import cycles inside a package are not allowed, type-only and local imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from source_trees import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "launcher",
    "simulators",
    "simenv/cli",
    "simenv/client",
    "simenv/config",
    "simenv/frontends",
    "simenv/model",
    "simenv/qpm",
    "simenv/qpm_check",
    "simenv/scheduler",
    "simenv/service",
    "simenv/result_files",
    "simenv/wire",
    "simenv/worker",
)
MAX_MODULES = 12  # of one folder


def modules(package: str) -> dict[str, Path]:
    """Paths of a package's modules, by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }


def imports(package: str) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, anywhere in its text."""
    result = modules(package)
    table: dict[str, set[str]] = {}
    for name, path in result.items():
        targets = table[name] = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    targets.add(full if full in result else node.module)
            elif isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
        targets &= set(result) - {name}
    return table


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_no_import_cycles(package: str) -> None:
    left = imports(package)
    while free := {name for name, targets in left.items() if not targets & set(left)}:
        for name in free:
            del left[name]
    assert not left, f"in or above a circle: {sorted(left)}"


def test_a_folder_of_simulators_has_at_most_twelve_modules() -> None:
    folders = {path.parent for path in modules("simulators").values()}
    counts = {
        str(folder.relative_to(ROOT)): len(
            [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        )
        for folder in folders
    }
    assert {name: count for name, count in counts.items() if count > MAX_MODULES} == {}
