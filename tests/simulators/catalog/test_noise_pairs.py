"""Every engine with every kind of noise: the exact distribution, or a refusal that names it."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program

from noise_models.channel import Readout, depolarizing, relaxation
from simulators.catalog import NoiseKind
from simulators.catalog.builtin import CARDS
from simulators.catalog.cards import EngineCard
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import PauliSum, RunOptions
from simulators.errors import Unsupported
from simulators.execution.circuit_checks import check_request
from simulators.simulate import counts_of, simulate

SHOTS = 20_000
KINDS: tuple[NoiseKind, ...] = ("kraus", "pauli", "readout")


def _circuit(*, dynamic: bool) -> Circuit:
    """Clifford gates, which all engines have."""
    arrays = Arrays(3, 3).add("h", [0]).add("cx", [0, 1]).add("s", [1]).add("sx", [2])
    arrays.add("cz", [1, 2]).add("h", [1])
    if dynamic:
        arrays.add("measure", [1], [1]).add("reset", [0])
        arrays.begin((ir.CLBIT, 1, 0)).add("x", [2]).add("end")
        return arrays.add("measure", [2], [2]).add("measure", [0], [0]).circuit()
    return arrays.measure(range(3)).circuit()


def _noise(circuit: Circuit, kind: NoiseKind) -> NoiseProgram:
    flips = np.array([0.05, 0.02, 0.1])
    if kind == "readout":
        result = program([], Readout(flips, flips))
    else:
        channel = depolarizing(0.1, 1) if kind == "pauli" else relaxation(300, 2, 3)
        located = after_gates(
            circuit,
            lambda row: [((q,), channel) for q in row.qubits if row.name in ("cx", "cz", "h")],
        )
        result = program(located)
    return msgspec.structs.replace(result, kinds=frozenset({kind}))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "card",
    # Those of GPUs run on the host device in tests/simulators/gpu/test_noise.py.
    [card for card in CARDS if not card.calls and card.pool != "gpu"],
    ids=lambda card: card.name,
)
def test_each_engine_takes_a_kind_of_noise_or_refuses_it_by_name(
    card: EngineCard, kind: NoiseKind, dynamic: bool
) -> None:
    circuit = _circuit(dynamic=dynamic)
    noise = _noise(circuit, kind)
    if kind not in card.noise.kinds:
        with pytest.raises(Unsupported, match=f"no {kind} noise"):
            check_request(card, circuit, noise, RunOptions())
        if card.pool != "device" and card.pool != "program":
            with pytest.raises(Unsupported, match=f"no {kind} noise"):
                simulate(circuit, shots=SHOTS, seed=5, engine=card.name, noise=noise)
        return
    if dynamic and not (card.control.dynamic and card.noise.dynamic):
        with pytest.raises(Unsupported, match=f"{card.name}.*before the end"):
            simulate(circuit, shots=SHOTS, seed=5, engine=card.name, noise=noise)
        return
    if "counts" not in card.outputs:
        _check_values(card, kind, dynamic=dynamic)
        return
    result = simulate(circuit, shots=SHOTS, seed=5, engine=card.name, noise=noise)
    assert p_value(Exact(circuit, noise).probs, counts_of(result)) > 1e-3


def _check_values(card: EngineCard, kind: NoiseKind, *, dynamic: bool) -> None:
    """Values of an engine without counts. They have no readout error, as with any engine."""
    circuit = _circuit(dynamic=dynamic)
    noise = _noise(circuit, kind)
    terms: dict[str, object] = {
        "engine": card.name, "noise": noise, "shots": 0, "outputs": ("expectation",),
        "observables": tuple(PauliSum((label,), np.ones(1)) for label in ("IZI", "ZZI", "IZZ")),
    }  # fmt: skip
    if not card.control.conditions and dynamic:
        with pytest.raises(Unsupported, match="no conditions"):
            simulate(circuit, **terms)
        return
    probs = Exact(circuit, msgspec.structs.replace(noise, readout=None)).probs
    values = [value for value, _ in simulate(circuit, **terms).row(0).expectations]
    for value, mask in zip(values, (0b010, 0b110, 0b011), strict=True):
        exact = sum(p * (-1) ** (bits & mask).bit_count() for bits, p in probs.items())
        assert value == pytest.approx(exact, abs=1e-9)


def test_option_of_an_engine_adds_the_kinds_of_noise_that_it_names() -> None:
    circuit, added = _circuit(dynamic=False), []
    for card in CARDS:
        for option in card.options:
            for kind in sorted(option.noise):
                added.append((card.name, option.name, kind))
                noise = _noise(circuit, kind)
                settings = ((option.name, 1),)
                assert kind in card.noise_with(settings)
                assert kind not in card.noise_with(((option.name, 0),))
                check_request(card, circuit, noise, RunOptions(settings=settings))
    engines = "stabilizer", "near_clifford"  # their counts: tests/simulators/stabilizer
    assert added == [(name, "twirl", "kraus") for name in engines]
