"""One step of a variational linear solver through PennyLane: 480 circuits, written in three ways.

The step is that of `bench/service/vqls.py`: seven sets of angles with 72 Hadamard tests each; times
are scaled to 480 circuits. `batch` writes out 504 tapes and gives them to `qml.execute`, including
the time in which PennyLane makes them; `broadcast` is one QNode whose angles are arrays; `gradient`
is `qml.grad` by parameter shifts of a QNode whose tests are broadcast (examples/vqls_frontends.py).
PennyLane's default.qubit and lightning.qubit run the same in the same rounds; simenv accepts tasks
on disk.

    python -m bench run frontends_pennylane [--rounds 7]
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simenv
from bench.harness.options import Option
from bench.harness.report import Report, installed

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import vqls as example
from vqls_frontends import hadamard_tests

SHOTS, CIRCUITS, WIRES = 1_024, 480, 4
OPTIONS = (Option("--rounds", type=int, default=7, quick=2),)
Array = NDArray[np.float64]


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("frontends_pennylane", "frontends_pennylane: a VQLS step, for 480 circuits")
    if not installed("pennylane"):
        report.not_measured("batch_s", "a step of 480 circuits", "PennyLane is not installed")
        return report
    import pennylane as qml

    times: dict[tuple[str, str], list[float]] = {}
    rng = np.random.default_rng(5)
    with simenv.local(workers=2, durability="accepted") as client:
        devices = {"simenv": qml.device("simenv", wires=WIRES, env=client, seed=1)}
        devices["default.qubit"] = qml.device("default.qubit", wires=WIRES, seed=1)
        if installed("pennylane_lightning"):
            devices["lightning.qubit"] = qml.device("lightning.qubit", wires=WIRES, seed=1)
        for warm in (True, *[False] * options.rounds):
            angles = rng.uniform(0, 3, 3)
            sums: dict[str, list[float]] = {}
            _timed(times, ("PennyLane", "making tapes"), warm, _tapes, angles)
            for name, device in devices.items():
                for way in (_batch, _broadcast, _gradient):
                    key = name, way.__name__[1:]
                    result = _timed(times, key, warm, way, device, angles)
                    sums.setdefault(key[1], []).append(float(np.sum(result)))
            for way_name, values in sums.items():  # all results agree within shot noise
                assert np.ptp(values) < 5 * np.sqrt(2 * 504 / SHOTS), (way_name, values)
    for (name, way_name), result in times.items():
        print(f"{name:16s} {way_name:14s}{statistics.median(result) * 1e3:10.1f} ms")
    print()
    for key in ("batch", "broadcast", "gradient"):
        value = statistics.median(times["simenv", key])
        report.at_most(f"{key}_s", value, f"a step of 480 circuits, {key}, s")
    return report


def _timed(
    times: dict[tuple[str, str], list[float]],
    key: tuple[str, str],
    warm: bool,
    call: Callable[..., Any],
    *arguments: Any,
) -> Any:
    begin = time.perf_counter()
    result = call(*arguments)
    seconds = (time.perf_counter() - begin) * CIRCUITS / (7 * len(example.ROWS))
    if not warm:
        times.setdefault(key, []).append(seconds)
    return result


def _bindings(angles: Array) -> Array:
    """Return the angles of all tests, float64 [504, 11]."""
    return example.bindings_of(example.shifted(angles))


def _tapes(angles: Array) -> list[Any]:
    import pennylane as qml

    make = qml.tape.make_qscript(hadamard_tests, shots=SHOTS)
    return [make(row) for row in _bindings(angles)]


def _batch(device: Any, angles: Array) -> Any:
    import pennylane as qml

    return qml.execute(_tapes(angles), device, diff_method=None)


def _broadcast(device: Any, angles: Array) -> Any:
    import pennylane as qml

    node = qml.set_shots(qml.QNode(hadamard_tests, device, diff_method=None), SHOTS)
    return node(list(_bindings(angles).T))


def _gradient(device: Any, angles: Array) -> Any:
    import pennylane as qml

    switches = example.switches()

    def tests(values: Any) -> Any:
        columns = [values[0], values[1], values[2], *switches.T]
        return hadamard_tests(columns)

    node = qml.set_shots(qml.QNode(tests, device, diff_method="parameter-shift"), SHOTS)
    at = qml.numpy.array(angles, requires_grad=True)
    return qml.jacobian(node)(at)
