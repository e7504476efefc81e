"""The same suite for every engine."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from simulators.catalog import EngineCard
from simulators.compiler import warmup

# Where the environments under test keep their kernels, so that they are compiled once.
warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")


from engines import CARDS, Runner, present  # noqa: E402  # after the kernels' place is known


def _runner(name: str) -> Runner:
    if not present(name):
        pytest.skip(f"what engine {name!r} needs is not installed")
    return Runner(name)


def _fixture(admits: Callable[[EngineCard], bool]) -> object:
    names = [name for name, card in CARDS.items() if admits(card)]

    @pytest.fixture(params=names, scope="session")
    def runner(request: pytest.FixtureRequest) -> Runner:
        return _runner(request.param)

    return runner


def _is_here(card: EngineCard) -> bool:
    return not (card.pool == "device" or card.pool == "program")


def _has_amplitudes(card: EngineCard) -> bool:
    return "statevector" in card.outputs


# They refuse what depends on short loops, as counts of most circuits on a few qubits do: see
# `tests/simulators/tensornetwork/peps`, `tests/simulators/densitymatrix/dmt`.
_TREES = ("dmt", "peps")
# Engines of this distribution and of a third party, by what their cards say.
any_run = _fixture(lambda card: "counts" in card.outputs)
counting_run = _fixture(
    lambda card: _is_here(card) and "counts" in card.outputs and card.name not in _TREES
)
every_run = _fixture(lambda card: _is_here(card) and "probabilities" in card.outputs)
run = _fixture(
    lambda card: (
        card.control.dynamic
        and card.control.loops
        and card.control.variables
        and card.pool != "device"
    )
)
dense_run = _fixture(lambda card: _has_amplitudes(card) and card.method != "tensor_network")
state_run = _fixture(_has_amplitudes)
chosen_run = _fixture(lambda card: "amplitudes" in card.outputs)
# "fault" is as statevector; near_clifford has Paulis alone, of which its own tests are.
_OTHERS = ("fault", "near_clifford", *_TREES)
noisy_run = _fixture(
    lambda card: bool(card.noise.kinds) and card.name not in _OTHERS and "counts" in card.outputs
)
drawn_run = _fixture(_has_amplitudes)  # counts of static circuits follow the seed contract


@pytest.fixture(scope="session")
def runner_of() -> object:
    """An engine by its name; the test is skipped where what it needs is missing."""
    table: dict[str, object] = {}

    def of(name: str) -> object:
        if name not in table:
            table[name] = _runner(name)
        return table[name]

    return of
