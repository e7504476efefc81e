"""Pulse sequences of hostile users: mutated documents and bombs, for tests and a benchmark.

A mutated document is a valid one with something wrong in its tree or its text; a bomb is a short
text that asks for much memory or time. Both are made from seeds.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

HUGE = (10**9, 2**31, 2**53, 2**63, 10**18, 10**100, 1e300, 1e-300)
ODD: tuple[Any, ...] = (
    *HUGE, -1, 0, -0.0, 0.5, -1e18, float("nan"), float("inf"), -float("inf"), None, True, "", "q0",
    "\x1b[31m", "a\x00b", "\ud800", "x" * 300, [], {}, [[]], [1], {"a": 1}, "None", "../../etc",
    {"expression": "add", "lhs": {"variable": "rabi"}, "rhs": 1e300}, {"variable": "nothing"},
)  # fmt: skip


def originals() -> list[str]:
    """Valid sequences of all kinds of operations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pulser, about its own versions
        sequences = _parametrized(), _layout(), _microwaves(), _modulated()
        return [sequence.to_abstract_repr() for sequence in sequences]


def _parametrized() -> Any:
    import pulser
    from pulser.waveforms import BlackmanWaveform, InterpolatedWaveform, RampWaveform

    register = pulser.Register.rectangle(1, 3, spacing=6.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.declare_channel("local", "rydberg_local", initial_target="q0")
    rabi = sequence.declare_variable("rabi", size=2)
    duration = sequence.declare_variable("duration", dtype=int)
    ramp = RampWaveform(duration, rabi[0] * 2 + 1, rabi[1] ** 2)
    sequence.add(pulser.Pulse.ConstantDetuning(ramp, -3.0, 0.1), "global")
    sequence.target("q1", "local")
    shape = pulser.Pulse(BlackmanWaveform(60, 0.5), InterpolatedWaveform(60, [0, 1, 2]), 0.0)
    sequence.add(shape, "local", protocol="wait-for-all")
    sequence.delay(32, "global")
    sequence.phase_shift(0.3, "q0", basis="ground-rydberg")
    sequence.align("global", "local")
    sequence.measure("ground-rydberg")
    return sequence


def _layout() -> Any:
    import pulser
    from pulser.waveforms import ConstantWaveform, CustomWaveform

    traps = [(6.0 * (k % 3), 6.0 * (k // 3)) for k in range(6)]
    layout = pulser.register.RegisterLayout(traps, slug="square")
    register = layout.define_register(0, 1, 2, qubit_ids=["q0", "q1", "q2"])
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    weights = register.define_detuning_map({"q0": 0.5, "q1": 1.0})
    sequence.config_detuning_map(weights, "dmm_0")
    wave = CustomWaveform([0.1 * k for k in range(40)])
    sequence.add(pulser.Pulse.ConstantDetuning(wave, 1.0, 0.0), "global")
    sequence.add_dmm_detuning(ConstantWaveform(80, -5.0), "dmm_0")
    return sequence


def _microwaves() -> Any:
    import pulser

    register = pulser.Register.rectangle(1, 3, spacing=8.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("mw", "mw_global")
    sequence.set_magnetic_field(0.0, 0.0, 30.0)
    sequence.add(pulser.Pulse.ConstantPulse(80, 5.0, 0.0, 0.0), "mw")
    return sequence


def _modulated() -> Any:
    import pulser
    from pulser.channels.eom import RydbergBeam, RydbergEOM

    eom = RydbergEOM(
        limiting_beam=RydbergBeam.RED, max_limiting_amp=188.0, intermediate_detuning=2800.0,
        controlled_beams=tuple(RydbergBeam), mod_bandwidth=24.0,
    )  # fmt: skip
    channel = pulser.channels.Rydberg.Global(50.0, 20.0, mod_bandwidth=8.0, eom_config=eom)
    device = dataclasses.replace(
        pulser.MockDevice, name="Modulated", channel_objects=(channel,), dmm_objects=(),
        channel_ids=("rydberg_global",), supports_slm_mask=False,
    )  # fmt: skip
    sequence = pulser.Sequence(pulser.Register.rectangle(1, 2, spacing=6.0, prefix="q"), device)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(60, 6.0, 0.0, 0.0), "global")
    sequence.enable_eom_mode("global", amp_on=5.0, detuning_on=0.0)
    sequence.add_eom_pulse("global", 60, 0.0)
    sequence.disable_eom_mode("global")
    return sequence


def mutated(rng: random.Random, texts: list[str]) -> str:
    """One of these documents with one to five faults in its tree, or in its text."""
    document = json.loads(rng.choice(texts))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _change(rng, document)
    text = json.dumps(document)
    if rng.random() < 0.1:
        place = rng.randrange(len(text))
        cut = rng.choice(("", text[:place], "\x00", "}", "NaN", "\ufeff", '"', "1e999"))
        text = text[:place] + cut + text[place + rng.choice((0, 1, 9)) :]
    return text


def _change(rng: random.Random, document: Any) -> None:
    """Change one place of the tree; most often not in the device, which is its largest part."""
    node: Any = document
    if rng.random() < 0.7:
        names = [name for name in document if name not in ("device", "$schema")]
        name = rng.choice(names)
        if isinstance(document[name], dict | list) and document[name]:
            node = document[name]
    for _ in range(rng.randrange(6)):
        keys = _keys(node)
        inner = [key for key in keys if isinstance(node[key], dict | list) and node[key]]
        if not inner:
            break
        node = node[rng.choice(inner)]
    keys = _keys(node)
    if not keys:
        return
    key, other = rng.choice(keys), rng.choice(keys)
    match rng.randrange(7):
        case 0:
            del node[key]
        case 1:
            node[key], node[other] = node[other], node[key]
        case 2 if isinstance(node, list):
            node.extend(copy.deepcopy(node[:20]) * rng.choice((1, 2, 50)))
        case 3 if isinstance(node, dict):
            node[rng.choice(("extra", "\x07", "x" * 99))] = copy.deepcopy(rng.choice(ODD))
        case 4 if isinstance(node[key], int | float) and not isinstance(node[key], bool):
            node[key] = node[key] * rng.choice((-1, 10, 1_000, 1e-6)) + rng.choice((0, 1, 0.5))
        case _:
            node[key] = copy.deepcopy(rng.choice(ODD))


def _keys(node: Any) -> list[Any]:
    return list(node) if isinstance(node, dict) else list(range(len(node)))


# --- bombs ----------------------------------------------------------------------------------------

Bomb = Callable[[random.Random, dict[str, Any]], str]


def _operations(kind: str, number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"op": kind, **fields}] * number


def _pulse(duration: Any, amplitude: Any = 1.0) -> dict[str, Any]:
    constant = {"kind": "constant", "duration": duration, "value": amplitude}
    zero = {"kind": "constant", "duration": duration, "value": 0.0}
    return {
        "op": "pulse", "channel": "global", "protocol": "min-delay", "amplitude": constant,
        "detuning": zero, "phase": 0.0, "post_phase_shift": 0.0,
    }  # fmt: skip


def _nested(rng: random.Random, document: dict[str, Any]) -> str:
    depth = rng.choice((30, 33, 500, 100_000))
    opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
    return json.dumps(document)[:-1] + f', "deep": {opened * depth}1{closed * depth}}}'


def _many_atoms(rng: random.Random, document: dict[str, Any]) -> str:
    number = rng.choice((29, 300, 5_000, 20_000))
    document["register"] = [
        {"name": f"q{k}", "x": 5.0 * (k % 100), "y": 5.0 * (k // 100)} for k in range(number)
    ]
    return json.dumps(document)


def _endless_pulse(rng: random.Random, document: dict[str, Any]) -> str:
    document["operations"] = [_pulse(rng.choice((10**6, 10**8, 10**12, 2**63, 10**30)))]
    return json.dumps(document)


def _endless_delay(rng: random.Random, document: dict[str, Any]) -> str:
    document["operations"] += _operations(
        "delay", rng.choice((1, 1_000)), channel="global", time=rng.choice((10**7, 10**12, 10**20))
    )
    return json.dumps(document)


def _many_pulses(rng: random.Random, document: dict[str, Any]) -> str:
    document["operations"] = [_pulse(16)] * rng.choice((1_000, 4_000))
    return json.dumps(document)


def _many_phase_shifts(rng: random.Random, document: dict[str, Any]) -> str:
    document["operations"] += _operations(
        "phase_shift", rng.choice((1_000, 8_000)), phi=0.1, targets=[0], basis="ground-rydberg"
    )
    return json.dumps(document)


def _many_targets(rng: random.Random, document: dict[str, Any]) -> str:
    document["operations"] += _operations(
        "target",
        rng.choice((1_000, 8_000)),
        channel="local",
        target=rng.choice((0, 10**9, [0] * 9)),
    )
    return json.dumps(document)


def _waveform(rng: random.Random, document: dict[str, Any]) -> str:
    samples = [rng.random() for _ in range(rng.choice((10, 40_000)))]
    wave: dict[str, Any] = {"kind": "custom", "samples": samples}
    if rng.random() < 0.5:
        duration = rng.choice((100, 10**7, 10**10))
        wave = {"kind": "interpolated", "duration": duration, "values": samples,
                "times": [k / max(1, len(samples) - 1) for k in range(len(samples))]}  # fmt: skip
    pulse = _pulse(len(samples))
    document["operations"] = [pulse | {"amplitude": wave}]
    return json.dumps(document)


def _composite(rng: random.Random, document: dict[str, Any]) -> str:
    wave: Any = {"kind": "constant", "duration": 4, "value": 1.0}
    for _ in range(rng.choice((4, 9, 14, 40))):
        wave = {"kind": "composite", "waveforms": [wave] * rng.choice((2, 4))}
        if len(json.dumps(wave)) > 800_000:
            break
    document["operations"] = [_pulse(16) | {"amplitude": wave}]
    return json.dumps(document)


def _kaiser(rng: random.Random, document: dict[str, Any]) -> str:
    duration = rng.choice((100, 10**6, 10**9))
    wave = {"kind": rng.choice(("kaiser", "blackman")), "duration": duration,
            "area": rng.choice((1.0, 1e300)), "beta": rng.choice((14, 1e6, -1e300))}  # fmt: skip
    document["operations"] = [_pulse(duration) | {"amplitude": wave}]
    return json.dumps(document)


def _expression(rng: random.Random, document: dict[str, Any]) -> str:
    """Powers of powers, of integers too, and deep or wide trees."""
    kind = rng.choice(("pow", "pow", "mul", "add", "div", "mod", "exp", "log", "tan", "index"))
    value: Any = rng.choice(({"variable": "rabi"}, 9, 1e10, 10**9, -1))
    for _ in range(rng.choice((2, 6, 20, 25))):
        right = (
            copy.deepcopy(value) if rng.random() < 0.3 and len(json.dumps(value)) < 10_000 else 9
        )
        value = {"expression": kind, "lhs": value, "rhs": right}
    document["operations"] = [_pulse(value if rng.random() < 0.5 else 100, value)]
    return json.dumps(document)


def _variables(rng: random.Random, document: dict[str, Any]) -> str:
    if rng.random() < 0.5:
        size = rng.choice((10**6, 10**9, 10**12))
        document["variables"]["rabi"] = {"type": "float", "value": [0.0], "size": size}
    else:
        many = {f"v{k}": {"type": "float", "value": [0.0] * 3} for k in range(10_000)}
        document["variables"].update(many)
    return json.dumps(document)


def _detuning_map(rng: random.Random, document: dict[str, Any]) -> str:
    number = rng.choice((100, 10_000))
    traps = [{"weight": 1.0 / number, "x": 1e-3 * k, "y": 0.0} for k in range(number)]
    document["operations"] += [
        {"op": "config_detuning_map", "detuning_map": {"traps": traps}, "dmm_id": "dmm_0"}
    ] * rng.choice((1, 2))
    return json.dumps(document)


def _huge_layout(rng: random.Random, document: dict[str, Any]) -> str:
    number = rng.choice((10, 30_000))
    document["layout"] = {"coordinates": [[0.01 * k, 0.0] for k in range(number)], "slug": "x" * 99}
    return json.dumps(document)


def _atoms_at_one_place(rng: random.Random, document: dict[str, Any]) -> str:
    place = rng.choice((0.0, 1e300, 1e-300, float("nan"), float("inf")))
    document["register"] = [{"name": f"q{k}", "x": place, "y": 0.0} for k in range(3)]
    return json.dumps(document)


def _names(rng: random.Random, document: dict[str, Any]) -> str:
    names = [rng.choice(("\x1b[2J", "\u202e", "q\n", "\x00", "x" * 100_000, "")) for _ in range(3)]
    document["register"] = [
        {"name": f"{name}{k}", "x": 6.0 * k, "y": 0.0} for k, name in enumerate(names)
    ]
    return json.dumps(document)


def _many_channels(rng: random.Random, document: dict[str, Any]) -> str:
    number = rng.choice((65, 5_000))
    document["channels"].update({f"c{k}": "rydberg_global" for k in range(number)})
    return json.dumps(document)


def _bandwidth(rng: random.Random, document: dict[str, Any]) -> str:
    """Channels whose pulses have endless tails, and switches that are buffered for ever."""
    for channel in document["device"].get("channels", []):
        channel["mod_bandwidth"] = rng.choice((1e-9, 1e-3, 1e-300, 1e300, 0.01))
        if channel.get("eom_config"):
            channel["eom_config"]["mod_bandwidth"] = rng.choice((1e-9, 1e-3, 1e300))
            channel["eom_config"]["custom_buffer_time"] = rng.choice((10**6, 10**12, 1))
        channel["clock_period"] = rng.choice((1, 10**9))
        channel["min_duration"] = rng.choice((1, 10**9))
    return json.dumps(document)


def _switches(rng: random.Random, document: dict[str, Any]) -> str:
    pair = [
        {"op": "enable_eom_mode", "channel": "global", "amp_on": 5.0, "detuning_on": 0.0,
         "optimal_detuning_off": 0.0, "correct_phase_drift": True},
        {"op": "disable_eom_mode", "channel": "global", "correct_phase_drift": True},
    ]  # fmt: skip
    document["operations"] += pair * rng.choice((100, 2_000))
    return json.dumps(document)


def _digits(rng: random.Random, document: dict[str, Any]) -> str:
    digits = "9" * rng.choice((400, 4_300, 5_000, 900_000))
    document["operations"] = [_pulse("NUMBER")]
    return json.dumps(document).replace('"NUMBER"', digits)


def _large_text(rng: random.Random, document: dict[str, Any]) -> str:
    document["name"] = "x" * rng.choice((2**20, 2**22))
    return json.dumps(document)


BOMBS: tuple[Bomb, ...] = (
    *(_nested, _many_atoms, _endless_pulse, _endless_delay, _many_pulses, _many_phase_shifts),
    *(_many_targets, _waveform, _composite, _kaiser, _expression, _variables, _detuning_map),
    *(_huge_layout, _atoms_at_one_place, _names, _many_channels, _bandwidth, _switches, _digits),
    _large_text,
)


def bombs(rng: random.Random, texts: list[str], number: int) -> Iterator[tuple[str, str]]:
    """Iterate over so many bombs of all kinds: kind and text."""
    for k in range(number):
        bomb = BOMBS[k % len(BOMBS)]
        which = 3 if bomb in (_bandwidth, _switches) else 0
        yield bomb.__name__.removeprefix("_"), bomb(rng, json.loads(texts[which]))


def documents(seed: int, mutants: int, explosives: int) -> list[tuple[str, str]]:
    """Return so many mutated documents and bombs: kind and text."""
    rng, texts = random.Random(seed), originals()
    result = [("mutated", mutated(rng, texts)) for _ in range(mutants)]
    return [*result, *bombs(rng, texts, explosives)]
