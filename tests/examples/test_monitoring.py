"""Alert rules, configuration and dashboard of `examples/monitoring`, by the real Prometheus."""

import json
import re
import subprocess
from pathlib import Path

import prometheus
import pytest
import yaml

from simenv.gateway.metrics.collector import METRICS, UP

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
NAMES = {each.name for each in METRICS} | {UP[0]}
OTHERS = {"simenv_http_requests_total"}  # of the gateway's requests


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    command = [prometheus.program("promtool"), *words]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120)


def unknown(text: str) -> set[str]:
    """Names of metrics in the text that the gateway does not have."""
    found = set(re.findall(r"\bsimenv_\w+", text))
    return {re.sub(r"_bucket$", "", name) for name in found} - NAMES - OTHERS


@pytest.mark.parametrize(
    "words", [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml")]
)
def test_rules_and_configuration_are_valid(words: tuple[str, ...]) -> None:
    result = promtool(*words)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_rule_fires_on_its_fault_and_not_before() -> None:
    result = promtool("test", "rules", "alerts_test.yml")
    assert result.returncode == 0, result.stdout + result.stderr


CAUSES = [
    (rule["alert"], cause) for rule in RULES for cause in rule["expr"].split(" or ")
]  # parts of a rule's condition, one of which is enough


@pytest.mark.parametrize(("alert", "cause"), CAUSES, ids=[f"{a}-{c[:30]}" for a, c in CAUSES])
def test_rule_without_one_of_its_causes_fails_its_test(
    tmp_path: Path, alert: str, cause: str
) -> None:
    for path in FOLDER.glob("alerts*.yml"):
        text = path.read_text().replace(cause, "(vector(0) > 1)")
        (tmp_path / path.name).write_text(text)
    done = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert done.returncode != 0
    assert alert in done.stdout + done.stderr


def test_there_are_ten_rules_and_tests_provoke_each_and_leave_it_silent() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    expected = [each for test in tests for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {each["alertname"] for each in expected if each["exp_alerts"]} == names
    assert {each["alertname"] for each in expected if not each["exp_alerts"]} == names
    assert len(RULES) >= 10


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rules_use_metrics_that_exist(rule: dict[str, str]) -> None:
    assert not unknown(rule["expr"])
    assert set(rule["annotations"]) == {"summary", "description"}


def test_dashboard_uses_metrics_that_exist() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 20
    assert not unknown(" ".join(queries))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
