"""Every engine, as a function that runs a circuit."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import external_program
import machines
from third_party_engine import FOLDER

from simulators import catalog, registry
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.validation.admission import validation_error
from simulators.engine import (
    BindingResult,
    Engine,
    EngineContext,
    PauliSum,
    Request,
    RunControl,
    RunOptions,
)
from simulators.gpu.engine import GpuEngine
from simulators.statevector.engine import StatevectorEngine
from testbed.host_device import HostDevice


@contextmanager
def third_party_engine() -> Iterator[None]:
    """The distribution of the engine `dense` is installed: on the path, with its metadata."""
    sys.path.insert(0, str(FOLDER))
    catalog.engine_cards.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))
        catalog.engine_cards.cache_clear()


with third_party_engine():
    CARDS = {card.name: card for card in catalog.engine_cards() if not card.calls}
CARDS["statevector-dense"] = CARDS["statevector"]  # without its path for small circuits


def present(name: str) -> bool:
    """Is what this engine needs installed here? The engine `gpu` runs on the processor."""
    if name == "gpu":
        return shutil.which("g++") is not None
    if name in CARDS and CARDS[name].pool == "program" and not external_program.compiler():
        return False
    return name in CARDS and not CARDS[name].install_hint


def threaded_width(name: str) -> int:
    """Return how many qubits an engine's circuit needs at least to be computed by several threads;
    fewer for the one of the guide, which has one thread, and takes seconds for 17."""
    return 12 if name == "dense" else 17


def _create(name: str) -> Engine:
    if name == "statevector-dense":
        return StatevectorEngine(small=False)
    if name == "gpu":
        return GpuEngine(HostDevice())
    backend = machines.aer() if CARDS[name].pool == "device" else None
    program = external_program.program() if CARDS[name].pool == "program" else None
    with third_party_engine():
        return registry.create(name, EngineContext(backend=backend, program=program))


class Runner:
    """Checks, plans and runs; keyword arguments go to Request and RunOptions by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.card = CARDS[name]
        self.engine = _create(name)

    def near(self, tolerance: float) -> float:
        """How far off an amplitude may be: `tolerance` at least."""
        if self.card.method == "tensor_network":
            return max(tolerance, 1e-6)
        return tolerance if self.card.reproducible else max(tolerance, 1e-12)

    def all(
        self, circuit: Circuit, shots: int = 0, seed: int = 7,
        outputs: tuple[str, ...] = ("counts",), observables: tuple[PauliSum, ...] = (),
        bindings: object = None, binding: int = 0, control: RunControl | None = None,
        amplitudes: object = None, noise: NoiseProgram | None = None, **options: object,
    ) -> tuple[BindingResult, ...]:  # fmt: skip
        assert validation_error(circuit) == ""
        chosen = RunOptions(**options)  # type: ignore[arg-type]
        request = Request(shots, seed, outputs, observables, bindings, binding, amplitudes)  # type: ignore[arg-type]
        circuit = circuit if noise is None else noise.located(circuit)
        plan = self.engine.plan(circuit, noise, chosen)
        result = self.engine.run(plan, circuit, request, chosen, control or RunControl())
        return tuple(result.row(k) for k in range(result.count))

    def __call__(self, circuit: Circuit, **keywords: object) -> BindingResult:
        return self.all(circuit, **keywords)[0]  # type: ignore[arg-type]
