"""Pulse sequences as tasks, and their results.

A sequence is an object of pulser, or its abstract representation. The client builds it, which
checks it against its device, and sends its text with its sizes; a worker samples it. Sent are thus
some kilobytes that can be read, stored and compared, in place of megabytes of samples. Invariant:
pulser is imported by the first sequence, and only then.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from simenv.client.circuits.observables import load_observables
from simenv.client.connection.session import ServiceSession
from simenv.client.submission import options as submission_options
from simenv.client.submission.calls import CallTask, call_terms, decode_answer, prepare_calls
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.submission.sequence_device import (
    SequenceDevice,
    device_of,
    device_options,
    noise_option,
)
from simenv.client.submission.sequence_steps import evolutions, step_terms
from simenv.errors import OptionError
from simenv.model import Observable, calls as model_calls
from simenv.model.devices import DeviceInfo
from simenv.model.options import CallOptions
from simenv.model.paradigms import annealing_refused, is_annealing_text
from simenv.model.pulse_parts import check_parts
from simenv.model.pulses import (
    EMULATORS,
    OUTPUTS,
    PULSE_ENGINES,
    RYDBERG,
    PulseAnswer,
    PulseCall,
    check_atoms,
    check_pulses,
    check_shots,
    check_text,
    check_times,
    default_trajectories,
    shared_draws,
    words,
)
from simenv.model.task_rules import checked_integer, checked_list
from simenv.transpiler.atoms import check_measured, errors_of_pulser, sizes_of
from simenv.wire import codec
from simenv.wire.messages.explain import Explain, Explanation, NoiseFigure, NoiseUse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.client.result import Result

_OWN = {
    "shots", "seed", "outputs", "engine", "observables", "noise", "options", "parameter_values",
    "binding_index", "evaluation_times", "device", "compile",
}  # fmt: skip
MAX_TRAP = 2**20  # number of a trap of a layout
# Values of a result that have standard errors, and their fields in the answer.
_WITH_ERRORS = {
    "occupation": "occupation", "correlation": "correlation", "energy": "energy",
    "energy_second_moment": "energy", "expectation_at": "expectation",
}  # fmt: skip
_AT_END = ("counts", "memory", "expectation", "statevector")
REFUSED = "the pulse sequence is refused by pulser"
_HINT = "a pulser.Sequence, or the text of its to_abstract_repr()"
_HINT_CHARS = 200  # of the names of variables
_NOISE_HINT = "a pulser.NoiseModel, or the text of its to_abstract_repr()"


class PulseResult:
    """Outcomes of a pulse sequence. Bit strings and observables have the register's first atom as
    their first character; 1 is the state r, h or d of the atom. Values without errors of detection
    are means over the trajectories of the noise. Raises OptionError when data is read that was not
    requested."""

    def __init__(self, value: bytes) -> None:
        """`value`: the value of a task's Result, as in `client.task(id).result().value`."""
        answer = decode_answer(value, PulseAnswer)
        self._answer = answer
        self.shots = answer.shots
        self.seed = answer.seed
        self.atoms = answer.atoms  # names, in the register's order
        self.basis = answer.basis  # ground-rydberg, digital or XY
        self.simulator = answer.simulator  # name and version
        # Estimated bound on 1 - fidelity of the evolution; NaN if the engine states none.
        self.error = answer.error
        self.remark = answer.remark  # about the accuracy, where `error` is NaN
        self.steps = answer.steps
        self.trajectories = answer.trajectories  # draws of the noise, which shots share
        self.duration_ns = answer.duration_ns

    @property
    def warnings(self) -> tuple[str, ...]:
        """What limits the accuracy of counts: shots that share draws of the noise."""
        found = shared_draws(self.shots, self.trajectories)
        return (found,) if found else ()

    @property
    def evaluation_times(self) -> NDArray[np.float64]:
        """Times of all values at times, relative to the duration: float64 [times]. The last one is
        1.0, the end."""
        import numpy as np

        return np.array(self._answer.times)

    @property
    def counts(self) -> dict[str, int]:
        """Number of shots with each bit string at the end, most frequent first."""
        return self.counts_at[-1]

    @property
    def counts_at(self) -> list[dict[str, int]]:
        """Counts at each time, of as many shots."""
        pairs = zip(self._answer.outcomes, self._answer.counts, strict=True)
        result = [self._counted(self._outcomes(one), _numbers(other)) for one, other in pairs]
        return result or self._missing("counts", 'outputs="counts" with shots')

    @property
    def memory(self) -> list[str]:
        """Bit string of each shot at the end."""
        return self.memory_at[-1]

    @property
    def memory_at(self) -> list[list[str]]:
        """Bit string of each shot at each time."""
        outcomes = self._outcomes(self._answer.memory)
        if not outcomes:
            self._missing("the bits of each shot", 'outputs="memory" with shots')
        rows = range(0, len(outcomes), self.shots)
        return [[self._text(each) for each in outcomes[k : k + self.shots]] for k in rows]

    @property
    def statevector(self) -> NDArray[np.complex128]:
        """Amplitudes of the final state: complex128 [2**atoms], the first atom as the highest bit
        of an index; up to a common phase."""
        last: NDArray[np.complex128] = self.statevector_at[-1]
        return last

    @property
    def statevector_at(self) -> NDArray[np.complex128]:
        """Amplitudes at each time: complex128 [times, 2**atoms]."""
        import numpy as np

        if not self._answer.statevector:
            self._missing("the state vector", 'outputs="statevector"')
        return np.frombuffer(self._answer.statevector, "<c16").reshape(len(self._answer.times), -1)

    @property
    def expectation(self) -> NDArray[np.float64]:
        """Expectation values of the observables in the final state, without errors of detection:
        float64 [observables]."""
        last: NDArray[np.float64] = self.expectation_at[-1]
        return last

    @property
    def expectations(self) -> tuple[float, ...]:
        """`expectation` by the name of a circuit's result: one value for each observable."""
        return tuple(self.expectation.tolist())

    @property
    def std_errors(self) -> tuple[float, ...]:
        """Standard error over the trajectories of each of the `expectations`."""
        return tuple(self.standard_error("expectation_at")[-1].tolist())

    @property
    def expectation_at(self) -> NDArray[np.float64]:
        """Expectation values at each time: float64 [times, observables]."""
        return self._table("expectation", 'observables="ZZ"')

    @property
    def occupations(self) -> NDArray[np.float64]:
        """Probability of 1 of each atom at the end, without errors of detection: float64
        [atoms]."""
        last: NDArray[np.float64] = self.occupation[-1]
        return last

    @property
    def occupation(self) -> NDArray[np.float64]:
        """Probability of 1 of each atom at each time: float64 [times, atoms]."""
        return self._table("occupation", "")

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Probability that both atoms of a pair are 1, at each time: float64 [times, atoms, atoms],
        with the occupation on the diagonal."""
        size = len(self.atoms)
        return self._table("correlation", 'outputs="correlation"').reshape(-1, size, size)

    @property
    def energy(self) -> NDArray[np.float64]:
        """Mean of the Hamiltonian without noise at each time, in rad/us: float64 [times]."""
        return self._table("energy", 'outputs="energy"')[:, 0]

    @property
    def energy_second_moment(self) -> NDArray[np.float64]:
        """Mean of the square of the Hamiltonian without noise at each time, in (rad/us)**2: float64
        [times]."""
        return self._table("energy", 'outputs="energy"')[:, 1]

    @property
    def energy_variance(self) -> NDArray[np.float64]:
        """Variance of the energy in the mixture of all trajectories: float64 [times]."""
        return self.energy_second_moment - self.energy**2

    def standard_error(self, name: str) -> NDArray[np.float64]:
        """Standard error over the trajectories of `occupation`, `correlation`, `energy`,
        `energy_second_moment` or `expectation_at`, in the same shape: 0 without noise, NaN for one
        trajectory."""
        import numpy as np

        if name not in _WITH_ERRORS:
            raise OptionError(f"standard errors of {name!r:.80}", hint=", ".join(_WITH_ERRORS))
        values: NDArray[np.float64] = getattr(self, name)
        if not self._answer.standard_errors:
            return np.zeros_like(values)
        table = np.frombuffer(self._answer.standard_errors, "<f8")
        table = table.reshape(len(self._answer.times), -1)
        first = 0
        for field in ("occupation", "correlation", "energy", "expectation"):
            width = len(getattr(self._answer, field)) // (8 * len(table))
            if field == _WITH_ERRORS[name]:
                break
            first += width
        if field == "energy":
            return table[:, first + (name == "energy_second_moment")]
        return table[:, first : first + width].reshape(values.shape)

    def has(self, output: str) -> bool:
        """Return whether an output was requested."""
        return bool(getattr(self._answer, {"counts": "outcomes"}.get(output, output)))

    @property
    def num_outcomes(self) -> int:
        """Number of distinct bit strings at the time with most of them."""
        return max((len(packed) // 8 for packed in self._answer.counts), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as builtins: None for outputs that were not requested, and for those
        ending in `_at` if the end is the only time; [re, im] pairs for amplitudes."""
        answer, names = self._answer, ("occupation", "correlation", "energy")
        has_times = len(answer.times) > 1

        def at_end(name: str) -> Any:
            return _plain(getattr(self, name)) if self.has(name) else None

        def at_times(name: str) -> Any:
            return _plain(getattr(self, f"{name}_at")) if has_times and self.has(name) else None

        errors = [name for name in _WITH_ERRORS if answer.standard_errors]
        return {
            "atoms": list(self.atoms),
            "basis": self.basis,
            "shots": self.shots,
            "seed": self.seed,
            "duration_ns": self.duration_ns,
            "evaluation_times": list(answer.times),
            "occupations": self.occupations.tolist(),
            **{name: at_end(name) for name in _AT_END},
            **{f"{name}_at": at_times(name) for name in _AT_END},
            **{name: at_end(name) for name in names},
            "energy_second_moment": _plain(self.energy_second_moment)
            if self.has("energy")
            else None,
            "standard_errors": {
                name: _plain(self.standard_error(name))
                for name in errors
                if self.has(_WITH_ERRORS[name])
            },
            "error": self.error,
            "remark": self.remark,
            "steps": self.steps,
            "trajectories": self.trajectories,
            "simulator": self.simulator,
        }

    def __repr__(self) -> str:
        error = "" if math.isnan(self.error) else f", 1 - fidelity below {self.error:.1g}"
        return f"<PulseResult: {len(self.atoms)} atoms, {self.shots} shots{error}>"

    def _table(self, name: str, hint: str) -> NDArray[np.float64]:
        import numpy as np

        values = np.frombuffer(getattr(self._answer, name), "<f8")
        if not values.size:
            self._missing(f"values of {name!r}", hint)
        return values.reshape(len(self._answer.times), -1)

    def _counted(self, outcomes: list[int], counts: list[int]) -> dict[str, int]:
        pairs = sorted(zip(outcomes, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
        return {self._text(outcome): count for outcome, count in pairs}

    def _text(self, outcome: int) -> str:
        return format(outcome, f"0{len(self.atoms)}b")

    def _missing(self, what: str, hint: str) -> NoReturn:
        raise OptionError(f"{what} of the sequence were not requested", hint=hint)

    def _outcomes(self, packed: bytes) -> list[int]:
        numbers, size = _numbers(packed), words(len(self.atoms))
        if size == 1:
            return numbers
        rows = (numbers[first : first + size] for first in range(0, len(numbers), size))
        return [functools.reduce(lambda high, low: high << 64 | low, row) for row in rows]


def _plain(value: Any) -> Any:
    """Return arrays as lists, a complex number as [re, im]."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return value
    if np.iscomplexobj(value):
        return np.stack([value.real, value.imag], -1).tolist()
    return value.tolist()


def _numbers(packed: bytes) -> list[int]:
    import numpy as np

    return np.frombuffer(packed, "<u8").tolist()  # type: ignore[no-any-return]


def submit_pulses(
    session: ServiceSession, sequence: Any, options: Mapping[str, Any], devices: SubmitDevices
) -> CallTask:
    """Submit a task that runs a pulse sequence; its result is a PulseResult."""
    info = device_of(options, devices)
    packed = pack_pulses(sequence, options, info)
    return send_pulses(session, [packed], options, info)[0]


def explain_pulses(
    session: ServiceSession,
    packed: bytes,
    options: Mapping[str, Any],
    info: DeviceInfo | None = None,
) -> Explanation:
    """Ask which engine would run a call that was packed with these options, its time and memory,
    and its noise; reads no sequence. Raises OptionError."""
    prepared = _Prepared(options)
    of_device = {**device_options(options, info), **prepared.engine_options}
    terms = call_terms(prepared.engine, prepared.calls, of_device)
    found = session.request(Explain(0, terms, packed, prepared.shots, 1)).explanation
    call = model_calls.decode_call(prepared.engine, packed)
    assert isinstance(call, PulseCall)
    own = NoiseUse(_figures(call.noise)) if call.noise or found.noise is None else found.noise
    if shared := shared_draws(prepared.shots, call.trajectories):
        own = msgspec.structs.replace(own, warnings=(*own.warnings, shared))
    return msgspec.structs.replace(found, noise=own)


def _figures(noise: str) -> tuple[NoiseFigure, ...]:
    """Return the parameters of a NoiseModel that differ from none, of its abstract representation;
    of its own operators the rates."""
    given: dict[str, Any] = msgspec.json.decode(noise) if noise else {}
    figures = {
        name: float(value)
        for name, value in given.items()
        if isinstance(value, int | float) and value and name not in _NO_FIGURES
    }
    for number, (rate, _) in enumerate(given.get("eff_noise", ())):
        figures[f"eff_noise[{number}]"] = float(rate)
    return tuple(NoiseFigure(*each) for each in sorted(figures.items()))


_NO_FIGURES = ("runs", "samples_per_run", "with_leakage")


def submit_pulse_sweep(
    session: ServiceSession,
    sequence: Any,
    values: Any,
    options: Mapping[str, Any],
    devices: SubmitDevices,
) -> list[CallTask]:
    """Submit one task for each binding of the variables of a sequence, all or none. See
    `Client.submit_many`."""
    info = device_of(options, devices)
    return send_pulses(session, pack_pulse_sweep(sequence, values, options, info), options, info)


def pack_pulses(sequence: Any, options: Mapping[str, Any], info: DeviceInfo | None = None) -> bytes:
    """Check a sequence and its options, and return its encoded PulseCall. Reads the sequence with
    pulser: a sequence of another user is packed in a process of its own. `info`: of the device,
    where it is known; else the worker alone finds what the device cannot do."""
    binding = submission_options.checked_binding(options.get("binding_index", 0))
    values = options.get("parameter_values")
    if values is not None and not isinstance(values, Mapping):
        raise OptionError(
            f"parameter_values={values!r:.80} of a pulse sequence",
            hint="a mapping of its variables to values: {'duration': 200}",
        )
    return codec.encode(_Prepared(options, info).call(sequence, values or {}, binding))


def pack_pulse_sweep(
    sequence: Any, values: Any, options: Mapping[str, Any], info: DeviceInfo | None = None
) -> list[bytes]:
    """Return the encoded PulseCall of each binding; as `pack_pulses`."""
    if not isinstance(values, Mapping) or not values:
        hint = "a mapping of its variables to lists of values: {'duration': [100, 200]}"
        raise OptionError(f"values {values!r:.80} of a pulse sequence", hint=hint)
    columns = {
        name: list(column)
        if isinstance(column, Iterable) and not isinstance(column, Mapping | str)
        else [column]
        for name, column in values.items()
    }
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or not max(lengths):
        raise OptionError("variables with different numbers of values", hint="one for each binding")
    prepared = _Prepared(options, info)
    rows = ({name: column[k] for name, column in columns.items()} for k in range(lengths.pop()))
    return [codec.encode(prepared.call(sequence, row, k)) for k, row in enumerate(rows)]


def send_pulses(
    session: ServiceSession,
    packed: list[bytes],
    options: Mapping[str, Any],
    info: DeviceInfo | None = None,
) -> list[CallTask]:
    """Submit packed calls; see `prepare_pulses`."""
    order = prepare_pulses(packed, options, info)
    tasks = send(session, order, options.get("idempotency_key"))
    return [CallTask(task.handle, PulseResult) for task in tasks]


def prepare_pulses(
    packed: list[bytes], options: Mapping[str, Any], info: DeviceInfo | None = None
) -> PreparedSubmit:
    """Check packed calls with the options with which they were packed; reads no sequence. `info`:
    what `device_of` returns."""
    prepared = _Prepared(options)
    seed = submission_options.checked_seed(options.get("seed"), options.get("idempotency_key"))
    return prepare_calls(
        prepared.engine,
        packed,
        prepared.calls,
        seed,
        prepared.shots,
        of_device={**device_options(options, info), **prepared.engine_options},
    )


def pulse_result(result: Result) -> PulseResult | None:
    """Return the outcomes of a pulse sequence in a task's Result; None: it ran something else."""
    if result.engine not in PULSE_ENGINES or not result.has("value"):
        return None
    return PulseResult(result.value)


class _Prepared:
    """Checked options of sequences."""

    def __init__(self, options: Mapping[str, Any], info: DeviceInfo | None = None) -> None:
        submission_options.check_names(options)
        self.calls: CallOptions = {}
        for name, value in options.items():
            if name in CallOptions.__optional_keys__:
                self.calls[name] = value  # type: ignore[literal-required]
            elif name not in _OWN and value != submission_options.DEFAULTS[name]:
                raise OptionError(
                    f"{name}= of a pulse sequence: {value!r:.60}",
                    hint=f"options are {', '.join(sorted(_OWN))} and those of tasks",
                )
        self.engine = options.get("engine", model_calls.AUTO)
        if self.engine not in (model_calls.AUTO, *PULSE_ENGINES):
            hint = f"engine= one of {', '.join(PULSE_ENGINES)}, or none"
            raise OptionError(f"engine {self.engine!r:.80} runs no pulse sequences", hint=hint)
        shots = options.get("shots", submission_options.DEFAULTS["shots"])
        self.shots = submission_options.checked_options({"shots": shots}).shots
        self._observables = options.get("observables")
        self._outputs = self._checked_outputs(options.get("outputs"))
        self._times = _checked_times(options.get("evaluation_times"))
        self._device = SequenceDevice(options, info)
        self._noise = noise_option(options)
        given = _settings(options.get("options"))
        self._settings = {name: given[name] for name in _SETTINGS if name in given}
        others = {name: given[name] for name in given if name not in _SETTINGS}
        self.engine_options = {"options": others} if others else {}
        if "tolerance" in given:  # no other engine has one
            if self.engine in EMULATORS:
                hint = f"engine={RYDBERG!r} has one"
                raise OptionError(f"engine {self.engine!r} has no option 'tolerance'", hint=hint)
            self.engine = RYDBERG

    def _checked_outputs(self, given: Any) -> tuple[str, ...]:
        if given is None:
            outputs: tuple[str, ...] = ("counts",) if self.shots else ()
        else:
            names = [given] if isinstance(given, str) else given
            names = checked_list("outputs", names, "a list of names, or one name")
            outputs = tuple(dict.fromkeys(map(str, names)))
        if not set(outputs) <= set(OUTPUTS):
            hint = f"of: {', '.join(OUTPUTS)}"
            raise OptionError(f"outputs {outputs!r:.200} of a pulse sequence", hint=hint)
        if self._observables is not None and "expectation" not in outputs:
            outputs = (*outputs, "expectation")
        return outputs

    def call(self, sequence: Any, values: Mapping[str, Any], binding: int) -> PulseCall:
        """Return the call of a sequence with values for its variables."""
        settings, device = self._settings, self._device
        modulation = bool(settings["modulation"]) if "modulation" in settings else None
        is_modulated = device.is_named if modulation is None else modulation
        text, built, variables, mapping = _built(sequence, values)
        built = device.placed(built)
        check_atoms(built.register.qubit_ids)
        sizes = sizes_of(built, modulation=is_modulated)
        model = None if device.gives_noise else _noise_of(self._noise, built.device)
        noise = "" if model is None else str(model.to_abstract_repr())
        trajectories = int(settings.get("trajectories", 0))
        if not trajectories and (noise or device.gives_noise):  # the service knows no shots here
            is_own = self.engine in (model_calls.AUTO, RYDBERG)
            trajectories = default_trajectories(self.shots, sizes if is_own else None)
        observables: tuple[Observable, ...] = ()
        if self._observables is not None:
            observables = load_observables(self._observables, sizes.atoms)
        call = PulseCall(
            model_calls.CALL_FORMAT,
            text,
            sizes,
            self._outputs,
            variables,
            binding,
            observables,
            float(settings.get("tolerance", 0.0)),
            modulation,
            noise,
            trajectories,
            self._times,
            mapping,
            device.strict,
        )
        check_pulses(call)
        terms = step_terms(built, modulation=is_modulated)
        call = msgspec.structs.replace(
            call, **terms._asdict(), evolutions=evolutions(model, sizes.atoms, trajectories)
        )
        if device.is_noisy and "statevector" in self._outputs:
            raise OptionError("a noisy sequence has no state vector", hint="noise='off'")
        check_shots(call, self.shots)
        return call


def _checked_times(given: Any) -> tuple[float, ...]:
    """Check relative times; return those before the end."""
    times = () if given is None else _numbers_of("evaluation_times", given)
    times = times[:-1] if times[-1:] == (1.0,) else times
    check_times(times)
    return times


_SETTINGS = ("tolerance", "trajectories", "modulation")  # the service checks those of the engines


def _settings(given: Any) -> dict[str, float]:
    """Check options."""
    values = (
        {}
        if given is None
        else dict(submission_options.checked_options({"options": given}).task.options)
    )
    if values.get("modulation", 0.0) not in (0.0, 1.0):
        hint = "1: the bandwidths of the channels act on the pulses; 0: they do not"
        raise OptionError(f"modulation={values['modulation']!r}", hint=hint)
    if "trajectories" in values:
        checked_integer("trajectories", values["trajectories"], 1, 100_000)  # type: ignore[arg-type]
    return values


def _built(
    sequence: Any, values: Mapping[str, Any]
) -> tuple[str, Any, tuple[tuple[str, tuple[float, ...]], ...], tuple[tuple[str, int], ...]]:
    """Return the text of a sequence, the sequence with values for its variables, these, and the
    trap of each atom of a register that is mapped."""
    _pulser()
    with errors_of_pulser(REFUSED, hint=_HINT):
        if isinstance(sequence, str):
            text, sequence = sequence, read_sequence(sequence)
        else:
            text = sequence.to_abstract_repr()
        is_mapped = sequence.is_register_mappable()
        mapping = _mapping(values.get(_MAPPING)) if is_mapped else ()
        numbers = {
            name: value for name, value in values.items() if not (is_mapped and name == _MAPPING)
        }
        is_open = sequence.is_parametrized()
        if numbers and not is_open:
            names = ", ".join(map(str, numbers))
            raise OptionError(f"the sequence has no variables {names}")
        declared = set(sequence.declared_variables)
        unknown = sorted(set(map(str, numbers)) - declared) if is_open else []
        if unknown:
            hint = f"its variables are {', '.join(sorted(map(str, declared)))}"
            text = f"the sequence has no variables {', '.join(unknown):.80}"
            raise OptionError(text, hint=hint[:_HINT_CHARS])
        missing = sorted(declared - set(numbers)) if is_open else []
        if missing:
            names = ", ".join(map(str, missing))
            hint = "parameter_values= has a value, or a list of them, for each"
            raise OptionError(f"no values of the variables {names:.80}", hint=hint)
        variables = tuple(
            (str(name), _numbers_of(name, each)) for name, each in sorted(numbers.items())
        )
        for name, each in variables:  # of which pulser would take the integer part
            is_int = sequence.declared_variables[name].dtype is int
            if is_int and not all(map(float.is_integer, each)):
                hint = "it was declared with dtype=int"
                raise OptionError(f"{name}={numbers[name]!r:.80}: not a whole number", hint=hint)
        built = sequence
        if is_open:
            check_parts(text, dict(variables))
        if is_open or mapping:
            built = sequence.build(qubits=dict(mapping) or None, **numbers)
        check_measured(built)
    return text, built, variables, mapping


_last_read = threading.local()  # building assigns the variables of a sequence


def read_sequence(text: str) -> Any:
    """Return the pulser.Sequence of a text; the same object for the text that this thread has read
    last, as bindings and jobs share texts, and pulser takes far longer to read one than to build
    it. Raises ProgramError, LimitExceededError, errors of pulser."""
    if getattr(_last_read, "text", None) != text:
        check_text("the pulse sequence", text)
        check_parts(text)
        if is_annealing_text(text):
            raise annealing_refused("a model of dimod")
        sequence = _pulser().Sequence.from_abstract_repr(text)
        _last_read.text, _last_read.sequence = text, sequence
    return _last_read.sequence


_MAPPING = "qubits"  # the name in pulser's Sequence.build


def _mapping(given: Any) -> tuple[tuple[str, int], ...]:
    """Check the trap of each atom."""
    if not isinstance(given, Mapping) or not given:
        hint = "parameter_values={'qubits': {'q0': 3, 'q1': 7}}: the trap of each atom"
        raise OptionError(f"qubits={given!r:.80} of a register that is to be mapped", hint=hint)
    if not all(isinstance(name, str) for name in given):
        raise OptionError("atoms of a pulse sequence have texts as names")
    return tuple((name, checked_integer(name, trap, 0, MAX_TRAP)) for name, trap in given.items())


def _numbers_of(name: str, value: Any) -> tuple[float, ...]:
    many = value if isinstance(value, Iterable) else [value]
    try:
        numbers = tuple(float(each) for each in many)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(f"{name}={value!r:.80}", hint="a number, or a list of them") from error
    if not all(map(math.isfinite, numbers)):
        raise OptionError(f"{name}={value!r:.80}", hint="finite numbers")
    return numbers


def _noise_of(noise: Any, device: Any) -> Any:
    """Return a pulser.NoiseModel with noise; None: none."""
    if isinstance(noise, str) and noise.lstrip()[:1] == "{":
        model = _noise_model(noise)
    elif isinstance(noise, str):
        if noise == "off":
            return None
        if noise not in ("auto", "on"):
            hint = f"auto, on, off, or {_NOISE_HINT}, or a file of that"
            raise OptionError(f"noise={noise[:80]!r} of a pulse sequence", hint=hint)
        model = getattr(device, "noise_model", None)
        if model is None and noise == "on":
            raise OptionError(f"the device {device.name[:80]!r} has no noise model")
    elif isinstance(noise, bytes):
        model = _noise_model(noise)
    elif isinstance(noise, Mapping) and "noise_types" in noise:  # as JSON was decoded
        model = _noise_model(msgspec.json.encode(noise))
    else:
        model = noise
    if model is None:
        return None
    if not hasattr(model, "to_abstract_repr") or not hasattr(model, "noise_types"):
        raise OptionError(f"noise={noise!r:.80} of a pulse sequence", hint=_NOISE_HINT)
    return model if model.noise_types else None


def _noise_model(document: bytes | str) -> Any:
    """Return the NoiseModel of an abstract representation."""
    what = "the noise model"
    with errors_of_pulser(what, OptionError, hint=_NOISE_HINT):
        text = document if isinstance(document, str) else document.decode()
        check_text(what, text)
        return _pulser().NoiseModel.from_abstract_repr(text)


def _pulser() -> Any:
    try:
        import pulser
    except ImportError as error:
        hint = "pip install 'simenv[analog]'"
        raise OptionError("pulse sequences need the package pulser-core", hint=hint) from error
    return pulser
