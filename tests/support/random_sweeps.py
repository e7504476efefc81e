"""Tables of passes at random, and what kernels make of them beside the reference."""

import msgspec
import numpy as np
from numpy.typing import NDArray
from plain_sweeps import run as plainly

from simulators.engine import RunControl, ThreadPool
from simulators.statevector.planning import tables as s
from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import sweep_kernel

Numbers = NDArray[np.float64]
_FIELDS = ("KIND", "A", "B", "C", "ROW_MASK", "ROW_VALUE", "ROW_OTHER", "OUTER_MASK",
           "OUTER_VALUE", "AT", "CROSS", "FIRST_TERM", "TERMS")  # fmt: skip
TOLERANCE = {"complex128": 1e-13, "complex64": 2e-6}


class Table:
    """Grows operation by operation."""

    def __init__(self, num_wires: int, width: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_wires, self.width, self.height = num_wires, width, width - LANE_WIRES
        self.ops: list[list[int]] = []
        self.terms: list[tuple[int, int]] = []
        self.floats: list[float] = []
        self.starts = [0]
        self.places: list[list[int]] = []
        self.live: list[int] = []
        self.inside = 0

    def plan(self) -> tuple[SweepTable, Numbers]:
        """The table, and its numbers."""
        places = np.zeros((len(self.places), s.MOST_WIDTH), np.uint64)
        places[:, : self.width] = self.places
        return (
            SweepTable(
                self.num_wires, self.width, np.array(self.starts), places,
                np.array(self.live, np.uint64),
                np.array(self.ops, np.uint64).reshape(-1, s.OP_COLUMNS),
                np.array(self.terms, np.uint64).reshape(-1, 2), len(self.floats),
            ),
            np.array([*self.floats, 0.0]),
        )  # fmt: skip

    def fill(self, passes: int, operations: int, *, fresh: bool, local: int = 0) -> None:
        """Passes at random; `fresh`: they begin with |0...0>. Their tiles are of wires below
        `local`, by default all."""
        live = 0 if fresh else (1 << self.num_wires) - 1
        for _ in range(passes):
            high = np.arange(LANE_WIRES, local or self.num_wires)
            chosen = self.rng.choice(high, self.height, replace=False).tolist()
            self.places.append([*range(LANE_WIRES), *chosen])
            self.inside = sum(1 << wire for wire in self.places[-1])
            live |= self.inside
            self.live.append(live)
            swaps = []
            for _ in range(operations):
                kind = int(self.rng.integers(0, s.PHASE + 1))
                if kind == s.SWAP_LANE_ROW:
                    lane, row = self.rng.integers(0, (LANE_WIRES, self.height)).tolist()
                    swaps.append((lane, row))
                    self.op(KIND=kind, A=lane, B=row)
                elif kind == s.PERMUTE_ROWS:
                    self.map()
                elif kind == s.PHASE:
                    self.phase()
                elif (kind - 1) % 3 < self.height:
                    self.matrix(kind)
            for lane, row in reversed(swaps):
                self.op(KIND=s.SWAP_LANE_ROW, A=lane, B=row)
            self.starts.append(len(self.ops))

    def op(self, **fields: int) -> None:
        """One row."""
        self.ops.append([fields.get(name, 0) for name in _FIELDS])

    def conditions(self, taken: int = 0) -> dict[str, int]:
        """Of rows that are not `taken`, and of tiles; often none."""
        rows = self._some((1 << self.height) - 1 & ~taken)
        outer = self._some(((1 << self.num_wires) - 1) & ~self.inside)
        return {
            "ROW_MASK": rows, "ROW_VALUE": self._some(rows, 0.5), "OUTER_MASK": outer,
            "OUTER_VALUE": self._some(outer, 0.7),
        }  # fmt: skip

    def matrix(self, kind: int) -> None:
        """A unitary matrix on row bits."""
        width = kind - (s.REAL if kind > s.REAL else s.DENSE)
        size = 1 << width
        bits = self.rng.choice(self.height, width, replace=False).tolist()
        entries = self.rng.normal(size=(2, size, size))
        dense = entries[0] if kind > s.REAL else entries[0] + 1j * entries[1]
        unitary = np.linalg.qr(dense)[0]
        fields = self.conditions(sum(1 << bit for bit in bits))
        at = len(self.floats)
        if kind > s.REAL:
            self.floats += unitary.ravel().tolist()
        else:
            self._complex(unitary.ravel())
        self.op(KIND=kind, AT=at, **dict(zip("ABC", bits, strict=False)), **fields)

    def map(self) -> None:
        """Some rows for others."""
        mask = self._some((1 << self.height) - 1, 0.6) or 1
        result = self._some(mask, 0.5)
        other = result ^ (self._some(mask, 0.5) or mask & -mask)
        fields = self.conditions()
        fields |= {"ROW_MASK": mask, "ROW_VALUE": result, "ROW_OTHER": other}
        self.op(KIND=s.PERMUTE_ROWS, **fields)

    def phase(self) -> None:
        """Tables and terms."""
        cross = self._some((1 << self.height) - 1, self.rng.choice([0.0, 0.3]))
        while cross.bit_count() > s.MOST_CROSS:
            cross &= cross - 1
        at, first = len(self.floats), len(self.terms)
        self._turns(1 << self.height)
        for _ in range(1 << cross.bit_count()):
            plain = self.rng.random() < 0.3
            turns = np.ones(LANES) if plain else np.exp(2j * np.pi * self.rng.random(LANES))
            self.floats += [*turns.real.tolist(), *turns.imag.tolist()]
        rest = ((1 << self.num_wires) - 1) & ~self.inside
        for _ in range(int(self.rng.choice([0, 1, 12]))):
            place = int(self.rng.integers(0, self.width + 1))
            self.terms.append((self._some(rest, 0.3), s.SCALAR if place == self.width else place))
        count = len(self.terms) - first
        self._turns(count)
        fields = self.conditions()
        self.op(KIND=s.PHASE, AT=at, CROSS=cross, FIRST_TERM=first, TERMS=count, **fields)

    def _turns(self, count: int) -> None:
        self._complex(np.exp(2j * np.pi * self.rng.random(count)))

    def _complex(self, numbers: NDArray[np.complex128]) -> None:
        self.floats += np.asarray(numbers, np.complex128).view(np.float64).tolist()

    def _some(self, mask: int, chance: float = 0.15) -> int:
        bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
        return sum(1 << bit for bit in bits if self.rng.random() < chance)


def state_of(amplitudes: NDArray[np.complexfloating], *, fresh: bool = False) -> State:
    """A state that the kernels may change."""
    state = State(amplitudes.copy())
    state.live = 0 if fresh else -1
    return state


def random_state(num_wires: int, seed: int) -> NDArray[np.complex128]:
    """Amplitudes of norm 1."""
    parts = np.random.default_rng(seed).normal(size=(2, 1 << num_wires))
    item: NDArray[np.complex128] = parts[0] + 1j * parts[1]
    return item / np.linalg.norm(item)


def agree(num_wires: int, width: int, seed: int, dtype: str, *, fresh: bool, threads: int) -> State:
    """The state that kernels make of a table at random, compared with the reference."""
    table = Table(num_wires, width, seed)
    table.fill(3, 8, fresh=fresh)
    plan, floats = table.plan()
    begin = random_state(num_wires, seed)
    if fresh:
        begin = np.zeros(1 << num_wires, np.complex128)
        begin[0] = 1.0
    state = state_of(begin.astype(dtype), fresh=fresh)
    with ThreadPool(threads, RunControl()) as thread_pool:
        sweep_kernel.apply(BlockExecutor(thread_pool, RunControl()), state, plan, floats)
    gap = np.abs(state.amplitudes - plainly(plan, floats, begin)).max()
    assert gap < TOLERANCE[dtype], f"seed {seed}: {gap}"
    norms = (np.abs(state.amplitudes.astype(np.complex128)) ** 2).reshape(-1, LANES).sum(axis=1)
    assert state.norms is not None
    np.testing.assert_allclose(state.norms, norms, rtol=1e-12, atol=1e-15)
    return state


def agree_in_halves(num_wires: int, width: int, seed: int, dtype: str) -> None:
    """The same where the highest wire stands in the number of one of two ranks."""
    table = Table(num_wires + 1, width, seed)
    table.fill(2, 8, fresh=False, local=num_wires)
    plan, floats = table.plan()
    begin = random_state(num_wires + 1, seed)
    expected = plainly(plan, floats, begin).reshape(2, -1)
    local = msgspec.structs.replace(plan, num_wires=num_wires)
    for rank, half in enumerate(begin.astype(dtype).reshape(2, -1)):
        state = state_of(half)
        with ThreadPool(1, RunControl()) as thread_pool:
            sweeper = BlockExecutor(thread_pool, RunControl())
            sweep_kernel.apply(sweeper, state, local, floats, high=rank << num_wires)
        assert np.abs(state.amplitudes - expected[rank]).max() < TOLERANCE[dtype], seed


def agree_all() -> None:
    """Many tables of all kinds."""
    for dtype in TOLERANCE:
        for seed in range(40):
            width = 6 + seed % 5
            fresh = seed % 3 == 0
            agree(width + seed % 4, width, seed, dtype, fresh=fresh, threads=1)
            agree_in_halves(width + seed % 3, width, seed, dtype)
