"""Runs of circuits whose qubits leak, with the flags of leaked qubits as qubits (see
`passes.leakage_flags`), in an engine that knows nothing of them."""

from __future__ import annotations

import msgspec

from simulators import engine as engines
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.leakage_flags import flagged
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import TooManyQubits, Unsupported


class FlaggedPlan:
    """Plan of a circuit with leakage: that of its flagged form, by the same engine."""

    is_hidden = True  # a mixture over what is hidden during a shot

    def __init__(
        self, engine: engines.Engine, circuit: Circuit, noise: NoiseProgram, options: RunOptions
    ) -> None:
        self._flagged = flagged(circuit, noise)
        self._plan = engine.plan(self._flagged.circuit, self._flagged.noise, options)

    @property
    def memory_bytes(self) -> int:
        return self._plan.memory_bytes + self._flagged.noise.memory_bytes

    def run(
        self,
        engine: engines.Engine,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """Run as `Engine.run`. In expectation values a leaked qubit contributes 0 to X, Y and Z.
        Raises Unsupported for probabilities of a circuit that measures nothing."""
        if "probabilities" in request.outputs and not circuit.clbits_data:
            text = "probabilities of qubits that leak, without measurements"
            raise Unsupported(text, hint="add measurements, or noise={'gate.leakage': 0}")
        observables = tuple(
            PauliSum(self._flagged.labels(each.labels), each.coefficients)
            for each in request.observables
        )
        asked = msgspec.structs.replace(request, observables=observables)
        try:
            return engine.run(self._plan, self._flagged.of(circuit), asked, options, control)
        except TooManyQubits as error:
            text = f"{error}; {self._flagged.num_flags} of them are flags of qubits that leak"
            hint = "ask engine='statevector' for counts, or noise={'gate.leakage': 0}"
            raise TooManyQubits(text, hint=hint) from None
