"""Checks of cores, memory and GPUs of this machine that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from launcher.allocation.this_node import this_node
from launcher.base import Gpu
from simenv.cli.doctor.finding import DoctorFinding
from simenv.cli.output import terminal
from simulators import catalog
from simulators.catalog import gpu_costs

LEAST_FREE_BYTES = 2**30


def cores() -> Iterator[DoctorFinding]:
    """Compare the usable cores (affinity and cgroup quota) with those of the machine and its
    load."""
    node, num_cpus = this_node(), os.cpu_count() or 1
    detail = f"{node.slots} of {num_cpus} cores are usable"
    load = os.getloadavg()[0]
    if load > num_cpus:
        detail += f", but {load:.1f} threads want to run"
        yield DoctorFinding("warn", "cores", detail, "top -o %CPU")
    else:
        yield DoctorFinding("ok", "cores", detail)


def memory() -> Iterator[DoctorFinding]:
    """Report the memory limit, the free memory, and the widest circuit that it holds."""
    import psutil

    limit = this_node().memory_bytes
    free = min(limit, psutil.virtual_memory().available)
    engine = next(card for card in catalog.CARDS if card.auto is not None)
    width = engine.max_qubits_in(free)
    detail = f"{terminal.size(free)} free of {terminal.size(limit)}: circuits up to {width} qubits"
    if free < LEAST_FREE_BYTES:
        yield DoctorFinding("warn", "memory", detail, "top -o %MEM")
    else:
        yield DoctorFinding("ok", "memory", detail)


def gpus() -> Iterator[DoctorFinding]:
    """Report the GPUs granted to this process, and what the engine `gpu` lacks to use them."""
    from simulators.gpu.devices.compile import load_nvrtc
    from simulators.gpu.devices.detect import find_gpu, refusal

    evidence = find_gpu()
    reason = refusal(evidence)
    if reason is not None:
        level: Literal["ok", "warn"] = "warn" if evidence.has_driver else "ok"
        yield DoctorFinding(level, "gpu", reason[0], reason[1] if level == "warn" else "")
        return
    for gpu in this_node().gpu_details:
        yield DoctorFinding("ok", "gpu", _described(gpu))
    if load_nvrtc() is None:
        detail = "NVRTC is not installed: kernels can be run only where they are compiled"
        extra = catalog.builtin_card("gpu").package.install
        yield DoctorFinding("warn", "gpu", detail, extra)


def _described(gpu: Gpu) -> str:
    if not gpu.memory_bytes:
        return f"{gpu.uuid}: its memory is not known: NVML is not installed"
    double, single = (
        gpu_costs.widest_state(gpu.memory_bytes, precision) for precision in ("double", "single")
    )
    major, minor = gpu.capability
    return (
        f"{gpu.uuid}: {gpu.model}, {terminal.size(gpu.memory_bytes)}, sm_{major}{minor}: circuits"
        f" up to {double} qubits, {single} in single precision"
    )
