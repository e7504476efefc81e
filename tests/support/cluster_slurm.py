"""A real Slurm for tests, see `bench.testbed.slurm`; brings its packages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from packages import bring

from bench.testbed.cluster import Cluster
from bench.testbed.cluster_host import NoCluster
from bench.testbed.slurm import LOGIN as LOGIN, PACKAGES, TOOLS, slurm as installed_slurm


@contextmanager
def slurm(count: int) -> Iterator[Cluster]:
    """Hosts node1..node`count` under Slurm, and `login`; NoCluster where that is impossible."""
    if os.geteuid() == 0 and any(shutil.which(tool) is None for tool in TOOLS):
        why = bring("system_packages.sh", *PACKAGES)
        if why:
            raise NoCluster(why)
    with installed_slurm(count) as cluster:
        yield cluster
