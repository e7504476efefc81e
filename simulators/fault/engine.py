"""Engine for fault injection: fails on request, to test the software around engines.

It is never chosen automatically. A circuit asks for a fault by its first operation, an `rx` whose
angle is `FAULT_BASE` + code (an angle no real circuit has):

    1  segfault: the process dies of SIGSEGV
    2  hang: sleeps for ever and ignores the control flag
    3  eat: takes memory until the system refuses or kills
    4  raise: an error that is not of the engines' tree
    5  slow: waits as many seconds as the second operation's `rx` angle says, heeding the control
       flag, then computes the right answer of the rest (for circuits without free parameters)
    6  exit: the process ends at once with status 70
    7  alone: as 4, but over ranks in the last of them only, and the others wait for it in vain

Over ranks 1, 2, 3 and 6 are the last one's alone too; 4 and 5 are everyone's. Every other circuit
is run by the statevector engine; so is the rest of a slow one.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine

FAULT_BASE = 1_000_000.0
SEGFAULT, HANG, EAT, RAISE, SLOW, EXIT, ALONE = range(1, 8)
_CHUNK = 256 * 2**20
_NAP_S = 0.02


def fault_of(circuit: Circuit) -> int:
    """Code of the fault that the circuit requests; 0: none."""
    if not circuit.ops.size or circuit.table.rows[circuit.ops[0], 0] != GATES["rx"].code:
        return 0
    code = float(circuit.params[0]) - FAULT_BASE
    return int(code) if code in (SEGFAULT, HANG, EAT, RAISE, SLOW, EXIT, ALONE) else 0


class FaultEngine:
    """Statevector engine with injected faults."""

    name = "fault"

    def __init__(self, *, comm: Any = None) -> None:
        """Set up. `comm`: as for the statevector engine."""
        self._inner = StatevectorEngine(comm=comm)
        self._comm = comm if comm is not None and comm.Get_size() > 1 else None

    def close(self) -> None:
        self._inner.close()

    def worth_caching(self, circuit: Circuit) -> bool:
        return self._inner.worth_caching(circuit)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        return self._inner.plan(circuit, noise, options)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Inject the requested fault, or run as the statevector engine."""
        fault = fault_of(circuit)
        if fault == SLOW:
            check = self._check(control)
            # A fixed number of naps, and not until a point in time: all ranks check equally often.
            for _ in range(math.ceil(float(circuit.params[1]) / _NAP_S)):
                check()
                time.sleep(_NAP_S)
            circuit = msgspec.structs.replace(  # without its two leading `rx`
                circuit,
                ops_data=circuit.ops_data[2 * 2 :],
                qubits_data=circuit.qubits_data[2 * 2 :],
                params_data=circuit.params_data[2 * 8 :],
                num_slots=0,
                slots_data=b"",
            )
            plan = self._inner.plan(circuit, None, options)
        elif fault == RAISE or (fault and self._is_last()):
            _misbehave(fault)
        return self._inner.run(plan, circuit, request, options, control)

    def _is_last(self) -> bool:
        return self._comm is None or bool(self._comm.Get_rank() == self._comm.Get_size() - 1)

    def _check(self, control: RunControl) -> Callable[[], None]:
        """Function that raises Stopped; over ranks it raises in all of them, which call it
        together."""
        if self._comm is None:
            return control.check
        from simulators.statevector.distributed.executor import ErrorAgreement

        return ErrorAgreement(self._comm, control).meet

    def warm_up(self) -> None:
        self._inner.warm_up()


def _misbehave(fault: int) -> None:
    if fault == SEGFAULT:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == EXIT:
        os._exit(70)
    elif fault in (RAISE, ALONE):
        raise RuntimeError("the fault engine was asked to raise this")
    eaten = []
    while True:
        if fault == EAT:
            eaten.append(np.ones(_CHUNK, np.uint8))
        else:
            time.sleep(3600.0)
