"""A plugin that keeps every promise is told so, in either revision."""

from pathlib import Path

import pytest
from kit import LONGER_S, assembled, checked

from simenv.qpm_check.check import VerdictState

PATIENCE_S = 90.0  # a plugin without defects is slow on a busy machine, and nothing else


def test_query_that_raises_in_revision_2_fails_only_selector_check(tmp_path: Path) -> None:
    report = checked(assembled(tmp_path, "query_raises"), "query.lookup", "query.selector")
    verdicts = {v.id: v.state for v in report.verdicts}
    assert verdicts == {"query.lookup": VerdictState.PASSED, "query.selector": VerdictState.FAILED}
    assert not report.ok


@pytest.mark.timeout(900)  # some 250 checks: 40 s alone, minutes on a busy machine
@pytest.mark.parametrize("revision", [1, 2])
def test_plugin_without_defects_passes_all_checks(revision: int, tmp_path: Path) -> None:
    report = checked(assembled(tmp_path), revisions=(revision,), long_s=LONGER_S, wait_s=PATIENCE_S)
    assert not {v.id: v.why for v in report.verdicts if v.state is VerdictState.FAILED}
    omitted = {v.id: v.why for v in report.verdicts if v.state is not VerdictState.PASSED}
    omitted.pop("reservation.stranger", None)  # a DEFw says of nobody who he is
    omitted.pop("token.refused", None)  # it asks for none
    assert not omitted
    assert report.ok
