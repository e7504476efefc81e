"""Mean relaxation over random waits for links, and latencies between modules."""

import math

import numpy as np
import pytest
from failing import fails
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models import calibration as cal
from noise_models.build import build
from noise_models.link_waits import WaitPart, mean_kept
from noise_models.network import network
from noise_models.options import NoiseOptions
from noise_models.relations import compose
from noise_models.strict_json import NoiseError
from tests.noise_models.snapshots import linked

FAST = cal.Link((0, 1), fidelity=0.9, rate_hz=1e4)
SLOW = cal.Link((2, 3), fidelity=0.9, rate_hz=3e3)
TRIED = cal.Link((0, 1), fidelity=0.9, rate_hz=1e4, herald_ns=40e3)
TRIED_LESS = cal.Link((2, 3), fidelity=0.9, rate_hz=2e4, herald_ns=40e3)
LIMITED = replace(TRIED, attempts_max=3)
DRAWS = 40_000


def drawn(link: cal.Link, random: np.random.Generator) -> NDArray[np.float64]:
    """Waits for a link, one attempt after the other where an attempt takes a time."""
    if not link.herald_ns:
        return random.exponential(link.mean_wait_ns, DRAWS)
    attempts = random.geometric(link.success, DRAWS)
    while link.attempts_max and (late := attempts > link.attempts_max).any():
        attempts[late] = random.geometric(link.success, int(late.sum()))  # given up
    return np.asarray(attempts * link.herald_ns, np.float64)


@pytest.mark.parametrize(
    "parts",
    [
        (WaitPart(FAST),),
        (WaitPart(FAST, share=0.3),),
        (WaitPart(TRIED),),
        (WaitPart(LIMITED),),
        (WaitPart(FAST), WaitPart(SLOW)),
        (WaitPart(FAST), WaitPart(SLOW, 30e3, 0.5)),
        (WaitPart(TRIED), WaitPart(TRIED_LESS)),
        tuple(WaitPart(link) for link in (FAST, SLOW, FAST, SLOW, FAST)),
    ],
)
@pytest.mark.parametrize("rate", [1e-6, 2e-5])
def test_mean_is_that_of_drawn_waits(parts: tuple[WaitPart, ...], rate: float) -> None:
    random = np.random.default_rng(11)
    waits = [part.offset_ns + part.share * drawn(part.link, random) for part in parts]
    kept = np.exp(-rate * np.max(waits, axis=0))
    sigma = float(kept.std()) / math.sqrt(DRAWS)
    assert abs(mean_kept(parts, rate) - float(kept.mean())) < 3.0 * sigma


def test_an_exponential_wait_as_long_as_the_time_constant_keeps_a_half() -> None:
    assert mean_kept([WaitPart(FAST)], 1.0 / FAST.mean_wait_ns) == pytest.approx(0.5, abs=1e-12)
    # Many short attempts are an exponential wait.
    short = replace(FAST, herald_ns=1e-3)
    assert mean_kept([WaitPart(short)], 1e-5) == pytest.approx(0.5, abs=1e-6)
    # The last of n equal waits has the mean 1 + 1/2 + ... + 1/n of one.
    many = [WaitPart(FAST)] * 12
    mean = sum(1.0 / k for k in range(1, 13)) * FAST.mean_wait_ns
    assert (1.0 - mean_kept(many, 1e-12)) / 1e-12 == pytest.approx(mean, rel=1e-2)


def test_a_mean_wait_would_lose_more() -> None:
    rate = 1.0 / FAST.mean_wait_ns
    assert math.exp(-1.0) + 0.1 < mean_kept([WaitPart(FAST)], rate)


def test_waits_without_a_closed_form_are_refused() -> None:
    fails(NoiseError, "attempts_max 3", mean_kept, [WaitPart(LIMITED), WaitPart(FAST)], 1e-5)
    fails(NoiseError, "17 links", mean_kept, [WaitPart(FAST)] * 17, 1e-5)


def test_factors_of_links_scale_pairs_and_waits_alone() -> None:
    device, parts = linked(), (WaitPart(replace(linked().links[0], attempts_max=0)),)

    def error(options: dict[str, object], qubits: tuple[int, int]) -> float:
        name = "rxx" if qubits == (1, 3) else "cz"
        found = build(device, NoiseOptions.parse(options)).gates.after(name, qubits)
        return found[0].channel.infidelity if found else 0.0

    assert error({"link.pair": 0}, (1, 3)) == 0.0
    assert error({"gate": 0}, (1, 3)) == pytest.approx(0.05)
    assert error({"link": 0, "qubit": 0}, (0, 1)) == pytest.approx(0.008)
    assert error({"gate.error_2q": 0.1}, (1, 3)) == pytest.approx(0.05)
    for options, half in (({"qubit.idle": 0}, False), ({"link.wait": 0}, True)):
        model = build(device, NoiseOptions.parse(options))
        assert (model.network.awaiting(0, parts) is None) is half
        assert (model.idle(0, 1e3) is None) is not half
        assert model.has_idle_noise


def test_idle_noise_is_not_composed_with_waits() -> None:
    other = build(replace(linked(), modules=(), links=()))
    fails(NoiseError, "waits for links", compose, build(linked()), other)
    quiet = build(replace(linked(), modules=(), links=()), NoiseOptions.parse({"idle": False}))
    both = compose(build(linked()), quiet)
    assert both.network.links == linked().links
    assert both.network.awaiting(0, [WaitPart(FAST)]) is not None


def test_latency_is_that_of_the_shortest_way() -> None:
    link = cal.Link((0, 1), fidelity=1.0, latency_ns=5e3)
    ways = ((0, 1, 5e3), (1, 2, 7e3), (0, 2, 20e3), (3, 4, 1.0))
    device = cal.CalibrationSnapshot(
        "row",
        6,
        feed_forward_ns=300.0,
        modules=tuple(cal.Module(f"m{k}", (k,), (k,)) for k in range(6)),
        links=tuple(replace(link, pair=(a, b), latency_ns=time) for a, b, time in ways),
    )
    found = network(device, None)
    assert found is not None
    assert found.between_ns[0, 2] == found.between_ns[2, 0] == 12e3
    assert found.between_ns[1, 1] == 300.0  # inside a module
    assert found.between_ns[3, 4] == 300.0  # not faster than inside one
    assert found.latency_ns({0, 2}, {1, 2}) == 12e3
    fails(NoiseError, "module m0 is read in module m5", found.latency_ns, {0}, {5})
    assert network(replace(device, modules=(), links=()), None) is None


def test_drift_of_a_gate_is_that_of_its_pauli_errors_and_its_link() -> None:
    gate = cal.GateCalibration("cz", (0, 1), paulis=(cal.PauliError("ZI", 0.01),))
    assert gate.with_error(2.0 * (gate.error or 0.0)).paulis == (cal.PauliError("ZI", 0.02),)
    worse = [each.with_error(0.08) if each.name == "rxx" else each for each in linked().gates]
    assert linked().with_gates(worse).links[0].fidelity == pytest.approx(0.92)


def test_pauli_errors_act_in_place_of_depolarization() -> None:
    biased = (cal.PauliError("ZI", 0.03), cal.PauliError("XY", 0.01))
    device = cal.CalibrationSnapshot(
        "pair",
        2,
        native_gates=(cal.NativeGate("cz", 2),),
        coupling=((0, 1),),
        gates=(cal.GateCalibration("cz", (0, 1), paulis=biased),),
    )
    for recipe in ("simenv", "aer"):
        model = build(device, NoiseOptions.parse({"recipe": recipe, "gate.depolarizing": 2}))
        (found,) = model.after_gate("cz", (0, 1))
        probabilities = found.channel.pauli_probabilities
        assert probabilities[3] == pytest.approx(0.06)  # Z on the first
        assert probabilities[1 + 4 * 2] == pytest.approx(0.02)
        assert probabilities[0] == pytest.approx(0.92)
    (turned,) = build(device).after_gate("cz", (1, 0))
    assert turned.channel.pauli_probabilities[3 * 4] == pytest.approx(0.03)  # Z on qubit 0
    depolarized = build(device, NoiseOptions.parse({"gate.error_2q": 0.04})).after_gate(
        "cz", (0, 1)
    )
    assert np.ptp(depolarized[0].channel.pauli_probabilities[1:]) < 1e-12
    everything = build(device, NoiseOptions.parse({"gate": 100})).after_gate("cz", (0, 1))
    assert everything[0].channel.pauli_probabilities[3] == pytest.approx(0.75)
