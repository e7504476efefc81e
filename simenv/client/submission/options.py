"""Conversion of the options of a submission to their form on the wire, with parents (`after`).

Invariant: a `CheckedOptions` holds only values within their limits, and nothing else is sent.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, SupportsIndex, TypeGuard, TypeVar

import msgspec

from simenv.client.submission.noise import OFF, document_of, factors_of
from simenv.client.tasks.task import Task, number_of
from simenv.config import NAME_RULE, application, check_name, nearest
from simenv.errors import OptionError
from simenv.model import MAX_PARENTS, MAX_QUBITS, MAX_SHOTS, Observable, TaskOptions, task_rules
from simenv.model.options import (
    CHECKS,
    OF_PULSES,
    OF_STIM,
    OPTIONS,
    REFUSE,
    Parents,
    Seed,
    Seeds,
    SubmitOptions,
)
from simenv.model.task_rules import MAX_SEED, checked_integer, checked_list
from simenv.text import short_repr


def checked_parents(after: Parents) -> tuple[int, ...]:
    """Return the numbers of the parents, each once; a binding such as `t-8k2f.17` means its task.
    Waits for the acceptance of a posted task. Raises OptionError, NotFoundError, and the refusal of
    a posted task."""
    values = (after,) if isinstance(after, Task | str | int) else after
    if not isinstance(values, Iterable):
        raise OptionError(f"after={after!r:.80}", hint="tasks, or their ids, such as t-8k2f")
    task_numbers: dict[int, None] = {}
    for parent in values:
        if isinstance(parent, bool) or not isinstance(parent, Task | str | int):
            raise OptionError(f"after={parent!r:.80}", hint="tasks, or their ids, such as t-8k2f")
        task_numbers[number_of(parent)] = None
    if len(task_numbers) > MAX_PARENTS:
        hint = f"at most {MAX_PARENTS}: let one task come after a part of them"
        raise OptionError(f"after names {len(task_numbers)} tasks", hint=hint)
    return tuple(task_numbers)


MODES = ("auto", "never", "always", "fresh")  # of `compile`
# Variables with the values of options that are not given.
VARIABLES = {"account": "SIMENV_ACCOUNT", "qos": "SIMENV_QOS"}
_RESERVATION_NUMBER = re.compile(r"[1-9]\d{0,18}\Z", re.ASCII)
RESERVATION = "SIMENV_RESERVATION"  # POOL:NUMBER,... of the batch job of this process
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
SAMPLED = ("counts", "memory")  # outputs from the classical bits of each shot
DRAWN_BITS = 53  # bits of drawn and derived seeds: JSON readers with doubles preserve them


DEFAULTS = {name: option.default for name, option in OPTIONS.items()}
F = TypeVar("F", bound=Callable[..., Any])


def with_options_of(options: type, defaults: Mapping[str, Any] = DEFAULTS) -> Callable[[F], F]:
    """Show these options and their defaults in place of `**options` in `help()` and other tools."""

    def decorate(method: F) -> F:
        shown, types = signature(method), typing.get_type_hints(options)
        own = [each for each in shown.parameters.values() if each.kind is not each.VAR_KEYWORD]
        named = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
            for name, default in defaults.items()
            if name in types
        ]
        method.__signature__ = shown.replace(  # type: ignore[attr-defined]
            parameters=[*own, *named]
        )
        return method

    return decorate


_OF_CIRCUITS = {"seed", "observables", "amplitudes", "parameter_values", "binding_index"}
_SHARED = [  # options whose checked values are cached
    name
    for name in DEFAULTS
    if name not in (*_OF_CIRCUITS, *OF_STIM, *OF_PULSES, "after", "idempotency_key", "trace")
]


def is_default(name: str, value: object) -> bool:
    """Return whether a value is the default of an option; arrays are none."""
    default = DEFAULTS[name]
    return value is default or (isinstance(value, type(default)) and bool(value == default))


def check_names(options: Mapping[str, Any], of: type = SubmitOptions) -> None:
    """Check that all options are of this type. Raises TypeError."""
    if not of.__optional_keys__.issuperset(options):  # type: ignore[attr-defined]
        raise TypeError(no_option(options, of.__optional_keys__))  # type: ignore[attr-defined]


def no_option(options: Iterable[str], of: Iterable[str]) -> str:
    """Describe the options that are not `of` these, with the most similar one, or with all."""
    known = sorted(of)
    unknown = sorted(set(options).difference(known))
    return f"there is no option {', '.join(unknown)}; {nearest(unknown[0], known)}"


class CheckedOptions(msgspec.Struct, frozen=True):
    """Options within their limits. `shots` 0: exact; `task`: with the requested outputs.

    `document`: a noise document that is not stored yet; `compile`: one of MODES; `mapping`: the
    device's qubit of each qubit of the circuit, (): any; `partition`: the module of each, (): any;
    `fractional_gates`: a compilation may have them; `named`: True if the options may name a device,
    directly or by a pool, or need one.
    """

    shots: int
    task: TaskOptions
    document: bytes = b""
    compile: str = "auto"
    mapping: tuple[int, ...] = ()
    partition: tuple[str, ...] = ()
    fractional_gates: bool = False
    named: bool = False

    def outputs(self, measures: bool, observed: bool) -> tuple[str, ...]:
        """Return the outputs of circuits that measure something (`measures`) or nothing.
        Observables imply `expectation`; the default `counts` then stays only if counts are
        possible, as with amplitudes. Raises OptionError when counts are requested of an exact
        run."""
        outputs = self.task.outputs
        if (observed or "amplitudes" in outputs) and not (measures and self.shots):
            outputs = tuple(output for output in outputs if output != "counts")
        if observed:
            if "expectation" not in outputs:
                outputs = (*outputs, "expectation")
        elif "expectation" in outputs or "gradient" in outputs:
            hint = 'observables="ZZ", for example'
            raise OptionError("expectation values of nothing were asked for", hint=hint)
        if "gradient" in outputs and self.shots:
            hint = "shots=None: gradients are exact"
            raise OptionError(f"a gradient was asked for with shots={self.shots}", hint=hint)
        sampled = [output for output in outputs if output in SAMPLED]
        if sampled and not self.shots:
            raise task_rules.without_shots(sampled[0])
        return outputs

    def task_options(
        self, measures: bool, observables: tuple[Observable, ...] | None
    ) -> TaskOptions:
        """Return the options that are sent with circuits. `observables` None: no observables."""
        outputs = self.outputs(measures, observables is not None)
        ranks = self.task.ranks or int("gradient" in outputs)  # gradients run in one rank
        own = {"app": application() if "SIMENV_APP" in os.environ else "", "ranks": ranks}
        observables = observables or ()
        return msgspec.structs.replace(self.task, outputs=outputs, observables=observables, **own)


def checked_trace(trace: object) -> str:
    """Return the trace that a submission continues: the given one ("": none), else TRACEPARENT,
    which is ignored if it is malformed, as the standard demands. Raises OptionError."""
    if trace is None:
        named = os.environ.get("TRACEPARENT", "")
        return named if is_traceparent(named) else ""
    if trace == "":
        return ""
    if not (isinstance(trace, str) and is_traceparent(trace)):
        raise OptionError(
            option="trace", value=trace, expected="a W3C traceparent: 00-TRACE-SPAN-01"
        )
    return trace


def is_traceparent(text: str) -> bool:
    """Return whether a text is a traceparent of W3C Trace Context, version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def with_job_reservation(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of circuits with the reservation that SIMENV_RESERVATION has for them, see
    `under_reservation`. Raises OptionError for a variable of another form."""
    named = os.environ.get(RESERVATION)
    return under_reservation(options, _job_reservations(named)) if named else options


def under_reservation(options: Mapping[str, Any], numbers: Mapping[str, int]) -> Mapping[str, Any]:
    """Return the options of circuits with the reservation of their pool; without a pool, the first
    one and its pool. Options that name a reservation, a device or preferences stay as they are.
    `numbers`: of reservations, by pool; at least one."""
    if any(options.get(each) is not None for each in ("reservation", "prefer", "device")):
        return options
    pool = options.get("pool") or next(iter(numbers))
    return {**options, "pool": pool, "reservation": numbers[pool]} if pool in numbers else options


@functools.lru_cache(maxsize=4)
def _job_reservations(named: str) -> dict[str, int]:
    """Parse SIMENV_RESERVATION: numbers by pool."""
    numbers = {}
    for word in named.split(","):
        pool, _, number = word.partition(":")
        if not _RESERVATION_NUMBER.match(number):
            hint = "POOL:NUMBER,... as `simenv slurm env` prints it"
            raise OptionError(f"{RESERVATION}={named[:80]!r}", hint=hint)
        numbers[check_name(pool, f"{RESERVATION}: the pool's")] = int(number)
    return numbers


def checked_options(options: Mapping[str, Any]) -> CheckedOptions:
    """Check the options that all tasks of a call share. Raises OptionError with the option, its
    value and the allowed values; TypeError for an unknown name."""
    check_names(options)
    inputs: dict[str, Any] = {**DEFAULTS, **options}
    values = {name: inputs[name] for name in _SHARED}
    prefer, reservation = values["prefer"], values["reservation"]
    for option in ("outputs", "prefer"):
        if not isinstance(values[option], str | tuple | None):
            values[option] = checked_list(option, values[option], "a list of names, or one name")
    if reservation is not None:
        values["reservation"] = getattr(reservation, "id", reservation)
        values["pool"] = values["pool"] or (None if prefer else getattr(reservation, "pool", None))
    for option, variable in VARIABLES.items():
        if values[option] is None and (named := os.environ.get(variable)):
            values[option] = check_name(named, f"{variable}: the {option}'s")
    noise = values["noise"]
    if not isinstance(noise, str) or noise != "auto":  # comparison with an array raises
        values["noise"] = document_of(noise) or factors_of(noise)
    if values["qubit_mapping"] is not None:
        expected = "a list with the device's qubit of each qubit of the circuit, such as [5, 4, 3]"
        values["qubit_mapping"] = checked_list("qubit_mapping", values["qubit_mapping"], expected)
        if not values["qubit_mapping"]:
            hint = f"{expected}; without it: any"
            raise OptionError("qubit_mapping is empty", hint=hint, option="qubit_mapping")
    if not isinstance(values["partition"], str):
        expected = "auto, or a list with the module of each qubit of the circuit"
        values["partition"] = checked_list("partition", values["partition"], expected)
    if values["options"] is not None:
        values["options"] = task_rules.checked_engine_options(values["options"])
    key = values.values()  # in the order of _SHARED
    try:
        checked = _checked(*key)
    except TypeError:  # an unhashable value cannot be cached
        checked = _checked.__wrapped__(*key)
    task = checked.task
    if options.get("amplitudes") is not None and "amplitudes" not in task.outputs:
        task = msgspec.structs.replace(task, outputs=(*task.outputs, "amplitudes"))
    if trace := checked_trace(options.get("trace")):
        task = msgspec.structs.replace(task, trace=trace)
    if (after := options.get("after")) is not None:
        task = msgspec.structs.replace(task, after=checked_parents(after))
    return checked if task is checked.task else msgspec.structs.replace(checked, task=task)


@functools.lru_cache(maxsize=64, typed=True)  # a loop of submissions has the same options
def _checked(*values: Any) -> CheckedOptions:
    """Check the values of the options in _SHARED, in that order."""
    inputs = dict(zip(_SHARED, values, strict=True))
    pool, name, reservation = inputs["pool"], inputs["name"], inputs["reservation"]
    device, noise, mode = inputs["device"], inputs["noise"], inputs["compile"]
    document = noise if isinstance(noise, bytes) else b""
    if mode not in MODES:
        raise OptionError(option="compile", value=mode, expected=f"one of: {', '.join(MODES)}")
    shots = _shots(inputs["shots"])
    inputs["prefer"] = _preferred(inputs["prefer"], pool, device)
    checked = {
        each: check(inputs[each])
        for each, check in CHECKS.items()
        if inputs[each] is not DEFAULTS[each]
    }
    task = TaskOptions(
        **checked,
        engine=_name("engine", inputs["engine"]),
        pool=_name("pool", pool) if pool else "",
        name=_name("name", name) if name else "",
        account="" if inputs["account"] is None else _name("account", inputs["account"]),
        qos="" if inputs["qos"] is None else _name("qos", inputs["qos"]),
        reservation=0
        if reservation is None
        else checked_integer("reservation", reservation, 1, task_rules.MAX_RESERVATION),
        device="" if device is None else _device_name(device),
        noise=() if noise == "auto" or document else noise,
        stale=REFUSE if mode == "fresh" else "",
    )
    mapping = tuple(
        checked_integer("qubit_mapping", qubit, 0, MAX_QUBITS)
        for qubit in inputs["qubit_mapping"] or ()
    )
    if len(set(mapping)) < len(mapping):
        hint = "each qubit of the device once"
        raise OptionError(option="qubit_mapping", value=mapping, expected=hint)
    partition, fractional = _partition(inputs["partition"]), inputs["fractional_gates"]
    if not isinstance(fractional, bool):
        raise OptionError(option="fractional_gates", value=fractional, expected="True or False")
    is_placed = bool(task.device or task.pool or task.prefer)
    if not is_placed and task.noise == OFF:
        task = msgspec.structs.replace(task, noise=())
    needs = bool(document or task.noise or mapping or partition or fractional)
    named = is_placed or needs or mode != "auto"
    return CheckedOptions(shots, task, document, mode, mapping, partition, fractional, named)


def _partition(given: Sequence[Any]) -> tuple[str, ...]:
    """Return the module of each qubit; (): the compiler's choice. Raises OptionError."""
    if given == "auto":
        return ()
    if isinstance(given, str):
        given = given.split(",")
    if not given or not all(isinstance(name, str) and 0 < len(name) <= 64 for name in given):
        hint = "auto, or the module of each qubit of the circuit"
        raise OptionError(option="partition", value=short_repr(given), expected=hint)
    return tuple(given)


def checked_seed(seed: Seed | None, idempotency_key: str | None) -> int:
    """Check the given seed, or draw one; a seed drawn for an idempotency key is always the same."""
    if seed is not None:
        return checked_integer("seed", seed, 0, MAX_SEED)
    if idempotency_key is not None:
        return _cut(hashlib.blake2b(idempotency_key.encode(), digest_size=8).digest())
    return _cut(os.urandom(8))


def checked_binding(binding_index: SupportsIndex) -> int:
    """Check the index of a binding in its sweep. Raises OptionError."""
    return checked_integer("binding_index", binding_index, 0, task_rules.MAX_BINDING)


def item_seeds(seed: Seeds, count: int, idempotency_key: str | None) -> list[int]:
    """Return a seed for each circuit: those given, or derived from (seed, k) by BLAKE2b."""
    if isinstance(seed, Sequence) or hasattr(seed, "__len__"):
        return _seed_list(seed, count)
    first = checked_seed(seed, idempotency_key)
    begun = hashlib.blake2b(first.to_bytes(8, "little"), digest_size=8)  # common prefix
    copy, read, shift = begun.copy, int.from_bytes, 64 - DRAWN_BITS
    seeds: list[int] = []
    for k in range(count):
        full = copy()
        full.update(k.to_bytes(8, "little"))
        seeds.append(read(full.digest(), "little") >> shift)  # as `_cut`, whose call takes a fifth
    return seeds


def sweep_seeds(seed: Seeds, count: int, idempotency_key: str | None) -> list[int]:
    """Return one seed for each binding of a sweep: those given, or one for all. Bindings with one
    seed differ in their index, which is a part of the random key."""
    if is_single_seed(seed):
        return [checked_seed(seed, idempotency_key)] * count
    return _seed_list(seed, count)


def is_single_seed(seed: Seeds) -> TypeGuard[Seed | None]:
    """Return whether one seed is given for all tasks."""
    return not (isinstance(seed, Sequence) or hasattr(seed, "__len__"))


def _seed_list(seeds: Any, count: int) -> list[int]:
    if len(seeds) != count:
        raise OptionError(f"{len(seeds)} seeds for {count} tasks", hint="one each, or one for all")
    return [checked_integer(f"seed[{k}]", seed, 0, MAX_SEED) for k, seed in enumerate(seeds)]


def _cut(digest: bytes) -> int:
    return int.from_bytes(digest, "little") >> (64 - DRAWN_BITS)


def _shots(shots: SupportsIndex | float | None) -> int:
    """Check the shots; None and 0 are exact. Accepts a float that is a whole number, as 1e6."""
    if shots is None:
        return 0
    if isinstance(shots, float) and shots.is_integer():
        shots = int(shots)
    return checked_integer("shots", shots, 0, MAX_SHOTS, "None or 0: exact")  # type: ignore[arg-type]


def _preferred(
    prefer: tuple[str, ...] | str | None, pool: str | None, device: str | None
) -> tuple[str, ...]:
    """Check pools or kinds of devices, in order of preference. They exclude a pool and a device."""
    names = (prefer,) if isinstance(prefer, str) else prefer or ()
    if names and device:
        raise OptionError(
            f"prefer cannot be combined with device={device!r:.80}",
            hint="a device leaves no choice",
            option="prefer",
        )
    if names and pool:
        raise OptionError(
            f"prefer cannot be combined with pool={pool!r:.80}",
            hint="a pool leaves no choice",
            option="prefer",
        )
    return tuple(_name("prefer", name) for name in names)


def _device_name(value: object) -> str:
    """Check the name of a device, which is not always in lower case: `FakeFez` is one of fez."""
    _name("device", value.lower() if isinstance(value, str) else value)
    return str(value)


def _name(name: str, value: object) -> str:
    if not isinstance(value, str) or not NAME_RULE.match(value):
        hint = "a-z, then up to 63 of a-z 0-9 _ . -"
        raise OptionError(option=name, value=str(value), expected=hint)
    return value
