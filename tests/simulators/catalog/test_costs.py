"""What runs over several ranks are said to cost."""

import msgspec
import pytest

from simulators import catalog
from simulators.catalog.costs import ContractionCost, CostQuery, state_bytes, trajectory_work
from simulators.circuit.analysis.profile import NoiseProfile, Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import bell, feed_forward

COSTS = catalog.CARDS[0].costs
GIB = 2**30


def wide(num_qubits: int, *, mid_circuit: bool = False) -> Profile:
    result = profile(feed_forward() if mid_circuit else bell())
    sizes = {"operations": 420, "gates_1q": 100, "gates_2q": 300}
    return msgspec.structs.replace(result, num_qubits=num_qubits, **sizes)


def test_26_qubits_in_half_a_gibibyte_take_four_ranks() -> None:
    needs = {r: COSTS.least_memory_bytes(wide(26), CostQuery(ranks=r)) for r in (1, 2, 4, 8)}
    assert needs[2] > GIB // 2 >= needs[4] > needs[8]
    assert COSTS.memory_bytes(wide(26), CostQuery(ranks=4)) == needs[4]
    assert needs[1] == COSTS.least_memory_bytes(wide(26), CostQuery())


@pytest.mark.parametrize("output", ["statevector", "probabilities"])
def test_output_of_state_size_is_not_divided_among_ranks(output: str) -> None:
    result = COSTS.memory_bytes(wide(30), CostQuery(ranks=16))
    outcome = COSTS.memory_bytes(wide(30), CostQuery(outputs=(output,), ranks=16))
    assert outcome - result >= 2 * state_bytes(30)


def test_dynamic_circuit_over_ranks_needs_memory_of_second_state() -> None:
    share = state_bytes(30) // 4
    still = COSTS.least_memory_bytes(wide(30), CostQuery(ranks=4))
    dynamic = COSTS.least_memory_bytes(wide(30, mid_circuit=True), CostQuery(ranks=4))
    assert share <= dynamic - still < 1.02 * share
    assert COSTS.memory_bytes(wide(30, mid_circuit=True), CostQuery(ranks=4)) > dynamic


def test_ranks_make_wide_circuit_faster_less_than_linearly() -> None:
    seconds = [COSTS.seconds(wide(28), CostQuery(ranks=r), 1) for r in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[1] > seconds[0] / 2  # what they send one another takes time too


def test_engines_over_ranks_are_named() -> None:
    assert [
        card.name for card in catalog.CARDS if card.parallel.ranks and card.in_default_pool
    ] == ["statevector", "mps", "contraction", "sweep", "pauli"]


def test_gates_of_wide_static_circuit_share_sweeps() -> None:
    alone = msgspec.structs.replace(COSTS, passes=False)
    assert COSTS.seconds(wide(24), CostQuery(), 1) < alone.seconds(wide(24), CostQuery(), 1) / 5
    assert COSTS.seconds(wide(24), CostQuery("single"), 1) < 0.6 * COSTS.seconds(
        wide(24), CostQuery(), 1
    )
    for profile_ in (wide(12), wide(24, mid_circuit=True)):
        assert COSTS.seconds(profile_, CostQuery(), 1) == alone.seconds(profile_, CostQuery(), 1)


def test_gradient_needs_memory_of_two_more_states() -> None:
    plain, cost_query = (
        CostQuery(outputs=("expectation",)),
        CostQuery(outputs=("expectation", "gradient")),
    )
    more = COSTS.memory_bytes(wide(26), cost_query) - COSTS.memory_bytes(wide(26), plain)
    assert more == 2 * state_bytes(26)
    least = COSTS.least_memory_bytes(wide(26), cost_query) - COSTS.least_memory_bytes(
        wide(26), plain
    )
    assert least == more, "it would be admitted to a slot that cannot hold it"
    assert COSTS.seconds(wide(26), cost_query, 1) > 3 * COSTS.seconds(wide(26), plain, 1)


def test_memory_estimate_includes_norms_and_plan() -> None:
    """Norms of rows are 2**n / 4 bytes, whatever the precision; a long circuit is planned whole."""
    plain, long = (
        wide(24),
        msgspec.structs.replace(wide(24), operations=wide(24).operations + 10**6),
    )
    for costs in (COSTS.memory_bytes, COSTS.least_memory_bytes):
        narrow = msgspec.structs.replace(plain, num_qubits=12)
        result = costs(plain, CostQuery()) - costs(narrow, CostQuery())
        assert result >= state_bytes(24) + 2**22 - state_bytes(12)
        assert 600e6 < costs(long, CostQuery()) - costs(plain, CostQuery()) < 800e6
        single = costs(plain, CostQuery("single")) - costs(narrow, CostQuery("single"))
        assert result - single == state_bytes(23) - state_bytes(11)
        small = msgspec.structs.replace(narrow, operations=10**6)
        assert costs(small, CostQuery()) == costs(narrow, CostQuery())
    changed = msgspec.structs.replace(plain, gates_many=10**5)
    assert COSTS.memory_bytes(changed, CostQuery()) - COSTS.memory_bytes(plain, CostQuery()) > 800e6
    assert COSTS.least_memory_bytes(changed, CostQuery()) == COSTS.least_memory_bytes(
        plain, CostQuery()
    )


def noisy(num_qubits: int, weight: float, shots: int) -> tuple[float, float]:
    """Expected seconds of trajectories and of a density matrix."""
    noise = NoiseProfile(frozenset({"kraus"}), 300, 200, weight, 0.1, num_qubits)
    changed = msgspec.structs.replace(wide(num_qubits), noise=noise)
    query = CostQuery(shots=shots)
    return (
        COSTS.seconds(changed, query, 1),
        catalog.builtin_card("densitymatrix").costs.seconds(changed, query, 1),
    )


def test_work_of_trajectories_is_that_of_distinct_error_patterns() -> None:
    noise = NoiseProfile(frozenset({"pauli"}), 200, 107, 0.29, 0.0, 20)
    for shots, circuits in ((1_000, 114), (10_000, 717), (100_000, 1_995)):
        assert trajectory_work(noise, shots) == pytest.approx(circuits, rel=0.35)
    assert trajectory_work(msgspec.structs.replace(noise, error_weight=30.0), 1000) <= 1000


def test_density_matrix_is_cheaper_for_many_shots_and_few_qubits() -> None:
    trajectories, exact = noisy(5, 1.0, 100_000)
    assert exact < trajectories / 5
    trajectories, exact = noisy(14, 0.3, 1_000)
    assert trajectories < exact / 5


def test_samples_by_contraction_are_priced_by_their_messages() -> None:
    costs, counts = ContractionCost(), CostQuery(shots=800)
    known = msgspec.structs.replace(
        wide(40), contraction_width=12, contraction_operations=1e7, contraction_messages=1_000,
        contraction_values=100_000,
    )  # fmt: skip
    none, many = costs.seconds(known, CostQuery(), 1), costs.seconds(known, counts, 1)
    each_s = 1e7 * costs.product_s + 1_000 * costs.block_s
    assert many - none == pytest.approx(100 * each_s), "eight shots take all messages once"
    assert none < 0.2, "what precedes the shots has the price of a path"
    more = costs.memory_bytes(known, counts) - costs.memory_bytes(wide(40), counts)
    assert more >= 100_000 * 2 * 8 * 8
    assert costs.memory_bytes(wide(40), CostQuery()) < 2**28, "counts have no path"
