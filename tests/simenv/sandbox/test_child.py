"""A child process gets and sends frames; whatever it does, its parent waits no longer than it
wants, and whatever the parent does, the child ends with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from failing import fails
from waiting import until

from simenv.sandbox.child import READ_BYTES, READS, Child
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
from simenv.sandbox.child import READ_BYTES, READS, Child
child = Child([sys.executable, "-c", {FOR_EVER!r}], os.environ, most_bytes=100)
child.receive({PATIENCE_S})
print(child.pid, flush=True)
sys.stdin.read()
"""
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def started(program: str, most_bytes: int = 2**24) -> Child:
        argv = [sys.executable, "-c", program]
        children.append(Child(argv, os.environ, most_bytes=most_bytes))
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
    fails(TimeoutError, "", child.receive, 0.01)
    os.kill(child.pid, signal.SIGKILL)
    fails(FrameError, "has ended", child.receive, PATIENCE_S)
    assert child.has_ended
    assert child.received() == []
    child.send(bytes(2**20))
    until(lambda: child.poll() == -signal.SIGKILL)


def test_claimed_length_takes_no_memory(start: Start) -> None:
    child = start("import os; os.write(1, b'\\xff' * 8); os.read(0, 1)", most_bytes=2**20)
    fails(FrameError, "the limit is 1048576", child.receive, PATIENCE_S)


def test_child_that_works_for_ever_ends_with_its_input(start: Start) -> None:
    child = start(FOR_EVER)
    assert child.receive(PATIENCE_S) == b"ready"
    child.end(PATIENCE_S)
    assert child.poll() == 1  # by itself


def test_child_ends_with_a_killed_parent() -> None:
    argv, pipe = [sys.executable, "-c", PARENT], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(pid), message="the child outlives its parent")


ENDLESS = {
    "frames": "import os\nwhile True: os.write(1, ((8).to_bytes(8, 'big') + b'x' * 8) * 4096)",
    "empty": "import os\nwhile True: os.write(1, bytes(2**16))",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_frames_without_end_are_read_in_bounded_calls(start: Start, kind: str) -> None:
    child = start(ENDLESS[kind])
    first = child.receive(PATIENCE_S)
    for _ in range(3):
        assert len(child.received()) <= (READS + 1) * READ_BYTES // (8 + len(first))


def test_frame_that_comes_slowly_times_out(start: Start) -> None:
    head = "import os; os.write(1, (2**23).to_bytes(8, 'big'))\n"
    child = start(head + "while True: os.write(1, b'x')")
    fails(TimeoutError, r"within 0\.3 s", child.receive, 0.3)


FORKED = """
import os, signal
if os.fork():
    os.write(1, (4).to_bytes(8, "big") + b"last")
    os._exit(7)
signal.pause()
"""


@pytest.mark.parametrize("at", ["receive", "received"])
def test_child_that_left_a_process_has_ended_and_takes_it_along(start: Start, at: str) -> None:
    child, found = start(FORKED), []
    if at == "receive":
        found.append(child.receive(PATIENCE_S))
        fails(FrameError, "has ended", child.receive, PATIENCE_S)
    else:
        until(lambda: found.extend(child.received()) or child.has_ended)
    assert (found, child.poll()) == ([b"last"], 7)
    left = [each for each in psutil.pids() if group_of(each) == child.pid and each != child.pid]
    assert len(left) == 1
    child.end()
    assert child.poll() == 7
    until(lambda: not psutil.pid_exists(left[0]), message="a process outlives the child")
    child.send(b"late")


def group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def test_end_takes_along_what_has_left_the_group(start: Start) -> None:
    program = """
import subprocess
from simenv.sandbox.parent import ParentChannel
channel = ParentChannel()
inner = subprocess.Popen(["sleep", "600"], start_new_session=True)
channel.send(str(inner.pid).encode())
inner.wait()
"""
    child = start(program)
    pid = int(child.receive(PATIENCE_S))
    child.end()
    until(lambda: not psutil.pid_exists(pid), message="a process outlives the child")
