"""The service dies at any moment of its gateway's start: nothing is left, and the port is kept."""

import os
import signal
import time
from urllib.parse import urlsplit

import psutil
import pytest
from live import Live, environment
from waiting import until

from simenv.config import running_gateway
from simenv.config.paths import GATEWAY, gateways_of_services
from simenv.process import runs
from simenv.wire.transport.sockets import open_socket

pytestmark = pytest.mark.usefixtures("no_leaks")

MOMENTS = 20
BACK_S = 15.0
POOLS = [{"name": "main", "min": 0, "max": 1}]


def restarted(live: Live) -> psutil.Process:
    """Kill the gateway; return the process that the service starts in its place."""
    (before,) = until(lambda: gateways_of_services(live.home), look_s=0.001)
    os.kill(before, signal.SIGKILL)
    started = until(
        lambda: [pid for pid in gateways_of_services(live.home) if pid != before], look_s=0.001
    )
    return psutil.Process(started[-1])


def is_served(live: Live) -> bool:
    return running_gateway(live.home) is not None


@pytest.mark.timeout(900)
def test_service_killed_at_any_moment_of_its_gateways_start_leaves_no_orphan() -> None:
    with environment(gateway={"listen": "127.0.0.1:0"}, pools=POOLS) as live:
        url = running_gateway(live.home).url
        restarted(live)
        begin_s = time.monotonic()
        until(lambda: is_served(live), look_s=0.002)
        start_s = time.monotonic() - begin_s
        for number in range(MOMENTS):
            gateway = restarted(live)
            kill_s = time.monotonic() + number * start_s / (MOMENTS - 1)
            until(lambda end_s=kill_s: time.monotonic() > end_s, look_s=0.001)
            live.crash()
            begin_s = time.monotonic()
            live.up()
            assert not runs(gateway.pid, GATEWAY), f"moment {number}: the gateway is an orphan"
            until(lambda: is_served(live), BACK_S - (time.monotonic() - begin_s))
            assert running_gateway(live.home).url == url, f"moment {number}: the address changed"


@pytest.mark.timeout(300)
def test_down_ends_a_gateway_that_has_lost_its_service() -> None:
    """One that the kernel did not end, such as below a shell that forwards no signal."""
    with environment(gateway={"listen": "127.0.0.1:0"}, pools=POOLS) as live:
        found = running_gateway(live.home)
        argv = psutil.Process(found.pid).cmdline()
        service = live.service()
        stopped = psutil.Popen([*argv[: argv.index("--listen-fd")], "--metrics-fd", "0"])
        stopped.suspend()
        service.kill()
        live.wait_dead(service.pid)
        live.down()
        assert stopped.wait(10.0) == -signal.SIGKILL
        parts = urlsplit(found.url)
        open_socket(parts.hostname, parts.port).close()
