"""Jobs of vendors' clients cost few requests, however often users look at them."""

import time
from collections.abc import Iterator

import pytest
from live import Live, trusted_gateway
from waiting import until

from simenv.client.client import Client
from simenv.gateway.ibm.endpoints import PREFIX
from simenv.wire.messages.metrics import GetMetrics
from testbed.gateway_users import User

OPTIONS = {
    "gateway": "127.0.0.1:0",
    "pools": [{"name": "main", "min": 1, "max": 1}],
    "accounts": {"bio": {"users": ["ana"]}},
}
MOST_CALLS = 50  # of one job, from its submission to its result


@pytest.fixture
def ana(up: Live, env: Client) -> Iterator[User]:
    with trusted_gateway(up) as gateway:
        user = User(env, gateway.url)
        yield user
        user.http.close()


def requests(env: Client) -> int:
    return env.session.request(GetMetrics(0)).service.client_requests


def ends(user: User, kind: str, number: str) -> None:
    looks = 0
    while getattr(user, f"{kind}_state")(number) != "Completed":
        looks += 1
        assert looks < 20_000
    path = f"{PREFIX}/jobs/{number}/results"
    if kind == "iqm":
        path = f"/api/v1/jobs/{number}/artifacts/measurement_counts"
    user.http.get(path).raise_for_status()


@pytest.mark.parametrize("kind", ["ibm", "iqm"])
def test_job_that_is_looked_at_all_the_time_costs_few_requests(
    env: Client, ana: User, kind: str
) -> None:
    """The first job starts the process of the user's jobs, the second finds it."""
    for _ in range(2):
        before = requests(env)
        ends(ana, kind, getattr(ana, kind)())
        assert requests(env) - before <= MOST_CALLS


@pytest.mark.parametrize("kind", ["ibm", "iqm"])
def test_job_that_waits_costs_few_requests(env: Client, ana: User, kind: str) -> None:
    env.drain("main", "a job that waits")
    try:
        before, begun_s = requests(env), time.monotonic()
        number, looks = getattr(ana, kind)(), []

        def look() -> bool:
            looks.append(getattr(ana, f"{kind}_state")(number))
            return time.monotonic() - begun_s > 8.0

        until(look, look_s=0.02)
        assert set(looks) <= {"Queued", "Waiting"}
        assert requests(env) - before <= MOST_CALLS
    finally:
        env.undrain("main")
    ends(ana, kind, number)
