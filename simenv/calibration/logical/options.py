"""Options of a logical device, and their limits."""

from __future__ import annotations

import msgspec

from simenv.calibration.logical.surface_code import MAX_DISTANCE
from simenv.client.submission.places import INTERCONNECTS_US
from simenv.errors import OptionError

CODES = ("surface",)
CX = ("transversal", "surgery")
PLACEMENTS = ("auto", "chip", "drawn")
MAX_QUBITS = 1_000
SEQUENTIAL = "pymatching-sequential"
# Decoders that need errors which flip two detectors at most: those of CX flip more.
_OF_TWO_DETECTORS = ("pymatching", "pymatching-correlated")
_LIMITS: dict[str, tuple[float, float]] = {
    "distance": (3, MAX_DISTANCE), "qubits": (1, MAX_QUBITS), "shots": (100, 10**9),
    "seed": (0, 2**31), "deadline_us": (0.0, 1e6), "t_error": (0.0, 0.5), "t_rounds": (0, 10**6),
}  # fmt: skip


class EncodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Code, decoder and experiments of a logical device. Raises OptionError for a value that is not
    allowed."""

    code: str = "surface"
    distance: int = 3
    decoder: str = SEQUENTIAL
    gate_decoder: str = ""  # of CX; "": `gates_decoded_by`
    qubits: int = 2
    shots: int = 50_000  # of each experiment
    seed: int = 0  # of the experiments, and of values that are drawn
    deadline_us: float = 0.0  # latency of the decoder, for which feed-forward and T gates wait
    interconnect: str = ""  # place of the decoder, instead of `deadline_us`: of INTERCONNECTS_US
    # `chip`: every patch on the chip. `drawn`: none. `auto`: those for which there is a place.
    placement: str = "auto"
    # `transversal`: one round, sampled. `surgery`: 2 d rounds with the errors of memories.
    cx: str = "transversal"
    t_error: float = 1e-4  # error of Z of a magic state: an assumption, not sampled
    t_rounds: int = 0  # rounds of a T gate; 0: 5 d, an assumption

    def __post_init__(self) -> None:
        for field, choices in (("code", CODES), ("cx", CX), ("placement", PLACEMENTS)):
            if getattr(self, field) not in choices:
                text = f"{field}={getattr(self, field)!r:.60}"
                raise OptionError(text, hint=f"one of: {', '.join(choices)}")
        for field, (least, most) in _LIMITS.items():
            value = getattr(self, field)
            if not least <= value <= most:  # NaN too
                hint = f"from {least:g} to {most:g}"
                raise OptionError(f"{field}={value!r:.60}", hint=hint)
        if self.distance % 2 == 0:
            raise OptionError(
                f"distance={self.distance}: a rotated surface code corrects no more errors than"
                f" that of distance {self.distance - 1}",
                hint=f"an odd distance, such as {self.distance + 1}",
            )
        if self.interconnect and self.interconnect not in INTERCONNECTS_US:
            levels = ", ".join(f"{name} ({us:g} us)" for name, us in INTERCONNECTS_US.items())
            text = f"interconnect={self.interconnect!r:.60}"
            raise OptionError(text, hint=f"one of: {levels}")
        if self.interconnect and self.deadline_us:
            hint = "one of them: deadline_us is the latency itself"
            raise OptionError("interconnect= and deadline_us= together", hint=hint)
        if not self.decoder:
            hint = "pymatching, or another decoder of the workers"
            raise OptionError("decoder='': logical errors are those of a decoder", hint=hint)

    @property
    def latency_us(self) -> float:
        """Time from the end of a round to the decoder's answer."""
        return INTERCONNECTS_US[self.interconnect] if self.interconnect else self.deadline_us

    @property
    def gates_decoded_by(self) -> str:
        """Decoder of the experiments with CX."""
        default = SEQUENTIAL if self.decoder in _OF_TWO_DETECTORS else self.decoder
        return self.gate_decoder or default
