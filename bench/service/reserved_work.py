"""Reservations that are sized by the circuits which then run under them.

Each reservation names the sizes of a few equal circuits as they are written: qubits, gates,
measurements, shots. Then the circuits run under it. It holds its work if all of them are done and

    charged <= reserved <= 2 charged

Pools: an ideal simulator, an emulated device, a paced one, and a machine that transpiles what it
gets. Cold: a new environment without compiled kernels; all reservations are made before the first
circuit runs. Warm: each reservation is made after the circuits of the last one. Sizes, families and
shots are drawn at random with `--seed`.
"""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2, quantum_volume
from qiskit.synthesis.qft import synth_qft_full

import simenv
from bench.circuits import CIRCUITS, built
from bench.harness import Option, Report
from simenv.client.client import Client
from simenv.client.reservations import Reservation
from simenv.errors import SimenvError
from simenv.model import PoolSpec

MOST_RATIO = 2.0
TIMEOUT_S = 900.0
RESERVED_S = 7_200.0  # kernels compile meanwhile
OPTIONS = (
    Option("--seed", default=5),
    Option("--reservations", default=20, help="of each pool and temperature", quick=3),
)
DEVICE = "guadalupe"  # emulated
POOLS = ("ideal", "emulated", "paced", "hardware")
MACHINE = "qiskit_ibm_runtime.fake_provider:FakeManilaV2"


class Work:
    """Some equal circuits, and the reservation for them."""

    def __init__(self, rng: np.random.Generator, pool: str, number: int) -> None:
        widest = {"ideal": 16, "emulated": 10, "paced": 9, "hardware": 5}[pool]
        qubits = int(rng.integers(2, widest + 1))
        self.pool = pool
        self.family, make = list(FAMILIES.items())[number % len(FAMILIES)]
        self.circuit = make(qubits, rng)
        self.circuit.measure_all()
        self.shots = int(10 ** rng.uniform(1.5, 3.5))
        self.count = int(rng.integers(2, 7))

    def reserve(self, client: Client) -> Reservation:
        """Reserve the sizes of the circuits as they are written."""
        sizes = [len(item.qubits) for item in self.circuit.data if item.operation.name != "barrier"]
        measured = self.circuit.count_ops().get("measure", 0)
        return client.reserve(
            self.pool,
            count=self.count,
            qubits=self.circuit.num_qubits,
            depth=self.circuit.depth(),
            for_s=RESERVED_S,
            gates_1q=sizes.count(1) - measured,
            gates_2q=sum(size > 1 for size in sizes),
            measurements=measured,
            shots=self.shots,
        )

    def run(self, client: Client, reservation: Reservation) -> tuple[bool, float]:
        """Run the circuits; return whether the reservation held them, and reserved / charged."""
        try:
            where = {"pool": self.pool, "reservation": reservation.id}
            circuits = [self.circuit] * self.count
            tasks = client.submit_many(circuits, shots=self.shots, **where)
            for task in tasks:
                task.result(timeout=TIMEOUT_S)
        except SimenvError as error:
            print(f"  {self.pool}: {self.family} on {self.circuit.num_qubits} qubits: {error}")
            return False, float("inf")
        info = reservation.info()
        reservation.release()
        ratio = info.credits_reserved / max(info.credits_consumed, 1e-9)
        return 1.0 <= ratio <= MOST_RATIO, ratio


def run(options: Namespace) -> Report:
    report = Report("reserved_work", f"reserved, then run: {DEVICE}, seed {options.seed}")
    rng = np.random.default_rng(options.seed)
    for pool in POOLS:
        work = [Work(rng, pool, number) for number in range(2 * options.reservations)]
        cold, warm = work[: options.reservations], work[options.reservations :]
        with ExitStack() as stack:
            kernels = stack.enter_context(tempfile.TemporaryDirectory(prefix="simenv-bench-"))
            os.environ["SIMENV_KERNELS"] = kernels
            stack.callback(os.environ.pop, "SIMENV_KERNELS")
            local = simenv.local(pools=_pools(pool), start_timeout_s=900.0)
            client = stack.enter_context(local)
            client.policies.set_admission(pool, "credit", total_credits=10**15)
            reserved = [each.reserve(client) for each in cold]
            for name, results in (
                ("cold", [w.run(client, r) for w, r in zip(cold, reserved, strict=True)]),
                ("warm", [each.run(client, each.reserve(client)) for each in warm]),
            ):
                held = sum(ok for ok, _ in results)
                largest = max(ratio for _, ratio in results)
                print(f"{pool:9} {name}  {held} of {len(results)}, at most {largest:.2f} x charged")
                share = 100.0 * held / len(results)
                report.at_least(f"{pool}_{name}_percent", share, f"held, {pool}, {name}, percent")
    return report


def _pools(pool: str) -> tuple[PoolSpec, ...]:
    if pool == "hardware":
        return (PoolSpec(pool, "hardware", min=1, max=1, provider=MACHINE),)
    emulated = "" if pool == "ideal" else DEVICE
    return (PoolSpec(pool, min=2, max=2, device=emulated, pace=pool == "paced"),)


def _star(qubits: int, _rng: np.random.Generator) -> QuantumCircuit:
    """Couple one qubit with each other one, as in the algorithm of Bernstein and Vazirani."""
    circuit = QuantumCircuit(qubits)
    circuit.h(range(qubits))
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubits - 1)
    circuit.h(range(qubits - 1))
    return circuit


def _fourier(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(float(rng.uniform(0, 3)), qubit)
    circuit.compose(synth_qft_full(qubits), inplace=True)
    return circuit


def _ansatz(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    circuit = efficient_su2(qubits, reps=2, entanglement="full")
    return circuit.assign_parameters(rng.uniform(0, 3, circuit.num_parameters))


def _toffoli(qubits: int, rng: np.random.Generator) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.h(range(qubits))
    for _ in range(4 if qubits > 2 else 0):
        circuit.ccx(*(int(q) for q in rng.choice(qubits, 3, replace=False)))
        circuit.t(int(rng.integers(qubits)))
    return circuit


FAMILIES: dict[str, Callable[[int, np.random.Generator], QuantumCircuit]] = {
    "ghz": lambda qubits, rng: built(qubits, CIRCUITS["ghz"](qubits, rng)),
    "star": _star,
    "fourier": _fourier,
    "volume": lambda qubits, rng: (
        quantum_volume(qubits, 3, seed=int(rng.integers(1000))).decompose().decompose()
    ),
    "ansatz": _ansatz,
    "toffoli": _toffoli,
}
