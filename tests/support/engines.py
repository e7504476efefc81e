"""Every engine, as a function that runs a circuit."""

from __future__ import annotations

from collections.abc import Callable

import machines

from simulators import catalog, registry
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.control import RunControl
from simulators.engine import Engine, EngineContext, PauliSum, Request, RunOptions
from simulators.fault.engine import FaultEngine
from simulators.results import BindingResult
from simulators.statevector.engine import StatevectorEngine

ENGINES: dict[str, Callable[[], Engine]] = {
    "statevector": StatevectorEngine,
    "statevector-dense": lambda: StatevectorEngine(small=False),
    "fault": FaultEngine,
    "aer": lambda: registry.create("aer"),
    "mps": lambda: registry.create("mps"),
    "stabilizer": lambda: registry.create("stabilizer"),
    "hardware": lambda: registry.create("hardware", EngineContext(backend=machines.aer())),
}
TOLERANCES = {"aer": 1e-12, "mps": 1e-6}  # of amplitudes, where a test would ask for more


def present(name: str) -> bool:
    """Is what this engine needs installed here?"""
    card = catalog.card(name.partition("-")[0])
    return card is not None and not card.install_hint


class Runner:
    """Checks, plans and runs; keyword arguments go to Request and RunOptions by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.engine = ENGINES[name]()

    def near(self, tolerance: float) -> float:
        """How far off an amplitude may be: `tolerance` at least."""
        return max(tolerance, TOLERANCES.get(self.name, 0.0))

    def all(
        self,
        circuit: Circuit,
        shots: int = 0,
        seed: int = 7,
        outputs: tuple[str, ...] = ("counts",),
        observables: tuple[PauliSum, ...] = (),
        bindings: object = None,
        binding: int = 0,
        control: RunControl | None = None,
        **options: object,
    ) -> tuple[BindingResult, ...]:
        assert validation_error(circuit) == ""
        chosen = RunOptions(**options)  # type: ignore[arg-type]
        request = Request(shots, seed, outputs, observables, bindings, binding)  # type: ignore[arg-type]
        plan = self.engine.plan(circuit, None, chosen)
        found = self.engine.run(plan, circuit, request, chosen, control or RunControl())
        return tuple(found.row(k) for k in range(found.count))

    def __call__(self, circuit: Circuit, **keywords: object) -> BindingResult:
        return self.all(circuit, **keywords)[0]  # type: ignore[arg-type]
