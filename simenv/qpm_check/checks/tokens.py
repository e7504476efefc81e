"""Tokens: who shows a wrong one is turned away, and nobody is shown one that was sent.

A plugin asks for a token or does not; the kit knows of one where its author has told it.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from simenv.qpm_check.contract.outcomes import expect
from simenv.qpm_check.harness.check import Irrelevant, row
from simenv.qpm_check.harness.session import CheckSession

EVENT = "completion"
# One call of each binding that changes nothing; of `execution` one more, which would.
_CALLS: dict[str, dict[str, Any]] = {
    "task_status": {"cid": "a-cid"},
    "evaluate": {"request": {}},
    "get_admission_policy": {},
    "get_scheduler_status": {},
    "get_device_info": {},
    "is_ready": {},
}


@row("token.refused", "where a token is asked for, a wrong one and none are refused")
def refused(bench: CheckSession) -> None:
    right = _told(bench)
    if not right:
        raise Irrelevant("no token was told: this QPM asks for none, or --token-file names it")
    calls = {**_CALLS, "async_run": {"info": bench.info(), **bench.under}}
    for wrong in (f"{right}x", right[:-1], secrets.token_hex(8), None):
        for name, given in calls.items():
            call = partial(getattr(bench.q, name), token=wrong, **given)
            bench.refuses(f"{name} with {'another' if wrong else 'no'} token", call)


@row("token.hidden", "a token that was sent is in no answer, no error and no event")
def hidden(bench: CheckSession) -> None:
    right = _told(bench)
    for sent in filter(None, (right, f"kit-{secrets.token_hex(12)}")):
        places = [place for place, text in _all_that_is_told(bench, sent).items() if sent in text]
        expect(not places, f"the token is shown by {', '.join(places[:5])}")


def _all_that_is_told(bench: CheckSession, sent: str) -> dict[str, str]:
    """What is heard by one who sends that token with each call, as texts."""
    told: dict[str, str] = {}

    def ask(name: str, **given: Any) -> Any:
        answer = bench.answers(name, partial(getattr(bench.q, name), token=sent, **given))
        told[name] = f"{answer!r} {answer}"
        return answer if isinstance(answer, dict) else {}

    for name, given in _CALLS.items():
        ask(name, **given)
    number = ask("reserve", request={"num_shots": 100}).get("reservation_id")
    if type(number) is not int:
        return told
    under = {"reservation_id": number}
    ear = bench.ear()
    listening = bench.answers("register", lambda: ear.register(EVENT, token=sent, **under))
    told["register_event_notification"] = repr(listening)
    accepted = ask("async_run", info={**bench.info(), "token": sent}, **under)
    if isinstance(accepted.get("cid"), str):
        cid, task = accepted["cid"], accepted["qtask_id"]
        told["an event"] = repr(ear.taken())
        ask("get_task_metadata", task_id=task, **under)
        ask("get_scheduler_queue_state", include_restricted=True)
        ask("read_cq", cid=cid, **under)
    ask("get_reservation", **under)
    ask("list_reservations")
    ask("release", **under)
    ask("get_service_lifecycle_telemetry")
    return told


def _told(bench: CheckSession) -> str:
    """The token that the kit's own calls carry; "": none."""
    return str(getattr(bench.target, "token", ""))
