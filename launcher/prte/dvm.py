"""One DVM: a `prte` in the foreground, its daemons on other nodes, and the PMIx helper to it.

STARTING -> UP -> LOST, by calls of `step` that never wait; LOST is for ever, `why` says what
happened. Answers come out cleaned: each spawn is answered once, each job ends once.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from launcher.base import LaunchError, Node
from launcher.pmix.helper_process import HelperProcess
from launcher.pmix.protocol import Answer, Order
from launcher.process import agent, die_with_parent
from launcher.prte.installation import Prte
from launcher.prte.job_tracker import JobsAlive
from launcher.prte.log_messages import last_words, ready

START_TIMEOUT_S = 10.0
START_TIMEOUT_A_NODE_S = 0.1
ANSWER_TIMEOUT_S = 10.0
MOST_PENDING = (
    16  # spawns: each is answered in time only if it need not wait for hundreds of others
)
END_TIMEOUT_S = 2.0  # after SIGKILL
HELPER_TIMEOUT_S = 5.0  # to connect; for a restarted one too
HELPER_TRIES = 3
SETTLE_S = 1.0  # the helper loses its connection before prte is seen to end
# A node that is cut off is noticed after 4 s; PRTE's own setting is more than 5 minutes.
_KEEPALIVE = {"time": "2", "intvl": "1", "probes": "2"}


class State(Enum):
    STARTING = "starting"
    UP = "up"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Site:
    """What all DVMs of an environment share."""

    prte: Prte
    environ: Mapping[str, str]  # of the service: what the agent may need
    agent: str  # the user's program that reaches a node; "": srun or ssh
    isolated: bool = False  # all nodes are this one, and DVMs get a network namespace of their own

    def clean(self) -> dict[str, str]:
        """For prte, which hands it on to every rank: no more than a program needs to run."""
        kept = {
            key: value
            for key, value in self.environ.items()
            if key in agent.INHERITED or key.startswith("LC_") or "_MCA_" in key
        }
        return self.prte.environ(kept)


class Dvm:
    """Used from the main thread: prte ends with the thread that started it."""

    def __init__(self, site: Site, nodes: Sequence[Node], folder: Path, now: float) -> None:
        """`folder` is made, and removed by `close`: a local disk, a short path."""
        self.nodes = tuple(nodes)
        self.state = State.STARTING
        self.why = ""
        self.was_up = False
        self.helper_news: list[str] = []  # why it was restarted, each time
        self._site = site
        self._folder = folder
        self._began = now
        self._temporary = folder / "tmp"
        self._temporary.mkdir(mode=0o700, parents=True)
        self._environ = {**site.clean(), "TMPDIR": str(self._temporary)}
        self._uri = folder / "uri"
        self._log = folder / "dvm.log"
        self._ready = self._connected = False
        self._lost_since = 0.0
        self._pending: dict[int, float] = {}  # spawn: until when it must be answered
        self._jobs = JobsAlive()
        self._failed_helpers = 0
        self._prte = self._start_prte()
        self._helper = self._start_helper(now)

    @property
    def slots(self) -> int:
        return sum(node.slots for node in self.nodes)

    def age_s(self, now: float) -> float:
        return now - self._began

    @property
    def pid(self) -> int:
        return self._prte.pid

    @property
    def helper_pid(self) -> int:
        return self._helper.pid

    @property
    def full(self) -> bool:
        """Is so much asked already that more should wait?"""
        return len(self._pending) >= MOST_PENDING

    # --- orders ----------------------------------------------------------------------------------

    def spawn(
        self, key: int, argv: Sequence[str], env: Sequence[str], hosts: Sequence[str], now: float
    ) -> None:
        """Rank k on hosts[k]; answered by `spawned`, `failed` or `unasked` with this key."""
        self._pending[key] = now + ANSWER_TIMEOUT_S
        self._helper.send(Order("spawn", key, argv=tuple(argv), env=tuple(env), hosts=tuple(hosts)))

    def grow(self, key: int, node: Node, now: float) -> None:
        """Take in one more node; answered as a spawn is."""
        self._pending[key] = now + ANSWER_TIMEOUT_S
        self._helper.send(Order("grow", key, hosts=(_host(node),)))
        self.nodes += (node,)

    def without(self, node: Node) -> None:
        """It was not taken in."""
        self.nodes = tuple(one for one in self.nodes if one.name != node.name)

    def kill(self, namespace: str) -> None:
        """End a job; `ended` follows."""
        self._helper.send(Order("kill", namespace=namespace))

    # --- what happens ----------------------------------------------------------------------------

    def step(self, now: float) -> list[Answer]:
        """Look at everything once: answers `spawned`, `failed`, `unasked` and `ended`."""
        if self.state is State.LOST:
            return []
        answers = self._read(now)
        code = self._prte.poll()
        if code is not None:
            self._lose(f"prte ended ({_ending(code)}){self._last_words()}")
            return answers
        answers += self._look_helper(now)
        if self.state is State.STARTING:
            self._look_ready(now)
        return answers

    def close(self) -> None:
        """Ask it to end; `gone` tells when."""
        self._helper.close()
        if self._prte.poll() is None:
            self._prte.terminate()

    def gone(self) -> bool:
        return self._prte.poll() is not None

    def remove(self) -> None:
        """End it for good, and its folder."""
        self._helper.close()
        if self._prte.poll() is None:
            self._prte.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel holds up nobody
            self._prte.wait(END_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, now: float) -> list[Answer]:
        answers: list[Answer] = []
        for answer in self._helper.answers():
            if answer.tells == "ready":
                self._connected = True
                self._failed_helpers = 0
            elif answer.tells == "spawned":
                if self._pending.pop(answer.key, None) is not None:
                    answers += [answer, *self._jobs.begun(answer.namespace)]
            elif answer.tells in ("failed", "unasked"):
                if self._pending.pop(answer.key, None) is not None:
                    answers.append(answer)
            elif answer.tells == "ended":
                answers += self._jobs.ended(answer)
            elif answer.tells == "listed":
                gone, strange = self._jobs.listed(answer.alive, bool(self._pending))
                answers += gone
                for namespace in strange:
                    self.kill(namespace)
            elif answer.tells == "lost":
                self._lost_since = now
        return answers

    def _look_ready(self, now: float) -> None:
        self._ready = self._ready or ready(self._heard())
        limit = START_TIMEOUT_S + START_TIMEOUT_A_NODE_S * len(self.nodes)
        if self._ready and self._connected:
            self.state, self.was_up = State.UP, True
        elif now - self._began > limit:
            self._lose(f"prte was not ready after {limit:.0f} s{self._last_words()}")

    def _look_helper(self, now: float) -> list[Answer]:
        if self._helper.ended:
            # Its connection goes a moment before prte is seen to end: then there is no one to ask.
            if now < self._lost_since + SETTLE_S:
                return []
            return self._restart_helper(now, "ended")
        if any(now > until for until in self._pending.values()):
            return self._restart_helper(now, f"gave no answer in {ANSWER_TIMEOUT_S:.0f} s")
        if not self._connected and now > self._helper_until and self._uri.exists():
            return self._restart_helper(now, f"did not connect in {HELPER_TIMEOUT_S:.0f} s")
        return []

    def _restart_helper(self, now: float, why: str) -> list[Answer]:
        """What was asked of the old one is given up: a job that starts for it all the same is
        found in a list, and ended."""
        words = f"the PMIx helper {why}"
        given_up = [Answer("failed", key=key, words=words) for key in self._pending]
        self._pending.clear()
        self._helper.close()
        self._failed_helpers += 1
        if self._failed_helpers > HELPER_TRIES:
            self._lose(f"{words}, {self._failed_helpers} times{self._last_words()}")
        else:
            self.helper_news.append(words)
            self._connected = False
            self._helper = self._start_helper(now)
        return given_up

    def _lose(self, why: str) -> None:
        self.state, self.why = State.LOST, why
        self._helper.close()
        if self._prte.poll() is None:
            self._prte.kill()

    # --- processes -------------------------------------------------------------------------------

    def _start_prte(self) -> subprocess.Popen[bytes]:
        argv = [str(self._site.prte.program), "--report-uri", str(self._uri)]
        argv += ["--host", ",".join(map(_host, self.nodes)), "--leave-session-attached"]
        for name, value in self._parameters().items():
            argv += ["--prtemca", name, value]
        try:
            with self._log.open("ab") as log:
                return subprocess.Popen(
                    die_with_parent.words(os.getpid(), argv, isolated=self._site.isolated),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchError(f"cannot start {argv[0]}: {error.strerror}") from error

    def _parameters(self) -> dict[str, str]:
        """One way for every site: nodes are those we name, daemons start through our agent."""
        keepalive = {f"oob_tcp_keepalive_{name}": value for name, value in _KEEPALIVE.items()}
        return {
            "ras": "^slurm,pbs,lsf,gridengine",
            "plm": "ssh",
            "plm_ssh_agent": self._agent(),
            "plm_ssh_no_tree_spawn": "1",  # only this node needs a way to the others
            "plm_ssh_num_concurrent": str(max(128, 2 * len(self.nodes))),  # they stay attached
            **keepalive,
        }

    def _agent(self) -> str:
        """PRTE splits this at blanks and colons: words that have some hide in a script on PATH."""
        file = self._folder / "agent"
        agent.write(file, self._site.agent, self._site.environ)
        words = [sys.executable, "-P", "-m", "launcher.process.agent", str(file)]
        if not any(letter in word for word in words for letter in " :\t'\""):
            return " ".join(words)
        programs = self._folder / "bin"
        programs.mkdir()
        script = programs / "simenv-agent"
        script.write_text("#!/bin/sh\nexec " + shlex.join(words) + ' "$@"\n')
        script.chmod(0o700)
        self._environ["PATH"] = f"{programs}:{self._environ.get('PATH', os.defpath)}"
        return script.name

    def _start_helper(self, now: float) -> HelperProcess:
        self._helper_until = now + HELPER_TIMEOUT_S
        prte = self._site.prte
        with self._log.open("ab") as log:
            libraries = [*prte.preload, prte.library]
            return HelperProcess(
                self._uri,
                libraries,
                self._environ,
                log.fileno(),
                network_of=self._prte.pid if self._site.isolated else 0,
            )

    def _heard(self) -> str:
        """What prte, its daemons and the agent have said so far."""
        with suppress(OSError):
            return self._log.read_text("utf-8", "replace")
        return ""

    def _last_words(self) -> str:
        words = last_words(self._heard())
        return f": {words}" if words else ""


def _host(node: Node) -> str:
    return f"{node.name}:{max(1, node.slots)}"


def _ending(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {-code}"
