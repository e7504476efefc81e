"""Compile all GPU kernels without a GPU, and compare registers, stack and spills with the budget in
`gpu` of bench/goals.toml, or with AMD_BUDGET:
python scripts/check_kernels.py [sm_80 sm_90 sm_100 gfx90a]

By NVRTC; by HIPRTC for AMD's, if they are named. Ends with 1 where a kernel is over its budget.
Without the compiler it says so and ends with 0; in CI (the variable CI is set) with 2.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import tomllib
from pathlib import Path

from simulators.gpu.devices.nvrtc import MODULES, KernelUsage, load_nvrtc, usage
from testbed.hiprtc import Hiprtc, usage as amd_usage

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Vector registers of a thread: two blocks of 256 threads on gfx908 and gfx90a; the former has half
# as many, and spills four.
AMD_BUDGET = {"registers": 256, "stack_bytes": 0, "spilled_bytes": 16}


def over_budget(kernel: KernelUsage, budget: dict[str, int]) -> list[str]:
    """Limits that a kernel exceeds, in words."""
    used = {
        "registers": kernel.registers,
        "stack_bytes": kernel.stack_bytes,
        "spilled_bytes": kernel.spilled_bytes,
    }
    return [f"{key} {value} > {budget[key]}" for key, value in used.items() if value > budget[key]]


def capability(architecture: str) -> tuple[int, int]:
    """The two numbers of `sm_90` or `sm_100`."""
    digits = architecture.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


def compiled(architecture: str, module: str) -> tuple[str, int, tuple[KernelUsage, ...]]:
    """The compiler, the bytes that it made and what they use. Raises OSError if it is missing."""
    if architecture.startswith("gfx"):
        hip = Hiprtc()
        code = hip.compile(module, architecture)
        return repr(hip), len(code), amd_usage(code)
    nvrtc = load_nvrtc()
    if nvrtc is None:
        raise OSError("NVRTC is not installed; type: pip install nvidia-cuda-nvrtc")
    result = nvrtc.compile(module, capability(architecture))
    return repr(nvrtc), len(result.cubin), usage(result.log)


def main() -> int:
    goals = tomllib.loads((ROOT / "bench" / "goals.toml").read_text())
    bad = 0
    for architecture, module in itertools.product(sys.argv[1:] or ARCHITECTURES, MODULES):
        begin = time.perf_counter()
        try:
            compiler, size, kernels = compiled(architecture, module)
        except OSError as error:
            print(f"skipped: {error}")
            return 2 if "CI" in os.environ else 0
        seconds = time.perf_counter() - begin
        print(f"{compiler} {architecture} {module}: {size} bytes, {seconds:.1f} s")
        for kernel in kernels:
            wrong = over_budget(kernel, AMD_BUDGET if architecture[0] == "g" else goals["gpu"])
            bad += bool(wrong)
            verdict = f"  OVER: {', '.join(wrong)}" if wrong else ""
            print(
                f"  {kernel.name:24s} {kernel.registers:4d} registers, {kernel.stack_bytes} B"
                f" stack, {kernel.spilled_bytes} B spilled{verdict}"
            )
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
