"""Engine `external`: a simulator that is a separate program, started for each circuit.

The engine writes the circuit as OpenQASM 2 and reads counts. Its creator starts, ends and reads the
program: `Program`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from simulators.catalog import builtin_card
from simulators.circuit.examples import bell
from simulators.control import RunControl
from simulators.execution.base import BoundRun, EngineBase
from simulators.execution.outputs import CountedState, FinalState
from simulators.execution.rng import block_seed
from simulators.external import counts, qasm

CARD = builtin_card("external")
_SEED_BITS = 31  # size that every generator accepts


class ProgramCall(msgspec.Struct, frozen=True):
    """Input of one process."""

    circuit: str  # OpenQASM 2
    shots: int
    seed: int  # 0 .. 2**31 - 1
    ranks: int  # limit of processes or threads


class Program(Protocol):
    """A simulator's program."""

    name: str

    def output(self, call: ProgramCall, control: RunControl) -> str:
        """Run the program and return its stdout. Raises MachineRefused if it cannot be started,
        MachineFailed if it fails, BadAnswer for too much output, and Stopped."""


class ExternalEngine(EngineBase):
    """Engine of one program."""

    card = CARD

    def __init__(self, program: Program) -> None:
        self._program = program

    def final_state(self, run: BoundRun) -> FinalState:
        """Counts of one process. Raises the errors of `Program`, and BadAnswer for output that is
        no counts of the circuit."""
        seed = block_seed(*run.key, 0) >> (62 - _SEED_BITS)
        text, shots = qasm.dump(run.circuit, run.params), run.request.shots
        output = self._program.output(
            ProgramCall(text, shots, seed, run.options.threads), run.control
        )
        result = counts.parse(output, run.circuit.num_clbits, shots)
        return CountedState(run.circuit, result, f"by {self._program.name}")

    def warm_up(self) -> None:
        """Load the transpiler. No program is started."""
        qasm.dump(bell(), bell().params)
