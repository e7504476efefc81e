"""Cost of each tile operation on a large state, in milliseconds for the whole state.

Passes with a few operations of one kind, and passes without any, take turns; times are medians. The
bandwidth of memory is measured in the same rounds: all numbers of the state are read and written
once, by as many threads.

    python -m bench run tiles [--qubits 24] [--threads 2] [--rounds 7] [--precision double]
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator

import numpy as np

from bench.harness import Option, Report, clock_of, medians, rounds
from bench.harness.comparison import rounds_of
from bench.harness.kernels import load_kernels
from bench.harness.timing import in_threads
from simulators.engine import RunControl, ThreadPool

COPIES = 4  # copies of an operation in one pass
WIDTHS = {"double": 14, "single": 15}
OPTIONS = (
    Option("--qubits", type=int, default=24, quick=20),
    Option("--threads", type=int, default=2),
    rounds(7, quick=3),
    Option("--precision", choices=tuple(WIDTHS), default="double"),
    Option("--width", type=int, default=0),
)


def run(options: Namespace) -> Report:
    report = Report("tiles", "tiles: operations on the tiles of a large state, ms")
    load_kernels()
    clock = clock_of(cpu=options.threads == 1)  # the machine may be busy
    width = options.width or WIDTHS[options.precision]
    with ThreadPool(options.threads, RunControl()) as pool:
        calls = dict(_calls(pool, options.qubits, width, options.precision))
        rounds_of(calls, 1)
        times = rounds_of(calls, options.rounds, clock=clock)
    entries = {name: 1e3 * seconds for name, seconds in medians(times).items()}
    size = (32 if options.precision == "double" else 16) << options.qubits  # bytes read and written
    size_words = f"{options.qubits} qubits, {options.precision}"
    print(f"{size_words}, width {width}, {options.threads} threads, ms")
    for name, value in entries.items():
        ms = value if name in _WHOLE else (value - entries["pass, low wires"]) / COPIES
        rate = f"{size / value / 1e6:8.1f} GB/s" if name in _WHOLE else ""
        print(f"{name:24}{ms:9.2f}{rate}")
    return report


_WHOLE = ("memory", "pass, low wires", "pass, high wires", "pass with norms")


def _calls(
    pool: ThreadPool, num_qubits: int, width: int, precision: str
) -> Iterator[tuple[str, Callable[[], None]]]:
    from simulators.statevector.planning import tables as s
    from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable
    from simulators.statevector.state import BlockExecutor, State, zeros
    from simulators.statevector.tiles import sweep_kernel

    dtype = np.complex128 if precision == "double" else np.complex64
    state = State(zeros(1 << num_qubits, dtype))
    state.amplitudes[:] = 2.0 ** (-num_qubits / 2)
    reals = next(each for each in state.arrays if each.size)
    sweeper = BlockExecutor(pool, RunControl())
    height = width - LANE_WIRES
    low = [*range(width)]
    high = [*range(LANE_WIRES), *range(num_qubits - height, num_qubits)]
    turns = np.exp(1j * np.arange(1 << height)).view(np.float64)
    lanes = np.concatenate((np.cos(np.arange(LANES)), np.sin(np.arange(LANES))))
    plain = np.concatenate((np.ones(LANES), np.zeros(LANES)))
    terms = np.array([(1 << (num_qubits - 1), k) for k in range(width)], np.uint64)

    def call(
        floats: np.ndarray, places: list[int] = low, norms: bool = False, **fields: int
    ) -> Callable[[], None]:
        row = [fields.get(name, 0) for name in ("kind", "a", "b", "c", "mask", "value", "other")]
        row += [0, 0, 0, 0, 0, fields.get("terms", 0)]
        copies = COPIES if fields else 0
        # The permutation is the identity; it keeps a pass from leaving out tiles.
        nothing = [s.PERMUTE_ROWS, 0, 0, 0, (1 << height) - 1, *[0] * 8]
        table = np.zeros((1, s.MOST_WIDTH), np.uint64)
        table[0, :width] = places
        plan = SweepTable(
            num_qubits,
            width,
            np.array([0, 1 + copies]),
            table,
            np.array([(1 << num_qubits) - 1], np.uint64),
            np.array([nothing, *[row] * copies], np.uint64),
            terms,
            floats.size,
        )
        return lambda: sweep_kernel.apply(sweeper, state, plan, floats, norms=norms)

    def memory_alone() -> None:
        in_threads(lambda part: np.negative(part, part), np.array_split(reals, pool.size))

    none, eye = np.zeros(1), np.eye(8).ravel()
    yield "memory", memory_alone
    yield "pass, low wires", call(none)
    yield "pass, high wires", call(none, high)
    yield "pass with norms", call(none, low, norms=True)
    for k in (1, 2, 3):
        matrix = np.eye(1 << k, dtype=np.complex128).view(np.float64).ravel()
        yield f"dense {k}", call(matrix, kind=s.DENSE + k, a=1, b=3, c=4)
        yield f"real {k}", call(np.eye(1 << k).ravel(), kind=s.REAL + k, a=1, b=3, c=4)
    yield "dense 1, half", call(eye, kind=s.DENSE + 1, a=1, mask=4, value=4)
    for lane in (0, 3, 4):
        yield f"swap lane {lane}", call(none, kind=s.SWAP_LANE_ROW, a=lane, b=2)
    yield "map", call(none, kind=s.PERMUTE_ROWS, mask=3, value=1, other=2)
    rows, both = np.concatenate((turns, plain)), np.concatenate((turns, lanes))
    yield "phase of rows", call(rows, kind=s.PHASE)
    yield "phase of rows, half", call(rows, kind=s.PHASE, mask=2, value=2)
    yield "phase", call(both, kind=s.PHASE)
    yield "phase, half", call(both, kind=s.PHASE, mask=2, value=2)
    more = np.concatenate((both, np.exp(1j * np.arange(width)).view(np.float64)))
    yield "phase, terms", call(more, kind=s.PHASE, terms=width)
