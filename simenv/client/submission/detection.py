"""Circuits of stim with detectors as tasks: submission, and their results.

They are sampled and decoded by workers of the environment. Invariant: this module does not import
stim; the caller's circuit shows that it is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simenv.client.connection.session import ServiceSession
from simenv.client.submission import options as submission_options
from simenv.client.submission.calls import CallTask, decode_answer, send_calls
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.places import placement
from simenv.errors import OptionError, ProgramError
from simenv.model import calls as model_calls
from simenv.model.calls import DETECTORS
from simenv.model.options import CallOptions, SubmitOptions
from simenv.wire import codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKED_OPERATIONS = 100_000  # with unrolled blocks: the check takes a part of a second
_OWN = {
    *("shots", "seed", "outputs", "engine", "decoder"),
    *("device", "noise", "qubit_mapping", "interconnect", "late_us"),
}


class DetectionResult:
    """Counts of detection events, observable flips and errors of a decoder. Detectors and
    observables have stim's numbers. Raises OptionError when data is read that was not requested."""

    def __init__(self, value: bytes) -> None:
        """`value`: the value of a task's Result, as in `client.task(id).result().value`."""
        answer = decode_answer(value, model_calls.DetectionAnswer)
        self._answer = answer
        self.shots = answer.shots
        self.seed = answer.seed
        self.sampler = answer.sampler  # name and version
        self.decoder = answer.decoder  # name and version; "": samples were not decoded
        self.num_detectors = answer.sizes.detectors
        self.num_observables = answer.sizes.observables

    @property
    def logical_errors(self) -> int:
        """Number of shots in which the decoder predicted an observable wrongly."""
        self._require_decoder()
        return self._answer.errors

    @property
    def logical_error_rate(self) -> float:
        """`logical_errors` divided by the number of shots."""
        return self.logical_errors / self.shots

    @property
    def observable_errors(self) -> NDArray[np.int64]:
        """int64 [observables]: shots in which the observable was predicted wrongly."""
        self._require_decoder()
        return _unpack_numbers(self._answer.observable_errors)

    @property
    def detection_counts(self) -> NDArray[np.int64]:
        """int64 [detectors]: shots in which the detector fired."""
        return _unpack_numbers(self._answer.detections)

    @property
    def detection_rates(self) -> NDArray[np.float64]:
        """float64 [detectors]: fraction of the shots in which the detector fired."""
        return self.detection_counts / self.shots

    @property
    def flip_rates(self) -> NDArray[np.float64]:
        """float64 [observables]: fraction of the shots that flipped it, before any correction."""
        return _unpack_numbers(self._answer.flips) / self.shots

    @property
    def detection_events(self) -> NDArray[np.uint8]:
        """Detection events of each shot, with outputs="memory": uint8 [shots, ceil(detectors / 8)];
        detector d is bit d % 8 of byte d // 8, as stim and PyMatching pack them."""
        return self._rows(self._answer.detection_events, self.num_detectors)

    @property
    def observable_flips(self) -> NDArray[np.uint8]:
        """Observable flips of each shot, packed like `detection_events`: uint8 [shots,
        ceil(observables / 8)]."""
        return self._rows(self._answer.observable_flips, self.num_observables)

    @property
    def predictions(self) -> NDArray[np.uint8]:
        """Observable flips that the decoder predicts, packed like `observable_flips`."""
        self._require_decoder()
        return self._rows(self._answer.predictions, self.num_observables)

    @property
    def device(self) -> str | None:
        """The device whose noise the circuit has; None: it had its noise in it."""
        placed = self._answer.device
        return None if placed is None else placed.record.name

    @property
    def snapshot(self) -> str | None:
        """Digest of the device's calibration, in hexadecimal; None without a device."""
        placed = self._answer.device
        return None if placed is None else placed.record.snapshot

    @property
    def warnings(self) -> tuple[str, ...]:
        """Noise of the device that does not act as its numbers say, or was not measured."""
        placed = self._answer.device
        return () if placed is None else placed.record.warnings

    @property
    def native_gates(self) -> dict[str, int]:
        """Native gates of the device in one shot, by name."""
        return dict(self._placed.record.gates)

    @property
    def mapping(self) -> dict[int, int] | None:
        """The device's qubit of each qubit of the circuit; None: their values were drawn from those
        of the device, see `draw`."""
        placement = self._placed.placement
        places = zip(placement.qubits, placement.places, strict=False)
        return dict(places) if placement.places else None

    @property
    def draw(self) -> int | None:
        """Number of the draw of the values of qubits and pairs; None: a mapping was given."""
        number = self._placed.placement.draw
        return number if number >= 0 else None

    @property
    def shot_ns(self) -> float:
        """Time of one shot on the device, with the reset of its qubits before it."""
        return self._placed.shot_ns

    @property
    def layers(self) -> int:
        """Layers of one shot, from TICK to TICK, that have measurements."""
        return self._placed.layers

    @property
    def layer_ns(self) -> float:
        """Time of the circuit on the device for each of its `layers`, without `late_ns`."""
        return self._placed.layer_ns

    @property
    def late_ns(self) -> float:
        """Idle time of all qubits in each of the `layers` that a TICK ends, for a late decoder."""
        return self._placed.late_ns

    @property
    def _placed(self) -> model_calls.DetectionDevice:
        if self._answer.device is None:
            hint = "device='NAME', with qubit_mapping="
            raise OptionError("the circuit ran with its own noise, on no device", hint=hint)
        return self._answer.device

    def __repr__(self) -> str:
        errors = f", {self.logical_errors} logical errors" if self.decoder else ""
        return (
            f"<DetectionResult: {self.num_detectors} detectors, {self.num_observables}"
            f" observables, {self.shots} shots{errors}>"
        )

    def _require_decoder(self) -> None:
        if not self.decoder:
            raise OptionError("the samples were not decoded", hint='decoder="pymatching"')

    def _rows(self, packed: bytes, width: int) -> NDArray[np.uint8]:
        if not self._answer.detection_events and not self._answer.observable_flips:
            raise OptionError("the bits of each shot were not requested", hint='outputs="memory"')
        import numpy as np

        return np.frombuffer(packed, np.uint8).reshape(self.shots, -(-width // 8))


def submit_detection(
    session: ServiceSession, circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> CallTask:
    """Submit a task that samples a stim.Circuit; its result is a DetectionResult. See
    `Client.submit`."""
    submission_options.check_names(options)
    outputs, calls = _checked(options)
    decoder = options.get("decoder")
    if decoder is not None and not isinstance(decoder, str):
        raise OptionError(f"decoder={decoder!r:.80}", hint="the name of a decoder, or None")
    seed = submission_options.checked_seed(options.get("seed"), options.get("idempotency_key"))
    shots = submission_options.checked_options(
        {"shots": options.get("shots", submission_options.DEFAULTS["shots"])}
    ).shots
    place, of_device = placement(circuit, options, devices)
    text = str(circuit)
    circuit = type(circuit)(text)  # as workers read it: with equal neighbours in one instruction
    call = model_calls.DetectionCall(
        model_calls.CALL_FORMAT,
        text,
        decoder or "",
        "memory" in outputs,
        model_calls.sizes_of(circuit),
        place,
    )
    model_calls.check_detection(call)
    model_calls.check_events(call, shots)
    if decoder and place is None and session.results_of_gateway is None:
        _check_decodable(circuit, decoder, call.sizes.operations)
    return send_calls(
        session,
        DETECTORS,
        [codec.encode(call)],
        DetectionResult,
        calls,
        seed,
        shots,
        of_device=of_device,
    )[0]


def _check_decodable(circuit: Any, decoder: str, operations: int) -> None:
    """Check that a decoder of this distribution takes the errors of a circuit without a device;
    larger circuits, those of a gateway's users and those with a device are checked by the worker.
    Raises ProgramError."""
    if operations > CHECKED_OPERATIONS:
        return
    # By name: the client needs no engine for anything else.
    decoders = importlib.import_module("simulators.stabilizer.decoders")
    if decoder not in {card.name for card in decoders.BUILTIN}:
        return
    try:
        decoders.error_model(decoder, circuit)
    except decoders.Unsupported as error:
        raise ProgramError(error.message, hint=error.hint) from error


def _checked(options: SubmitOptions) -> tuple[tuple[str, ...], CallOptions]:
    """Return the outputs and the options of calls. Raises OptionError for options of other
    circuits."""
    calls: dict[str, Any] = {}
    for name, value in options.items():
        if name in CallOptions.__optional_keys__:
            calls[name] = value
        elif name not in _OWN and not submission_options.is_default(name, value):
            raise OptionError(
                f"{name}= of a circuit of stim: {value!r:.60}",
                hint="its observables are instructions in it; options are shots, seed, decoder,"
                " outputs, device, noise, qubit_mapping and those of tasks",
            )
    engine = options.get("engine", "auto")
    if engine not in ("auto", DETECTORS):
        hint = f"engine={DETECTORS!r}, or none"
        raise OptionError(f"engine {engine!r:.80} samples no detectors", hint=hint)
    outputs = submission_options.checked_options(
        {"outputs": options.get("outputs", "counts")}
    ).task.outputs
    if not set(outputs) <= set(submission_options.SAMPLED):
        hint = f"of: {', '.join(submission_options.SAMPLED)}"
        raise OptionError(f"outputs {outputs} of a circuit of stim", hint=hint)
    return outputs, calls  # type: ignore[return-value]


def _unpack_numbers(packed: bytes) -> NDArray[np.int64]:
    import numpy as np

    return np.frombuffer(packed, "<u8").astype(np.int64)
