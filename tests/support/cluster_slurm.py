"""A real Slurm for tests, see `testbed.slurm`; brings its packages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from packages import bring

from testbed import slurm as installed
from testbed.cluster import Cluster
from testbed.cluster_host import NoCluster
from testbed.slurm import (
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
