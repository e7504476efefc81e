"""`simenv simulate`: one circuit over the ranks of an mpirun or srun, or in this process.

No service takes part. Invariant: only the first rank reads and writes; if one of them fails, all
ranks end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from simenv._version import __version__
from simenv.cli import app
from simenv.cli.tasks import circuit_input
from simenv.cli.tasks.result_view import Save, print_results
from simenv.config import kernel_folder
from simenv.errors import InfeasibleError, ProgramError, TaskFailedError
from simenv.model import Observable, Origin, TaskState, decode_program

if TYPE_CHECKING:
    from simenv.calibration.ledger import LocalDevices
    from simenv.cli.tasks.resource_fit import ResourceFit
    from simenv.client.result import Result
    from simenv.client.submission.prepare import PreparedSubmit
    from simenv.wire.messages.client import AssignChunk
    from simenv.worker.mpi_process import MpiRun, RankInfo

TASK = "simulate"  # in place of a task's id
_FAILED = 1


@app.with_options(
    circuit_input.CircuitOptions,
    *("pool", "prefer", "ranks", *circuit_input.QUEUED),
)
def simulate(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="OpenQASM 2 or 3, or QPY; - is stdin.")],
    asked: circuit_input.CircuitOptions,
    save: Save = None,
) -> None:
    """Run one circuit without an environment: mpirun -n 8 simenv simulate FILE.

    The MPI ranks share the state (a power of two of them); the first prints what `simenv run`
    prints. With the same seed the counts are those of a pool.
    """
    common = app.settings_of(context)
    world = _begin_mpi()
    if world.rank:
        _run_following_rank(world)
        return
    begin_s = time.perf_counter()
    observables: list[Observable] = []
    from simenv.calibration.ledger import LocalDevices

    local = LocalDevices()

    def prepare() -> PreparedSubmit:
        from simenv.client.submission.devices import SubmitDevices
        from simenv.client.submission.prepare import prepare_one

        loaded = circuit_input.read_circuit(file, asked.channels())
        order = prepare_one(loaded.program, asked.arguments(loaded), SubmitDevices(local))
        observables.extend(order.terms.pauli_sums)
        return order

    with circuit_input.errors_for_command_line():
        try:
            with circuit_input.kernel_progress():
                result = _run_leading_rank(world, prepare, begin_s, local)
        except BaseException as error:
            world.end(str(error) or type(error).__name__, getattr(error, "exit_code", _FAILED))
            raise
    world.end()
    print_results([result], common.as_json, save, observables)


def _begin_mpi() -> MpiRun:
    """Return the MPI run; with an incompatible MPI, rank 0 raises InfeasibleError and the others
    exit."""
    from simenv.worker import mpi_process

    try:
        return mpi_process.MpiRun.begin(os.environ)
    except mpi_process.NoMpi as error:
        if mpi_process.rank_from_environ(os.environ):
            raise typer.Exit(InfeasibleError.exit_code) from error
        from launcher.selection import INSTALL_COMMAND

        hint = (
            "each of them would run the circuit alone: use the mpirun of the MPI that mpi4py is"
            f" built for (simenv doctor shows both), or {INSTALL_COMMAND}"
        )
        raise InfeasibleError(str(error), hint=hint) from error


def _run_leading_rank(
    world: MpiRun, prepare: Callable[[], PreparedSubmit], begin_s: float, local: LocalDevices
) -> Result:
    """Run the first rank: assign the task to all ranks and return the result."""
    from simenv.client.result import Result
    from simenv.client.result_data import DecodedResult, Provenance, Stages
    from simenv.wire import codec
    from simenv.wire.messages.client import STATES
    from simenv.worker import mpi_process

    ranks = world.gather_ranks(_own_rank())
    try:
        chunk, plan = _chunk(prepare(), ranks, local)
    except BaseException:  # also an interrupt: the other ranks wait for the broadcast
        world.broadcast(None)
        raise
    document = local.document(chunk.terms[0])
    world.broadcast(mpi_process.packed(chunk, document))
    finished = mpi_process.lead(world, chunk, kernel_folder(), document)
    if STATES[finished.state] is not TaskState.DONE:
        failure = codec.failure(finished.payload)
        if failure.reason == "run_timeout":
            raise TaskFailedError(
                f"the run was stopped after {chunk.terms[0].run_timeout_s:g} s",
                hint="a longer --run-timeout",
                reason=failure.reason,
            )
        raise TaskFailedError(failure.message, hint=failure.hint, reason=failure.reason)
    sheet = DecodedResult.read(finished.payload, TASK)
    run_s, total_s = 1e-6 * finished.run_us, time.perf_counter() - begin_s
    device_s = 1e-9 * finished.device_ns
    stages = Stages(0.0, 0.0, 0.0, run_s, max(0.0, total_s - run_s), total_s, device_s=device_s)
    origin = Origin(TASK, ranks[0].node, os.getpid(), __version__, plan.ranks)
    slots = plan.ranks * plan.threads
    result = Provenance(TASK, "", plan.engine, plan.reason, origin, slots, 1, stages)
    return Result(sheet, result)


def _run_following_rank(world: MpiRun) -> None:
    """Run any other rank. It prints nothing and exits with 0: the first rank reports all errors."""
    from simenv.worker import mpi_process

    failure = ""
    try:
        world.gather_ranks(_own_rank())
        data = world.broadcast(None)
        if data is not None:
            mpi_process.follow(world, data, kernel_folder())
    except Exception as error:  # noqa: BLE001 the first rank has the same error, or all are ended
        failure = str(error) or type(error).__name__
    world.end(failure)


def _own_rank() -> RankInfo:
    from launcher.allocation.this_node import this_node
    from simenv.worker.mpi_process import own_rank_info

    node = this_node()
    return own_rank_info(node.name, node.memory_bytes, node.slots)


def _chunk(
    order: PreparedSubmit, ranks: Sequence[RankInfo], local: LocalDevices
) -> tuple[AssignChunk, ResourceFit]:
    """Return the assignment that is sent to all ranks, and its fit into them.

    Raises ProgramError, InfeasibleError, OptionError.
    """
    from simenv.wire.messages.client import AssignChunk, AssignedTask
    from simulators.compiler import warmup

    warmup.prepare(kernel_folder())  # before modules with kernels are imported
    from simenv.cli.tasks.resource_fit import fitting
    from simenv.model.task_rules import check_shots
    from simenv.service.admission.controller import with_shots
    from simenv.service.program_rules import labels, pauli_sums
    from simulators.chain.trial import choice_profile
    from simulators.circuit.analysis.profiler import profile
    from simulators.circuit.ir import Circuit
    from simulators.circuit.validation.admission import validation_error

    spec = order.specs[0]
    terms, device = local.resolved(order.terms)
    program = decode_program(spec.program)
    circuit = Circuit.from_program(program)
    if text := validation_error(circuit):
        raise ProgramError(text)
    if device is None:
        sums = pauli_sums(terms)
        sizes = choice_profile(circuit, terms.outputs, sums, terms.engine, terms.options)
    else:
        check_shots(spec.shots, terms.device, device.max_shots)
        plain = profile(circuit, terms.outputs, labels(terms))
        sizes = with_shots(device.examined(circuit, plain, terms), spec.shots)
    plan = fitting(sizes, terms, ranks)
    assigned = AssignedTask(1, 1, 0, *msgspec.structs.astuple(spec))
    chunk = AssignChunk(
        plan.threads, plan.memory_bytes, False, plan.engine, plan.reason, [terms], [assigned]
    )
    return chunk, plan
