"""Build hook: the examples and the commit in each wheel, and wheels with manual pages and the
compiled kernels of one Python.

`scripts/release.py` sets SIMENV_WHEEL_MAN to a folder of `simenv help man`, and
SIMENV_WHEEL_KERNELS to one of machine code. Without the second, the wheel is that of every
platform, and kernels are compiled at the first start.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Machine code calls no function of glibc that a loader would have to find: the tag is that of the
# oldest glibc for which numba has wheels.
PLATFORM = "manylinux_2_28_x86_64"
VERSION = "simenv/_version.py"


class ReleaseHook(BuildHookInterface):
    """Adds the examples to `simenv/examples`, where `simenv examples` looks for them, the folder of
    SIMENV_WHEEL_KERNELS to `simulators/compiler/machine_code`, and that of SIMENV_WHEEL_MAN to
    `share/man/man1` of the installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files and set the tag of the wheel. Raises ValueError if a folder is empty."""
        if version == "editable":
            return
        build_data["force_include"][os.path.join(self.root, "examples")] = "simenv/examples"
        if text := _with_commit(Path(self.root)):
            self._folder = tempfile.TemporaryDirectory()
            written = Path(self._folder.name) / "_version.py"
            written.write_text(text)
            build_data["force_include"][str(written)] = VERSION
        if folder := _named("SIMENV_WHEEL_MAN"):
            build_data["shared_data"][folder] = "share/man/man1"
        folder = _named("SIMENV_WHEEL_KERNELS")
        if not folder:
            return
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        build_data["force_include"][folder] = "simulators/compiler/machine_code"
        build_data["pure_python"] = False
        build_data["tag"] = f"{python}-{python}-{PLATFORM}"


def _with_commit(root: Path) -> str:
    """Return the version's module with a clone's commit; "": it has one, or none is known."""
    module = runpy.run_path(str(root / VERSION))
    commit = module["described"](root) if "$" in module["_COMMIT"] else ""
    return (root / VERSION).read_text().replace(module["_COMMIT"], commit) if commit else ""


def _named(variable: str) -> str:
    """Return the folder that a variable names; "": none. Raises ValueError if it is empty."""
    folder = os.environ.get(variable, "")
    if folder and not (os.path.isdir(folder) and os.listdir(folder)):
        raise ValueError(f"{variable}={folder} has no files")
    return folder
