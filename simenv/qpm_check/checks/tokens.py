"""Checks of tokens: a wrong token is refused, and no answer contains a token.

Whether a plugin requires a token is known only if its author has named one.
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
def refused(session: CheckSession) -> None:
    right = _told(session)
    if not right:
        raise Irrelevant("no token was told: this QPM asks for none, or --token-file names it")
    calls = {**_CALLS, "async_run": {"info": session.info(), **session.reservation_kwargs}}
    for wrong in (f"{right}x", right[:-1], secrets.token_hex(8), None):
        for name, values in calls.items():
            call = partial(getattr(session.q, name), token=wrong, **values)
            session.expect_refusal(f"{name} with {'another' if wrong else 'no'} token", call)


@row("token.hidden", "a token that was sent is in no answer, no error and no event")
def hidden(session: CheckSession) -> None:
    right = _told(session)
    for sent in filter(None, (right, f"kit-{secrets.token_hex(12)}")):
        places = [place for place, text in _all_that_is_told(session, sent).items() if sent in text]
        expect(not places, f"the token is shown by {', '.join(places[:5])}")


def _all_that_is_told(session: CheckSession, sent: str) -> dict[str, str]:
    """What is heard by one who sends that token with each call, as texts."""
    reported: dict[str, str] = {}

    def ask(name: str, **kwargs: Any) -> Any:
        answer = session.answers(name, partial(getattr(session.q, name), token=sent, **kwargs))
        reported[name] = f"{answer!r} {answer}"
        return answer if isinstance(answer, dict) else {}

    for name, kwargs in _CALLS.items():
        ask(name, **kwargs)
    number = ask("reserve", request={"num_shots": 100}).get("reservation_id")
    if type(number) is not int:
        return reported
    under = {"reservation_id": number}
    listener = session.listener()
    listening = session.answers("register", lambda: listener.register(EVENT, token=sent, **under))
    reported["register_event_notification"] = repr(listening)
    accepted = ask("async_run", info={**session.info(), "token": sent}, **under)
    if isinstance(accepted.get("cid"), str):
        cid, task = accepted["cid"], accepted["qtask_id"]
        reported["an event"] = repr(listener.taken())
        ask("get_task_metadata", task_id=task, **under)
        ask("get_scheduler_queue_state", include_restricted=True)
        ask("read_cq", cid=cid, **under)
    ask("get_reservation", **under)
    ask("list_reservations")
    ask("release", **under)
    ask("get_service_lifecycle_telemetry")
    return reported


def _told(session: CheckSession) -> str:
    """The token that the kit's own calls carry; "": none."""
    return str(getattr(session.target, "token", ""))
