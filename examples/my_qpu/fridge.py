"""A machine of your own as a Qiskit BackendV2: all that simenv needs to serve it as a QPM.

`play` stands for your control software. See docs/guides/hardware_qpm.md.
"""

from __future__ import annotations

import uuid
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter, Reset
from qiskit.circuit.library import CXGate, RZGate, SXGate, XGate
from qiskit.providers import BackendV2, JobStatus, Options
from qiskit.providers.basic_provider import BasicSimulator
from qiskit.transpiler import InstructionProperties, Target

LINE = [(a, b) for a in range(5) for b in (a - 1, a + 1) if 0 <= b < 5]


def play(circuits: list[QuantumCircuit], shots: int) -> Any:
    """Make pulses, run them, count: returns a qiskit Result."""
    return BasicSimulator().run(circuits, shots=shots).result()


class Fridge(BackendV2):
    def __init__(self) -> None:
        super().__init__(name="my_fridge", backend_version="1")
        properties = {(q,): InstructionProperties(duration=3e-8, error=3e-4) for q in range(5)}
        two = {pair: InstructionProperties(duration=2e-7, error=8e-3) for pair in LINE}
        self._target = Target(num_qubits=5)
        for gate in (RZGate(Parameter("angle")), SXGate(), XGate(), Measure(), Reset()):
            self._target.add_instruction(gate, dict(properties))
        self._target.add_instruction(CXGate(), two)

    target = property(lambda self: self._target)
    max_circuits = 100

    @classmethod
    def _default_options(cls) -> Options:
        return Options(shots=1024)

    def run(self, run_input: Any, shots: int = 1024, **_: Any) -> Job:
        return Job(run_input if isinstance(run_input, list) else [run_input], shots)


class Job:
    def __init__(self, circuits: list[QuantumCircuit], shots: int) -> None:
        self._id, self._found = uuid.uuid4().hex, play(circuits, shots)

    def job_id(self) -> str:
        return self._id

    def status(self) -> JobStatus:
        return JobStatus.DONE

    def result(self) -> Any:
        return self._found


def machine() -> Fridge:
    """What `provider=my_qpu.fridge:machine` calls, once, in the worker that holds the machine."""
    return Fridge()
