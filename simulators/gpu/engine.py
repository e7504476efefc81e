"""Engine `gpu`: all amplitudes in the memory of one GPU, by the plans of the statevector engine.

Counts follow the seed contract of `simulators.engine`, so they are those of the engine
`statevector` for the same seed, up to rounding. Noise is refused; a wider state than the GPU holds
is refused before it is allocated.
"""

from __future__ import annotations

import numpy as np

from simulators.catalog import SMALL_QUBITS, builtin_card
from simulators.circuit.examples import bell, ghz
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution.requests import (
    check_outputs,
    check_request,
    check_run,
    check_width,
    num_bindings,
)
from simulators.gpu.backend import MAX_MATRIX_QUBITS, DeviceBackend
from simulators.gpu.batch import BatchContext, run_batch
from simulators.gpu.devices.protocol import Device, MemoryLedger
from simulators.gpu.programs import ProgramStore
from simulators.results import EngineResult
from simulators.statevector.plan import ExecutionPlan
from simulators.statevector.rows import RequestExecution, run_rows

CARD = builtin_card("gpu")
TILE_WIRES = 12  # 2**12 amplitudes in the registers of a block of threads


class GpuEngine:
    """One GPU of this process. `device`: another than the first one that CUDA shows."""

    name = "gpu"

    def __init__(self, device: Device | None = None) -> None:
        """Raises UnknownEngine where there is no GPU that can be used, with the reason."""
        if device is None:
            from simulators.gpu.devices.cupy_device import open_device  # the only import of cupy

            device = open_device()
        self._device = device
        self.ledger = MemoryLedger(device.free_bytes, device.name)
        self._programs = ProgramStore(device)

    def __repr__(self) -> str:
        return f"GpuEngine({self._device.name!r}, {self.ledger!r})"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # see `Engine`
        """True: a plan is a program in the device's memory."""
        return True

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. Raises Unsupported for noise and for wide matrices."""
        check_request(CARD, circuit, noise, options, reduced=True)
        _refuse_wide_matrices(circuit)
        plan = ExecutionPlan(options.precision, TILE_WIRES)
        plan.prepare(circuit, CARD.max_qubits)
        return plan

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`."""
        check_run(circuit, options)
        number = num_bindings(circuit, request)
        if not isinstance(plan, ExecutionPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        check_outputs(CARD, request, circuit.clbits_data != b"")
        job = RequestExecution.of(plan, circuit, request, options, control, number)
        check_width(CARD, job.widest)
        context = BatchContext(self._device, self.ledger, self._programs)
        result = run_batch(context, job)
        if result is not None:
            return result
        states = DeviceBackend(self._device, self.ledger, self._programs, control)
        return run_rows(states, job)

    def warm_up(self) -> None:
        """Compile or load the kernels of double precision, and run a circuit of each path. Those of
        single precision come with the first task that asks for it: some 12 s once a machine."""
        for circuit in (bell(), ghz(SMALL_QUBITS + 1)):
            plan = self.plan(circuit, None, RunOptions())
            self.run(plan, circuit, Request(16, 1), RunOptions(), RunControl())


def _refuse_wide_matrices(circuit: Circuit) -> None:
    rows = circuit.table.rows
    wide = np.flatnonzero((rows[:, 0] == UNITARY) & (rows[:, 1] > MAX_MATRIX_QUBITS))
    for row in wide[np.isin(wide, circuit.ops)].tolist() if wide.size else ():
        raise Unsupported(
            f"a matrix on {rows[row, 1]} qubits; engine 'gpu' takes {MAX_MATRIX_QUBITS}",
            hint="engine='statevector' runs it, or decompose it",
        )
