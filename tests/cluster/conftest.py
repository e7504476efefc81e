"""Clusters for tests; where a machine allows none the tests skip and say why, but not in CI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import slurm_site
from cluster_slurm import slurm
from slurm_site import Site

from testbed.cluster import Cluster, hosts
from testbed.cluster_host import NoCluster


@contextmanager
def allowed() -> Iterator[None]:
    """Turns NoCluster into a skip with its reason, and in CI into a failure."""
    try:
        yield
    except NoCluster as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """node1 to node3, nothing running there."""
    with allowed(), hosts(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    """node1 to node4 under Slurm, the last of them with the QPU; and the login node."""
    with allowed(), slurm(4) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """node1 to node4 under Slurm with `--qpu`, and an environment and its gateway on `login`."""
    with allowed(), slurm_site.site(4) as running:
        yield running


@pytest.fixture(scope="module")
def with_licences() -> Iterator[Cluster]:
    """node1 and node2 under Slurm, whose configuration includes slurm/licenses.conf."""

    def prepare(_cluster: Cluster, folder: Path) -> str:
        (folder / "licenses.conf").write_text("Licenses=matlab:5\n")
        return f"include {folder}/licenses.conf\n"

    with allowed(), slurm(2, prepare) as cluster:
        yield cluster
