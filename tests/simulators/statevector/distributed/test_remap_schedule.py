"""Which wires change places between passes, and what a rank does in each of them, without MPI."""

import functools

import numpy as np
import plain_sweeps
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from simulators.statevector.distributed import qubit_layout as layouts
from simulators.statevector.distributed.executor import local_table
from simulators.statevector.planning import tables as t
from simulators.statevector.state import BLOCK_QUBITS

State = NDArray[np.complex128]


def empty(n: int, tiles: list[list[int]], live: list[int] | None = None) -> t.SweepTable:
    """Passes over these tiles that do nothing."""
    places = np.zeros((len(tiles), t.MOST_WIDTH), np.uint64)
    for row, tile in zip(places, tiles, strict=True):
        row[: len(tile)] = tile
    lives = [(1 << n) - 1] * len(tiles) if live is None else live
    return t.SweepTable(
        n, len(tiles[0]), np.zeros(len(tiles) + 1, np.int64), places, np.array(lives, np.uint64),
        np.empty((0, t.OP_COLUMNS), np.uint64), np.empty((0, 2), np.uint64), 0,
    )  # fmt: skip


@st.composite
def plans(draw: st.DrawFn, n: int, width: int, passes: int) -> t.SweepTable:
    """Tiles of any wires beside the lanes; wires that are live are never fewer later."""
    above = st.permutations(range(t.LANE_WIRES, n)).map(lambda wires: wires[: width - t.LANE_WIRES])
    tiles = [[*range(t.LANE_WIRES), *draw(above)] for _ in range(passes)]
    live, lives = 0, []
    for tile in tiles:
        live |= sum(1 << wire for wire in tile)
        if draw(st.booleans()):
            live |= draw(st.integers(0, (1 << n) - 1))
        lives.append(live)
    return empty(n, tiles, lives)


N, LOCAL, WIDTH = 20, 17, 15


def followed(found: layouts.CommSchedule, plan: t.SweepTable, layout: layouts.Layout) -> None:
    """Every pass has its tile at home and its lanes where they belong."""
    at = 0
    for leg in found.stages:
        assert leg.first == at
        at = leg.last
        assert sorted(leg.positions) == list(range(N))
        layout.become(leg.positions)
        for number in range(leg.first, leg.last):
            tile = plan.places[number, : plan.width].tolist()
            assert all(layout.positions[wire] < LOCAL for wire in tile)
        assert layout.positions[: t.LANE_WIRES] == list(range(t.LANE_WIRES))
    assert at == len(plan.live)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(plan=plans(N, WIDTH, 6), fresh=st.booleans())
def test_each_sweep_has_its_tile_qubits_local(plan: t.SweepTable, fresh: bool) -> None:
    result = layouts.plan_communication(plan, range(N), LOCAL, fresh=fresh)
    followed(result, plan, layouts.Layout(N, LOCAL))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(plan=plans(N, WIDTH, 6))
def test_qubits_move_only_by_planned_exchanges(plan: t.SweepTable) -> None:
    """What differs from leg to leg is exchanged, or has never been 1."""
    result = layouts.plan_communication(plan, range(N), LOCAL, fresh=True)
    layout = layouts.Layout(N, LOCAL)
    alive = 0
    for leg in result.stages:
        assert leg.alive == alive
        unmoved = list(leg.positions)
        for actual, value in leg.pairs:
            assert value < LOCAL <= actual
            one, two = unmoved.index(actual), unmoved.index(value)
            unmoved[one], unmoved[two] = value, actual
        for wire in range(N):
            assert unmoved[wire] == layout.positions[wire] or not alive >> wire & 1
        assert layouts.before(leg, (1 << N) - 1) == (1 << N) - 1
        assert layouts.before(leg, alive) == sum(1 << unmoved[wire] for wire in layouts.bits(alive))
        layout.become(leg.positions)
        alive = int(plan.live[leg.last - 1])


def test_sweeps_over_local_qubits_need_no_communication() -> None:
    plan = empty(N, [list(range(WIDTH))] * 3)
    result = layouts.plan_communication(plan, range(N), LOCAL, fresh=False)
    assert result.sent == result.sent_by_all == 0
    (leg,) = result.stages
    assert (leg.first, leg.last, leg.pairs) == (0, 3, ())


def test_initial_layout_of_zero_state_costs_no_communication() -> None:
    """All of the last pass's wires could be at home from the start."""
    last = [*range(t.LANE_WIRES), *range(N - 10, N)]
    plan = empty(N, [last, last], [(1 << N) - 1] * 2)
    assert layouts.plan_communication(plan, range(N), LOCAL, fresh=True).sent == 0
    assert layouts.plan_communication(plan, range(N), LOCAL, fresh=False).sent > 0


def test_qubits_needed_together_are_exchanged_in_one_stage() -> None:
    """Three wires of the rank's number at once: 7/8 of the share go, and not 3/2."""
    tile = [*range(12), N - 3, N - 2, N - 1]
    result = layouts.plan_communication(empty(N, [tile]), range(N), LOCAL, fresh=False)
    assert result.sent == 7 << (LOCAL - 3)
    assert result.sent_by_all == result.sent << (N - LOCAL)
    assert [len(leg.pairs) for leg in result.stages] == [3]


def test_qubit_with_latest_next_use_is_exchanged() -> None:
    low = list(range(t.LANE_WIRES))
    first = [*low, *range(5, 14), N - 1]
    second = [*low, *range(5, 12), 14, 15, N - 1]
    plan = empty(N, [first, second])
    (leg,) = layouts.plan_communication(plan, range(N), LOCAL, fresh=False).stages
    (pair,) = leg.pairs
    assert pair == (N - 1, LOCAL - 1)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(plan=plans(N, WIDTH, 3), fresh=st.booleans())
def test_block_qubits_stay_local_while_others_can_leave(plan: t.SweepTable, fresh: bool) -> None:
    """As long as others can leave, the wires of a block stay."""
    layout = layouts.Layout(N, LOCAL)
    for leg in layouts.plan_communication(plan, range(N), LOCAL, fresh=fresh).stages:
        wanted = set(plan.places[leg.first, : plan.width].tolist())
        free = [w for w in range(BLOCK_QUBITS, N) if w not in wanted]
        layout.become(leg.positions)
        torn = [w for w in range(BLOCK_QUBITS) if layout.positions[w] != w]
        if len(free) >= N - LOCAL:
            assert not torn
            continue
        break  # from here on something was


@pytest.mark.parametrize(
    ("pairs", "alive", "most", "all_"),
    [
        (((17, 16),), (1 << N) - 1, 1 << 16, 1 << 19),
        (((17, 16), (18, 15)), (1 << N) - 1, 3 << 15, 3 << 18),
        (((17, 16),), (1 << 17) - 1, 1 << 16, 1 << 16),  # one rank has all
        (((17, 16),), (1 << 16) - 1, 0, 0),  # neither has ever been 1
        (((17, 16),), 1 << 17 | 0xFFFF, 1 << 16, 1 << 16),  # back to where there is nothing
        (((17, 16),), 0xFFF | 1 << 17 | 1 << 16, 1 << 12, 2 << 12),
    ],
)
def test_communication_volume_counts_only_live_amplitudes(
    pairs: tuple[tuple[int, int], ...], alive: int, most: int, all_: int
) -> None:
    assert layouts.communication_volume(pairs, range(N), alive, LOCAL) == (most, all_)


# --- what one rank does ----------------------------------------------------------------------

SMALL, SMALL_LOCAL, SMALL_WIDTH = 10, 8, 7


def drawn(seed: int, passes: int) -> tuple[t.SweepTable, NDArray[np.float64]]:
    """Operations of all kinds with conditions anywhere, and their numbers."""
    rng = np.random.default_rng(seed)
    rows = SMALL_WIDTH - t.LANE_WIRES
    above = [rng.permutation(range(t.LANE_WIRES, SMALL))[:rows].tolist() for _ in range(passes)]
    plan = empty(SMALL, [[*range(t.LANE_WIRES), *wires] for wires in above])
    floats: list[float] = []
    ops, starts, terms = [], [0], []
    for number in range(passes):
        inside = sum(1 << int(wire) for wire in plan.places[number, :SMALL_WIDTH])
        outside = ((1 << SMALL) - 1) & ~inside
        for kind in rng.permutation(
            [t.SWAP_LANE_ROW, t.DENSE + 1, t.REAL + 2, t.PERMUTE_ROWS, t.PHASE]
        ):
            op = np.zeros(t.OP_COLUMNS, np.uint64)
            op[t.KIND], op[t.A], op[t.B] = kind, 0, 1
            word, mask, value = rng.integers(1 << SMALL, size=3).tolist()
            op[t.OUTER_MASK] = word & mask & outside
            op[t.OUTER_VALUE] = word & mask & outside & value
            op[t.AT] = len(floats)
            if kind == t.SWAP_LANE_ROW:
                op[t.OUTER_MASK] = op[t.OUTER_VALUE] = 0
                lane = int(rng.integers(t.LANE_WIRES))
                op[t.A], op[t.B] = lane, 0
                ops.append(op)  # and back again at once
            elif kind == t.DENSE + 1:
                op[t.ROW_MASK] = op[t.ROW_VALUE] = 2
                floats += rng.normal(size=8).tolist()
            elif kind == t.REAL + 2:
                floats += rng.normal(size=16).tolist()
            elif kind == t.PERMUTE_ROWS:
                op[t.ROW_MASK], op[t.ROW_VALUE], op[t.ROW_OTHER] = 3, 1, 2
            else:
                op[t.CROSS], op[t.FIRST_TERM], op[t.TERMS] = 1, len(terms), 6
                for place in (t.SCALAR, t.SCALAR, 0, 4, 5, 6):
                    terms.append([1 << int(rng.choice(list(layouts.bits(outside)))), place])
                terms[-1][0] = outside & int(rng.integers(1 << SMALL))
                size = 2 * (1 << rows) + 2 * (2 * t.LANES) + 2 * 6
                floats += rng.normal(size=size).tolist()
            ops.append(op)
        starts.append(len(ops))
    return (
        t.SweepTable(
            SMALL, SMALL_WIDTH, np.array(starts, np.int64), plan.places, plan.live,
            np.array(ops, np.uint64), np.array(terms, np.uint64).reshape(-1, 2), len(floats),
        ),
        np.array(floats),
    )  # fmt: skip


def rearranged(state: State, old: list[int], new: list[int]) -> State:
    """The same amplitudes where wires stand elsewhere."""
    index = np.arange(state.size)
    from_, to = np.zeros_like(index), np.zeros_like(index)
    for wire in range(SMALL):
        from_ |= (index >> wire & 1) << old[wire]
        to |= (index >> wire & 1) << new[wire]
    result = np.empty_like(state)
    result[to] = state[from_]
    return result


@pytest.mark.parametrize("seed", range(8))
def test_sweep_tables_of_all_ranks_equal_undivided_run(seed: int) -> None:
    plan, floats = drawn(seed, 3)
    rng = np.random.default_rng(seed + 100)
    state = rng.normal(size=1 << SMALL) + 1j * rng.normal(size=1 << SMALL)
    expected = plain_sweeps.run(plan, floats, state)
    positions = list(range(SMALL))
    result = state
    for leg in layouts.plan_communication(plan, positions, SMALL_LOCAL, fresh=False).stages:
        result = rearranged(result, positions, list(leg.positions))
        positions = list(leg.positions)
        shares = result.reshape(-1, 1 << SMALL_LOCAL)
        run = functools.partial(local_table, plan, leg, SMALL_LOCAL)
        result = np.concatenate(
            [plain_sweeps.run(run(rank), floats, share) for rank, share in enumerate(shares)]
        )
    result = rearranged(result, positions, list(range(SMALL)))
    assert np.array_equal(result, expected)


def test_rank_without_live_amplitudes_sweeps_nothing() -> None:
    plan = empty(N, [list(range(WIDTH))], [(1 << 17) - 1])
    leg = layouts.RemapStage(0, 1, tuple(range(N)), (), 0)
    lives = [int(local_table(plan, leg, LOCAL, rank).live[0]) for rank in range(4)]
    assert lives == [(1 << 17) - 1, 0, 0, 0]
