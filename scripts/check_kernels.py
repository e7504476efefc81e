"""Compile all GPU kernels by NVRTC, without a GPU, and compare registers, stack and spills with
the budget in `gpu` of bench/goals.toml: python scripts/check_kernels.py [sm_80 sm_90 sm_100]

Ends with 1 where a kernel is over its budget. Without NVRTC's wheel it says so and ends with 0; in
CI (the variable CI is set) with 2.
"""

from __future__ import annotations

import os
import sys
import time
import tomllib
from pathlib import Path

from simulators.gpu.devices.device import MODULES, KernelUsage, load_nvrtc, usage

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


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


def main() -> int:
    nvrtc = load_nvrtc()
    if nvrtc is None:
        print("skipped: NVRTC is not installed; type: pip install nvidia-cuda-nvrtc")
        return 2 if "CI" in os.environ else 0
    budget = tomllib.loads((ROOT / "bench" / "goals.toml").read_text())["gpu"]
    bad = 0
    for architecture in sys.argv[1:] or ARCHITECTURES:
        for module in MODULES:
            begin = time.perf_counter()
            compiled = nvrtc.compile(module, capability(architecture))
            seconds = time.perf_counter() - begin
            print(f"{nvrtc} {architecture} {module}: {len(compiled.cubin)} bytes, {seconds:.1f} s")
            for kernel in usage(compiled.log):
                wrong = over_budget(kernel, budget)
                bad += bool(wrong)
                verdict = f"  OVER: {', '.join(wrong)}" if wrong else ""
                print(
                    f"  {kernel.name:24s} {kernel.registers:4d} registers, {kernel.stack_bytes} B"
                    f" stack, {kernel.spilled_bytes} B spilled{verdict}"
                )
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
