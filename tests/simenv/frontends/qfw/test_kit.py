"""The conformance kit on the plugin itself, as `simenv qpm check defw` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN
from simenv.qpm_check.checks import rows
from simenv.qpm_check.harness.check import VerdictState
from simenv.qpm_check.harness.runner import Options, check
from simenv.qpm_check.targets.plugin import PluginTarget

QUICK = (
    "load.bare",
    "load.start-false*",
    "load.uninitialize",
    "query.*",
    "methods.*",
    "register.again",
    "register.resolve",
)
STRANGERS = "reservation.stranger"  # of DEFw's clients nobody knows who they are
TOKENS = "token.refused"  # it asks for none here
OUTAGES = ("restart.pollers", "restart.first-poll")  # the target has no command that stops it


def failed(env: Client, options: Options) -> tuple[dict[str, str], set[str]]:
    """Rows that failed, and why; rows that showed nothing."""
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_ROLE": "admin"}
    plugin = PluginTarget("ours", PLUGIN, environ)
    verdicts: Any = check(plugin, rows(), options).verdicts
    wrong = {f"{v.id} ({v.revision})": v.why for v in verdicts if v.state is VerdictState.FAILED}
    return wrong, {
        v.id for v in verdicts if v.state not in (VerdictState.FAILED, VerdictState.PASSED)
    }


def test_plugin_passes_load_and_registration_checks(env: Client) -> None:
    assert failed(env, Options(only=QUICK, revisions=(2,), wait_s=60.0)) == ({}, set())


@pytest.mark.slow
def test_plugin_passes_all_conformance_checks(env: Client) -> None:
    assert failed(env, Options(wait_s=60.0)) == (
        {},
        {STRANGERS, TOKENS, *OUTAGES},
    )


def test_wrong_token_is_refused_and_token_is_hidden_through_defw(
    env: Client, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("open sesame\n", encoding="utf-8")
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_TOKEN_FILE": str(file)}
    plugin = PluginTarget("ours", PLUGIN, environ, "open sesame")
    options = Options(only=("token.*", "execution.sync"), revisions=(2,), wait_s=60.0)
    verdicts = check(plugin, rows(), options).verdicts
    assert {v.id: (v.state, v.why) for v in verdicts} == dict.fromkeys(
        ("token.refused", "token.hidden", "execution.sync"), (VerdictState.PASSED, "")
    )
