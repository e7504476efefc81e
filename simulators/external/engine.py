"""Engine `external`: a simulator that is a separate program, started for each circuit.

The engine writes the circuit as OpenQASM 2 and reads counts. Its creator starts, ends and reads the
program: `Program`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from simulators.catalog import builtin_card
from simulators.circuit.examples import bell
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution.outputs import CountedState, collect
from simulators.execution.requests import bind, open_run, plan_layouts
from simulators.execution.rng import block_seed
from simulators.external import counts, qasm
from simulators.results import EngineResult

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


class ExternalEngine:
    """Engine of one program."""

    name = "external"

    def __init__(self, program: Program) -> None:
        self._program = program

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts. Refuses noise, and measurements, resets and conditions before a
        circuit's end."""
        return plan_layouts(CARD, circuit, noise, options)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run as `engine.Engine`, with one process for each binding. Raises the errors of
        `Program`, and BadAnswer for output that is no counts of the circuit."""
        layouts, number = open_run(CARD, plan, circuit, request, options)
        results = []
        for row in range(number):
            control.check()
            seed = block_seed(request.seed, request.binding + row, 0) >> (62 - _SEED_BITS)
            text = qasm.dump(circuit, bind(circuit, request, row))
            call = ProgramCall(text, request.shots, seed, options.threads)
            result = counts.parse(
                self._program.output(call, control), circuit.num_clbits, request.shots
            )
            state = CountedState(circuit, result, f"by {self._program.name}")
            key = request.seed, request.binding + row
            results.append(collect(state, layouts, request, key))
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Load the transpiler. No program is started."""
        qasm.dump(bell(), bell().params)
