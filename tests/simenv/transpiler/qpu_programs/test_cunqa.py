"""Circuits of CUNQA: its published examples on linked devices, and refusals by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cunqa_examples as examples
import pytest
from linked_devices import PERFECT, install_linked

from simenv import QPUProgram
from simenv.client.client import Client
from simenv.errors import ProgramError

SHOTS = 200
Shot = dict[str, str]  # bits of each circuit, bit 0 rightmost


def joined_memory(client: Client, device: str, infos: list[examples.Info]) -> list[Shot]:
    programs = QPUProgram.from_cunqa(*(json.dumps(each) for each in infos))
    joined = client.join(programs, device)
    result = client.run(
        joined.circuit, device=device, shots=SHOTS, seed=3, outputs=("counts", "memory")
    )
    own = joined.memory(result)
    return [dict(zip(own, shot, strict=True)) for shot in zip(*own.values(), strict=True)]


def _cyclic(shot: Shot) -> bool:
    return all(shot[str(k)][1] == shot[str((k - 1) % 3)][0] for k in range(3))


def _phase_by_circuits(shot: Shot) -> bool:
    bits = [shot[f"cc_{k}"][1] for k in range(4)]
    return sum(int(bit) / 2 ** (3 - k) for k, bit in enumerate(bits)) == examples.PHASE


def _phase(shot: Shot) -> bool:
    return sum(int(b) / 2 ** (3 - k) for k, b in enumerate(shot["ancilla"])) == examples.PHASE


def _conditions(shot: Shot) -> bool:
    return shot["only"] == "11001"


EXAMPLES: dict[Callable[[], list[examples.Info]], tuple[Callable[[Shot], bool], int]] = {
    # example: what each shot of it shows, number of different outcomes
    examples.send_recv: (lambda shot: shot["1"][1] == shot["2"], 2),
    examples.cyclic: (_cyclic, 8),
    examples.iterative_phase_estimation: (_phase_by_circuits, 1),
    examples.teledata: (lambda shot: shot["Second"] in ("00", "11"), 2),
    examples.telegate: (lambda shot: shot["First"] == shot["Second"], 2),
    examples.phase_estimation: (_phase, 1),
    examples.qubits_and_bits: (
        lambda s: s["Second"][1:] in ("00", "11") and s["Second"][0] == s["First"][0]
        and s["First"][1] == "0", 4,
    ),
    examples.several_communication_qubits: (
        lambda s: s["Second"][1:] in ("00", "11") and s["Second"][0] == s["First"][0], 4,
    ),
    examples.several_controls: (
        lambda s: (s["First"] == "11") == (s["Second"] == "1"), 4,
    ),
    examples.conditions: (_conditions, 1),
}  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.__name__)
def test_published_examples_give_what_they_say(
    env: Client, example: Callable[[], list[examples.Info]]
) -> None:
    infos = example()
    modules = dict.fromkeys("abcd"[: max(2, len(infos))], PERFECT)
    several = example in (examples.several_communication_qubits, examples.several_controls)
    device = install_linked(f"cunqa-{len(modules)}-{1 + several}", modules, 1 + several)
    holds, outcomes = EXAMPLES[example]
    shots = joined_memory(env, device, infos)
    assert all(map(holds, shots))
    assert len({tuple(shot.items()) for shot in shots}) == outcomes


def test_published_telegate_has_the_noise_of_a_bundled_device(env: Client) -> None:
    modules = dict.fromkeys("ab", "superconducting-lattice")
    device = install_linked("cunqa-noisy", modules, links=1, fidelity=0.95)
    shots = joined_memory(env, device, examples.telegate())
    wrong = sum(shot["First"] != shot["Second"] for shot in shots) / SHOTS
    assert 0.01 < wrong < 0.2  # 0.033 by the pair alone, and readout, gates and idle times


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instructions": [examples.gate("sqrtswap", 0, 1)]}, "A, instruction 0: the gate 'sqrts"),
        ({"instructions": [{"name": "rx", "qubits": [0], "params": ["a"]}]}, "the parameter 'a'"),
        ({"instructions": [examples.gate("cx", 0)]}, "A, instruction 0: cx"),
        ({"instructions": [examples.gate("h", 7)]}, "A, instruction 0: h"),
        ({"instructions": [examples.gate("cx", -1, 0)]}, "A, instruction 0: cx"),
        ({"instructions": [examples.controlled("B")]}, "rcontrol by B, which exposes nothing"),
        ({"instructions": [{"name": "send", "clbits": [0]}]}, "send to 0 circuits"),
        ({"instructions": [examples.cif([0], operation="nor")]}, "cif by 'nor'"),
        ({"instructions": [{"name": "mcx", "qubits": [0, 1], "states": [0]}]}, "with states"),
        ({"num_qubits": 0}, "no circuit of CUNQA: .*num_qubits"),
        ({"num_qubits": 10**9}, "no circuit of CUNQA: .*num_qubits"),
        ({"id": ""}, "no circuit of CUNQA: .*id"),
        ({"id": 3}, "no circuit of CUNQA: .*id"),
        ({"classical_registers": {"c0": [1, 0]}}, "A: classical_registers"),
        ({"instructions": [{"qubits": [0]}]}, "no circuit of CUNQA: .*name"),
    ],
)
def test_other_circuits_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    info = examples.circuit("A", 2, 2) | change
    with pytest.raises(ProgramError, match=message):
        QPUProgram.from_cunqa(info)


def test_objects_dicts_and_json_of_a_circuit_are_the_same() -> None:
    info = examples.telegate()[0] | {"device": "ignored"}
    forms = (SimpleNamespace(info=info), info, json.dumps(info), json.dumps(info).encode())
    first, *others = (QPUProgram.from_cunqa(each)[0] for each in forms)
    assert all(first == other for other in others)
    with pytest.raises(ProgramError, match="no circuit of CUNQA"):
        QPUProgram.from_cunqa("[" * 10_000)
