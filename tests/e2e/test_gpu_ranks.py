"""A pool of `engine=gpu,ranks=2`: its worker's ranks are real, and have a GPU each.

The machine is that of `nvidia_site`, with GPUs so small that a state of 17 qubits needs two.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nvidia_site import machine, ring_circuit
from waiting import busy_worker, until

from simenv.client.client import Client, connect
from testbed.ranks import mpirun

SMALL = "NVIDIA H200,1537,99"  # beside what is kept of its memory, a state of 16 qubits
GPUS = f"GPU-aaaa,{SMALL};GPU-bbbb,{SMALL}"
POOLS = ("--pool", "main:workers=1", "--pool", "g:engine=gpu,ranks=2,workers=auto")
PATIENCE_S = 240.0

pytestmark = pytest.mark.skipif(mpirun() is None, reason="there is no mpirun")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Client]:
    programs = mpirun()
    assert programs is not None
    variables = {"PATH": os.pathsep.join([str(programs.parent), os.environ["PATH"]])}
    if programs.parent == Path(sys.prefix) / "bin":  # as pip installs it
        variables |= {f"{name}_PREFIX": sys.prefix for name in ("OPAL", "PMIX", "PRTE")}
    with machine(folder, GPUS, variables=variables) as simenv:
        result = simenv("up", *POOLS, "--slots", "4")
        assert result.returncode == 0, result.stderr
        with connect(service=folder / "home" / "default" / "connection.json") as client:
            wait_for_workers(client)
            yield client


def wait_for_workers(site: Client) -> None:
    until(
        lambda: [each for each in site.workers() if each.pool == "g" and each.state == "IDLE"],
        message=lambda: [site.pools(), site.events()],
    )


def ranks_of(folder: Path) -> dict[int, psutil.Process]:
    """The processes of worker g-0, by rank."""
    table = {}
    for process in psutil.process_iter():
        try:
            result = process.cmdline()
            if "simenv.worker" in result and "g-0" in result and str(folder) in " ".join(result):
                environ = process.environ()
                if "PMIX_RANK" in environ:
                    table[int(environ["PMIX_RANK"])] = process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return table


def logged(folder: Path) -> str:
    logs = sorted((folder / "home").rglob("g-0*.log"))
    return "\n".join(log.read_text(errors="replace") for log in logs)


def test_each_rank_has_a_gpu_of_its_own(site: Client, folder: Path) -> None:
    (worker,) = [each for each in site.workers() if each.pool == "g"]
    assert worker.ranks == 2
    assert site.pools()["g"].max_qubits == 17, "one more than a GPU holds"
    text = logged(folder)
    assert "rank 0 has GPU GPU-aaaa" in text
    assert "rank 1 has GPU GPU-bbbb" in text


def test_amplitudes_go_from_gpu_to_gpu_by_nccl(site: Client, folder: Path) -> None:
    site.submit(ring_circuit(17, 3), shots=10, seed=5, engine="gpu").result(PATIENCE_S)
    text = logged(folder)
    assert all(f"NCCL: {rank} of 2 has joined" in text for rank in range(2))
    assert "NCCL: sends" in text


@pytest.mark.parametrize("n", [5, 14, 17])
def test_counts_are_those_of_the_processor(site: Client, n: int) -> None:
    value, expected = (
        site.submit(ring_circuit(n, 3), shots=2000, seed=5, engine=engine).result(PATIENCE_S)
        for engine in ("gpu", "statevector")
    )
    assert (value.engine, value.ranks) == ("gpu", 2)
    assert value.counts == expected.counts


def test_state_larger_than_both_gpus_is_refused_at_submission(site: Client) -> None:
    with pytest.raises(Exception, match=r"need 2\.0 MiB on each of 2 GPUs") as caught:
        site.submit(ring_circuit(18, 2), shots=1, engine="gpu")
    assert "ranks=4" not in str(caught.value)


def test_task_of_a_killed_rank_runs_again_to_the_same_counts(site: Client, folder: Path) -> None:
    long = ring_circuit(17, 60)
    expected = site.submit(long, shots=1000, seed=11, engine="statevector").result(PATIENCE_S)
    task = site.submit(long, shots=1000, seed=11, engine="gpu")
    busy_worker(site, task)
    os.kill(ranks_of(folder)[1].pid, signal.SIGKILL)
    result = task.result(timeout_s=PATIENCE_S)
    assert (result.attempts, result.ranks) == (2, 2)
    assert result.counts == expected.counts
    assert logged(folder).count("has GPU GPU-bbbb") == 2
