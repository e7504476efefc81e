"""How a command gets to another node: the user's own agent, srun inside a Slurm job, else ssh.

An agent is called as `AGENT HOST COMMAND...`; the words after HOST, joined by spaces, go to a shell
there, as ssh does it. PRTE calls `-m launcher.process.agent FILE` in ssh's manner to start its
daemons; FILE, 0600, holds the user's agent and the environment it is to have: more than a DVM may
inherit.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from launcher.allocation.hostlist import MAX_HOSTS, hosts, whole_number

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What a daemon, and so a rank, has of the environment it was started in.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LD_LIBRARY_PATH")
_ALONE = frozenset({"-x", "-X", "-n", "-q", "-T", "-t", "-f", "-a", "-A"})  # ssh's, of one word
_PAIRED = frozenset({"-o", "-p", "-l", "-i"})
_SSH = (
    *("ssh", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # A node that is cut off holds no ssh for ever.
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
_SRUN = (
    *("srun", "--overlap", "--nodes=1", "--ntasks=1", "--mpi=none", "--cpu-bind=none"),
    *("--quit-on-interrupt", "--kill-on-bad-exit", "--export=ALL"),
)
# A daemon's files get a folder of their own, whose name nobody can know before. A process that
# looks once a second whether the daemon lives removes it: PRTE kills the shell itself when it ends.
# What a power cut left goes at the next start. Ranks inherit the daemon's environment: it gets no
# more than programs need to run.
_CONTAINED = """trap 'kill $daemon 2>/dev/null' TERM INT HUP
name=${{TMPDIR:-/tmp}}/simenv-prted.$(uname -n)
for old in "$name".*; do
    pid=${{old#"$name".}}
    [ -L "$old" ] || [ ! -O "$old" ] || kill -0 "${{pid%%.*}}" 2>/dev/null || rm -rf "$old"
done
TMPDIR=$(mktemp -d "$name.$$.XXXXXXXXXX") || exit
export TMPDIR
env -i {kept} {login} -c {command} &
daemon=$!
(trap '' TERM INT HUP; while kill -0 $daemon; do sleep 1; done; rm -rf "$TMPDIR") \
    </dev/null >/dev/null 2>&1 &
remover=$!
while kill -0 $daemon 2>/dev/null; do wait $daemon; code=$?; done
while kill -0 $remover 2>/dev/null; do wait $remover; done
exit $code"""


def reach(
    host: str, words: Sequence[str], environ: Mapping[str, str], agent: str = ""
) -> list[str]:
    """The command line that runs `words` on a node. `agent`: the user's program, with its first
    arguments, if there is one."""
    if agent:
        return [*shlex.split(agent), host, *words]
    if "SLURM_JOB_ID" in environ:
        group = _het_group(host, environ)
        srun = [*_SRUN, *group, f"--nodelist={host}"]
        return [*srun, "/bin/sh", "-c", " ".join(words)]
    return [*_SSH, host, *words]


def _het_group(host: str, environ: Mapping[str, str]) -> list[str]:
    """srun finds nodes of the first component of a heterogeneous job only, unless told."""
    for group in range(whole_number(environ.get("SLURM_HET_SIZE", ""), MAX_HOSTS) or 0):
        nodes = environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{group}", "")
        if nodes and host in hosts(nodes, "SLURM_JOB_NODELIST"):
            return [f"--het-group={group}"]
    return []


def write(file: Path, agent: str, environ: Mapping[str, str]) -> None:
    """What `main` needs to know."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump({"agent": agent, "environ": dict(environ)}, out)


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Host and command out of a command line in ssh's manner."""
    words = list(argv)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _PAIRED and words:
            words.pop(0)
        elif option not in _ALONE and option[:2] not in _PAIRED:
            raise SystemExit(f"launcher.process.agent: unknown option {option}")
    if len(words) < 2:
        raise SystemExit("usage: launcher.process.agent FILE [options] HOST COMMAND...")
    return words[0].rpartition("@")[2], words[1:]


def contained(command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The words that run a daemon with a temporary folder of its own, and with the settings of MCA
    parameters that are in `environ`."""
    kept = " ".join(
        [f'${{{name}:+{name}="${name}"}}' for name in (*INHERITED, "TMPDIR")]
        + [shlex.quote(f"{name}={value}") for name, value in environ.items() if "_MCA_" in name]
    )
    words = shlex.quote(" ".join(command))
    script = _CONTAINED.format(kept=kept, login=_login_shell(), command=words)
    return ["exec", "/bin/sh", "-c", shlex.quote(script)]


def _login_shell() -> str:
    """PRTE words its commands for the user's login shell."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        return "/bin/sh"
    return shell if shell.endswith("csh") else "/bin/sh"


def main(argv: list[str]) -> NoReturn:
    """Become the program that reaches the node."""
    file, *called = argv
    host, command = split(called)
    told = json.loads(Path(file).read_text())
    environ = told["environ"]
    words = reach(host, contained(command, environ), environ, told["agent"])
    if sys.platform.startswith("linux"):  # a connection ends with the DVM that asked for it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        os.execvpe(words[0], words, environ)
    except OSError as error:
        raise SystemExit(
            f"launcher.process.agent: cannot start {words[0]}: {error.strerror}"
        ) from error


if __name__ == "__main__":
    main(sys.argv[1:])
