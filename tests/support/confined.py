"""What tests need of a kernel that confines processes, and control groups without one."""

import os
from pathlib import Path

import pytest

from launcher.process import cgroup
from simenv.sandbox import confinement
from simenv.service.workers import account_users


def skip_without_confinement(*, files_only: bool = False) -> None:
    """Landlock and filters of system calls are of the kernel. CI must not skip this. `files_only`:
    any version of Landlock is enough."""
    why = "" if files_only and confinement.landlock_abi() else confinement.unavailable_reason()
    if why:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


def control_group(folder: Path, controllers: str = "cpu memory", subtree: str = "") -> Path:
    """The files of a control group, as the kernel shows them."""
    folder.mkdir(parents=True)
    (folder / cgroup.PROCESSES).write_text("")
    (folder / cgroup.CONTROLLERS).write_text(controllers)
    (folder / cgroup.SUBTREE).write_text(subtree)
    return folder


def skip_without_account_users() -> None:
    """Only root can give accounts users of their own, in namespaces."""
    why = account_users.unavailable_reason(range(1))
    if why:
        pytest.skip(why)
