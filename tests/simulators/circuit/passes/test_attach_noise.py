"""Passes that attach noise."""

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from failing import fails

from noise_models import channel as channels
from noise_models.channel import ReadoutGroup
from noise_models.model import LayerNoise, LocatedChannel
from simulators.circuit import ir
from simulators.circuit.arrays import Operands
from simulators.circuit.passes import attach_noise as attachment
from simulators.circuit.passes.attach_noise import NoiseAttachment, attach_noise, depends_on_params
from simulators.circuit.passes.noise_locations import EMPTY
from simulators.circuit.passes.timed_noise import CoupledPairs, TimedTables, timed_noise
from simulators.circuit.schedule import schedule
from simulators.errors import Unsupported


def bell() -> Arrays:
    return Arrays(2, 2).add("h", [0]).add("cx", [0, 1])


def test_channels_follow_their_operations() -> None:
    circuit = bell().add("rz", [1], params=[0.5]).add("measure", [0], [0]).circuit()
    model = DeviceModel(2, idle=False)
    result = attach_noise(circuit, model)
    assert result.locations.tolist() == [[0, 0, 0, -1], [1, 1, 0, 1]]
    assert result.channels[0] is model.after_gate("h", (0,))[0].channel
    assert result.kinds == {"kraus"}


def test_equal_gates_on_equal_qubits_share_a_channel() -> None:
    circuit = bell().add("h", [0]).add("h", [1]).add("cx", [1, 0]).circuit()
    result = attach_noise(circuit, DeviceModel(2, idle=False))
    number = result.locations[:, 1].tolist()
    assert number[0] == number[2]
    assert len(set(number)) == len(result.channels) == 4


def test_only_touched_qubits_have_locations() -> None:
    circuit = Arrays(127, 1).add("h", [99]).add("barrier", list(range(127)))
    circuit.add("measure", [99], [0])
    model = DeviceModel(127, preparation_error=0.01, readout=(0.1, 0.2))
    result = attach_noise(circuit.circuit(), model)
    assert set(result.locations[:, 2].tolist()) == {99}
    assert result.kinds == {"kraus", "pauli", "readout"}


def test_preparation_comes_first_and_noise_of_a_reset_after_it() -> None:
    circuit = Arrays(1, 1).add("h", [0]).add("reset", [0]).add("h", [0]).circuit()
    result = attach_noise(circuit, DeviceModel(1, idle=False, preparation_error=0.25))
    assert result.locations[:, 0].tolist() == [-1, 0, 1, 2]
    assert result.channels[result.locations[2, 1]].is_pauli


def test_idle_noise_stands_right_before_the_operation_that_ends_it() -> None:
    circuit = Arrays(3, 0).add("h", [0]).add("cx", [1, 2]).add("cx", [0, 1])
    model = DeviceModel(3)
    result = attach_noise(circuit.circuit(), model, "asap")
    assert result.locations[:, [0, 2, 3]].tolist() == [
        [0, 0, -1], [1, 1, 2], [1, 0, -1], [2, 0, 1], [2, 2, -1],
    ]  # fmt: skip
    waited = result.channels[result.locations[2, 1]].ptm
    assert np.array_equal(waited, channels.relaxation(265.0, 100.0, 80.0).ptm)


def test_delays_in_ns_and_dt_have_the_noise_of_their_time() -> None:
    circuit = Arrays(1, 0).add("h", [0]).add("delay", [0], params=[200.0])
    circuit.add("delay_dt", [0], params=[50.0]).add("h", [0])
    assert depends_on_params(circuit.circuit())
    assert not depends_on_params(bell().circuit())
    result = attach_noise(circuit.circuit(), DeviceModel(1))
    assert result.locations[:, 0].tolist() == [0, 1, 2, 3]
    for k in (1, 2):
        expected = channels.relaxation(200.0, 100.0, 80.0).ptm
        assert np.array_equal(result.channels[result.locations[k, 1]].ptm, expected)


def test_another_delay_is_another_digest() -> None:
    digests = set()
    for time in (100.0, 101.0):
        circuit = Arrays(1, 0).add("h", [0]).add("delay", [0], params=[time]).circuit()
        digests.add(attach_noise(circuit, DeviceModel(1)).digest)
    circuit = Arrays(1, 0).add("h", [0]).add("delay", [0], params=[100.0]).circuit()
    digests.add(attach_noise(circuit, DeviceModel(1)).digest)
    digests.add(attach_noise(circuit, DeviceModel(1, gate_error=2e-3)).digest)
    assert len(digests) == 3


def test_an_unknown_dt_and_a_free_delay_are_refused() -> None:
    model = DeviceModel(1)
    model.dt_ns = 0.0
    circuit = Arrays(1, 0).add("delay_dt", [0], params=[50.0]).circuit()
    fails(Unsupported, "dt", attach_noise, circuit, model)
    free = Arrays(1, 0).add("delay", [0], params=[0.0])
    free.free(0)
    fails(Unsupported, "free parameter", attach_noise, free.circuit(), model)
    attach_noise(free.circuit(), DeviceModel(1, idle=False))


def test_a_circuit_wider_than_the_device_is_refused() -> None:
    with pytest.raises(Unsupported, match="2 qubits; the device of the noise model has 1"):
        attach_noise(bell().circuit(), DeviceModel(1))


def test_a_channel_on_an_unused_neighbour_acts_as_it_does_beside_zero() -> None:
    class Crosstalk(DeviceModel):
        def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
            angle = 0.3
            phases = np.exp(-0.5j * angle * np.array([1, -1, -1, 1]))
            zz = channels.from_unitary(np.diag(phases))
            return (LocatedChannel((qubits[0], 1 - qubits[0]), zz),) if name == "h" else ()

    circuit = Arrays(2, 0).add("h", [0]).circuit()
    found = attach_noise(circuit, Crosstalk(2, idle=False))
    assert found.locations.tolist() == [[0, found.locations[0, 1], 0, -1]]
    turn = channels.from_unitary(np.diag(np.exp([-0.15j, 0.15j])))
    assert np.abs(found.channels[found.locations[0, 1]].ptm - turn.ptm).max() < 1e-15
    both = attach_noise(
        Arrays(2, 0).add("h", [0]).add("x", [1]).circuit(), Crosstalk(2, idle=False)
    )
    assert both.locations.tolist() == [[0, 0, 0, 1]]


def test_a_layer_of_more_qubits_than_the_circuit_acts_on_those_of_the_circuit() -> None:
    one, two = channels.depolarizing(0.01, 1), channels.depolarizing(0.01, 2)
    model = DeviceModel(4, idle=False)
    acting = (LocatedChannel((0,), one), LocatedChannel((3,), one), LocatedChannel((3, 1), two))
    model.layers = (LayerNoise((("cz", (0, 1)),), frozenset(range(4)), acting),)
    found = attach_noise(Arrays(2, 0).add("cz", [0, 1]).circuit(), model)
    assert found.locations[:, [0, 2, 3]].tolist() == [[-1, 0, -1], [-1, 1, -1]]
    alone = found.channels[found.locations[1, 1]].ptm
    assert np.abs(np.diag(alone)[1:] - two.ptm[1, 1]).max() < 1e-15


def test_readout_of_exactly_read_qubits_is_left_out() -> None:
    circuit = bell().circuit()
    noisy = DeviceModel(2, readout=(0.1, 0.2))
    assert attach_noise(circuit, noisy).readout is None
    measured = bell().add("measure", [1], [0]).circuit()
    assert "readout" in attach_noise(measured, noisy).kinds
    assert attach_noise(measured, DeviceModel(2)).readout is None


def test_operations_on_no_qubits_have_no_noise() -> None:
    circuit = bell().add("global_phase", params=[0.3]).add("h", [1]).circuit()
    result = attach_noise(circuit, DeviceModel(2, crosstalk_pairs=((0, 1),)))
    assert 2 not in result.locations[:, 0][result.locations[:, 2] < 0].tolist()
    assert attach_noise(Arrays(1, 0).add("global_phase", params=[0.3]).circuit(), DeviceModel(1))


def random_circuit(rng: np.random.Generator, num_qubits: int) -> Arrays:
    circuit = Arrays(num_qubits, num_qubits)
    for _ in range(60):
        a, b, c = rng.permutation(num_qubits)[:3].tolist()
        match int(rng.integers(6)):
            case 0:
                circuit.add("cx", [a, b])
            case 1:
                circuit.add("ccx", [a, b, c])
            case 2:
                circuit.add("delay", [a], params=[float(rng.integers(1, 9) * 50)])
            case 3:
                if rng.random() < 0.5:
                    circuit.add("reset", [a])
                else:
                    circuit.add("measure", [a], [a])
            case _:
                circuit.add(str(rng.choice(["sx", "x", "h"])), [a])
    return circuit.add("measure", [0], [0])


class _ReadingModel(DeviceModel):
    """Measured qubits relax."""

    def during_readout(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        return self._relaxation(qubit, duration_ns)


@pytest.mark.parametrize("model_class", [DeviceModel, _ReadingModel])
@pytest.mark.parametrize("pairs", [(), ((7, 8),), ((0, 1), (2, 5), (7, 8))])  # of all qubits or few
@pytest.mark.parametrize(("limit", "method"), [(attachment.MAX_CHANNELS, "alap"), (8, "asap")])
def test_kept_attachment_gives_equal_programs(
    monkeypatch: pytest.MonkeyPatch, limit: int, method: attachment.Method,
    pairs: tuple[tuple[int, int], ...], model_class: type[DeviceModel],
) -> None:  # fmt: skip
    monkeypatch.setattr(attachment, "MAX_CHANNELS", limit)
    model = model_class(9, preparation_error=0.01, readout=(0.1, 0.2), crosstalk_pairs=pairs)
    noise_attachment, rng = NoiseAttachment(model), np.random.default_rng(7)
    for _ in range(20):
        circuit = random_circuit(rng, int(rng.integers(3, 10))).circuit()
        result = noise_attachment.attach(circuit, method)
        expected = attach_noise(circuit, model, method)
        assert (result.digest, result.kinds) == (expected.digest, expected.kinds)
        assert result.duration_ns == expected.duration_ns
        assert (result.readout is None) == (expected.readout is None)
        np.testing.assert_array_equal(result.locations, expected.locations)
        for one, two in zip(result.channels, expected.channels, strict=True):
            np.testing.assert_array_equal(one.ptm, two.ptm)
        facts = msgspec.structs.replace(result, known_facts=None).facts
        np.testing.assert_array_equal(result.facts.traits, facts.traits)
        np.testing.assert_allclose(result.facts.errors, facts.errors, rtol=1e-12)


def test_correlated_readout_alone_is_kept_where_its_qubits_are_measured() -> None:
    pair = ReadoutGroup(
        (0, 1), np.array([[0.9, 0, 0, 0], [0.1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    noise_attachment = NoiseAttachment(DeviceModel(3, t2_by_t1=1.0, groups=(pair,)))
    both = Arrays(3, 3).add("h", [0]).add("cx", [0, 1])
    both = both.add("measure", [0], [0]).add("measure", [1], [1])
    result = Arrays(3, 3).add("h", [0]).add("cx", [0, 1]).add("measure", [0], [0])
    for _ in range(2):  # the second time all channels are known
        assert noise_attachment.attach(both.circuit()).readout is not None
        assert noise_attachment.attach(result.circuit()).readout is None


PAIR = (0, 1)
NS = {"h": 10.0, "x": 10.0, "measure": 1000.0, "delay": 500.0}
NS |= dict.fromkeys(("cz", "cx", "ecr", "iswap"), 100.0)


def pieces(circuit: Arrays) -> list[tuple[int, tuple[int, int], float]]:
    outcome = circuit.circuit()
    durations = np.array([NS.get(outcome.table.names[row], 0.0) for row in outcome.ops.tolist()])
    result = timed_noise(
        Operands.of(outcome), np.zeros(outcome.ops.size, np.int64),
        schedule(outcome, durations, "asap"), CoupledPairs.of([PAIR], outcome.num_qubits),
        TimedTables(*(np.full((2, 3), EMPTY),) * 3),
    )  # fmt: skip
    own = result.owner == 0
    return [
        (k, PAIR, time)
        for k, time in zip(result.after[own].tolist(), result.time_ns[own].tolist(), strict=True)
    ]


def both(num_clbits: int = 0) -> Arrays:
    return Arrays(2, num_clbits).add("h", [0]).add("h", [1])


def test_nothing_acts_before_both_qubits_had_an_operation() -> None:
    circuit = Arrays(2, 0).add("h", [0]).add("x", [0]).add("x", [0]).add("h", [1])
    assert pieces(circuit) == [(3, PAIR, 10.0)], "since the start of the last x"


def test_the_time_between_operations_acts_before_the_later_one() -> None:
    circuit = both().add("delay", [0], params=[500.0]).add("delay", [1], params=[500.0])
    circuit.add("x", [0]).add("h", [1])
    assert pieces(circuit) == [(3, PAIR, 510.0), (5, PAIR, 10.0)]


def test_diagonal_gates_do_not_cut_the_time() -> None:
    circuit = both().add("delay", [0], params=[500.0]).add("rz", [0], params=[0.3]).add("x", [0])
    assert pieces(circuit)[0] == (3, PAIR, 510.0)


def test_the_time_of_a_gate_on_both_is_left_out() -> None:
    circuit = both().add("cz", [0, 1]).add("h", [1])
    assert pieces(circuit) == [(2, PAIR, 10.0), (3, PAIR, 10.0)]


def test_inside_a_block_there_is_none() -> None:
    circuit = both(1).add("measure", [0], [0]).begin((ir.CLBIT, 0, 0)).add("x", [1]).add("x", [0])
    circuit.add("end").add("h", [1])
    assert [after for after, _, _ in pieces(circuit)] == [1, 2, 7]


def test_attached_channels_are_on_used_pairs_only() -> None:
    model = DeviceModel(4, crosstalk_pairs=((0, 1), (1, 2), (2, 3)))
    circuit = Arrays(4, 0).add("h", [1]).add("h", [2]).add("x", [1]).circuit()
    result = attach_noise(circuit, model, "asap")
    assert [row for row in result.locations[:, [0, 2, 3]].tolist() if row[2] >= 0] == [
        [1, 1, 2],
        [2, 1, 2],
    ]


def test_the_echo_of_a_cross_resonance_gate_removes_the_interaction_with_neighbours() -> None:
    """The gate on qubits 1 and 2 lasts 100 ns while qubit 0 waits; each h lasts 10 ns."""
    for gate, total in (("cx", 20.0), ("ecr", 20.0), ("cz", 120.0), ("iswap", 120.0)):
        circuit = Arrays(3, 0).add("h", [0]).add("h", [1]).add("h", [2]).add(gate, [1, 2])
        circuit.add("h", [1])
        assert sum(time for _, _, time in pieces(circuit)) == total, gate
