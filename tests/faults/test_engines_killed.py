"""Workers die in the middle of a run, in every engine: the tasks run again, to the same counts."""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import psutil
import pytest
from circuits import layered
from engines import present
from live import PATIENCE_S
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model import WorkerInfo
from simulators.catalog.builtin import CARDS

TESTS = Path(__file__).parents[1]
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "machines:aer", "min": 1, "max": 1},
    {"name": "drill", "engine": "fault", "min": 1, "max": 1},
]
BUSY = 0.2  # a worker is killed after this part of its task's time, in CPU time, or BUSY_S of it
BUSY_S = 0.15
TRIES = 4  # of which one at least is killed


@dataclass(frozen=True)
class Case:
    """A circuit that takes an engine half a second at least."""

    engine: str
    circuit: QuantumCircuit
    shots: int
    pool: str = "main"
    strings: tuple[str, ...] = ()  # whose amplitudes are computed in place of counts
    pairs: bool = False  # ZZ of all pairs of qubits in place of counts


def chain(num_qubits: int, depth: int) -> QuantumCircuit:
    """Brickwork: bonds of 2**(depth / 2)."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for layer in range(depth):
        for qubit in range(num_qubits):
            circuit.u(0.3 + qubit, 0.7 * layer, 1.1, qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cz(qubit, qubit + 1)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def histories(num_qubits: int) -> QuantumCircuit:
    """Outcomes on the way turn other qubits: each shot has a history of its own."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(1.0 + 0.1 * qubit, qubit)
        circuit.cx(qubit, (qubit + 1) % num_qubits)
        circuit.measure(qubit, qubit)
        with circuit.if_test((circuit.clbits[qubit], 1)):
            circuit.rx(0.4 + qubit, qubit)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def graph(num_qubits: int) -> QuantumCircuit:
    """Layers on a graph of degree 3: a ring, and its halves joined."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    circuit.h(range(num_qubits))
    half = num_qubits // 2
    for angle in (0.6, 0.4):
        for qubit in range(num_qubits):
            circuit.rzz(angle, qubit, (qubit + 1) % num_qubits)
        for qubit in range(half):
            circuit.rzz(angle, qubit, (5 * qubit) % half + half)
        circuit.rx(0.8, range(num_qubits))
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def bit_strings(num_qubits: int) -> tuple[str, ...]:
    """Random bit strings."""
    chance = random.Random(4)
    return tuple(format(chance.getrandbits(num_qubits), f"0{num_qubits}b") for _ in range(400))


def clifford(num_qubits: int, depth: int) -> QuantumCircuit:
    """Brickwork of CX with random Clifford gates on each qubit."""
    chance = random.Random(1)
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for layer in range(depth):
        for qubit in range(num_qubits):
            getattr(circuit, chance.choice(["h", "s", "x"]))(qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


CASES = {
    "statevector-small": Case("statevector", layered(10, 20, 1), 100_000_000),
    "statevector-wide": Case("statevector", layered(20, 50, 1), 1_000),
    "statevector-dynamic": Case("statevector", histories(13), 600),
    "stabilizer": Case("stabilizer", clifford(500, 20), 150_000),
    "near_clifford": Case("near_clifford", clifford(100, 20), 150_000),
    "mps": Case("mps", chain(40, 16), 2_000), "mps-dynamic": Case("mps", histories(20), 150),
    "contraction": Case("contraction", graph(30), 4_000),
    "contraction-amplitudes": Case(
        "contraction", graph(24).remove_final_measurements(inplace=False), 0, "main",
        bit_strings(24),
    ),
    "densitymatrix": Case("densitymatrix", layered(9, 250, 1), 1_000),
    "quimb": Case("quimb", chain(24, 22), 1_000), "sweep": Case("sweep", chain(40, 12), 4_000),
    "pauli": Case("pauli", chain(30, 2).remove_final_measurements(inplace=False), 0, pairs=True),
    "dmt": Case("dmt", chain(30, 30), 1_000), "peps": Case("peps", chain(30, 4), 20_000),
    "aer": Case("aer", layered(16, 80, 1), 1_000),
    "hardware": Case("hardware", layered(16, 60, 1), 1_000, "qpu"),
    "fault": Case("fault", layered(20, 50, 1), 1_000, "drill"),
}  # fmt: skip
# Engines whose workers need another environment: the file and the name of their test.
OTHER_TESTS = {
    "gpu": ("e2e/test_gpu_site.py", "test_task_of_a_killed_worker_runs_again_to_the_same_counts"),
    # Its workers are those of `gpu`.
    "gpu_sweep": (
        "e2e/test_gpu_site.py",
        "test_task_of_a_killed_worker_runs_again_to_the_same_counts",
    ),
    "external": ("e2e/test_external.py", "test_a_killed_worker_ends_its_program_and_the_task_runs"),
    "transpiler": ("e2e/test_transpiling.py", "test_killed_worker_changes_nothing"),
    "detectors": ("e2e/test_transpiling.py", "test_killed_worker_leaves_the_same_answer"),
    "rydberg": ("e2e/test_pulses.py", "test_killed_worker_leaves_the_same_samples"),
    **dict.fromkeys(
        ("emu-mps", "emu-sv", "pulser-simulation"),
        ("e2e/test_emulators.py", "test_killed_worker_leaves_the_same_samples"),
    ),
    "functions": ("e2e/test_functions.py", "test_function_goes_on_in_another_worker_when"),
}


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    support = str(TESTS / "support")
    with simenv.local(pools=POOLS, import_from=(support,)) as client:
        yield client


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def kill_in_the_middle(env: Client, task: Task, whole_s: float) -> None:
    """Kill the worker that computes a task of `whole_s` after a while, unless it ends first."""

    def runs() -> list[WorkerInfo]:
        return [worker for worker in env.workers() if worker.task == task.id]

    until(lambda: runs() or task.done(), look_s=0.002)
    if not (workers := runs()):
        return
    process = psutil.Process(workers[0].pid)
    enough = cpu_s(process) + min(BUSY_S, BUSY * whole_s)
    until(lambda: cpu_s(process) >= enough or task.done(), look_s=0.005)
    if not task.done():
        process.kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_task_of_killed_worker_runs_again_to_the_same_counts(env: Client, name: str) -> None:
    case = CASES[name]
    if not present(case.engine):
        pytest.skip(f"what engine {case.engine!r} needs is not installed")

    def submit() -> Task:
        if case.pairs:
            width = case.circuit.num_qubits
            sums = [SparsePauliOp.from_sparse_list([("ZZ", list(pair), 1.0)], width)
                    for pair in combinations(range(width), 2)]  # fmt: skip
            return env.submit(
                case.circuit, shots=None, seed=11, engine=case.engine, observables=sums,
                outputs=("expectation",),
            )  # fmt: skip
        return env.submit(
            case.circuit, shots=case.shots, seed=11, engine=case.engine, pool=case.pool,
            amplitudes=case.strings or None,
        )  # fmt: skip

    oracle = submit().result(PATIENCE_S)
    assert oracle.attempts == 1
    for _ in range(TRIES):
        task = submit()
        kill_in_the_middle(env, task, oracle.timing.run_s)
        result = task.result(PATIENCE_S)
        if result.attempts > 1:
            break
    assert (result.attempts, result.engine) == (2, case.engine)
    if case.strings:
        assert result.amplitudes == oracle.amplitudes
    elif case.pairs:
        assert result.expectations == oracle.expectations
    else:
        assert result.counts == oracle.counts


def test_every_engine_of_the_catalog_is_killed_in_some_test() -> None:
    here = {case.engine for case in CASES.values()}
    assert here.isdisjoint(OTHER_TESTS)
    assert here | set(OTHER_TESTS) == {card.name for card in CARDS}


@pytest.mark.parametrize("engine", OTHER_TESTS)
def test_engines_of_other_environments_are_killed_in_the_named_tests(engine: str) -> None:
    file, name = OTHER_TESTS[engine]
    functions = [
        node
        for node in ast.parse((TESTS / file).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(name)
    ]
    assert len(functions) == 1
    assert "SIGKILL" in ast.unparse(functions[0])
