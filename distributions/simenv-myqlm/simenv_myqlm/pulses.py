"""Analog jobs: the Pulser sequence that pulser-myqlm puts into a schedule, and its outcomes.

pulser-myqlm (https://github.com/pasqal-io/Pulser-myQLM, Apache-2.0) writes JSON with the abstract
representation of a sequence beside the Hamiltonian of a schedule. That text is the program; the
Hamiltonian is not read. States have the first atom as their most significant bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from simenv_myqlm.errors import UnsupportedError
from simenv_myqlm.records import PulseJob, Sample

MAX_TEXT_BYTES = 2 * 2**20  # of the JSON; a sequence itself has 1 MiB at most at the gateway
_HINT = "IsingAQPU.convert_sequence_to_job of pulser-myqlm makes a job with its sequence"


def pulse_job(carried: object, shots: int) -> PulseJob:
    """Return the job of what a schedule carries: JSON with `abstr_seq`, and perhaps `modulation`.
    Raises UnsupportedError."""
    if not isinstance(carried, bytes | str) or not carried:
        raise UnsupportedError("the job's schedule carries no Pulser sequence", _HINT)
    if len(carried) > MAX_TEXT_BYTES:
        text = f"the schedule carries {len(carried)} bytes"
        raise UnsupportedError(text, f"at most {MAX_TEXT_BYTES}: a shorter sequence")
    try:
        found = json.loads(carried)
    except (ValueError, RecursionError):
        found = None
    sequence = found.get("abstr_seq") if isinstance(found, dict) else None
    if not isinstance(sequence, str) or not isinstance(found, dict):
        raise UnsupportedError("the job's schedule carries no text of a Pulser sequence", _HINT)
    return PulseJob(sequence, shots, bool(found.get("modulation")))


def asked(job: PulseJob) -> dict[str, Any]:
    """Return the members of a request for a job; without shots it asks for the state."""
    options = {"options": {"modulation": 1}} if job.modulation else {}
    outputs = ["counts"] if job.shots else ["statevector"]
    return {"program": job.sequence, "shots": job.shots or None, "outputs": outputs, **options}


def samples(job: PulseJob, pulses: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield the samples of a result in the order of their states; exact ones with amplitudes."""
    if not job.shots:
        for state, (real, imag) in enumerate(pulses["statevector"]):
            weight = real * real + imag * imag
            if weight > 0.0:
                yield Sample(state, weight, None, complex(real, imag))
        return
    total = sum(pulses["counts"].values())
    for key, count in sorted(pulses["counts"].items()):
        share = count / total
        err = math.sqrt(share * (1 - share) / max(1, total - 1))
        yield Sample(int(key, 2), share, err)
