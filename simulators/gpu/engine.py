"""Engine `gpu`: all amplitudes in the memory of one GPU, by the plans of the statevector engine.

Counts follow the seed contract of `simulators.engine`, so they are those of the engine
`statevector` for the same seed, up to rounding, with noise too: trajectories. A wider state than
the GPU holds is refused before it is allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulators.catalog import SMALL_QUBITS, builtin_card
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit, bell, ghz
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.execution import circuit_checks, requests
from simulators.gpu import backend
from simulators.gpu.devices.device import Device, MemoryLedger, PeerGroup
from simulators.gpu.sweeps import ProgramStore
from simulators.statevector.noisy import NoisyPart, NoisyPlan
from simulators.statevector.plan import ExecutionPlan, RequestExecution, run_rows

if TYPE_CHECKING:
    from simulators.statevector.backend.protocol import StateBackend
    from simulators.statevector.distributed.communicator import Communicator
    from simulators.statevector.distributed.executor import ErrorAgreement

CARD = builtin_card("gpu")
TILE_WIRES = 12  # 2**12 amplitudes in the registers of a block of threads


class GpuEngine:
    """Engine on one GPU of this process. `device`: None: the first one that CUDA shows. `comm`: an
    mpi4py communicator whose ranks, with a GPU each, hold the amplitudes together; see
    `StatevectorEngine`."""

    name = "gpu"

    def __init__(self, device: Device | None = None, *, comm: Any = None) -> None:
        """Open the device. Raises UnknownEngine with the reason if no GPU can be used, or if two
        ranks have the same one."""
        if device is None:
            from simulators.gpu.devices.cupy_device import open_device  # the only import of cupy

            device = open_device()
        self._device = device
        self.ledger = MemoryLedger(device.free_bytes, device.name)
        self._programs = ProgramStore(device)
        self._group: Communicator | None = None
        self._peers: PeerGroup | None = None
        if comm is not None and comm.Get_size() > 1:
            from simulators.gpu.distributed import check_devices, join_peers
            from simulators.statevector.distributed.communicator import Communicator

            check_devices(comm, device.location)
            self._peers = join_peers(comm, device)
            self._group = Communicator(comm)

    def close(self) -> None:
        """Free the communicators, if any. All ranks call it."""
        if self._peers is not None:
            self._peers.close()
            self._peers = None
        if self._group is not None:
            self._group.close()
            self._group = None

    def __repr__(self) -> str:
        transport = "" if self._peers is None else ", NCCL"
        return f"GpuEngine({self._device.name!r}, {self.ledger!r}{transport})"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # see `Engine`
        """Return True: a plan is a program in the device's memory."""
        return True

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. Raises Unsupported for wide matrices."""
        circuit_checks.check_request(CARD, circuit, noise, options, reduced=True)
        rows, most = circuit.table.rows, backend.MAX_MATRIX_QUBITS
        wide = np.flatnonzero((rows[:, 0] == UNITARY) & (rows[:, 1] > most))
        for row in wide[np.isin(wide, circuit.ops)].tolist() if wide.size else ():
            text = f"a matrix on {rows[row, 1]} qubits; engine 'gpu' takes {most}"
            raise Unsupported(text, hint="engine='statevector' runs it, or decompose it")
        if noise is not None:
            return NoisyPlan(circuit, noise, options, small=True, tile_wires=TILE_WIRES)
        plan = ExecutionPlan(options.precision, TILE_WIRES)
        plan.prepare(circuit, CARD.max_qubits, compiled_qubits=-1)
        return plan

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        requests.check_run(circuit, options)
        number = requests.num_bindings(circuit, request)
        run = requests.EngineRun(circuit, request, options, control)
        if isinstance(plan, NoisyPlan):
            part = plan.part(circuit, request)
            circuit_checks.check_width(CARD, part.part.circuit.num_qubits)
            return self._noisy(part, run)
        if not isinstance(plan, ExecutionPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        requests.check_outputs(CARD, request, circuit.clbits_data != b"")
        job = RequestExecution.of(plan, run, number)
        circuit_checks.check_width(CARD, job.widest)
        if self._group is None:
            return self._alone(job)
        result = self._group.run(
            job.widest,
            job,
            lambda: self._alone(job),
            lambda states: run_rows(states, job),
            lambda agreement: self._distributed(agreement, control),
        )
        return result  # type: ignore[return-value]  # None in all ranks but the first

    def _alone(self, job: RequestExecution) -> EngineResult:
        states = self._backend(job.control)
        result = backend.run_batch(states, job)
        return run_rows(states, job) if result is None else result

    def _noisy(self, part: NoisyPart, run: requests.EngineRun) -> EngineResult:
        """Run all rows of a circuit with noise. Ranks divide the patterns if each has room for a
        few states, else they split branches of states that they hold together."""

        def local(ranks: ErrorAgreement | None = None) -> EngineResult:
            states = backend.DeviceTrajectoryStates(self._backend(run.control))
            return part.local(run, ranks, states)

        if self._group is None:
            return local()
        left = self.ledger.capacity_bytes - self.ledger.reserved_bytes
        result = self._group.run_noisy(
            part.part.circuit.num_qubits,
            run,
            part.fits(left, 1),
            local,
            lambda states: part.branched(states, run),
            lambda agreement: self._distributed(agreement, run.control),
        )
        return result  # type: ignore[return-value]  # None in all ranks but the first

    def _distributed(self, agreement: ErrorAgreement, control: RunControl) -> StateBackend:
        from simulators.gpu.distributed import DistributedDeviceBackend

        return DistributedDeviceBackend(agreement, self._backend(control), self._peers)

    def _backend(self, control: RunControl) -> backend.DeviceBackend:
        return backend.DeviceBackend(self._device, self.ledger, self._programs, control)

    def warm_up(self) -> None:
        """Compile or load the kernels of double precision, and run a circuit of each path. The
        first task in single precision compiles those of single precision: some 12 s once a
        machine."""
        for circuit in (bell(), ghz(SMALL_QUBITS + 1)):
            plan = self.plan(circuit, None, RunOptions())
            self.run(plan, circuit, Request(16, 1), RunOptions(), RunControl())
