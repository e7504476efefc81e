"""Slices of one contraction over real workers: the values of one task."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from failing import fails
from live import PATIENCE_S, environment
from qiskit import QuantumCircuit

import simenv
from simenv.client.stream import Stream
from simenv.client.stream_stages import SlicedContraction, SlicedResult
from simenv.errors import OptionError, TaskFailedError, VersionMismatchError

pytest.importorskip("cotengra")

QUBITS, SHARES = 30, 4
SLICED = {"width": 7}  # a thousand slices: about half a second for each of four shares
TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    pool = {"name": "networks", "engine": "contraction", "min": 2, "max": 2}
    with environment(pools=[pool]) as live, live.client() as client:
        yield client


def layers() -> tuple[QuantumCircuit, list[str]]:
    """Three layers of phases on a random graph of degree 3, and edges as observables."""
    random = np.random.default_rng(5)
    matchings = [random.permutation(QUBITS).reshape(-1, 2).tolist() for _ in range(3)]
    circuit = QuantumCircuit(QUBITS)
    circuit.h(range(QUBITS))
    for _ in range(3):
        for a, b in (pair for matching in matchings for pair in matching):
            circuit.rzz(0.6, a, b)
        circuit.rx(0.8, range(QUBITS))
    edges = matchings[0][:2]
    labels = [
        "".join("Z" if qubit in edge else "I" for qubit in reversed(range(QUBITS)))
        for edge in edges
    ]
    return circuit, [*labels, "I" * QUBITS, "I" * (QUBITS - 1) + "X"]


def whole(env: simenv.Client) -> np.ndarray:
    circuit, labels = layers()
    result = env.run(circuit, observables=labels, shots=None, engine="contraction")
    return np.array(result.expectations)


def busy_worker(env: simenv.Client) -> int:
    """Pid of a worker that has been running a task for a while."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        first = {(worker.pid, worker.task) for worker in env.workers() if worker.task}
        time.sleep(0.1)
        both = first & {(worker.pid, worker.task) for worker in env.workers()}
        if both:
            return both.pop()[0]
    raise AssertionError("no worker was busy")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("killed", [False, True], ids=["all alive", "a worker killed"])
def test_shares_of_workers_add_up_to_values_of_one_task(env: simenv.Client, killed: bool) -> None:
    circuit, labels = layers()
    exact = whole(env)
    stage = SlicedContraction(labels, shares=SHARES, options=SLICED)
    with Stream(env, pipeline=[stage]) as stream:
        task = stream.submit(circuit)
        if killed:
            os.kill(busy_worker(env), signal.SIGKILL)
        result = task.result(PATIENCE_S)
    assert isinstance(result, SlicedResult)
    assert np.abs(np.array(result.expectations) - exact).max() < TOLERANCE
    assert len(result.parts) == SHARES
    if not killed:  # else the other one may end all of them before the new worker is up
        assert len({part.worker for part in result.parts}) >= 2
    assert max(part.attempts for part in result.parts) == (2 if killed else 1)


@pytest.mark.parametrize("options", [{}, {"width": 9}], ids=["rows", "slices"])
def test_amplitudes_of_shares_add_up(env: simenv.Client, options: dict[str, float]) -> None:
    circuit, labels = layers()
    random = np.random.default_rng(2)
    strings = ["".join(map(str, row)) for row in random.integers(0, 2, (5, QUBITS)).tolist()]
    exact = env.run(circuit, amplitudes=strings, shots=None, engine="contraction").amplitudes
    stage = SlicedContraction(labels[0], amplitudes=strings, shares=SHARES, options=options)
    with Stream(env, pipeline=[stage]) as stream:
        result = stream.submit(circuit).result(PATIENCE_S)
    assert isinstance(result, SlicedResult)
    assert list(result.amplitudes) == strings
    largest = max(map(abs, exact.values()))
    assert max(abs(result.amplitudes[text] - exact[text]) for text in strings) < 1e-10 * largest
    assert result.expectations == pytest.approx(whole(env)[:1], abs=TOLERANCE)


def test_shares_are_marked_as_partial_sums(env: simenv.Client) -> None:
    circuit, labels = layers()
    exact = whole(env)
    with Stream(env, pipeline=[SlicedContraction(labels, shares=2)]) as stream:
        result = stream.submit(circuit).result(PATIENCE_S)
    for share, part in enumerate(result.parts):
        assert part.remark.startswith(f"partial sum, share {share} of 2; width ")
        assert part.options == {"shares": 2, "share": share}
        assert np.abs(np.array(part.expectations) - exact).max() > 1e-3
    assert np.abs(np.array(result.expectations) - exact).max() < TOLERANCE


def test_shares_of_other_outputs_are_refused_by_name(env: simenv.Client) -> None:
    circuit, labels = layers()
    shares = {"shares": 2, "share": 1}
    measured = circuit.copy()
    measured.measure_all()
    for options, match in (
        ({"shots": 10}, "output 'counts' with shares=2"),
        ({"shots": 10, "outputs": "expectation", "observables": labels[0]}, "of 10 shots with"),
    ):
        with pytest.raises(TaskFailedError, match=match) as caught:
            env.run(measured, engine="contraction", options=shares, **options)
        assert "ranks" in caught.value.hint
    with pytest.raises(TaskFailedError, match="share 2 of 2"):
        env.run(
            circuit,
            observables=labels,
            shots=None,
            engine="contraction",
            options={"shares": 2, "share": 2},
        )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"shares": 0}, "shares=0"),
        ({"shares": 1_025}, "shares=1025"),
        ({"shares": 2, "observables": None}, "SlicedContraction of nothing"),
        ({"shares": 2, "options": {"share": 1}}, "options of SlicedContraction: 'share'"),
    ],
)
def test_bad_shares_are_refused(values: dict[str, object], match: str) -> None:
    fails(OptionError, match, SlicedContraction, **{"observables": "Z", **values})


def test_shares_of_different_slices_are_never_added(env: simenv.Client) -> None:
    circuit, labels = layers()
    results = []
    for width in (8, 10):
        stage = SlicedContraction(labels, shares=2, options={"width": width})
        with Stream(env, pipeline=[stage]) as stream:
            results.append(stream.submit(circuit).result(PATIENCE_S).parts)
    combine = SlicedContraction(labels, shares=2).split(circuit).combine
    with pytest.raises(VersionMismatchError, match=r"different slices: width 10, \d+ slices"):
        combine([results[0][0], results[1][1]])
