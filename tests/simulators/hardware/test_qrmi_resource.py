"""Resources of QRMI that cannot be held: the error names the cause, and no credential."""

import socket
from collections.abc import Iterator

import pytest

from simulators.hardware import qrmi_resource

pytest.importorskip("qrmi")
KEY = "a-key-of-the-site"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Variables of a resource `lab` whose endpoint is a closed port, which has the key in its
    path."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}/{KEY}"
        for name, value in {
            "ENDPOINT": base, "IAM_ENDPOINT": base, "IAM_APIKEY": KEY,
            "SERVICE_CRN": "crn:v1:lab:public:quantum-computing:here:a/x:y::",
            "SESSION_MODE": "dedicated",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"lab_QRMI_IBM_QCS_{name}", value)
        monkeypatch.setenv("QRMI_JOB_QPU_RESOURCES", "other,lab")
        monkeypatch.setenv("QRMI_JOB_QPU_TYPES", "pasqal-cloud,ibm-quantum-compute-service")
        yield monkeypatch


def test_unreachable_resource_raises_without_values_of_its_variables(
    site: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RuntimeError) as caught:
        qrmi_resource.machine("lab")
    assert KEY not in str(caught.value)
    assert "$lab_QRMI_IBM_QCS_" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_resource_that_takes_no_circuits_is_refused(site: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="'other' is of type 'pasqal-cloud', which takes no"):
        qrmi_resource.machine("other")


def test_unknown_resource_and_missing_variable_are_named(site: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="has no 'fez', only other, lab"):
        qrmi_resource.machine("fez")
    site.delenv("lab_QRMI_IBM_QCS_SERVICE_CRN")
    with pytest.raises(RuntimeError, match="SERVICE_CRN"):
        qrmi_resource.machine("lab")
