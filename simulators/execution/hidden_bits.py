"""Results without the bits of the hidden register, such as the corrections between QPUs.

A program's classical register with the name HIDDEN_REGISTER is written and read inside the circuit
alone: outputs leave its bits out, and the other bits keep their order. Engines may drop one of its
bits after its last read.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit, outcome_width, shown_clbits
from simulators.engine import EngineResult
from simulators.execution import packing


def without_hidden(circuit: Circuit, result: EngineResult, shots: int) -> EngineResult:
    """Return a result without the bits of the hidden register; itself if the circuit has none."""
    shown = shown_clbits(circuit)
    if shown is None:
        return result
    changes: dict[str, object] = {}
    if result.counts:
        weights = np.frombuffer(result.counts, np.uint32).astype(np.float64)
        outcomes, sums, rows = _reduced(
            result.outcomes, result.outcome_width, weights, result.rows, shown
        )
        changes |= {
            "outcome_width": outcome_width(shown.size), "outcomes": outcomes,
            "counts": sums.astype(np.uint32).tobytes(), "rows": rows,
        }  # fmt: skip
    if result.probabilities and circuit.clbits_data:  # else they are of the qubits
        outcomes, sums, rows = _reduced(
            result.probability_outcomes, result.probability_width,
            np.frombuffer(result.probabilities, np.float64), result.probability_rows, shown,
        )  # fmt: skip
        changes |= {
            "probability_width": outcome_width(shown.size), "probability_outcomes": outcomes,
            "probabilities": sums.tobytes(), "probability_rows": rows,
        }  # fmt: skip
    if result.memory:
        data = np.frombuffer(result.memory, np.uint8).reshape(result.count * shots, -1)
        memory = packing.Memory(shown.size)
        memory.add(packing.select(data, shown))
        changes["memory"] = memory.packed()
    return msgspec.structs.replace(result, **changes)


def _reduced(
    outcomes: bytes,
    width: int,
    weights: NDArray[np.float64],
    rows: bytes,
    shown: NDArray[np.int64],
) -> tuple[bytes, NDArray[np.float64], bytes]:
    """Return the outcomes over the shown bits, the sums of their weights and the number of each
    row's outcomes."""
    records = packing.select(np.frombuffer(outcomes, np.uint8).reshape(-1, width), shown)
    sizes = np.frombuffer(rows, np.uint32).tolist() if rows else [len(records)]
    packed: list[bytes] = []
    sums: list[NDArray[np.float64]] = []
    first = 0
    for size in sizes:
        own, total = packing.tally(records[first : first + size], weights[first : first + size])
        packed.append(packing.pack(own, shown.size)[0])
        sums.append(total)
        first += size
    lengths = np.array([len(each) for each in sums], np.uint32).tobytes() if rows else b""
    return b"".join(packed), np.concatenate([np.zeros(0), *sums]), lengths
