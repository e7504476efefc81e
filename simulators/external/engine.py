"""Engine `external`: a simulator that is a separate program, started for each circuit.

The engine writes the circuit as OpenQASM 2 and reads counts. Its creator starts, ends and reads the
program: `Program`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile

from simulators.catalog import builtin_card
from simulators.circuit.ir import Circuit, bell
from simulators.engine import RunControl
from simulators.errors import OTHER_ENGINE, BadAnswer, Unsupported
from simulators.execution.outputs import BoundRun, CountedState, EngineBase, FinalState
from simulators.execution.philox import block_seed
from simulators.execution.qiskit_export import Dialect, convert

# Parser of counts in the output of a program: strict, because the program is unknown.
#
# Two forms are read. NWQ-Sim's (github.com/pnnl/NWQ-Sim, `print_counts`): lines `"0101" : 12`,
# among others. Or JSON: one object of bit strings and counts as the last line that is not empty. A
# bit string has clbit 0 as its last character; spaces between registers are ignored.

MAX_BYTES = 64 * 2**20  # largest output
_LINE = re.compile(r'\s*"([01 ]+)"\s*:\s*(\d{1,18})\s*\Z', re.ASCII)
_MAX_COUNT = 10**18  # more digits than a line may have
_SHOWN = 120  # characters of the output in a message
_FORMS = 'it prints lines "0101" : 12, or {"0101": 12} as its last line'


def parse(text: str, num_clbits: int, shots: int) -> dict[int, int]:
    """Counts by outcome, clbit 0 in bit 0. Raises BadAnswer with the first fault."""
    lines = text.splitlines()
    pairs = [result.groups() for line in lines if (result := _LINE.match(line))]
    counts = _outcome_counts(
        [(bits, int(count)) for bits, count in pairs] or _json(lines), num_clbits
    )
    total = sum(counts.values())
    if total != shots:
        hint = "let its command line have {shots}"
        raise BadAnswer(f"the program counted {total:,} shots; {shots:,} were asked for", hint=hint)
    return counts


def _json(lines: list[str]) -> list[tuple[str, int]]:
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        result = json.loads(last, object_pairs_hook=list)  # keeps repeated names
    except (ValueError, RecursionError):  # the latter: arrays in thousands of arrays
        result = None
    if not isinstance(result, list) or not last.lstrip().startswith("{"):
        shown = f"its last line is {last[:_SHOWN]!r}" if last else "it printed nothing"
        raise BadAnswer(f"the program printed no counts: {shown}", hint=_FORMS)
    return result


def _outcome_counts(pairs: Iterable[tuple[str, object]], num_clbits: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for text, count in pairs:
        bits = text.replace(" ", "")
        if not bits or len(bits) != num_clbits or not set(bits) <= {"0", "1"}:
            text = f"the program counted {text[:_SHOWN]!r}; the circuit has {num_clbits} clbits"
            raise BadAnswer(text, hint="one character 0 or 1 for each clbit, clbit 0 last")
        if type(count) is not int or not 0 <= count < _MAX_COUNT:
            text = f"the program counted {text[:_SHOWN]!r} {str(count)[:_SHOWN]} times"
            raise BadAnswer(text, hint="a whole number of shots for each bit string")
        outcome = int(bits, 2)
        if outcome in counts:
            raise BadAnswer(f"the program counted {text[:_SHOWN]!r} twice")
        counts[outcome] = count
    return {outcome: count for outcome, count in counts.items() if count}


# Circuits as OpenQASM 2 for external programs: u3 and cx alone, which every parser reads.
#
# One quantum register `q`, one classical register `c` over all clbits, measurements last.

BASIS = ("u3", "cx")  # of qelib1.inc (Cross et al., arXiv:1707.03429)
_DIALECT = Dialect("external", OTHER_ENGINE)


def dump(circuit: Circuit, params: NDArray[Any]) -> str:
    """Text of a circuit without free parameters that measures at its end only. Angles have 16
    decimals and no exponent, because some parsers do not accept one. Raises Unsupported for
    operations that OpenQASM 2 lacks."""
    full = transpile(
        convert(circuit, params, _DIALECT), basis_gates=list(BASIS), optimization_level=0
    )
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{max(1, full.num_qubits)}];"]
    if full.num_clbits:
        lines.append(f"creg c[{full.num_clbits}];")
    lines += [_line(full, item) for item in full.data]
    return "\n".join(lines) + "\n"


def _line(circuit: QuantumCircuit, item: Any) -> str:
    operation = item.operation
    qubits = [f"q[{circuit.find_bit(qubit).index}]" for qubit in item.qubits]
    if operation.name == "measure":
        return f"measure {qubits[0]} -> c[{circuit.find_bit(item.clbits[0]).index}];"
    if operation.name not in BASIS:
        hint = f"gates and final measurements alone; {OTHER_ENGINE}"
        raise Unsupported(f"{operation.name} in a circuit for a program of its own", hint=hint)
    angles = ",".join(f"{float(angle):.16f}" for angle in operation.params)
    return f"{operation.name}{f'({angles})' if angles else ''} {','.join(qubits)};"


CARD = builtin_card("external")
_SEED_BITS = 31  # size that every generator accepts


class ProgramCall(msgspec.Struct, frozen=True):
    """Input of one process."""

    circuit: str  # OpenQASM 2
    shots: int
    seed: int  # 0 .. 2**31 - 1
    ranks: int  # limit of processes or threads


class Program(Protocol):
    name: str
    takes_seed: bool

    def output(self, call: ProgramCall, control: RunControl) -> str:
        """Run the program and return its stdout. Raises MachineRefused if it cannot be started,
        MachineFailed if it fails, BadAnswer for too much output, and Stopped."""


class ExternalEngine(EngineBase):
    card = CARD

    def __init__(self, program: Program) -> None:
        self._program = program

    def final_state(self, run: BoundRun) -> FinalState:
        """Counts of one process. Raises the errors of `Program`, and BadAnswer for output that is
        no counts of the circuit."""
        seed = block_seed(*run.key, 0) >> (62 - _SEED_BITS)
        text, shots = dump(run.circuit, run.params), run.request.shots
        output = self._program.output(
            ProgramCall(text, shots, seed, run.options.threads), run.control
        )
        result = parse(output, run.circuit.num_clbits, shots)
        remark = f"by {self._program.name}"
        if not self._program.takes_seed:
            remark += "; its command has no {seed}: another attempt gives other counts"
        return CountedState(run.circuit, result, remark)

    def warm_up(self) -> None:
        """Load the transpiler. No program is started."""
        dump(bell(), bell().params)
