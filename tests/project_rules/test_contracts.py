"""Import contracts, which `make lint` enforces, cover every module of each package."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {c["name"]: c for c in PROJECT["tool"]["importlinter"]["contracts"]}
OUR_PROCESSES = {
    "__main__",
    "calibration",
    "cli",
    "scheduler",
    "service",
    "node_agent",
    "worker",
}  # the rest may run in a user's process


def modules_of(package: str) -> set[str]:
    """Modules and folders with code directly inside `package`."""
    folder = ROOT / package
    return {
        path.stem
        for path in folder.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }


def test_each_package_has_contracts_is_shipped_and_type_checked() -> None:
    packages = {
        path.parent.name
        for path in ROOT.glob("*/__init__.py")
        if path.parent.name not in ("tests", "bench", "testbed")
    }
    assert packages == set(PROJECT["tool"]["importlinter"]["root_packages"])
    assert packages == set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages == set(PROJECT["tool"]["mypy"]["packages"])


def test_each_subpackage_of_simenv_has_a_layer() -> None:
    layers = CONTRACTS["layers inside simenv"]["layers"]
    assert {name.strip() for layer in layers for name in layer.split("|")} == modules_of("simenv")


def test_each_user_process_module_may_not_import_generic_packages() -> None:
    contract = CONTRACTS["a user's process never loads the generic names"]
    expected = {f"simenv.{module}" for module in modules_of("simenv") - OUR_PROCESSES}
    assert set(contract["source_modules"]) == expected


def test_purity_contract_covers_all_pure_modules() -> None:
    contract = CONTRACTS["pure modules"]
    pure = {
        "launcher.placement", "noise_models",
        "simenv.scheduler", "simulators.catalog", "simulators.circuit",
        "simenv.cli.profile",
        "simenv.client.bundle_manifest",
    }  # fmt: skip
    assert set(contract["source_modules"]) == pure


def test_all_engine_packages_are_forbidden_to_service() -> None:
    contract = CONTRACTS["the service knows engines by their catalog only"]
    families = {
        f"simulators.{path.parent.name}"
        for path in (ROOT / "simulators").glob("*/__init__.py")
        if path.parent.name
        not in (
            "catalog",
            "chain",
            "circuit",
            "compiler",
            "dynamic",
            "execution",
            "lines",
            "strings",
            "trajectories",
        )
    }
    assert set(contract["forbidden_modules"]) == families | {"simulators.registry"}


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_modules_named_in_contracts_exist(name: str) -> None:
    contract = CONTRACTS[name]
    named = [*contract.get("source_modules", ()), *contract.get("forbidden_modules", ())]
    for module in named:
        first, _, rest = module.partition(".")
        if first in PROJECT["tool"]["importlinter"]["root_packages"] and rest:
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module


def _rows(page: Path, header: str) -> list[list[str]]:
    """Return the cells of the table below a header row."""
    lines = page.read_text().partition(header)[2].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def test_documented_packages_are_those_of_the_distribution() -> None:
    rows = _rows(ROOT / "docs/concepts/architecture.md", "| package | content |")
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows))) == sorted(packages)


def test_documented_layers_are_those_of_the_contract() -> None:
    rows = _rows(ROOT / "CONTRIBUTING.md", "| layer | package |")
    documented = [set(re.findall(r"`(\w+)`", row[1])) for row in rows]
    layers = CONTRACTS["layers inside simenv"]["layers"]
    enforced = [{name for name in layer.split(" | ") if name[0] != "_"} for layer in layers]
    assert documented == [layer for layer in enforced if layer]
    assert [int(row[0]) for row in rows] == list(range(len(rows), 0, -1))
