"""Reasons that `scripts/system_packages.sh` gives where apt-get brings no package."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "system_packages.sh"
CACHE = """for word; do case "$word" in Dir::Cache::archives=*) folder="${word#*=}";; esac; done"""
NO_LISTS = """[ "$1" != update ] || { echo "E: no route to deb.debian.org" >&2; exit 100; }"""
NO_PACKAGE = """[ "$1" = update ] || { echo "E: Unable to locate package p" >&2; exit 100; }"""
CUT = (
    CACHE
    + """
[ "$1" = update ] || echo half >"$folder/p_1_all.deb\""""
)
WHOLE = (
    CACHE
    + """
echo "$@" >>LOG
[ "$1" = update ] || echo whole >"$folder/p_1_all.deb\""""
)
DPKG = """grep -q whole "$2" && touch "$3/unpacked\""""


def run(folder: Path, apt_get: str) -> subprocess.CompletedProcess[str]:
    """Unpack a package below `folder` with this apt-get."""
    programs = folder / "programs"
    programs.mkdir()
    sudo = '[ "$1" != -n ] || shift; exec "$@"'
    for name, text in (("apt-get", apt_get), ("dpkg", DPKG), ("sudo", sudo)):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    environ.pop("SIMENV_SYSTEM_PACKAGES", None)
    argv = [SCRIPT, "--into", folder, "p"]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("apt_get", "reason"),
    [
        (NO_LISTS, "its lists of packages cannot be refreshed: E: no route to deb.debian.org"),
        (NO_PACKAGE, "apt-get could not download them: E: Unable to locate package p"),
        ("exit 0", "apt-get downloaded nothing"),
        (CUT, "p_1_all.deb was not downloaded whole"),
    ],
)
def test_packages_that_do_not_come_are_named_with_the_reason(
    tmp_path: Path, apt_get: str, reason: str
) -> None:
    done = run(tmp_path, apt_get)
    assert done.returncode == 1
    assert f"error: this machine lacks p, and {reason}" in done.stderr
    assert "on Debian, type: sudo apt-get install -y p" in done.stderr
    assert "*.deb" not in done.stderr


def test_lists_are_refreshed_first_and_installed_packages_come_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(tmp_path, WHOLE.replace("LOG", str(log)))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "unpacked").exists()
    first, second = log.read_text().splitlines()
    assert first.startswith("update ")
    assert "--reinstall --download-only" in second
