"""`simenv simulate`, and the fit of a program into the ranks of a command."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from simenv._version import __version__
from simenv.cli import app
from simenv.cli.tasks import circuit_input
from simenv.cli.tasks.circuit_input import errors_for_command_line, kernel_progress, read_circuit
from simenv.cli.tasks.result_view import print_results
from simenv.errors import InfeasibleError, OptionError, ProgramError, TaskFailedError
from simenv.model import Observable, Origin, PoolSpec, TaskOptions, TaskState, decode_program
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simenv.scheduler.routing.engine_support import cost_query
from simulators import catalog
from simulators.catalog.costs import BASE_BYTES, ranks_used

if TYPE_CHECKING:
    from simenv.calibration.ledger import LocalDevices
    from simenv.client.result import Result
    from simenv.client.submission.prepare import PreparedSubmit
    from simenv.wire.messages.client import AssignChunk
    from simenv.worker.ranks import MpiRun, RankInfo
    from simulators.catalog import EngineCard
    from simulators.circuit.analysis.profile import Profile

# Fit of a program into the MPI ranks of a command, and the engine that runs it.
#
# Invariant: pure; it counts bytes before anything is allocated.

_ENDLESS_BYTES = 2**62
_HOUR_NS = 3600 * 10**9


class ResourceFit(msgspec.Struct, frozen=True):
    """Engine, ranks and threads with which the ranks run a program."""

    engine: str
    reason: str  # why this engine is used
    ranks: int  # number of ranks that hold the state
    threads: int  # of each rank
    memory_bytes: int  # most bytes of states in each rank


def fitting(profile: Profile, terms: TaskOptions, rank_infos: Sequence[RankInfo]) -> ResourceFit:
    """Return the engine, and the threads and memory of each rank.

    Raises InfeasibleError with the figures, OptionError.
    """
    named = catalog.card(terms.engine)
    if named is not None and named.pool == "device":
        raise OptionError(
            f"engine {named.name!r} runs in pools of an environment",
            hint="simenv submit --pool NAME",
        )
    memory = sum({rank_info.node: rank_info.memory_bytes for rank_info in rank_infos}.values())
    pools = PoolSpec(), PoolSpec(engine=terms.engine)  # all engines, and those of special pools
    try:
        result = engine_choice.route(profile, terms, pools, _limits(memory))
    except InfeasibleError:  # the error below has the figures of the ranks
        result = engine_choice.route(profile, terms, pools, _limits(_ENDLESS_BYTES))
    card = catalog.card(result.engine)
    assert card is not None
    profile = card.effective_profile(profile, terms.outputs)
    ranks = ranks_used(profile.num_qubits, len(rank_infos)) if card.parallel.ranks else 1
    used = rank_infos[:ranks]
    share = min(_shares(used).values())
    required_bytes = card.costs.least_memory_bytes(profile, cost_query(card, terms, ranks=ranks))
    if required_bytes > share:
        raise _too_wide_error(card, profile, terms, used, required_bytes)
    return ResourceFit(result.engine, result.reason, ranks, _threads(used), share - BASE_BYTES)


def _limits(memory_bytes: int) -> ClusterLimits:
    """Return limits with all memory in one process: the choice of the engine ignores its
    division."""
    return ClusterLimits(1, memory_bytes, 1, 1, _HOUR_NS, _HOUR_NS)


def _shares(rank_infos: Sequence[RankInfo]) -> dict[str, int]:
    """Return the bytes that a rank on each node may hold."""
    count = Counter(rank_info.node for rank_info in rank_infos)
    return {
        rank_info.node: rank_info.memory_bytes // count[rank_info.node] for rank_info in rank_infos
    }


def _threads(rank_infos: Sequence[RankInfo]) -> int:
    """Return the threads of each rank, the same for all: its part of the usable cores of its
    node."""
    count = Counter(rank_info.node for rank_info in rank_infos)
    cores: dict[str, set[int]] = {}
    for rank_info in rank_infos:
        cores.setdefault(rank_info.node, set()).update(rank_info.cores)
    least = min(
        _slots(rank_info, cores[rank_info.node]) // count[rank_info.node]
        for rank_info in rank_infos
    )
    return max(1, least)


def _slots(rank_info: RankInfo, cores: set[int]) -> int:
    """Return the usable slots of a rank's node.

    Its ranks may be bound to different cores (`cores`: all of them) and share a quota of time.
    """
    return (
        len(cores) if rank_info.slots >= len(rank_info.cores) else min(len(cores), rank_info.slots)
    )


def _too_wide_error(
    card: EngineCard,
    profile: Profile,
    terms: TaskOptions,
    rank_infos: Sequence[RankInfo],
    required_bytes: int,
) -> InfeasibleError:
    count = Counter(rank_info.node for rank_info in rank_infos)
    shares = _shares(rank_infos)
    node = min(shares, key=lambda name: shares[name])
    node_bytes = shares[node] * count[node]
    what = f"{profile.num_qubits} qubits, {terms.precision} precision"
    each = "in each of its ranks" if len(rank_infos) > 1 else "in one process"
    text = (
        f"this program needs {engine_choice.size(required_bytes)} {each} ({what}),"
        f" {engine_choice.size(required_bytes * count[node])} on node {node};"
        f" that has {engine_choice.size(node_bytes)} for {count[node]}"
    )
    return InfeasibleError(text, hint=_remedy(card, profile, terms, len(rank_infos), shares[node]))


def _remedy(card: EngineCard, profile: Profile, terms: TaskOptions, ranks: int, share: int) -> str:
    num_ranks = 2 * ranks
    while card.parallel.ranks and num_ranks <= ranks_used(profile.num_qubits, 2**20):
        required_bytes = card.costs.least_memory_bytes(
            profile, cost_query(card, terms, ranks=num_ranks)
        )
        if required_bytes <= share:
            return (
                f"with as much memory for each, {num_ranks} ranks hold it, "
                f"{engine_choice.size(required_bytes)} each: mpirun -n {num_ranks} over more nodes"
            )
        num_ranks *= 2
    single = msgspec.structs.replace(terms, precision="single")
    required_bytes = card.costs.least_memory_bytes(profile, cost_query(card, single, ranks=ranks))
    if terms.precision == "double" and required_bytes <= share:
        return "it fits with --precision single"
    return "fewer outputs or fewer qubits: a whole statevector must fit into the first rank"


# `simenv simulate`: one circuit over the ranks of an mpirun or srun, or in this process.
#
# No service takes part. Invariant: only the first rank reads and writes; if one of them fails, all
# ranks end.

TASK = "simulate"  # in place of a task's id
_FAILED = 1


@app.with_options(
    circuit_input.CircuitOptions,
    *("pool", "prefer", "ranks", "priority", "queue_timeout", "after", "task_name"),
)
def simulate(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="OpenQASM 2 or 3, or QPY; - is stdin.")],
    asked: circuit_input.CircuitOptions,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole result to FILE.h5, FILE.npz or FILE.json.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Run one circuit without an environment: mpirun -n 8 simenv simulate FILE.

    The MPI ranks share the state (a power of two of them); the first prints what `submit --wait`
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

        loaded = read_circuit(file)
        order = prepare_one(loaded.program, asked.arguments(loaded), SubmitDevices(local))
        observables.extend(order.terms.pauli_sums)
        return order

    with errors_for_command_line():
        try:
            with kernel_progress():
                result = _run_leading_rank(world, prepare, begin_s, local)
        except BaseException as error:
            world.end(str(error) or type(error).__name__, getattr(error, "exit_code", _FAILED))
            raise
    world.end()
    print_results([result], common.as_json, save, observables)


def _begin_mpi() -> MpiRun:
    """Return the MPI run; with an incompatible MPI, rank 0 raises InfeasibleError and the others
    exit."""
    from simenv.worker import ranks
    from simenv.worker.ranks import MpiRun

    try:
        return MpiRun.begin(os.environ)
    except ranks.NoMpi as error:
        if ranks.rank_from_environ(os.environ):
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
    from simenv.config import kernel_folder
    from simenv.wire import codec
    from simenv.wire.messages.client import STATES
    from simenv.worker import ranks as mpirun

    ranks = world.gather_ranks(_own_rank())
    try:
        chunk, plan = _chunk(prepare(), ranks, local)
    except BaseException:  # also an interrupt: the other ranks wait for the broadcast
        world.broadcast(None)
        raise
    document = local.document(chunk.terms[0])
    world.broadcast(mpirun.packed(chunk, document))
    finished = mpirun.lead(world, chunk, kernel_folder(), document)
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
    from simenv.config import kernel_folder
    from simenv.worker import ranks

    failure = ""
    try:
        world.gather_ranks(_own_rank())
        data = world.broadcast(None)
        if data is not None:
            ranks.follow(world, data, kernel_folder())
    except Exception as error:  # noqa: BLE001 the first rank has the same error, or all are ended
        failure = str(error) or type(error).__name__
    world.end(failure)


def _own_rank() -> RankInfo:
    from launcher.allocation.this_node import this_node
    from simenv.worker.ranks import own_rank_info

    node = this_node()
    return own_rank_info(node.name, node.memory_bytes, node.slots)


def _chunk(
    order: PreparedSubmit, ranks: Sequence[RankInfo], local: LocalDevices
) -> tuple[AssignChunk, ResourceFit]:
    """Return the assignment that is sent to all ranks, and its fit into them.

    Raises ProgramError, InfeasibleError, OptionError.
    """
    from simenv.config import kernel_folder
    from simenv.wire.messages.client import AssignChunk, AssignedTask
    from simulators.compiler import warmup

    warmup.prepare(kernel_folder())  # before modules with kernels are imported
    from simenv.service.admission.controller import with_shots
    from simenv.service.admission.rules import check_device_shots
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
    labels = [label for observable in terms.pauli_sums for label in observable.labels]
    profiler = choice_profile if terms.engine == "auto" else profile
    sizes = profiler(circuit, terms.outputs, labels)
    if device is not None:
        check_device_shots(spec.shots, terms.device, device.max_shots)
        sizes = with_shots(device.examined(circuit, sizes), spec.shots)
    plan = fitting(sizes, terms, ranks)
    assigned = AssignedTask(1, 1, 0, *msgspec.structs.astuple(spec))
    chunk = AssignChunk(
        plan.threads, plan.memory_bytes, False, plan.engine, plan.reason, [terms], [assigned]
    )
    return chunk, plan
