"""A plugin that keeps every promise is told so, in either revision."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import assembled, checked

from simenv.qpm_check.rows import State


@pytest.mark.parametrize("revision", [1, 2])
def test_an_honest_plugin_is_failed(revision: int, tmp_path: Path) -> None:
    report = checked(assembled(tmp_path), revisions=(revision,))
    failed = {v.id: v.why for v in report.verdicts if v.state is State.FAILED}
    assert not failed
    omitted = {v.id: v.why for v in report.verdicts if v.state is not State.PASSED}
    omitted.pop("reservation.stranger", None)  # a DEFw says of nobody who he is
    assert not omitted
    assert report.ok
