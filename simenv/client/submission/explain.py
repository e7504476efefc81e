"""The request of `Client.explain`: the service knows the pools, the memory and the engines."""

from __future__ import annotations

from functools import partial
from typing import Any

from simenv.client.connection.session import ServiceSession
from simenv.client.devices.choice import SubmitDevices
from simenv.client.submission.options import SubmitOptions
from simenv.client.submission.prepare import prepare_question
from simenv.wire.messages.queries import Explain, Explained, Explanation


def explain(
    session: ServiceSession, circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> Explanation:
    """Ask which engine would run the circuit. Raises like `submit`, except InfeasibleError."""
    loaded, terms, shots, count = prepare_question(circuit, options, devices)
    question = partial(Explain, terms=terms, program=loaded.packed, shots=shots, count=count)
    return session.request(Explained, question).explanation
