"""Workers die while they run: their tasks end once, with the counts of an undisturbed run."""

import os
import random
import signal
import time

import pytest
from circuits import faulty, layered
from failing import fails
from ledger import Ledger
from live import PATIENCE_S, environment
from qiskit import QuantumCircuit
from waiting import busy_worker, until

import simenv
from simenv.client.client import Client
from simenv.errors import TaskFailedError
from simulators.fault import engine as fault

pytestmark = pytest.mark.usefixtures("no_leaks")

FAULTY = {"name": "main", "engine": "fault", "min": 1, "max": 1}
TASKS = 20  # for each kill
DIFFERENT = 20  # circuits; each is run again and again
KILLS = [8, pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.timeout(600)  # minutes where others use the machine too
@pytest.mark.parametrize("wanted", KILLS)
def test_tasks_of_killed_workers_end_once_with_same_counts(wanted: int) -> None:
    kinds = [layered(16, 100, seed) for seed in range(DIFFERENT)]
    with simenv.local(workers=2) as env:
        tasks = env.submit_many(kinds, shots=100, seed=list(range(DIFFERENT)))
        oracle = {seed: task.result().counts for seed, task in enumerate(tasks)}
    ledger = Ledger(oracle)
    seeds = [number % DIFFERENT for number in range(TASKS * wanted)]
    circuits = [kinds[seed] for seed in seeds]
    chance = random.Random(7)
    with environment() as live, live.client() as env:
        tasks = env.submit_many(circuits, shots=100, seed=seeds)
        ledger.accepted(tasks, seeds)
        hit: set[str] = set()
        kills = 0
        while kills < wanted:
            status = env.status()
            if status.running + status.queued < DIFFERENT:  # a fast machine: there is more
                more = env.submit_many(kinds, shots=100, seed=seeds[:DIFFERENT])
                ledger.accepted(more, seeds[:DIFFERENT])
                tasks += more
            busy = [w for w in env.workers() if w.task and w.task not in hit]
            if not busy:
                time.sleep(0.005)
                continue
            victim = chance.choice(busy)
            hit.add(victim.task)  # twice the same one would make it look like poison
            os.kill(victim.pid, signal.SIGKILL)
            kills += 1
            time.sleep(chance.uniform(0.0, 0.2))
        for task in simenv.as_completed(tasks, timeout_s=400):
            task.result()
        attempts = ledger.check(env)
        until(lambda: env.pools()["main"].workers >= 2, message="the pool is not back to its size")
    assert sum(count > 1 for count in attempts.values()) >= wanted // 2


def test_task_that_kills_its_workers_fails_as_poison_and_others_complete() -> None:
    with simenv.local(pools=[FAULTY]) as env:
        good = [layered(3, 1, seed) for seed in range(20)]
        tasks = env.submit_many(
            [*good[:7], faulty(fault.SEGFAULT), *good[7:]], engine="fault", seed=1
        )
        caught = fails(TaskFailedError, "", tasks[7].result, timeout_s=200)
        assert caught.reason == "poison"
        assert "SIGSEGV" in str(caught)
        for place, task in enumerate(tasks):
            if place != 7:
                assert sum(task.result(timeout_s=200).counts.values()) == 1024
        assert env.pools()["main"].state == "up"


def test_unresponsive_worker_is_replaced_and_its_task_runs_again() -> None:
    circuit = layered(22, 60, 1)  # a second
    with environment(silent_s=3.0) as live, live.client() as env:
        task = env.submit(circuit, shots=50, seed=3)
        busy = busy_worker(env, task)
        os.kill(busy.pid, signal.SIGSTOP)
        result = task.result(timeout_s=200)
        assert result.attempts >= 2
        assert busy.pid not in [worker.pid for worker in env.workers()]


WIDTH = 20


def layers(depth: int, seed: int) -> QuantumCircuit:
    circuit = QuantumCircuit(WIDTH, WIDTH)
    for layer in range(depth):
        for qubit in range(WIDTH):
            circuit.u(0.3 + qubit + seed, 0.7 * layer, 1.1, qubit)
        for qubit in range(layer % 2, WIDTH - 1, 2):
            circuit.cx(qubit, qubit + 1)
    return circuit


def part_circuit() -> QuantumCircuit:
    circuit = layers(20, 1)
    circuit.measure(range(4), range(4))
    return circuit


def rest(measured: str, depth: int = 20) -> QuantumCircuit:
    """What the program makes of four bits, for all qubits."""
    circuit = layers(depth, int(measured[-4:], 2))
    circuit.measure(range(4, WIDTH), range(4, WIDTH))
    return circuit


def pid_of(env: Client, worker: str) -> int:
    return next(each.pid for each in env.workers() if each.name == worker)


@pytest.mark.timeout(600)
def test_worker_killed_between_parts_loses_nothing() -> None:
    with environment() as live, live.client() as env:
        part = env.submit_part(part_circuit(), seed=7)
        measured = part.measured["c"]
        oracle = part.run(rest(measured), shots=300)
        assert oracle.remark == "1 of 1 parts from the state kept"
        os.kill(pid_of(env, part.result().worker), signal.SIGKILL)
        result = part.submit(rest(measured), shots=300).result(PATIENCE_S)
        assert (result.remark, result.counts) == ("0 of 1 parts from the state kept", oracle.counts)


@pytest.mark.timeout(600)
def test_worker_killed_in_the_second_part_is_replaced_by_one_that_runs_both() -> None:
    with environment() as live, live.client() as env:
        part = env.submit_part(part_circuit(), seed=8)
        slow = rest(part.measured["c"], depth=400)
        oracle = part.run(slow, shots=300)
        task = part.submit(slow, shots=300)
        busy = busy_worker(env, task)
        assert busy.name == part.result().worker
        os.kill(busy.pid, signal.SIGKILL)
        result = task.result(PATIENCE_S)
        assert result.attempts == 2
        assert result.worker != part.result().worker
        assert (result.remark, result.counts) == ("0 of 1 parts from the state kept", oracle.counts)
