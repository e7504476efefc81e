"""What ranks send for passes, and what they leave for another attempt; see `among_ranks`."""

import resource
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays import Arrays, measured
from attempts import Tired, dying
from both_ways import DOUBLE, SINGLE, agree, alike, alone, crowded, width

from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult, Request, RunControl, RunOptions
from simulators.errors import Stopped
from simulators.statevector import checkpoint, state as memory
from simulators.statevector.distributed.executor import ErrorAgreement, Exchange
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.state import State
from simulators.statevector.tiles import sweep_kernel


def fourier(n: int) -> Circuit:
    """Of a state that is no product."""
    arrays = crowded(n, 2 * n, 3, n)
    for high in reversed(range(n)):
        arrays.add("h", [high])
        for low in reversed(range(high)):
            arrays.add("cp", [low, high], (), [np.pi / 2 ** (high - low)])
    for q in range(n // 2):
        arrays.add("swap", [q, n - 1 - q])
    return measured(arrays)


def ladder(n: int) -> Circuit:
    arrays = Arrays(n, n)
    for layer in range(4):
        for q in range(n):
            arrays.add("ry", [q], (), [0.3 + q + layer])
        for q in range(n - 1):
            arrays.add("cx", [q, q + 1])
    return measured(arrays)


def case_sent_bytes_equal_planned_bytes(comm: Any) -> None:
    """And counts, as ever, are the same."""
    engine = StatevectorEngine(comm=comm)
    n = width(comm) + 3
    for circuit in (fourier(n), ladder(n), measured(crowded(n, 150, 7, n))):
        for options in (DOUBLE, SINGLE):
            request = Request(300, 4)
            plan = engine.plan(circuit, None, options)
            result = engine.run(plan, circuit, request, options, RunControl())
            assert agree(comm, result is None or alike(result, alone(circuit, request, options)))
            traffic = engine.traffic
            assert traffic is not None
            sent = np.array([traffic.sent_bytes])
            all_, outcome = np.zeros_like(sent), np.zeros_like(sent)
            comm.Allreduce(sent, all_)
            comm.Allreduce(sent, outcome, _max())
            assert traffic.exchanges
            assert traffic.passes
            assert int(all_[0]) == traffic.planned_bytes_of_all
            assert int(outcome[0]) <= traffic.planned_bytes
            assert traffic.waited_cpu_s >= 0.0
            assert traffic.exchange_s > 0.0
    engine.close()


def case_exchange_swaps_qubit_positions(comm: Any) -> None:
    """Of states in which some wires have never been 1; what was sent leaves zeros behind."""
    n, bits = 17, comm.size.bit_length() - 1
    local = n - bits
    index = np.arange(1 << n)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        alive = int(rng.integers(1 << n)) | int(rng.integers(1 << n)) if seed % 3 else (1 << n) - 1
        state = np.where(index & ~alive, 0, rng.normal(size=1 << n) + 1j * rng.normal(size=1 << n))
        count = int(rng.integers(1, bits + 1))
        outcome = rng.permutation(bits)[:count].tolist()
        result = rng.permutation(local)[:count].tolist()
        expected, target = np.empty_like(state), index.copy()
        for bit, position in zip(outcome, result, strict=True):
            differ = (target >> (bit + local) ^ target >> position) & 1
            target ^= differ << (bit + local) | differ << position
        expected[target] = state
        dtype = (np.complex128, np.complex64)[seed & 1]
        shares = state.astype(dtype).reshape(comm.size, -1)
        share = State(shares[comm.rank].copy())
        exchange = Exchange(ErrorAgreement(comm, RunControl()), local, np.dtype(dtype))
        pairs = list(zip(outcome, result, strict=True))
        exchange.exchange_qubits(share, pairs, alive & ((1 << local) - 1), alive >> local)
        wanted = expected.astype(dtype).reshape(comm.size, -1)[comm.rank]
        assert all_agree(comm, np.array_equal(share.amplitudes, wanted)), seed


def case_reused_memory_does_not_affect_counts(comm: Any) -> None:
    """All memory is full of what no number is; some qubits are never touched, some late."""
    patch = pytest.MonkeyPatch()
    full = memory.room

    def left(count: int, dtype: Any) -> tuple[Any, bool]:
        entries, _ = full(count, dtype)
        entries.fill(np.nan if entries.dtype.kind in "fc" else 0)
        return entries, False

    n = width(comm) + 4
    idle = crowded(n - 3, 60, 5, n)
    idle.num_qubits = n
    circuits = (fourier(n), ladder(n), measured(crowded(n, 90, 8, n)), measured(idle))
    entries = []
    engine = StatevectorEngine(comm=comm)
    for module in (memory, sweep_kernel):
        patch.setattr(module, "room", left)
    for circuit in circuits:
        plan = engine.plan(circuit, None, DOUBLE)
        entries.append(engine.run(plan, circuit, Request(300, 4), DOUBLE, RunControl()))
    patch.undo()
    for circuit, value in zip(circuits, entries, strict=True):
        assert agree(comm, value is None or alike(value, alone(circuit, Request(300, 4))))
    engine.close()


def all_agree(comm: Any, truth: bool) -> bool:
    array = np.array([truth], np.int64)
    total = np.zeros_like(array)
    comm.Allreduce(array, total)
    return int(total[0]) == comm.size


def _max() -> Any:
    from mpi4py import MPI

    return MPI.MAX


@contextmanager
def stopped(
    comm: Any, folder: str, n: int, gates: int, control: RunControl
) -> Iterator[tuple[Path, StatevectorEngine, Callable[[RunControl], EngineResult | None]]]:
    """The checkpoints of a run that was stopped, its engine, and the same run once more; its result
    is that of one process."""
    path = Path(tempfile.gettempdir()) / folder
    circuit, request = measured(crowded(n, gates, 9, n)), Request(300, 4)
    options = RunOptions(checkpoint_dir=str(path), checkpoint_every_s=0.0)
    engine = StatevectorEngine(comm=comm)
    plan = engine.plan(circuit, None, options)

    def again(control: RunControl) -> EngineResult | None:
        result = engine.run(plan, circuit, request, options, control)
        assert agree(comm, result is None or alike(result, alone(circuit, request)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_SHARE", 0)
        with dying(patch), pytest.raises(Stopped):
            engine.run(plan, circuit, request, options, control)
        comm.Barrier()
        yield path, engine, again
    engine.close()


def case_resumed_run_gives_same_counts(comm: Any) -> None:
    tired = Tired(5) if comm.rank else RunControl()
    with stopped(comm, "kept", width(comm) + 3, 200, tired) as (folder, engine, again):
        marks = [checkpoint.header_of(path) for path in folder.glob(f"{comm.rank}.*")]
        done = max(mark.done for mark in marks if mark is not None)
        assert done == 4  # the fifth was not heard of by all
        control = RunControl()
        result = again(control)
        traffic = engine.traffic
        assert traffic is not None
        passes = control.progress[1:3]
        assert passes[0] == passes[1] == done + traffic.passes
        assert result is None or result.remark.startswith(f"from pass {done} of {passes[1]}, ")
        comm.Barrier()
        assert not folder.exists()


def case_all_ranks_start_anew_if_one_lost_its_checkpoint(comm: Any) -> None:
    with stopped(comm, "lost", width(comm) + 2, 150, Tired(4)) as (folder, engine, again):
        if comm.rank == comm.size - 1:
            for path in folder.glob(f"{comm.rank}.*"):
                path.unlink()
        comm.Barrier()
        control = RunControl()
        again(control)
        traffic = engine.traffic
        assert traffic is not None
        assert traffic.passes == control.progress.total
        comm.Barrier()
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def case_full_disk_of_one_rank_keeps_checkpoints_of_all(comm: Any) -> None:
    """Then none of them has anything newer than what all had before."""
    with stopped(comm, "full", width(comm) + 3, 200, Tired(5)) as (_, _, again):
        last = comm.rank == comm.size - 1
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if last:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        patch = pytest.MonkeyPatch()
        with dying(patch), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = again(RunControl())
        assert bool(warned) == last
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert result is None or "not kept at sweep" in result.remark
        comm.Barrier()
        result = again(RunControl())
        assert result is None or result.remark.startswith("from pass 4 of ")
