"""Counts of many bindings of a narrow circuit: packed on the device, as the results have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult, Request, RunControl, RunOptions
from simulators.errors import Stopped
from simulators.gpu import backend
from simulators.gpu.engine import GpuEngine
from simulators.statevector.engine import StatevectorEngine
from testbed.host_device import BACKWARD, FORWARD, HostDevice

KERNELS = ["small_counts", "gather_counts"]


class CountingDevice(HostDevice):
    """Adds up the bytes that leave the host, and that come back."""

    def __init__(self, library: Path, order: int = FORWARD) -> None:
        super().__init__(library, order=order)
        self.uploaded = self.downloaded = 0

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        self.uploaded += array.nbytes
        return super().upload(array)

    def download(self, buffer: NDArray[Any]) -> NDArray[Any]:
        self.downloaded += buffer.nbytes
        return super().download(buffer)

    def download_bytes(self, buffer: NDArray[Any]) -> bytes:
        self.downloaded += buffer.nbytes
        return super().download_bytes(buffer)


def rotated(n: int, clbits: int, pairs: list[tuple[int, int]]) -> Circuit:
    """Free and constant rotations and entangling gates, and measurements of (qubit, clbit)."""
    arrays = Arrays(n, clbits)
    for q in range(n):
        arrays.add("h", [q]).add("ry", [q], (), [0.0])
        arrays.free(q)
        arrays.add("rz", [q], (), [0.3 * q])
    for q in range(n - 1):
        arrays.add("cx", [q, q + 1]).add("cu", [q, q + 1], (), [0.1, 0.2, 0.3, 0.4])
        arrays.free(q)  # the last parameter; a slot that stands twice
    for qubit, clbit in pairs:
        arrays.add("measure", [qubit], [clbit])
    return arrays.circuit()


def request(circuit: Circuit, rows: int, shots: int) -> Request:
    values = np.random.default_rng(rows).uniform(-3, 3, (rows, circuit.num_slots))
    return Request(shots, 77, bindings=values, binding=2**40)


LAYOUTS = [
    (1, 1, [(0, 0)]),
    (5, 5, [(q, 4 - q) for q in range(5)]),
    (6, 3, [(4, 2), (1, 0)]),  # clbit 1 stays 0
    (4, 9, [(3, 8), (0, 1), (2, 5)]),
    (4, 40, [(1, 39), (1, 2), (3, 0)]),  # a qubit in two clbits
    (5, 70, [(0, 69), (3, 64), (4, 1), (2, 1)]),  # records of two words; a clbit written twice
    (9, 9, [(q, q) for q in range(9)]),  # records for more than one block of threads
]


@pytest.mark.parametrize("order", [FORWARD, BACKWARD, 12])
@pytest.mark.parametrize(("n", "clbits", "pairs"), LAYOUTS)
def test_counts_of_any_measured_bits_are_those_of_the_statevector_engine(
    library: Path, n: int, clbits: int, pairs: list[tuple[int, int]], order: int
) -> None:
    circuit = rotated(n, clbits, pairs)
    for rows, shots in ((1, 1), (1, 999), (7, 1), (7, 301)):
        device, wanted = CountingDevice(library, order), request(circuit, rows, shots)
        result = run(GpuEngine(device), circuit, wanted)
        assert device.launches == KERNELS
        assert result == run(StatevectorEngine(), circuit, wanted)
        assert (result.rows == b"") == (rows == 1)
        packed = len(result.outcomes) + len(result.counts)
        assert device.downloaded == packed + 4 * rows, "zeros stay on the device"


def test_bindings_of_a_circuit_without_gates_have_one_outcome(library: Path) -> None:
    circuit, wanted = (
        Arrays(2, 2).measure([0, 1]).circuit(),
        Request(9, 1, bindings=np.ones((3, 0))),
    )
    result = run(GpuEngine(HostDevice(library)), circuit, wanted)
    assert result == EngineResult(
        3, 1, bytes(3), np.full(3, 9, np.uint32).tobytes(), np.ones(3, np.uint32).tobytes()
    )


def test_groups_of_bindings_have_the_counts_of_all_at_once(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = rotated(4, 4, [(q, q) for q in range(4)])
    wanted = request(circuit, 7, 50)
    device = HostDevice(library)
    monkeypatch.setattr(backend, "_MOST_ROWS", 2)
    result = run(GpuEngine(device), circuit, wanted)
    assert device.launches == KERNELS * 4, "two bindings at a time, and one"
    assert result == run(StatevectorEngine(), circuit, wanted)


def test_a_stop_is_noticed_between_groups(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = RunControl()

    class StoppingDevice(HostDevice):
        def launch(self, kernel: str, *arguments: Any, **named: Any) -> None:
            super().launch(kernel, *arguments, **named)
            control.stop()

    monkeypatch.setattr(backend, "_MOST_BYTES", 1)
    device = StoppingDevice(library)
    engine, circuit = GpuEngine(device), rotated(3, 3, [(0, 0)])
    plan = engine.plan(circuit, None, RunOptions())
    with pytest.raises(Stopped):
        engine.run(plan, circuit, request(circuit, 3, 5), RunOptions(), control)
    assert device.launches == KERNELS


def test_matrices_without_free_parameters_are_uploaded_once(library: Path) -> None:
    def uploaded(free: Callable[[Arrays], object], rows: int) -> int:
        arrays = Arrays(3, 3)
        for _ in range(20):
            arrays.add("h", [0]).add("rzz", [0, 1], (), [0.5]).add("ry", [2], (), [0.1])
        free(arrays)
        circuit, device = arrays.measure(range(3)).circuit(), CountingDevice(library)
        wanted = request(circuit, rows, 20)
        assert run(GpuEngine(device), circuit, wanted) == run(StatevectorEngine(), circuit, wanted)
        return device.uploaded

    for free, matrices in ((lambda arrays: arrays.free(0), 1), (lambda _: None, 0)):
        grown = uploaded(free, 30) - uploaded(free, 10)
        assert grown == 20 * (64 * matrices + 4), "of each binding, and the place of its counts"
