"""Circuits that are the same whatever else changes: their counts are written down.

Random ones take their numbers from `random.Random(seed).random()`, the one stream that Python
promises to keep; numpy's and hypothesis' may change with a release.
"""

import math
import random
from pathlib import Path

from arrays import Arrays

from simenv.model import decode_program
from simulators.circuit import ir
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit, bell, feed_forward, ghz

PROGRAMS = Path(__file__).parents[1] / "golden"
GateNames = tuple[str, ...]
GATE_NAMES: GateNames = (
    *("h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p", "u", "cx", "cy"),
    *("cz", "ch", "cp", "crx", "cry", "crz", "csx", "cu", "swap", "iswap", "ecr", "dcx", "rxx"),
    *("ryy", "rzz", "rzx", "xx_plus_yy", "ccx", "ccz", "cswap", "rccx"),
)
CLIFFORD_NAMES: GateNames = (
    *("cx", "cy", "cz", "dcx", "ecr", "h", "iswap", "s", "sdg", "swap", "sx", "x", "y"),
)


class Numbers:
    """Whole numbers, orders and angles of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def angle(self) -> float:
        return self._random.random() * 2 * math.pi - math.pi

    def order(self, items: int) -> list[int]:
        keys = [self._random.random() for _ in range(items)]
        return sorted(range(items), key=keys.__getitem__)


def _gates(arrays: Arrays, numbers: Numbers, count: int, names: GateNames) -> None:
    fitting = [name for name in names if GATES[name].qubits <= arrays.num_qubits]
    for _ in range(count):
        gate = GATES[fitting[numbers.below(len(fitting))]]
        qubits = numbers.order(arrays.num_qubits)[: gate.qubits]
        arrays.add(gate.name, qubits, (), [numbers.angle() for _ in range(gate.params)])


def random_static(qubits: int, gates: int, seed: int, names: GateNames = GATE_NAMES) -> Circuit:
    """All qubits measured at the end, in another order."""
    outcome = Numbers(seed)
    arrays = Arrays(qubits, qubits)
    _gates(arrays, outcome, gates, names)
    for qubit, clbit in enumerate(outcome.order(qubits)):
        arrays.add("measure", [qubit], [clbit])
    return arrays.circuit()


def random_dynamic(qubits: int, rounds: int, seed: int, names: GateNames = GATE_NAMES) -> Circuit:
    """Gates between measurements, resets and gates that depend on what was measured."""
    outcome = Numbers(seed)
    arrays = Arrays(qubits, qubits)
    for _ in range(rounds):
        _gates(arrays, outcome, 2 * qubits, names)
        first, second, third = (*outcome.order(qubits), 0)[:3]
        arrays.add("measure", [first], [second])
        arrays.begin((ir.CLBIT, second, 0)).add("x", [third]).add("h", [first]).add("end")
        if outcome.below(2):
            arrays.add("reset", [first])
    _gates(arrays, outcome, qubits, names)
    return arrays.measure(range(qubits)).circuit()


def repeated(qubits: int, count: int) -> Circuit:
    """A loop whose passes each measure."""
    arrays = Arrays(qubits, qubits)
    arrays.repeat(count)
    for qubit in range(qubits):
        arrays.add("ry", [qubit], (), [0.3 + qubit]).add("measure", [qubit], [qubit])
        arrays.begin((ir.CLBIT, qubit, 0)).add("cx", [qubit, (qubit + 1) % qubits]).add("end")
    arrays.add("end")
    return arrays.measure(range(qubits)).circuit()


def apart(blocks: int, seed: int) -> Circuit:
    """Parts of three qubits that nothing connects, and gates that no measurement sees."""
    outcome = Numbers(seed)
    arrays = Arrays(3 * blocks, 2 * blocks)
    for block in range(blocks):
        own = range(3 * block, 3 * block + 3)
        for first, second in ((0, 1), (1, 2), (2, 0)):
            arrays.add("ry", [own[first]], (), [outcome.angle()])
            arrays.add("cx", [own[first], own[second]])
        for k in range(2):
            arrays.add("measure", [own[k]], [2 * block + k])
    return arrays.circuit()


def with_parameters(qubits: int, layers: int, measured: bool = True) -> Circuit:
    """A parameter for each rotation of each layer, between rings of gates; one is used twice."""
    arrays = Arrays(qubits, qubits if measured else 0)
    slot = 0
    for layer in range(layers):
        for qubit in range(qubits):
            arrays.add("rx" if layer % 2 else "ry", [qubit], (), [0.0])
            arrays.free(slot)
            slot += 1
        for qubit in range(qubits - 1):
            arrays.add("cx", [qubit, qubit + 1])
        if qubits > 1:
            arrays.add("rzz", [0, qubits - 1], (), [0.0])
            arrays.free(0)
    return arrays.measure(range(qubits if measured else 0)).circuit()


def stored_program(name: str) -> Circuit:
    """A program whose bytes are a golden file."""
    return Circuit.from_program(decode_program((PROGRAMS / f"{name}.bin").read_bytes()))


STORED = ("branches", "loops", "registers")
STATIC: dict[str, Circuit] = {
    "bell": bell(),
    "ghz of 3 qubits": ghz(3),
    **{
        f"random, {n} qubits": random_static(n, min(8 * n, 60), n)
        for n in (2, 3, 4, 5, 6, 8, 10, 12, 13, 14, 16, 18)
    },
    "parts apart": apart(4, 1),
}
DYNAMIC: dict[str, Circuit] = {
    "feed forward": feed_forward(),
    **{f"random with branches, {n} qubits": random_dynamic(n, 3, n) for n in (2, 3, 5, 8, 15)},
    "loop": repeated(3, 5),
    **{f"program {name}": stored_program(name) for name in STORED},
}
CLIFFORD: dict[str, Circuit] = {
    "ghz of 3 qubits": ghz(3),
    "ghz of 60 qubits": ghz(60),
    "feed forward": feed_forward(),
    **{
        f"random Clifford, {n} qubits": random_static(n, 10 * n, n, CLIFFORD_NAMES)
        for n in (2, 5, 20, 40)
    },
}
STATES: dict[str, Circuit] = {
    f"program {name}": stored_program(name) for name in ("matrices", "definitions", "every_gate")
}
UNMEASURED: dict[str, Circuit] = {  # with branches
    f"program {name}": stored_program(name) for name in ("conditions", "switches", "variables")
}
