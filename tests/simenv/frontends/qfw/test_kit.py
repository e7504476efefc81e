"""The conformance kit on the plugin itself, as `simenv qpm check defw` runs it."""

from __future__ import annotations

from typing import Any

import pytest

from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN
from simenv.qpm_check.checks import rows
from simenv.qpm_check.plugin import Plugin
from simenv.qpm_check.rows import State
from simenv.qpm_check.runner import Options, check

QUICK = (
    "load.bare",
    "load.start-false*",
    "query.*",
    "methods.*",
    "register.again",
    "register.resolve",
)
STRANGERS = "reservation.stranger"  # of DEFw's clients nobody knows who they are


def failed(env: Client, options: Options) -> tuple[dict[str, str], set[str]]:
    """Rows that failed, and why; rows that showed nothing."""
    plugin = Plugin("ours", PLUGIN, {"SIMENV_SERVICE": env.service})
    verdicts: Any = check(plugin, rows(), options).verdicts
    wrong = {f"{v.id} ({v.revision})": v.why for v in verdicts if v.state is State.FAILED}
    return wrong, {v.id for v in verdicts if v.state not in (State.FAILED, State.PASSED)}


def test_it_does_not_load_or_register_as_it_should(env: Client) -> None:
    assert failed(env, Options(only=QUICK, revisions=(2,), wait_s=60.0)) == ({}, set())


@pytest.mark.slow
def test_a_row_of_the_kit_fails(env: Client) -> None:
    assert failed(env, Options(wait_s=60.0)) == ({}, {STRANGERS})
