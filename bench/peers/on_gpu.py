"""Comparison of the engine gpu with cuStateVec and with qsim's CUDA backend, on the same GPU.

cuStateVec: gates alone, gate by gate and with matrices fused to 3 and 5 qubits, the fastest counts.
qsim: whole runs with counts, in single precision, gates fused to 3 and 4 qubits; each once after a
run with one shot, because 1,024 shots of 26 qubits took it 8 s on an H200.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from bench.circuits import wide_circuit
from bench.harness import Report, timed_s
from bench.peers import custatevec
from bench.peers.custatevec import fused, gate_by_gate
from bench.peers.libraries import Qsim, qsim_has_cuda
from simulators.gpu.devices.device import Device

KINDS = ("qft", "volume")
WIDTHS = (0, 3, 5)  # of fused matrices; 0: gate by gate
QSIM_WIDTHS = (3, 4)
Clock = Callable[[Callable[[], object]], float]


class Peers:
    """The peers on one device. `clock`: seconds of a call, the device's work included."""

    def __init__(
        self, device: Device, seed: int, clock: Clock, library: ctypes.CDLL | None = None
    ) -> None:
        """`library`: cuStateVec; None: the one that is installed."""
        self._device = device
        self._seed = seed
        self._clock = clock
        self._library = library

    def custatevec_seconds(self, kind: str, n: int) -> dict[int, float]:
        """Seconds of all gates in double precision, by width of fused matrices. Raises
        NotInstalled."""
        peer = custatevec.CuStateVec(self._device, "double", self._library)
        gates = wide_circuit(kind, n, self._seed)
        state = custatevec.zero_state(self._device, n, "double")
        results = {}
        for width in WIDTHS:
            apply = peer.prepared(n, fused(gates, width) if width else gate_by_gate(gates))
            results[width] = self._clock(lambda apply=apply: apply(state))  # type: ignore[misc]
        print(f"cuStateVec {peer.version}, {kind} {n}: {_listed(results)}")
        peer.close()
        return results

    def qsim_seconds(self, kind: str, n: int) -> dict[int, float]:
        """Seconds of a run with counts, by width of fused gates."""
        gates = wide_circuit(kind, n, self._seed)
        results = {}
        for width in QSIM_WIDTHS:
            peer = Qsim(1, width, use_gpu=True)
            job = peer.prepare(n, gates)
            results[width] = timed_s(lambda peer=peer, job=job: peer.run(job))  # type: ignore[misc]
        print(f"qsim CUDA, {kind} {n}: {_listed(results)}")
        return results


def compare(
    report: Report,
    peers: Peers,
    n: int,
    gate_seconds: Callable[[str, int, str], float],
    run_seconds: Callable[[str, int], float],
) -> None:
    """Judge the engine's times over those of the peers, where they are installed. `gate_seconds`:
    the engine's, of all gates by kind, qubits and precision; `run_seconds`: of a run with counts in
    single precision."""
    for kind in KINDS:
        key = f"{kind}_custatevec"
        try:
            best = min(peers.custatevec_seconds(kind, n).values())
        except custatevec.NotInstalled as error:
            report.not_measured(key, str(error))
        else:
            report.at_most(key, gate_seconds(kind, n, "double") / best)
    if not qsim_has_cuda():
        reason = "qsimcirq is not installed with its CUDA backend"
        return report.not_measured("qsim_cuda", reason)
    shares = [run_seconds(kind, n) / min(peers.qsim_seconds(kind, n).values()) for kind in KINDS]
    report.at_most("qsim_cuda", max(shares))


def _listed(seconds: dict[int, float]) -> str:
    names = ((f"fused to {width}" if width else "gate by gate") for width in seconds)
    return ", ".join(
        f"{name} {1e3 * each:.2f} ms" for name, each in zip(names, seconds.values(), strict=True)
    )
