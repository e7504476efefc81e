"""Machines for tests: what a provider's factory returns, well behaved and not.

Each factory takes no arguments, as `provider=machines:NAME` calls it. `Faulty` wraps an ideal
machine and does wrong what its circuit asks for, by the number of its qubits: one start of an
environment serves all faults.
"""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

from qiskit import QuantumCircuit
from qiskit.providers import BackendV2, JobStatus, Options
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import Target
from qiskit_aer import AerSimulator

NAP_S = 0.01
# By the number of qubits of a circuit, which the machine below takes as it is written.
FAULTS = {
    3: "refuse", 4: "slow", 5: "die", 6: "lose shots", 7: "wide", 8: "no result", 9: "no counts",
    10: "error", 11: "hang", 12: "other words", 13: "half a count", 14: "no job",
    15: "lose circuit", 16: "unsure", 17: "stubborn",
}  # fmt: skip
QUBITS = {fault: qubits for qubits, fault in FAULTS.items()}


def ideal() -> BackendV2:
    """Five qubits without errors, every pair coupled, with conditions."""
    return GenericBackendV2(5, seed=1, noise_info=False, control_flow=True)


def noisy() -> BackendV2:
    """Five qubits in a line, with errors, and no conditions."""
    line = [[a, a + 1] for a in range(4)] + [[a + 1, a] for a in range(4)]
    return GenericBackendV2(5, coupling_map=line, seed=2)


def aer() -> BackendV2:
    """A simulator, held as a machine is."""
    return AerSimulator()


def absent() -> BackendV2:
    """A provider that cannot reach its machine."""
    raise ConnectionError("the machine room\nis locked")


def nothing() -> None:
    """A provider that returns no machine."""


def faulty() -> BackendV2:
    """See the module."""
    return Faulty()


class Faulty(BackendV2):
    """Takes any circuit of up to 20 qubits; those of FAULTS go wrong."""

    def __init__(
        self, max_shots: int = 0, max_circuits: int | None = None,
        when_asked: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`when_asked`: called when a job begins."""
        super().__init__(name="faulty", backend_version="7")
        self._simulator = AerSimulator(method="stabilizer")
        self._max_circuits = max_circuits
        self._when_asked = when_asked
        if max_shots:
            self.options.set_validator("shots", (1, max_shots))
        self.asked: list[tuple[int, int]] = []  # circuits and shots of each job
        self.cancelled = 0
        self.when_seen: Callable[[], None] = lambda: None  # a job's state was asked for
        self.when_cancelled: Callable[[], None] = lambda: None

    @classmethod
    def _default_options(cls) -> Options:
        return Options(shots=1024, seed_simulator=None)

    @property
    def target(self) -> Target:
        return self._simulator.target

    @property
    def max_circuits(self) -> int | None:
        return self._max_circuits

    def run(self, run_input: Any, **options: Any) -> Any:
        """One job; `options` as they come, `shots` among them."""
        circuits = run_input if isinstance(run_input, list) else [run_input]
        self.asked.append((len(circuits), options["shots"]))
        self._when_asked()
        fault = FAULTS.get(circuits[0].num_qubits, "")
        if fault == "refuse":
            raise RuntimeError("closed for maintenance")
        if fault == "die":
            os._exit(71)
        if fault == "no job":
            return None
        return Job(self, self._simulator, circuits, options, fault)


class Job:
    """What a provider's job has; its result comes at once, unless it is slow."""

    def __init__(
        self, machine: Faulty, simulator: AerSimulator, circuits: list[QuantumCircuit],
        options: dict[str, Any], fault: str,
    ) -> None:  # fmt: skip
        self._machine, self._fault = machine, fault
        self._state = "RUNNING" if fault in ("slow", "stubborn") else "DONE"
        if fault == "lose shots":
            options = {**options, "shots": options["shots"] - 1}
        if fault == "lose circuit":
            circuits = circuits[:-1] or [QuantumCircuit(1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a circuit without measurements
            self._found = simulator.run(circuits, **options).result()

    def job_id(self) -> str:
        return "job-17"

    def status(self) -> Any:
        """An enum's member, or a word, as providers have it."""
        self._machine.when_seen()
        if self._fault == "unsure":
            raise ConnectionError("no route to the machine")
        if self._fault == "error":
            return JobStatus.ERROR
        return JobStatus[self._state] if self._fault else self._state

    def error_message(self) -> str:
        return "the fridge is warm"

    def cancel(self) -> bool:
        """The stubborn one goes on."""
        if self._fault == "stubborn":
            raise RuntimeError("cannot be cancelled")
        self._machine.cancelled += 1
        self._machine.when_cancelled()
        self._state = "CANCELLED"
        return True

    def result(self) -> Any:
        """The simulator's, or what the fault makes of it."""
        while self._fault == "hang":
            time.sleep(NAP_S)
        if self._fault == "no result":
            return {"counts": {"0": 1}}
        if self._fault in ("no counts", "wide", "other words", "half a count"):
            return Odd(self._fault)
        return self._found


class Odd:
    """Looks like a Result."""

    success = True

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def get_counts(self, place: int) -> Any:
        """Of no circuit that there was."""
        table: dict[str, Any] = {
            "wide": {"1" * 40: 10},
            "other words": {"up": 10},
            "half a count": {"0" * QUBITS["half a count"]: 9.5},
        }
        return table.get(self._fault)
