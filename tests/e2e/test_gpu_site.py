"""The engine `gpu` in an environment on a machine with GPUs, as far as programs can tell.

NVML, the driver and CuPy are stand-ins with the interfaces of NVIDIA's (`nvidia_site`); the kernels
are those of the product, compiled by g++.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bare import Simenv
from nvidia_site import MODEL, machine, ring_circuit
from qiskit import QuantumCircuit
from waiting import busy_worker, until

from simenv.client.client import Client, connect

GPUS = f"GPU-aaaa,{MODEL};GPU-bbbb,{MODEL}"
POOLS = ("--pool", "main:workers=1", "--pool", "g:engine=gpu,workers=auto")
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def simenv(folder: Path) -> Iterator[Simenv]:
    with machine(folder, GPUS) as command:
        yield command


@pytest.fixture(scope="module")
def site(folder: Path, simenv: Simenv) -> Iterator[Client]:
    result = simenv("up", *POOLS)
    assert result.returncode == 0, result.stderr
    with connect(service=folder / "home" / "default" / "connection.json") as client:
        yield client


def test_doctor_lists_each_gpu_with_what_fits(simenv: Simenv) -> None:
    entries = [json.loads(line) for line in simenv("doctor", "--json").stdout.splitlines()]
    details = [row["detail"] for row in entries if row["what"] == "gpu" and row["level"] == "ok"]
    assert details == [
        f"{uuid}: NVIDIA H200, 140.4 GiB, sm_99: circuits up to 33 qubits, 34 in single precision"
        for uuid in ("GPU-aaaa", "GPU-bbbb")
    ]


def test_each_gpu_has_a_worker_that_is_shown_no_other(site: Client) -> None:
    table = {
        worker.name: psutil.Process(worker.pid).environ().get("CUDA_VISIBLE_DEVICES")
        for worker in site.workers()
    }
    assert table == {"main-0": None, "g-0": "GPU-aaaa", "g-1": "GPU-bbbb"}
    pool = site.pools()["g"]
    assert (pool.max_qubits, pool.most) == (33, 2)
    assert [node.gpus for node in site.nodes().values()] == [2]


@pytest.mark.parametrize("n", [5, 13])
def test_counts_are_those_of_the_processor(site: Client, n: int) -> None:
    value, expected = (
        site.submit(ring_circuit(n, 3), shots=2000, seed=5, engine=engine).result(PATIENCE_S)
        for engine in ("gpu", "statevector")
    )
    assert (value.engine, value.counts) == ("gpu", expected.counts)


def test_wide_counts_are_those_of_sweeps_on_the_processor(site: Client) -> None:
    """In the pool of the engine `gpu`."""
    circuit = QuantumCircuit(60)
    for layer in range(3):
        circuit.rx(0.6 + layer, range(60))
        for qubit in range(59):
            circuit.rzz(0.7, qubit, qubit + 1)
    circuit.measure_all()
    value, expected = (
        site.submit(circuit, shots=200, seed=5, engine=engine).result(PATIENCE_S)
        for engine in ("gpu_sweep", "sweep")
    )
    assert (value.engine, value.counts) == ("gpu_sweep", expected.counts)


def test_state_larger_than_a_gpu_is_refused_at_submission(site: Client) -> None:
    with pytest.raises(Exception, match="34 qubits in double precision need 256") as caught:
        site.submit(ring_circuit(34, 17), shots=1, engine="gpu")
    assert "this one fits with precision='single'" in str(caught.value)


def test_task_of_a_killed_worker_runs_again_to_the_same_counts(site: Client) -> None:
    long = ring_circuit(16, 24)
    expected = site.submit(long, shots=1000, seed=11, engine="gpu").result(PATIENCE_S)
    task = site.submit(long, shots=1000, seed=11, engine="gpu")
    busy = busy_worker(site, task)
    os.kill(busy.pid, signal.SIGKILL)
    result = task.result(timeout_s=PATIENCE_S)
    assert (result.attempts, result.counts) == (2, expected.counts)
    until(lambda: sum(each.pool == "g" and each.state == "IDLE" for each in site.workers()) == 2)
    again = {worker.name: psutil.Process(worker.pid).environ() for worker in site.workers()}
    assert again[busy.name]["CUDA_VISIBLE_DEVICES"] in GPUS
    assert len({again[name]["CUDA_VISIBLE_DEVICES"] for name in ("g-0", "g-1")}) == 2


REFUSALS = {
    "no-driver": ({"gpus": "", "cuda": 13000}, {"LD_LIBRARY_PATH": ""}, "no NVIDIA driver"),
    "no-grant": ({"gpus": GPUS}, {"CUDA_VISIBLE_DEVICES": ""}, "no GPU granted: the driver is"),
    "old-driver": ({"gpus": GPUS, "cuda": 12020}, {}, "has CUDA 12.2; simenv[gpu-cu13] needs"),
    "no-cupy": ({"gpus": GPUS, "wheels": ()}, {}, "engine 'gpu' is not installed here"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_gpu_that_cannot_be_used_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    site, variables, message = REFUSALS[case]
    with machine(tmp_path, **site, variables=variables) as simenv:  # type: ignore[arg-type]
        (tmp_path / "c.qasm").write_text("OPENQASM 3.0; qubit[1] q; bit[1] c; c = measure q;")
        result = simenv("simulate", "c.qasm", "--engine", "gpu", "--json")
        assert result.returncode != 0
        error = json.loads(result.stdout.splitlines()[-1])["error"]
        assert message in error["message"], error
        assert error["hint"]
