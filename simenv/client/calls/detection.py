"""Circuits of stim with detectors: workers of the environment sample and decode them.

Invariant: this module does not import stim; the caller's circuit shows that it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simenv.client.calls.tasks import CallTask, decode_answer, send_calls
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.options import (
    DEFAULTS,
    SAMPLED,
    CallOptions,
    SubmitOptions,
    check_names,
    checked_options,
    checked_seed,
)
from simenv.errors import OptionError
from simenv.model.calls import CALL_FORMAT
from simenv.model.detection import (
    DECODERS,
    DETECTORS,
    DetectionAnswer,
    DetectionCall,
    check_detection,
    check_events,
    sizes_of,
)
from simenv.wire import codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OWN = {"shots", "seed", "outputs", "engine", "decoder"}


class DetectionResult:
    """Counts of detection events, observable flips and errors of a decoder.

    Detectors and observables have stim's numbers. Raises OptionError when data is read that was not
    requested.
    """

    def __init__(self, value: bytes) -> None:
        """`value`: the value of a task's Result, as in `client.task(id).result().value`."""
        answer = decode_answer(value, DetectionAnswer)
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


def submit_detection(session: ServiceSession, circuit: Any, options: SubmitOptions) -> CallTask:
    """Submit a task that samples a stim.Circuit; its result is a DetectionResult. See
    `Client.submit`."""
    check_names(options)
    outputs, calls = _checked(options)
    decoder = options.get("decoder")
    if decoder is not None and decoder not in DECODERS[1:]:
        raise OptionError(f"decoder={decoder!r:.80}", hint=f"one of: {', '.join(DECODERS[1:])}")
    seed = checked_seed(options.get("seed"), options.get("idempotency_key"))
    call = DetectionCall(
        CALL_FORMAT, str(circuit), decoder or "", "memory" in outputs, sizes_of(circuit)
    )
    shots = checked_options({"shots": options.get("shots", DEFAULTS["shots"])}).shots
    check_detection(call)
    check_events(call, shots)
    packed = codec.encode(call)
    return send_calls(session, DETECTORS, [packed], DetectionResult, calls, seed, shots)[0]


def _checked(options: SubmitOptions) -> tuple[tuple[str, ...], CallOptions]:
    """Return the outputs and the options of calls. Raises OptionError for options of other
    circuits."""
    calls: dict[str, Any] = {}
    for name, value in options.items():
        if name in CallOptions.__optional_keys__:
            calls[name] = value
        elif name not in _OWN and not _is_default(value, DEFAULTS[name]):
            raise OptionError(
                f"{name}= of a circuit of stim: {value!r:.60}",
                hint="its noise and observables are instructions in it; options are shots, seed,"
                " decoder, outputs and those of tasks",
            )
    engine = options.get("engine", "auto")
    if engine not in ("auto", DETECTORS):
        raise OptionError(
            f"engine {engine!r:.80} samples no detectors", hint=f"engine={DETECTORS!r}, or none"
        )
    outputs = checked_options({"outputs": options.get("outputs", "counts")}).task.outputs
    if not set(outputs) <= set(SAMPLED):
        raise OptionError(
            f"outputs {outputs} of a circuit of stim", hint=f"of: {', '.join(SAMPLED)}"
        )
    return outputs, calls  # type: ignore[return-value]


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, type(default)) and bool(value == default))


def _unpack_numbers(packed: bytes) -> NDArray[np.int64]:
    import numpy as np

    return np.frombuffer(packed, "<u8").astype(np.int64)
