"""Payload and result of a Qiskit sampler, both in JSON.

In: {"pubs": [[OpenQASM 3, parameter values or null, shots or null], ...], "shots",
"support_qiskit"}. Out, with `support_qiskit`: the form that Qiskit's own decoder turns into a
PrimitiveResult; else {"results": [{"data": {REGISTER: {"samples": ["0x3", ...], "num_bits"}}}]}.
Samples are in the order of their shots, where the result has that order; else sorted by outcome. At
the same place in the lists of all registers are the samples of one shot.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from simenv.client.results.result import Result
from simenv.errors import OptionError

DEFAULT_SHOTS = 1024
Registers = tuple[tuple[str, int], ...]
Outcomes = Sequence[str]  # of each shot, with keys as in `Result.counts`


_FIELDS = ("pubs", "shots", "options", "version", "support_qiskit")
_DEVICE_OPTIONS = ("noise", "compile", "qubit_mapping")


class Pub(msgspec.Struct, frozen=True):
    """One circuit. `values`: a list of parameter values, or of such lists; or a map from a
    parameter's name to its value, or to a list of values; None: no parameters."""

    text: str
    registers: Registers
    values: Any
    shots: Any  # a submission refuses what is no number

    @property
    def is_sweep(self) -> bool:
        """True if there are several sets of values, with one result that has an axis."""
        rows = self.values.values() if isinstance(self.values, dict) else (self.values or ())[:1]
        return any(isinstance(row, list) for row in rows)

    def fits(self, size_bytes: int) -> bool:
        """Return whether the outcomes of all shots have at most this size; False for a number of
        shots that a submission refuses."""
        rows = 1
        if self.is_sweep:
            swept = self.values.values() if isinstance(self.values, dict) else [self.values]
            rows = max(len(row) for row in swept if isinstance(row, list))
        shot_bytes = (sum(size for _, size in self.registers) + 7) // 8
        return type(self.shots) is int and rows * self.shots * shot_bytes <= size_bytes


class SamplerPayload(msgspec.Struct, frozen=True):
    """Parsed payload."""

    pubs: tuple[Pub, ...]
    for_qiskit: bool
    device_options: Mapping[str, Any] = {}  # noise, compile and qubit_mapping, as for a submit


def read(payload: Any) -> SamplerPayload:
    """Parse a payload with `input` and `program_id`. Raises OptionError with the invalid value."""
    program, text = getattr(payload, "program_id", None), getattr(payload, "input", None)
    if not isinstance(text, str):
        raise OptionError(
            f"a payload of {type(payload).__name__} cannot be run", hint="Payload.QiskitPrimitive"
        )
    if program != "sampler":
        raise OptionError(
            f"program_id={str(program)[:80]!r}: of Qiskit's primitives only the sampler is here",
            hint="expectation values: Client.submit(circuit, observables=...)",
        )
    try:
        settings = json.loads(text)
        default_shots, device_options = _options(settings)
        pubs, shots = settings["pubs"], settings.get("shots") or default_shots
        for_qiskit = bool(settings.get("support_qiskit", False))
        read_pubs = tuple(_pub(pub, shots) for pub in pubs)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise OptionError(
            f"this is not an input of a sampler: {error!r:.200}",
            hint='{"pubs": [[circuit, values, shots]]}',
        ) from error
    if not read_pubs:
        raise OptionError("pubs is empty: there is nothing to run", hint="one circuit at least")
    if for_qiskit and importlib.util.find_spec("qiskit_ibm_runtime") is None:
        raise OptionError(
            "support_qiskit needs qiskit-ibm-runtime, which is not installed",
            hint="pip install 'simenv[ibm]', or support_qiskit=false",
        )
    return SamplerPayload(read_pubs, for_qiskit, device_options)


def _options(payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Read the default number of shots and the device options of `options.simenv`. Raises
    OptionError for a field or an option without an effect here, unless its value is empty; an empty
    `simulator.noise_model` is a request, too: for no noise."""
    unknown = sorted(key for key in payload if key not in _FIELDS)
    if unknown:
        raise OptionError(
            f"the payload has a field {unknown[0]!r:.80}", hint=f"some of: {', '.join(_FIELDS)}"
        )
    options = _table("options", payload.get("options"))
    shots = options.pop("default_shots", None)
    if shots is None:
        shots = DEFAULT_SHOTS
    elif not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
        raise OptionError(f"options: default_shots = {shots!r:.80}", hint="a whole number from 1")
    device_options = _table("options: simenv", options.pop("simenv", None))
    simulator = options.get("simulator")
    if isinstance(simulator, dict) and simulator.get("noise_model") is not None:
        raise OptionError(
            "options: 'simulator.noise_model' is not supported here",
            hint='the noise of a device in "simenv": {"noise": "off"}, a noise model likewise',
        )
    asked = [name for name, value in options.items() if _asks(value)]
    asked += [f"simenv.{name}" for name in device_options if name not in _DEVICE_OPTIONS]
    if asked:
        raise OptionError(
            f"options: {asked[0]!r:.80} is not supported here",
            hint=f"default_shots, and in simenv: {', '.join(_DEVICE_OPTIONS)}",
        )
    return shots, device_options


def _table(name: str, value: Any) -> dict[str, Any]:
    """Return a copy of a table of options; {} for null. Raises OptionError for other types."""
    if value is not None and not isinstance(value, dict):
        raise OptionError(f"{name} = {value!r:.80}", hint='a table: {"simenv": {"noise": "off"}}')
    return dict(value or {})


def _asks(value: Any) -> bool:
    """Return whether an option has a value, itself or inside, other than None and False."""
    if isinstance(value, dict):
        return any(map(_asks, value.values()))
    return value is not None and value is not False


def write(
    work: SamplerPayload,
    outcomes: Sequence[Sequence[Outcomes]],
    metadata: Sequence[Mapping[str, Any]],
) -> str:
    """Write the result. `outcomes`: for each pub, one for each of its sets of values. `metadata`:
    for each pub, in addition to its shots."""
    if work.for_qiskit:
        return _encoded(work, outcomes, metadata)
    results = [
        {"data": _plain(pub.registers, rows), "metadata": {"shots": pub.shots, **more}}
        for pub, rows, more in zip(work.pubs, outcomes, metadata, strict=True)
    ]
    return json.dumps({"results": results, "metadata": {"version": 2}})


def _pub(raw_pub: Any, shots: int) -> Pub:
    from simenv.client.circuits import load

    text, values, own = (*([raw_pub] if isinstance(raw_pub, str) else raw_pub), None, None)[:3]
    text += "\n"  # marks it as text: it is not the path of a file on this host
    return Pub(text, load(text).program.registers, values or None, own or shots)


def outcomes_of(result: Result) -> Outcomes:
    """Outcome of each shot: in the order of the shots, or sorted if the result has counts alone."""
    if result.has("memory"):
        return result.memory_strings()
    return [outcome for outcome, count in sorted(result.counts.items()) for _ in range(count)]


def samples(registers: Registers, outcomes: Outcomes) -> dict[str, list[int]]:
    """Values of each register in each shot; the last register of an outcome is leftmost."""
    values = {outcome: [int(word, 2) for word in outcome.split(" ")] for outcome in set(outcomes)}
    return {
        name: [values[outcome][-1 - place] for outcome in outcomes]
        for place, (name, _) in enumerate(registers)
    }


def _plain(registers: Registers, rows: Sequence[Outcomes]) -> dict[str, Any]:
    each = [samples(registers, row) for row in rows]
    return {
        name: {
            "samples": [hex(sample) for sample in chain.from_iterable(row[name] for row in each)],
            "num_bits": width,
        }
        for name, width in registers
    }


def _encoded(
    work: SamplerPayload,
    outcomes: Sequence[Sequence[Outcomes]],
    metadata: Sequence[Mapping[str, Any]],
) -> str:
    from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
    from qiskit_ibm_runtime import RuntimeEncoder

    results = []
    for pub, rows, more in zip(work.pubs, outcomes, metadata, strict=True):
        each = [samples(pub.registers, row) for row in rows]
        data = {
            name: BitArray.from_samples(
                [sample for row in each for sample in row[name]], width
            ).reshape((len(rows), pub.shots) if pub.is_sweep else (pub.shots,))
            for name, width in pub.registers
        }
        shape = (len(rows),) if pub.is_sweep else ()
        result = DataBin(**data, shape=shape)
        results.append(SamplerPubResult(result, {"shots": pub.shots, **more}))
    return json.dumps(PrimitiveResult(results, {"version": 2}), cls=RuntimeEncoder)
