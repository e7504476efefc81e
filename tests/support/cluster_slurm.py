"""A real Slurm for tests, see `bench.testbed.slurm`; brings its packages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from packages import bring

from bench.testbed import slurm as installed
from bench.testbed.cluster import Cluster
from bench.testbed.cluster_host import NoCluster
from bench.testbed.slurm import (
    LOGIN as LOGIN,
    Prepare,
    start_controller as start_controller,
    start_node as start_node,
)


@contextmanager
def slurm(
    count: int, prepare: Prepare = lambda _cluster, _folder: "", user: str = "root"
) -> Iterator[Cluster]:
    """Hosts node1..node`count` under Slurm, and `login`; NoCluster where that is impossible."""
    there = installed.HEADER.exists() and all(map(shutil.which, installed.TOOLS))
    if os.geteuid() == 0 and not there:
        why = bring("system_packages.sh", *installed.PACKAGES)
        if why:
            raise NoCluster(why)
    with installed.slurm(count, prepare, user) as cluster:
        yield cluster
