"""Build hook: the examples in each wheel, and wheels with the compiled kernels of one Python.

`scripts/release.py` sets SIMENV_WHEEL_KERNELS to a folder of machine code; without it, the wheel is
that of every platform, and kernels are compiled at the first start.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Machine code calls no function of glibc that a loader would have to find: the tag is that of the
# oldest glibc for which numba has wheels.
PLATFORM = "manylinux_2_28_x86_64"


class KernelHook(BuildHookInterface):
    """Adds the examples to `simenv/examples`, where `simenv examples` looks for them, and the
    folder of SIMENV_WHEEL_KERNELS to `simulators/compiler/machine_code`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files and set the tag of the wheel. Raises ValueError if the folder is empty."""
        if version == "editable":
            return
        build_data["force_include"][os.path.join(self.root, "examples")] = "simenv/examples"
        folder = os.environ.get("SIMENV_WHEEL_KERNELS")
        if not folder:
            return
        if not os.path.isdir(folder) or not os.listdir(folder):
            raise ValueError(f"SIMENV_WHEEL_KERNELS={folder} has no compiled kernels")
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        build_data["force_include"][folder] = "simulators/compiler/machine_code"
        build_data["pure_python"] = False
        build_data["tag"] = f"{python}-{python}-{PLATFORM}"
