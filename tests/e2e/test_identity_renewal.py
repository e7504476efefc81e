"""Holders of certificates that end within seconds: each is renewed by the token that made it, and
work goes on under another token of the same user once that one has ended."""

from collections.abc import Callable, Iterator
from time import monotonic

import psutil
import pytest
from live import Live, trusted_gateway
from waiting import until

from simenv.client.client import Client
from simenv.gateway.ibm.endpoints import PREFIX
from testbed.gateway_users import User

LIFETIME_S = 5.0
JOB_S = 120.0
OPTIONS = {
    "gateway": "127.0.0.1:0",
    "identity": {"lifetime_s": LIFETIME_S},
    "pools": [{"name": "main", "min": 1, "max": 1}],
    "accounts": {"bio": {"users": ["ana", "ben"]}},
}


Users = Callable[..., User]


@pytest.fixture
def user(up: Live, env: Client) -> Iterator[Users]:
    """Make a user with a new token."""
    opened: list[User] = []

    def make(name: str = "ana") -> User:
        opened.append(User(env, gateway.url, name))
        return opened[-1]

    with trusted_gateway(up) as gateway:
        yield make
    for each in opened:
        each.http.close()


def job_processes(up: Live) -> set[int]:
    found = set()
    for child in up.service().children(recursive=True):
        try:
            if "simenv.gateway.ibm.job_process" in child.cmdline():
                found.add(child.pid)
        except psutil.Error:  # it has ended
            continue
    return found


def wait_past_lifetime() -> None:
    begun_s = monotonic()
    until(lambda: monotonic() - begun_s > 2.5 * LIFETIME_S, look_s=0.5)


def ends(user: User, kind: str) -> None:
    number, state = getattr(user, kind)(), getattr(user, f"{kind}_state")
    until(lambda: state(number) == "Completed", JOB_S, message=f"{kind} job {number}")


@pytest.mark.parametrize("kind", ["ibm", "iqm"])
def test_job_process_is_renewed_by_the_token_that_started_it(
    up: Live, user: Users, kind: str
) -> None:
    first = user()
    ends(first, kind)
    (process,) = job_processes(up)
    second = user()  # as another shell with `simenv gateway env`
    ends(second, kind)
    wait_past_lifetime()
    ends(second, kind)
    ends(first, kind)
    assert job_processes(up) == {process}


def log_of(up: Live) -> str:
    return (up.home / "logs" / "gateway.log").read_text()


@pytest.mark.parametrize("ended", ["first", "newest"])
def test_jobs_go_on_under_another_token_of_their_user(
    up: Live, env: Client, user: Users, ended: str
) -> None:
    """The token that made the process, or the one of the last request, is revoked while a job
    waits; a token of somebody else gets nothing of it."""
    first = user("ben")
    ends(first, "ibm")
    second, other = user("ben"), user("ana")
    second.http.get(f"{PREFIX}/jobs").raise_for_status()
    env.drain("main", "a job that waits")
    try:
        number = second.ibm()
        gone, left = (first, second) if ended == "first" else (second, first)
        env.tokens.revoke(gone.made.token.number)
        wait_past_lifetime()
    finally:
        env.undrain("main")
    until(lambda: left.ibm_state(number) == "Completed", JOB_S)
    assert other.http.get(f"{PREFIX}/jobs/{number}").status_code == 404
