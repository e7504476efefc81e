"""Checks of tokens: a wrong token is refused, and no answer contains a token.

Only the plugin's author can state whether the plugin requires a token.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from simenv.qpm_check.check import CheckNotApplicable, row
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import expect

EVENT = "completion"
# One call of each binding without side effects, and a further one of `execution` that has one.
_CALLS: dict[str, dict[str, Any]] = {
    "task_status": {"cid": "a-cid"}, "evaluate": {"request": {}}, "get_admission_policy": {},
    "get_scheduler_status": {}, "get_device_info": {}, "is_ready": {},
}  # fmt: skip


@row("token.refused", "where a token is asked for, a wrong one and none are refused")
def refused(session: CheckSession) -> None:
    right = _own_token(session)
    if not right:
        message = "no token was told: this QPM asks for none, or --token-file names it"
        raise CheckNotApplicable(message)
    calls = {**_CALLS, "async_run": {"info": session.info(), **session.under}}
    for wrong in (f"{right}x", right[:-1], secrets.token_hex(8), None):
        for name, values in calls.items():
            call = partial(getattr(session.q, name), token=wrong, **values)
            session.expect_refusal(f"{name} with {'another' if wrong else 'no'} token", call)


@row("token.hidden", "a token that was sent is in no answer, no error and no event")
def hidden(session: CheckSession) -> None:
    right = _own_token(session)
    for sent in filter(None, (right, f"kit-{secrets.token_hex(12)}")):
        places = [place for place, text in _all_answers(session, sent).items() if sent in text]
        expect(not places, f"the token is shown by {', '.join(places[:5])}")


def _all_answers(session: CheckSession, sent: str) -> dict[str, str]:
    """Texts of all answers and errors to a client that sends this token with each call."""
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


def _own_token(session: CheckSession) -> str:
    """Token of the kit's own calls; "": none."""
    return str(getattr(session.target, "token", ""))
