"""Which engine `auto` takes, with which words, and what it says when none can."""

from typing import Any

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from failing import fails

from simenv.errors import InfeasibleError, OptionError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simenv.scheduler.routing.engine_support import expected_truncation, runs_only_calls
from simulators import catalog
from simulators.catalog import cards
from simulators.chain.trial import choice_profile
from simulators.circuit import ir
from simulators.circuit.analysis.profile import ChainTrial, NoiseProfile, Profile, SweepSize
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

POOLS = (PoolSpec("main"),)
LIMITS = ClusterLimits(4, 16 * 2**30, 10**6, 2**34, 1, 1)
MPS, STABILIZER = catalog.card("mps"), catalog.card("stabilizer")


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_installed", lambda modules: "nowhere" not in modules)


def chain(width: int, *, gate: str = "cx", angle: float | None = None) -> Arrays:
    """Neighbour after neighbour, as in a GHZ state."""
    arrays = Arrays(width, width).add("h", [0])
    for q in range(width - 1):
        arrays.add(gate, [q, q + 1])
    if angle is not None:
        arrays.add("rz", [1], (), [angle])
    return arrays


def measured(arrays: Arrays) -> Circuit:
    for q in range(arrays.num_qubits):
        arrays.add("measure", [q], [q])
    return arrays.circuit()


def tangle(width: int) -> Circuit:
    """Each qubit of one half with one of the other, and a T gate: for amplitudes alone."""
    arrays = Arrays(width, width).add("t", [0])
    for q in range(width // 2):
        arrays.add("cz", [q, width - 1 - q])
    return measured(arrays)


def knot(width: int) -> Circuit:
    """Layers of gates between random qubits: in no order few of them cross a cut."""
    arrays, random = Arrays(width, width), np.random.default_rng(3)
    for _ in range(20):
        for qubit in range(width):
            arrays.add("ry", [qubit], (), [0.3])
        for one, two in random.permutation(width).reshape(-1, 2).tolist():
            arrays.add("cx", [one, two])
    return measured(arrays)


def routed(
    circuit: Circuit, terms: TaskOptions | None = None, **limits: int
) -> engine_choice.Route:
    within = msgspec.structs.replace(LIMITS, **limits)
    return engine_choice.choose(choice_profile(circuit), terms or TaskOptions(), POOLS, within)


@pytest.mark.parametrize(
    ("circuit", "engine", "words"),
    [
        (measured(chain(5)), "statevector", "5 qubits, all amplitudes"),
        (measured(chain(13)), "stabilizer", "13 qubits of Clifford gates"),
        (measured(chain(1000)), "stabilizer", "1000 qubits of Clifford gates"),
        (measured(chain(13, angle=np.pi / 2)), "stabilizer", "Clifford"),
        (measured(chain(13, angle=0.3)), "statevector", "all amplitudes"),
        (tangle(20), "statevector", "20 qubits"),
        (tangle(24), "mps", "at most 2^1 values cross any cut"),
        (measured(chain(25, angle=0.3)), "mps", "at most 2^1 values cross any cut"),
        (measured(chain(200, angle=0.3)), "mps", "200 qubits"),
        (measured(chain(22, angle=0.3)), "mps", "at most 2^1 values cross any cut"),
        (knot(22), "statevector", "22 qubits"),
    ],
    ids=["5", "13", "1000", "pi/2", "0.3", "tangle20", "24", "chain25", "200", "chain22", "knot22"],
)
def test_auto_chooses_engine_and_states_reason(circuit: Circuit, engine: str, words: str) -> None:
    result = routed(circuit)
    assert result.engine == engine
    assert result.reason.startswith("auto: ")
    assert words in result.reason
    considered = engine_choice.candidates(choice_profile(circuit), TaskOptions(), POOLS, LIMITS)
    assert result == considered[0].route


def test_engines_behind_first_able_one_are_not_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    actual = engine_choice.evaluate

    def noted(card: catalog.EngineCard, *args: Any) -> engine_choice.EngineCandidate:
        names.append(card.name)
        return actual(card, *args)

    monkeypatch.setattr(engine_choice, "evaluate", noted)
    assert routed(measured(chain(5))).engine == "statevector"
    assert names[-1] == "statevector"
    assert "mps" not in names


def test_wide_entanglement_takes_mps_in_order_of_its_bonds() -> None:
    assert routed(tangle(16)).engine == "statevector"
    assert routed(tangle(16), memory_bytes=2**30).engine == "statevector"
    narrow = measured(chain(18, angle=0.3))
    assert routed(narrow).engine == "statevector"
    assert routed(narrow, memory_bytes=68 * 2**20).engine == "mps"
    result = routed(tangle(60))
    assert result.engine == "mps"
    assert "at most 2^1 values" in result.reason


def test_auto_contracts_shallow_circuits_of_any_shape() -> None:
    arrays, random = Arrays(60, 60), np.random.default_rng(1)
    for qubit in range(60):
        arrays.add("h", [qubit])
    for _ in range(3):  # a random graph of degree 3
        for one, two in random.permutation(60).reshape(-1, 2).tolist():
            arrays.add("rzz", [one, two], (), [0.3])
    for qubit in range(60):
        arrays.add("rx", [qubit], (), [0.4])
    result = routed(measured(arrays))
    assert result.engine == "contraction"
    assert "the largest tensor of an amplitude has at most 2^1" in result.reason


def test_auto_samples_wide_shallow_circuits_by_sweeps() -> None:
    """On any graph with narrow frontiers, whatever the angles; deep ones go elsewhere."""
    considered, shallow = _on_a_ladder(3)
    assert (considered[0].engine, shallow.layers) == ("sweep", 3)
    assert "sweeps over 3 layers with tensors of 2^7 values, exact" in considered[0].text
    considered, deep = _on_a_ladder(30)
    texts = {each.engine: each.text for each in considered}
    assert texts["sweep"].startswith(f"a shot would pass over 2^{deep.bits:.0f} values")


def _on_a_ladder(layers: int) -> tuple[list[engine_choice.EngineCandidate], SweepSize]:
    """Candidates for a circuit on 60 qubits in rows of three."""
    arrays, random = Arrays(60, 60), np.random.default_rng(1)
    for _ in range(layers):
        for qubit in range(60):
            arrays.add("rx", [qubit], (), [random.uniform(0.2, 1.0)])
        for row in range(0, 60, 3):
            for one, two in ((row, row + 1), (row + 1, row + 2)):
                arrays.add("rzz", [one, two], (), [0.7])
            for column in range(3):
                if row + column + 3 < 60:
                    arrays.add("rzz", [row + column, row + column + 3], (), [0.7])
    result = choice_profile(measured(arrays), ("counts",))
    assert result.sweep is not None
    return engine_choice.candidates(result, TaskOptions(), POOLS, LIMITS), result.sweep


@pytest.mark.parametrize("name", ["mps", None])
def test_wide_dynamic_circuit_with_noise_is_routed_to_mps(name: str | None) -> None:
    circuit = dynamic(60)
    noise = NoiseProfile(frozenset({"kraus"}), 10, 5, 0.1, 0.1, 60, 100)
    noisy = msgspec.structs.replace(profile(circuit), noise=noise)
    terms = TaskOptions() if name is None else TaskOptions(engine=name)
    assert engine_choice.choose(noisy, terms, POOLS, LIMITS).engine == "mps"


def test_infeasible_circuit_is_refused_with_reason_of_each_engine() -> None:
    tried = ChainTrial(bond=257, done=False, part=0.25, operations=10**9)
    grown = msgspec.structs.replace(profile(knot(60)), trial=tried)
    with pytest.raises(InfeasibleError, match="60 qubits") as caught:
        engine_choice.choose(grown, TaskOptions(), POOLS, LIMITS)
    for each in (
        "widest program",
        "stabilizer: runs Clifford circuits",
        "mps: bonds up to 257 in a trial of 25% of its gates, 2^32 at that rate",
        "contraction: its largest tensor may have unknown, or above 2^30 values",
    ):
        assert each in caught.value.hint
    first, *others = caught.value.hint.splitlines()
    assert first.startswith("engine='mps' with options={'bond': 16}: about ")
    assert "; the widest program" in first
    assert "contraction'" not in first  # which would refuse it
    assert [line.partition(": ")[0] for line in others] == [
        each.engine
        for each in engine_choice.candidates(grown, TaskOptions(), POOLS, LIMITS)
        if each.engine != "statevector"
    ]


def test_missing_engine_is_not_chosen_and_hinted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_installed", lambda modules: modules == ("numba",))
    assert routed(measured(chain(13))).engine == "statevector"
    tried = ChainTrial(bond=257, done=False)
    grown = msgspec.structs.replace(profile(knot(60)), trial=tried)
    error = fails(InfeasibleError, "", engine_choice.choose, grown, TaskOptions(), POOLS, LIMITS)
    assert "pip install 'simenv[stabilizer]'" in error.hint
    for engine, extra in (
        ("contraction", "contraction"), ("stabilizer", "stabilizer"), ("aer", "aer")
    ):  # fmt: skip
        with pytest.raises(OptionError, match="not installed") as named:
            routed(measured(chain(3)), TaskOptions(engine=engine))
        assert named.value.hint == f"pip install 'simenv[{extra}]'"


def test_gates_that_no_engine_takes_are_named_with_their_cost() -> None:
    changed = msgspec.structs.replace(profile(measured(chain(30, angle=0.3))), non_clifford=12)
    with pytest.raises(InfeasibleError) as caught:
        engine_choice.choose(changed, TaskOptions(engine="stabilizer"), POOLS, LIMITS)
    for each in ("12 other gates", "2^2.7 terms if all are T gates", "statevector 16.0 GiB"):
        assert each in caught.value.message
    assert routed(measured(chain(60).add("mcx", range(10)))).engine == "mps"
    with pytest.raises(InfeasibleError) as caught:
        routed(measured(chain(60).add("mcx", range(11))), TaskOptions(engine="mps"))
    assert "gates on at most 10 qubits, not on 11" in caught.value.message
    assert routed(measured(chain(25).add("barrier", range(25)).add("ccx", [0, 1, 2]))).engine == (
        "mps"
    )


def test_named_engine_is_used_unless_it_cannot_run_the_task() -> None:
    assert (
        routed(measured(chain(3)), TaskOptions(engine="stabilizer")).reason
        == "asked for stabilizer"
    )
    assert routed(measured(chain(3)), TaskOptions(engine="aer")).engine == "aer"
    assert routed(knot(60), TaskOptions(engine="mps")).engine == "mps"  # its own bond is the limit
    with pytest.raises(InfeasibleError, match="runs Clifford circuits"):
        routed(measured(chain(3, angle=0.3)), TaskOptions(engine="stabilizer"))
    with pytest.raises(InfeasibleError, match="no measurements, resets or conditions"):
        routed(dynamic(20), TaskOptions(engine="contraction"))
    assert routed(dynamic(20), TaskOptions(engine="mps")).engine == "mps"
    with pytest.raises(InfeasibleError, match="no output 'statevector'"):
        routed(chain(3).circuit(), TaskOptions(("statevector",), engine="stabilizer"))
    with pytest.raises(InfeasibleError, match="at most 24 qubits"):
        routed(chain(25).circuit(), TaskOptions(("statevector",), engine="mps"))
    with pytest.raises(InfeasibleError, match="no pool here runs engine 'fault'"):
        routed(measured(chain(3)), TaskOptions(engine="fault"))


def dynamic(width: int) -> Circuit:
    arrays = chain(width).add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("end")
    return measured(arrays)


def test_auto_takes_no_stabilizer_for_conditions_or_parameters() -> None:
    assert routed(dynamic(20)).engine == "statevector"
    assert routed(dynamic(20), TaskOptions(engine="stabilizer")).engine == "stabilizer"
    arrays = chain(20).add("rz", [3], (), [0.0])
    arrays.free(0)
    circuit = measured(arrays)
    assert routed(circuit).engine == "statevector"
    assert routed(circuit, TaskOptions(engine="stabilizer")).engine == "stabilizer"


def test_engine_options_restrict_engine_choice_and_are_validated() -> None:
    bond = TaskOptions(options=(("bond", 8),))
    assert routed(measured(chain(5)), bond).engine == "mps"
    with pytest.raises(OptionError, match="no engine has an option 'bnd'") as caught:
        routed(measured(chain(5)), TaskOptions(options=(("bnd", 8),)))
    assert "bond" in caught.value.hint
    with pytest.raises(OptionError, match="'statevector' has no option 'bond'"):
        routed(measured(chain(5)), TaskOptions(engine="statevector", options=(("bond", 8),)))
    for value in (0, 5_000, 1.5, True):
        with pytest.raises(OptionError, match="from 1 to 4096"):
            routed(measured(chain(5)), TaskOptions(engine="mps", options=(("bond", value),)))


def test_smaller_bond_needs_less_memory_and_time() -> None:
    wide = knot(60)
    large = routed(wide, TaskOptions(engine="mps"))
    small = routed(wide, TaskOptions(engine="mps", options=(("bond", 16),)))
    assert small.memory_bytes < large.memory_bytes
    assert small.evolve_us < large.evolve_us


def test_engine_choice_depends_on_angles_only_where_they_decide() -> None:
    def hangs(circuit: Circuit, engine: str = "auto") -> bool:
        return engine_choice.depends_on_parameter_values(
            profile(circuit), TaskOptions(engine=engine)
        )

    assert hangs(measured(chain(13, angle=0.3)))
    assert not hangs(measured(chain(12, angle=0.3)))  # statevector's all the same
    assert hangs(measured(chain(3, angle=0.3)), "stabilizer")
    assert not hangs(measured(chain(13)))
    assert not hangs(measured(chain(13, angle=0.3)), "mps")
    assert not hangs(tangle(13))  # a T gate settles it


def test_tasks_go_to_pools_of_able_engines() -> None:
    pools = (PoolSpec("main"), PoolSpec("chains", "mps"), PoolSpec("drill", "fault"))

    def pool_of(engine: str) -> str:
        terms = TaskOptions(engine=engine)
        return engine_choice.choose(profile(measured(chain(3))), terms, pools, LIMITS).pool

    table = {engine: pool_of(engine) for engine in ("statevector", "mps", "fault", "aer")}
    assert table == {"statevector": "main", "mps": "chains", "fault": "drill", "aer": "main"}
    result = engine_choice.candidates(profile(measured(chain(40))), TaskOptions(), POOLS, LIMITS)
    assert [each.engine for each in result] == [
        "stabilizer", "mps", "statevector", "contraction", "sweep", "near_clifford", "pauli",
    ]  # fmt: skip
    assert [each.route is not None for each in result] == [True, True, *[False] * 5]
    named = engine_choice.candidates(
        profile(measured(chain(40))), TaskOptions(engine="mps"), POOLS, LIMITS
    )
    assert [each.engine for each in named] == ["mps"]


def test_circuit_above_operation_limit_is_refused() -> None:
    light = profile(measured(chain(30, angle=0.3)))
    assert engine_choice.choose(light, TaskOptions(), POOLS, LIMITS).engine == "mps"
    heavy = msgspec.structs.replace(light, gates_2q=10**8, bond_bits=8, num_qubits=60)
    error = fails(InfeasibleError, "", engine_choice.choose, heavy, TaskOptions(), POOLS, LIMITS)
    assert "5e+15 operations" in error.hint
    assert isinstance(heavy, Profile)


@pytest.mark.parametrize(("rank", "place"), [(-1, 0), (99, -1)])
def test_added_card_is_considered(rank: int, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    aer = catalog.card("aer")
    new = msgspec.structs.replace(
        aer, name="new", auto=catalog.AutoChoice(lambda _profile, _num_qubits: rank)
    )
    cards = (*catalog.CARDS, new)
    monkeypatch.setattr(catalog, "engine_cards", lambda: cards)
    considered = engine_choice.candidates(profile(measured(chain(3))), TaskOptions(), POOLS, LIMITS)
    assert [each for each in considered if each.route is not None][place].engine == "new"
    assert next(each.engine for each in considered if each.engine != "new") == "statevector"


def noisy(width: int, shots: int) -> Profile:
    """A circuit with relaxation after each of its gates."""
    circuit = measured(chain(width, angle=0.3))
    kinds = frozenset({"kraus", "readout"})
    noise = NoiseProfile(kinds, 2 * width, width, 0.01 * width, 0.005 * width, width, shots)
    return msgspec.structs.replace(profile(circuit), noise=noise)


def test_noise_and_cost_select_the_engine() -> None:
    for width, shots, engine in ((5, 100_000, "densitymatrix"), (13, 1_000, "statevector")):
        considered = engine_choice.candidates(noisy(width, shots), TaskOptions(), POOLS, LIMITS)
        assert considered[0].engine == engine
        for name in ("densitymatrix", "statevector"):
            assert f"{name} " in considered[0].text.partition("expected time with noise:")[2]
        refused = [each for each in considered if each.engine == "stabilizer"]
        assert all(each.route is None for each in refused)
    considered = engine_choice.candidates(noisy(26, 1_000), TaskOptions(), POOLS, LIMITS)
    assert considered[0].engine == "mps"
    assert considered[0].route is not None
    terms = TaskOptions(outputs=("probabilities",))
    assert engine_choice.choose(noisy(13, 0), terms, POOLS, LIMITS).engine == "densitymatrix"


def deep(width: int, kinds: frozenset[str]) -> Profile:
    """Fifty layers on a line, which no engine without an error of its own runs in days."""
    circuit = measured(chain(width, angle=0.3))
    noise = NoiseProfile(kinds, 100 * width, 50 * width, 0.2 * width, 0.1 * width, width, 1_000)
    gates = msgspec.structs.replace(profile(circuit), gates_2q=25 * width, bond_bits=width // 2)
    return msgspec.structs.replace(gates, noise=noise)


@pytest.mark.parametrize("width", [30, 100])
def test_deep_noisy_circuits_take_the_engine_that_states_its_error(width: int) -> None:
    changed = deep(width, frozenset({"kraus", "readout"}))
    route = engine_choice.choose(changed, TaskOptions(), POOLS, LIMITS)
    assert route.engine == "dmt"
    assert "measured beside the run and stated" in route.reason
    considered = engine_choice.candidates(changed, TaskOptions(), POOLS, LIMITS)
    assert considered[0].route == route
    advantage = catalog.card("dmt").auto.advantage  # type: ignore[union-attr]
    for other in considered[1:]:
        assert other.route is None or other.route.evolve_us > advantage * route.evolve_us


def test_exact_engines_come_before_one_that_states_its_error() -> None:
    for changed in (noisy(26, 1_000), deep(12, frozenset({"kraus"})), noisy(13, 1_000)):
        chosen = engine_choice.choose(changed, TaskOptions(), POOLS, LIMITS)
        assert chosen.engine != "dmt"
    considered = engine_choice.candidates(
        deep(30, frozenset({"readout"})), TaskOptions(), POOLS, LIMITS
    )
    (named,) = [each for each in considered if each.engine == "dmt"]
    assert named.route is None
    assert "without noise of gates" in named.text


def test_a_gate_with_noise_does_not_load_matrix_product_states() -> None:
    circuit = measured(chain(1, angle=0.3))
    noise = NoiseProfile(frozenset({"kraus", "readout"}), 2, 0, 1e-3, 5e-4, 1, 4_096)
    changed = msgspec.structs.replace(profile(circuit), noise=noise)
    considered = engine_choice.candidates(changed, TaskOptions(), POOLS, LIMITS)
    assert considered[0].engine in ("densitymatrix", "statevector")


@pytest.mark.parametrize("width", [1, 3, 8, 11, 16])
@pytest.mark.parametrize("shots", [1_024, 1_048_576])
def test_route_of_circuit_with_noise_is_the_first_considered(width: int, shots: int) -> None:
    circuit = measured(chain(width, angle=0.3))
    for locations in (5, 50, 500):  # of one shape: what is known of the first holds for the others
        kinds = frozenset({"kraus", "readout"})
        noise = NoiseProfile(kinds, locations, 2, 0.01 * locations, 0.001, width, shots)
        changed = msgspec.structs.replace(profile(circuit), noise=noise)
        considered = engine_choice.candidates(changed, TaskOptions(), POOLS, LIMITS)
        assert engine_choice.choose(changed, TaskOptions(), POOLS, LIMITS) == considered[0].route


def test_expected_truncation_is_bounded_where_bonds_are_known() -> None:
    mps = catalog.card("mps")
    assert mps is not None
    chained, tangled = profile(measured(chain(60, angle=0.3))), profile(knot(60))
    named, auto = TaskOptions(engine="mps"), TaskOptions()
    assert expected_truncation(mps, chained, named) == pytest.approx(59e-14)
    assert expected_truncation(mps, tangled, named) == -1.0
    assert expected_truncation(mps, tangled, auto) == 1e-6
    tried = msgspec.structs.replace(tangled, trial=ChainTrial(bond=8, done=True))
    assert 0 < expected_truncation(mps, tried, auto) < 1e-6
    few = msgspec.structs.replace(named, options=(("bond", 4),))
    assert expected_truncation(mps, tried, few) == -1.0
    statevector, dmt = catalog.card("statevector"), catalog.card("dmt")
    assert statevector is not None
    assert expected_truncation(statevector, tangled, auto) == 0.0
    assert dmt is not None
    assert expected_truncation(dmt, tangled, TaskOptions(engine="dmt")) == 0.05


def test_partners_are_counted_once_for_each_pair() -> None:
    assert profile(measured(chain(20))).partners == 2
    arrays = Arrays(20, 20)
    for q in (1, 5, 9, 5, 0):
        arrays.add("cz", [3, 3 + 1 + q])
        arrays.add("cz", [3 + 1 + q, 3])
    assert profile(measured(arrays)).partners == 4
    assert profile(measured(Arrays(20, 20).add("t", [0]))).partners == 0


def test_engines_of_calls_refuse_circuits_by_what_they_run() -> None:
    for name, kind in (("rydberg", "pulse sequences"), ("transpiler", "calls")):
        asked = TaskOptions(engine=name)
        message = f"engine '{name}' runs {kind}, no circuits"
        fails(
            InfeasibleError, message, engine_choice.choose, profile(measured(chain(2))), asked,
            POOLS, LIMITS,
        )  # fmt: skip


def test_pools_of_engines_of_atoms_are_listed_as_devices() -> None:
    listed = [
        name for name in ("rydberg", "emu-mps", "emu-sv", "pulser-simulation", "functions")
        if not runs_only_calls(PoolSpec("atoms", name))
    ]  # fmt: skip
    assert listed == ["rydberg", "emu-mps", "emu-sv", "pulser-simulation"]
