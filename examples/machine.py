"""Machines for a pool of the engine `hardware`: each function returns a Qiskit BackendV2.

simenv up --pool main:workers=2 --pool qpu:engine=hardware,provider=examples.machine:fake
"""

from __future__ import annotations

from typing import Any


def fake() -> Any:
    """Seven qubits in a line with errors, made up; nothing beside Qiskit is needed."""
    from qiskit.providers.fake_provider import GenericBackendV2

    line = [[a, a + 1] for a in range(6)] + [[a + 1, a] for a in range(6)]
    return GenericBackendV2(7, coupling_map=line, seed=7)


def montreal() -> Any:
    """27 qubits as a machine of IBM's had them. Needs the extra `ibm`."""
    from qiskit_ibm_runtime.fake_provider import FakeMontrealV2

    return FakeMontrealV2()


def ibm() -> Any:
    """The least busy machine of your account at IBM, which Qiskit keeps in ~/.qiskit. Needs the
    extra `ibm`."""
    from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

    from simulators.hardware.jobs import SamplerAdapter

    machine = QiskitRuntimeService().least_busy(operational=True, simulator=False)
    return SamplerAdapter(machine, SamplerV2(mode=machine))
