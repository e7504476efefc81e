"""Our own QPMs keep the contract: called directly, behind a host's transport, over a machine."""

from __future__ import annotations

import json

import pytest

from simenv.cli.app import run

SOME = (
    "query.*", "admission.reason", "polling.gone", "info.width", "record.*", "counts.*",
    "execution.sync*", "execution.cancel-running", "events.once",
    "reservation.released", "credits.returned", "credits.delayed", "statevector.*", "crowd.fifty",
    "control.shutdown", "clients.*", "transport.error-stack",
)  # fmt: skip
TARGETS = ("inprocess", "defw", "hardware", "emulated")


def broken(captured: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What failed, and why, of the object on the last line."""
    document = json.loads(captured.readouterr().out.splitlines()[-1])
    assert document["passed"] > 0, document
    return {row["id"]: row["why"] for row in document["rows"] if row["state"] == "failed"}


@pytest.mark.parametrize("target", TARGETS)
def test_own_qpm_passes_selected_conformance_checks(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    only = [word for pattern in SOME for word in ("--only", pattern)]
    code = run(["qpm", "check", target, "--json", *only])
    assert not broken(capsys)
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_own_qpm_passes_all_conformance_checks(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["qpm", "check", target, "--json"])
    assert not broken(capsys)
    assert code == 0
