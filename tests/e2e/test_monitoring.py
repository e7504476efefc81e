"""Metrics of a running environment: real faults move them, and the real Prometheus scrapes them."""

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import prometheus
import psutil
import pytest
import yaml
from failing import fails
from live import Live, environment, trusted_gateway
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from shell import Shell
from waiting import until

from simenv import library
from simenv.client.client import Client
from simenv.errors import NotFoundError, OptionError
from simenv.gateway.metrics.collector import METRICS, UP
from simenv.model import WorkerInfo

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"
RULES = {
    rule["alert"]: rule["expr"]
    for rule in yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"][0]["rules"]
}
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "lattice", "device": "manila", "min": 0, "max": 1},
]
OPTIONS = {"pools": POOLS, "gateway": {"metrics": "127.0.0.1:0"}}
OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def url(up: Live) -> str:
    """The address of /metrics, from the log of its process."""
    path = up.home / "logs" / "gateway.log"

    def look() -> str:
        found = re.search(r"metrics at (\S+)", path.read_text() if path.exists() else "")
        return found[1] if found else ""

    return until(look)


def fetch(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers={"Accept": OPEN, **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith(OPEN.partition(";")[0])
        return str(answer.read().decode())


def refused(url: str, **headers: str) -> int:
    """The status of a request that is refused."""
    caught = fails(urllib.error.HTTPError, "", fetch, url, **headers)
    with caught as answer:
        return answer.code


def value(url: str, name: str, **labels: str) -> float:
    """The present value of one sample; -1 if there is none. Answers are cached for a second."""
    for family in text_string_to_metric_families(fetch(url)):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return -1.0


def comes(url: str, expected: float, name: str, **labels: str) -> None:
    until(
        lambda: value(url, name, **labels) == expected,
        look_s=0.2,
        message=lambda: f"{name}{labels} is {value(url, name, **labels)}, not {expected}",
    )


def test_every_metric_is_served_in_open_metrics_form(url: str, env: Client) -> None:
    env.submit(library.ghz(2).circuit, shots=10).result()
    families = {family.name: family for family in text_string_to_metric_families(fetch(url))}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert families[UP[0]].samples[0].value == 1.0


def test_text_form_has_no_sample_beside_the_buckets_of_a_histogram(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    series = {re.split("[ {]", line)[0] for line in lines if not line.startswith("#")}
    for name in (metric.name for metric in METRICS if metric.kind == "histogram"):
        assert name not in series
        assert {f"{name}_bucket", f"{name}_count", f"{name}_sum"} <= series


def test_ended_tasks_and_their_times_are_counted(url: str, env: Client) -> None:
    before = value(url, "simenv_tasks_total", pool="main", state="done")
    env.submit_many([library.ghz(2).circuit] * 20, shots=10, pool="main")
    comes(url, before + 20, "simenv_tasks_total", pool="main", state="done")
    assert value(url, "simenv_task_run_seconds_count", pool="main") == before + 20
    assert value(url, "simenv_task_run_seconds_bucket", pool="main", le="+Inf") == before + 20
    assert 0 < value(url, "simenv_task_run_seconds_sum", pool="main") < 100
    assert value(url, "simenv_journal_commit_seconds_count") > 0
    assert value(url, "simenv_account_usage_slot_seconds_total", account="") > 0


def test_stalled_queue_is_seen(url: str, env: Client) -> None:
    (node,) = env.nodes()
    env.drain(node, "a drill")
    before = value(url, "simenv_tasks_total", pool="main", state="done")
    task = env.submit(library.ghz(2).circuit, pool="main")
    comes(url, 1, "simenv_queue_tasks", pool="main")
    first = value(url, "simenv_queue_oldest_seconds", pool="main")
    until(lambda: value(url, "simenv_queue_oldest_seconds", pool="main") > first, look_s=0.5)
    assert value(url, "simenv_tasks_total", pool="main", state="done") == before
    env.cancel([task])
    comes(url, 0, "simenv_queue_tasks", pool="main")
    assert value(url, "simenv_tasks_total", pool="main", state="cancelled") == 1
    assert value(url, "simenv_queue_oldest_seconds", pool="main") == 0
    env.undrain(node)


def test_death_of_worker_is_counted(url: str, env: Client) -> None:
    before = value(url, "simenv_workers_lost_total", pool="main")

    def ready() -> WorkerInfo | None:
        workers = env.workers()
        return next((each for each in workers if (each.pool, each.state) == ("main", "IDLE")), None)

    worker = until(ready)
    assert worker is not None
    psutil.Process(worker.pid).send_signal(signal.SIGKILL)
    comes(url, before + 1, "simenv_workers_lost_total", pool="main")
    comes(url, 1, "simenv_workers", pool="main", state="idle")


def test_figures_and_age_of_devices_are_reported(url: str, env: Client) -> None:
    info = env.device("lattice")
    until(lambda: value(url, "simenv_device_two_qubit_error", device="lattice") > 0, look_s=0.2)
    age = value(url, "simenv_device_snapshot_age_seconds", device="lattice")
    assert age == pytest.approx(time.time() - info.calibrated_s, abs=60)
    assert 1e-6 < value(url, "simenv_device_t1_seconds", device="lattice") < 1e-2
    assert value(url, "simenv_device_score_ratio", device="lattice") == -1, "not recorded yet"
    env.record_device_figure("lattice", "score", 0.75)
    comes(url, 0.75, "simenv_device_score_ratio", device="lattice")
    assert env.history.series("device/lattice/score").mean == [0.75]
    fails(OptionError, "figure 'score' = 1.5", env.record_device_figure, "lattice", "score", 1.5)
    fails(NotFoundError, "no device 'main'", env.record_device_figure, "main", "score", 0.5)


def test_other_hosts_pages_and_proxies_need_a_token(url: str) -> None:
    for headers in ({"X-Forwarded-For": "192.0.2.1"}, {"Host": "evil.example"}):
        assert refused(url, **headers) == 401


def test_nothing_else_is_served_without_a_gateway(url: str) -> None:
    assert refused(url.removesuffix("metrics") + "session") == 404


def test_series_are_stored_and_listed(env: Client, shell: Shell) -> None:
    until(lambda: "pool/main/done_per_s" in env.history.series_names(), look_s=0.5)
    names = shell("history", "--series", "list", "--no-header").out.split()
    assert {"queue", "pool/main/queue", "device/lattice/t1_us"} <= set(names)
    assert names == env.history.series_names()
    rows = shell("history", "--series", "list", "--json").objects
    assert rows == [{"series": name} for name in names]
    result = shell("history", "--series", "queue", "--since", "1h", "--json")
    assert result.code == 0, result.err
    assert set(result.objects[0]) == {"at_s", "mean", "least", "most", "unit"}
    assert result.objects[-1]["at_s"] <= time.time()
    wrong = shell("history", "--series", "queue", "--pool", "main")
    assert "--pool cannot be combined with --series" in wrong.err
    assert "did you mean `queue`?" in shell("history", "--series", "quue").err
    assert env.qpm.get_telemetry_history(series="queue")["points"]


def test_gateway_serves_metrics_and_series_at_its_own_address() -> None:
    settings = {"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0"}
    with (
        environment(gateway=settings) as live,
        live.client() as client,
        trusted_gateway(live) as file,
    ):
        assert value(f"{file.url}/metrics", *UP[:1]) == 1.0
        alone = re.search(r"metrics at (\S+)", (live.home / "logs" / "gateway.log").read_text())
        assert alone is not None
        assert value(alone[1], *UP[:1]) == 1.0
        tokens = {
            role: {"Authorization": f"Bearer {client.tokens.add('', role=role).secret}"}
            for role in ("client", "admin", "monitor")
        }
        far = {"X-Forwarded-For": "192.0.2.1"}
        for url in (f"{file.url}/metrics", alone[1]):
            assert refused(url, **far) == 401
            assert refused(url, **far, **tokens["client"]) == 403
            for role in ("admin", "monitor"):
                assert "simenv_up 1.0" in fetch(url, **far, **tokens[role])
        requests = "simenv_http_requests_total"
        counted = f"{file.url}/metrics", requests
        labels = {"path": "/metrics", "status_code": "403"}
        until(lambda: value(*counted, **labels) == 1.0, look_s=0.2)  # an answer is kept for 1 s
        series = f"{file.url}/api/v1/series"
        assert refused(series) == 401
        assert refused(series, **tokens["monitor"]) == 403
        until(lambda: "queue" in client.history.series_names(), look_s=0.5)
        answer = httpx.get(series, params={"name": "queue"}, headers=tokens["client"]).json()
        assert answer["mean"] == client.history.series("queue", 0, answer["at_s"][-1] + 10).mean
        assert "queue" in httpx.get(series, headers=tokens["client"]).json()["names"]
        missing = httpx.get(series, params={"name": "quue"}, headers=tokens["client"])
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[str]:
    """The real Prometheus with the rules of the example; yields its address."""
    settings = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(EXAMPLES / "alerts.yml")]
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = [
        prometheus.program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:

            def look() -> str:
                assert process.poll() is None, log.read_text()
                found = re.search(r"Listening on\W+address=(\S+)", log.read_text())
                return f"http://{found[1]}" if found else ""

            address = until(look)
            until(lambda: is_ready(address), look_s=0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def is_ready(prometheus_url: str) -> bool:
    """Whether it has opened its storage; until then it answers 503."""
    try:
        with urllib.request.urlopen(f"{prometheus_url}/-/ready", timeout=30):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def asked(prometheus_url: str, query: str) -> list[Any]:
    """The result of an instant query: samples with their labels."""
    text = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{prometheus_url}/api/v1/query?{text}", timeout=30) as answer:
        found: list[Any] = json.loads(answer.read())["data"]["result"]
    return found


def test_prometheus_scrapes_and_its_rules_see_faults(url: str, env: Client, tmp_path: Path) -> None:
    env.record_device_figure("lattice", "score", 0.5)
    target = urllib.parse.urlsplit(url).netloc
    with scraping(target, tmp_path) as address:

        def scraped() -> bool:
            return [each["value"][1] for each in asked(address, 'up{job="simenv"}')] == ["1"]

        until(scraped, look_s=0.2)
        assert asked(address, "simenv_up")[0]["value"][1] == "1"
        assert asked(address, RULES["SimenvDown"]) == []
        old = asked(address, RULES["SimenvSnapshotOld"])
        assert [each["metric"]["device"] for each in old] == ["lattice"]
        off = until(lambda: asked(address, RULES["SimenvDeviceOff"]), look_s=0.5)
        assert [each["metric"]["device"] for each in off] == ["lattice"]
        (node,) = env.nodes()
        env.drain(node, "a drill")
        out = until(lambda: asked(address, RULES["SimenvNodeOut"]), look_s=0.5)
        assert out[0]["metric"]["node"] == node
        env.undrain(node)
        before = float(asked(address, 'sum(simenv_tasks_total{state="failed"})')[0]["value"][1])
        assert before == 0.0
