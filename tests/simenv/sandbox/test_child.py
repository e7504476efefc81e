"""A child process gets and sends frames; whatever it does, its parent waits no longer than it
wants, and whatever the parent does, the child ends with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from waiting import until

from simenv.sandbox.child import Child
from simenv.sandbox.frames import FrameError

PATIENCE_S = 30.0
CHANNEL = "from simenv.sandbox.parent import ParentChannel; channel = ParentChannel(); "
ECHO = f"""{CHANNEL}
while (body := channel.receive()) is not None:
    print("not a frame", flush=True)
    channel.send(body)
"""
FOR_EVER = f"{CHANNEL} channel.end_with_parent(); channel.send(b'ready')\nwhile True: pass"
PARENT = f"""
import os, sys
from simenv.sandbox.child import Child
child = Child([sys.executable, "-c", {FOR_EVER!r}], os.environ)
child.receive({PATIENCE_S})
print(child.pid, flush=True)
sys.stdin.read()
"""
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def started(program: str, **fields: int) -> Child:
        children.append(Child([sys.executable, "-c", program], os.environ, **fields))
        return children[-1]

    yield started
    for each in children:
        each.end()
        assert each.poll() is not None


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**23])
def test_frame_comes_back(start: Start, size: int) -> None:
    child, body = start(ECHO), os.urandom(size)
    child.send(body[:1], body[1:])
    assert child.receive(PATIENCE_S) == body
    child.send(b"next")
    assert child.receive(PATIENCE_S) == b"next"


def test_frames_are_read_without_a_wait(start: Start) -> None:
    child = start(ECHO)
    assert child.received() == []
    bodies, found = [bytes([k]) * 2**17 for k in range(5)], []
    for body in bodies:  # more than the pipe holds
        child.send(body)
    until(lambda: found.extend(child.received()) or len(found) == 5, PATIENCE_S)
    assert found == bodies


def test_silent_child_times_out_and_ended_one_does_not_wait(start: Start) -> None:
    child = start("import signal; signal.pause()")
    child.send(bytes(2**20))  # more than a pipe holds, which nobody reads
    with pytest.raises(TimeoutError):
        child.receive(0.01)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(FrameError, match="has ended"):
        child.receive(PATIENCE_S)
    assert child.has_ended
    assert child.received() == []
    child.send(bytes(2**20))
    until(lambda: child.poll() == -signal.SIGKILL)


def test_claimed_length_takes_no_memory(start: Start) -> None:
    child = start("import os; os.write(1, b'\\xff' * 8); os.read(0, 1)", most_bytes=2**20)
    with pytest.raises(FrameError, match="the limit is 1048576"):
        child.receive(PATIENCE_S)


def test_child_that_works_for_ever_ends_with_its_input(start: Start) -> None:
    child = start(FOR_EVER)
    assert child.receive(PATIENCE_S) == b"ready"
    child.end(PATIENCE_S)
    assert child.poll() == 1  # by itself


def test_child_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(pid), message="the child outlives its parent")
