"""Child processes of a service end with it, from before their first import on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import until

SLOW_IMPORT = """
import os, signal, sys
print(os.getpid(), flush=True)
signal.pause()  # as an import that takes long
"""
SERVICE = """
import logging, os, sys, time
from simenv.sandbox.supervised import SupervisedProcess
log = logging.getLogger()
child = SupervisedProcess("slow child", "slow_child", os.environ, lambda: ((), ()), log)
child.start()
time.sleep(600)
"""
REFRESH = """
import sys, time
from pathlib import Path
from subprocess import Popen
from simenv.service.devices import refresh
argv = refresh.command_line("name", Path("/"))
Popen([*argv[: argv.index("-P")], "-P", "-m", "slow_child"])
time.sleep(600)
"""


@pytest.mark.parametrize("starter", [SERVICE, REFRESH], ids=["gateway_and_broker", "refresh"])
def test_child_that_still_imports_ends_with_its_service(tmp_path: Path, starter: str) -> None:
    (tmp_path / "slow_child.py").write_text(SLOW_IMPORT)
    service = subprocess.Popen(
        [sys.executable, "-c", starter],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert service.stdout is not None
    with service, service.stdout as lines:
        child = int(lines.readline())
        assert psutil.Process(child).ppid() == service.pid
        service.send_signal(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child), message="the child outlives its service")
