"""Refusals of programs with noise name only what can run them."""

import msgspec
import pytest
from arrays import Arrays
from failing import fails

from simenv.errors import InfeasibleError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators.circuit.analysis.profile import NoiseProfile, Profile
from simulators.circuit.analysis.profiler import profile

POOLS = (PoolSpec("main"), PoolSpec("chains", "mps"), PoolSpec("tableaux", "aer"))
LIMITS = ClusterLimits(4, 16 * 2**30, 10**6, 2**34, 1, 1)
STABILIZER = TaskOptions(engine="stabilizer")
TWIRL = msgspec.structs.replace(STABILIZER, options=(("twirl", 1),))


def relaxing(width: int) -> Profile:
    """GHZ circuit with relaxation; a matrix product state of a large bond."""
    arrays = Arrays(width, width).add("h", [0])
    for qubit in range(width - 1):
        arrays.add("cx", [qubit, qubit + 1])
    for qubit in range(width):
        arrays.add("measure", [qubit], [qubit])
    noise = NoiseProfile(frozenset({"kraus", "readout"}), 2 * width, width, 0.01, 0.005, width, 100)
    return msgspec.structs.replace(profile(arrays.circuit()), noise=noise, bond_bits=width // 2)


def refusal(width: int, terms: TaskOptions) -> InfeasibleError:
    return fails(InfeasibleError, "", engine_choice.choose, relaxing(width), terms, POOLS, LIMITS)


@pytest.mark.parametrize("width", [5, 40, 4_000])
def test_twirl_lets_stabilizer_take_relaxation(width: int) -> None:
    assert refusal(width, STABILIZER).message == (
        "engine 'stabilizer' has no kraus noise without its option twirl=1"
    )
    assert engine_choice.choose(relaxing(width), TWIRL, POOLS, LIMITS).engine == "stabilizer"
    auto = msgspec.structs.replace(TWIRL, engine="auto")
    assert engine_choice.choose(relaxing(width), auto, POOLS, LIMITS).engine == "stabilizer"
    without = msgspec.structs.replace(STABILIZER, options=(("twirl", 0),))
    assert "without its option twirl=1" in refusal(width, without).message


def test_hint_names_able_engines_with_times_and_says_why_no_other() -> None:
    taken = engine_choice.choose(relaxing(5), TaskOptions(), POOLS, LIMITS).engine
    assert refusal(5, STABILIZER).hint == f"ask for another engine: engine='auto' takes {taken!r}"
    for engine in ("stabilizer", "mps"):
        hint = refusal(4_000, TaskOptions(engine=engine)).hint
        first, *others = hint.splitlines()
        assert "engine='dmt': about " in first
        assert others[0].startswith("statevector: ")
        assert "engine='auto'" not in hint
        assert f"{engine}: " not in hint
    assert "stabilizer: has no kraus noise without its option twirl=1" in hint


def test_hint_does_not_advise_auto_to_a_caller_of_auto() -> None:
    program = relaxing(20)
    assert program.noise is not None
    exact = msgspec.structs.replace(program, noise=msgspec.structs.replace(program.noise, shots=0))
    with pytest.raises(InfeasibleError) as caught:
        engine_choice.choose(exact, TaskOptions(outputs=("expectation",)), POOLS, LIMITS)
    assert "samples noise by shots" in caught.value.message
    first, *others = caught.value.hint.splitlines()
    assert first.startswith("engine='dmt': about ")
    assert "error that is measured beside the run, at most 0.05" in first
    assert "mps" not in first  # which has no exact values of a circuit with noise
    assert others[0] == "stabilizer: has no kraus noise without its option twirl=1"
    assert "engine='auto'" not in caught.value.hint


@pytest.mark.parametrize(
    ("twirl", "outputs", "text"),
    [
        (2, ("counts",), "twirl = 2"),
        (1, ("expectation",), "'stabilizer' has no expectation values"),
    ],
)
def test_refusal_is_of_an_able_engine(twirl: int, outputs: tuple[str, ...], text: str) -> None:
    terms = TaskOptions(options=(("twirl", twirl),), outputs=outputs)
    fails(SimenvError, text, engine_choice.choose, relaxing(5), terms, POOLS, LIMITS)


def test_hint_for_a_pool_of_one_engine_leaves_the_pool_out() -> None:
    hint = refusal(5, TaskOptions(pool="tableaux")).hint
    assert hint.startswith("ask for another engine: engine='auto' without a pool takes ")


@pytest.mark.parametrize("options", [(), (("twirl", 1),)])
def test_stabilizer_has_no_expectation_with_noise(options: tuple[tuple[str, int], ...]) -> None:
    plain = relaxing(40)
    assert plain.noise is not None
    noise = msgspec.structs.replace(plain.noise, kinds=frozenset({"pauli"}))
    noisy = msgspec.structs.replace(plain, noise=noise, clifford=True, bond_bits=1)
    terms = TaskOptions(outputs=("expectation",), options=options)
    named = msgspec.structs.replace(terms, engine="stabilizer")
    with pytest.raises(InfeasibleError, match="no expectation values of a circuit with noise"):
        engine_choice.choose(noisy, named, POOLS, LIMITS)
    if not options:
        assert engine_choice.choose(noisy, terms, POOLS, LIMITS).engine == "mps"
    ideal = msgspec.structs.replace(noisy, noise=None)
    assert engine_choice.choose(ideal, named, POOLS, LIMITS).engine == "stabilizer"
