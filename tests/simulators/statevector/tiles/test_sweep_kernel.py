"""Kernels of large states against the meaning of their tables."""

import numpy as np
import pytest
from random_sweeps import Table, agree, agree_all, random_state, state_of

from simulators.engine import RunControl, RunOptions, ThreadPool
from simulators.errors import Stopped
from simulators.statevector import state as memory
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import sweep_kernel


def test_sweep_kernels_agree_with_plain_reference() -> None:
    agree_all()


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_amplitudes_and_norms_are_identical_for_1_2_5_threads(dtype: str) -> None:
    states = [agree(16, 8, 5, dtype, fresh=False, threads=threads) for threads in (1, 2, 5)]
    for other in states[1:]:
        np.testing.assert_array_equal(states[0].amplitudes, other.amplitudes)
        np.testing.assert_array_equal(states[0].norms, other.norms)


def test_stop_is_honoured_by_sweep_driver() -> None:
    control = RunControl()
    table = Table(16, 8, 1)
    table.fill(4, 4, fresh=False)
    plan, floats = table.plan()
    state = state_of(random_state(16, 1))
    with ThreadPool(2, control) as thread_pool:
        control.stop()
        with pytest.raises(Stopped):
            sweep_kernel.apply(BlockExecutor(thread_pool, control), state, plan, floats)


def test_denormal_amplitudes_are_0_in_sweeps_alone() -> None:
    table = Table(16, 8, 1)
    table.fill(2, 4, fresh=False)
    plan, floats = table.plan()
    tiny = np.float32(1e-40)
    state = State(np.full(1 << 16, tiny, np.complex64))
    control = RunControl()
    with ThreadPool(1, control) as thread_pool:
        sweep_kernel.apply(BlockExecutor(thread_pool, control), state, plan, floats)
        values = np.abs(state.amplitudes.view(np.float32))
    assert not ((values > 0) & (values < 1e-38)).any()
    assert np.full(1, tiny, np.float32) * np.float32(0.5) != 0  # as before, in this thread


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_samples_are_equal_with_stored_or_recomputed_norms(dtype: str) -> None:
    """By the last pass, or afterwards; and they are those of the distribution."""
    state = agree(16, 10, 2, dtype, fresh=False, threads=2)
    shots = np.arange(5000)
    with ThreadPool(2, RunControl()) as thread_pool:
        states = LocalBackend(thread_pool, RunControl())
        draws = protocol.ShotDraws((4, 0), shots)
        result = protocol.sample(states, state, draws)
        inexact = state_of(state.amplitudes)
        np.testing.assert_array_equal(result, protocol.sample(states, inexact, draws))
        sorted_ = protocol.sample(states, state, protocol.ShotDraws((4, 0), shots, ordered=False))
    np.testing.assert_array_equal(np.sort(result), sorted_)
    ends = np.cumsum(np.abs(state.amplitudes.astype(np.complex128)) ** 2)
    draws = np.random.Generator(np.random.Philox(key=[4, 0])).random(5000) * ends[-1]
    assert (np.searchsorted(ends, draws, side="right") == result).mean() > 0.999


def test_outcomes_of_zero_probability_are_not_drawn() -> None:
    amplitudes = np.zeros(1 << 14, np.complex128)
    amplitudes[[5, 40, 4095, 9000]] = 0.5
    state = state_of(amplitudes)
    with ThreadPool(1, RunControl()) as thread_pool:
        states, draws = LocalBackend(thread_pool, RunControl()), np.arange(2000)
        result = protocol.sample(states, state, protocol.ShotDraws((1, 0), draws))
    values, counts = np.unique(result, return_counts=True)
    assert values.tolist() == [5, 40, 4095, 9000]
    assert counts.min() > 400


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_reused_memory_leaves_new_state_alone(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is used again holds anything; passes from |0...0> never read it."""
    monkeypatch.setattr(memory, "_KEPT_BYTES", 1 << 30)
    precision = "double" if dtype == "complex128" else "single"
    options = RunOptions(precision=precision)
    for seed in range(4):
        table = Table(19, 9, seed)
        table.fill(12, 4, fresh=True)
        plan, floats = table.plan()
        entries = []
        for left in (0.0, 1.0):
            memory.release()
            block, clean = memory.room(1 << 19, dtype)
            assert clean
            block[:] = left
            del block
            state = State.zero(19, options)
            with ThreadPool(2, RunControl()) as thread_pool:
                sweep_kernel.apply(BlockExecutor(thread_pool, RunControl()), state, plan, floats)
            entries.append(state)
        np.testing.assert_array_equal(entries[0].amplitudes, entries[1].amplitudes)
        np.testing.assert_array_equal(entries[0].norms, entries[1].norms)
        assert abs(entries[1].norms.sum() - 1.0) < 1e-5
        del state, entries
    again = State.zero(19, options)
    assert again.amplitudes[0] == 1.0
    assert np.count_nonzero(again.amplitudes) == 1


def test_memory_with_live_view_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_KEPT_BYTES", 1 << 30)
    memory.release()
    block, clean = memory.room(1 << 19, np.complex128)
    view = block[5:].view(np.float64)
    del block
    assert clean
    assert memory.room(1 << 19, np.complex128)[1], "a view of the first block is still there"
    del view
    assert not memory.room(1 << 19, np.complex128)[1]
