"""Remote commands: through the user's own agent, srun inside a Slurm job, else ssh.

An agent is called as `AGENT HOST COMMAND...`; the words after HOST, joined by spaces, go to a shell
on the host, as with ssh. PRTE calls `-m launcher.process.agent FILE` with arguments of ssh to start
its daemons. FILE, of mode 0600, holds the user's agent and the agent's environment, which has more
variables than a DVM may inherit.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from launcher.allocation.hostlist import MAX_HOSTS, expand_hosts, parse_uint
from simenv.sandbox.die_with_parent import bind_to_parent

# Variables that a daemon, and so a rank, inherits from the environment of its start.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LD_LIBRARY_PATH")
_FLAGS = frozenset({"-x", "-X", "-n", "-q", "-T", "-t", "-f", "-a", "-A"})  # flags of ssh
_OPTIONS_WITH_VALUE = frozenset({"-o", "-p", "-l", "-i"})
_SSH = (
    *("ssh", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # An ssh to a disconnected node must end.
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
_SRUN = (
    *("srun", "--overlap", "--nodes=1", "--ntasks=1", "--mpi=none", "--cpu-bind=none"),
    *("--quit-on-interrupt", "--kill-on-bad-exit", "--export=ALL"),
)
# A daemon's files get their own folder with an unpredictable name. It is removed by a process that
# checks once a second whether the daemon runs, as PRTE kills the shell at its end. Folders that
# remain after a power failure are removed at the next start. Ranks inherit the daemon's
# environment, so it has only the variables that programs need.
_DAEMON_SCRIPT = """trap 'kill $daemon 2>/dev/null' TERM INT HUP
name=${{TMPDIR:-/tmp}}/simenv-prted.$(uname -n)
for old in "$name".*; do
    pid=${{old#"$name".}}
    [ -L "$old" ] || [ ! -O "$old" ] || kill -0 "${{pid%%.*}}" 2>/dev/null || rm -rf "$old"
done
TMPDIR=$(mktemp -d "$name.$$.XXXXXXXXXX") || exit
export TMPDIR
env -i {variables} {login} -c {command} &
daemon=$!
(trap '' TERM INT HUP; while kill -0 $daemon; do sleep 1; done; rm -rf "$TMPDIR") \
    </dev/null >/dev/null 2>&1 &
remover=$!
while kill -0 $daemon 2>/dev/null; do wait $daemon; code=$?; done
while kill -0 $remover 2>/dev/null; do wait $remover; done
exit $code"""


def remote_command(
    host: str, command: Sequence[str], environ: Mapping[str, str], agent: str = ""
) -> list[str]:
    """Return the command line that runs `command` on a node.

    `agent`: the user's program with its first arguments; "": srun inside a Slurm job, else ssh.
    """
    if agent:
        return [*shlex.split(agent), host, *command]
    if "SLURM_JOB_ID" in environ:
        group = _het_group(host, environ)
        srun = [*_SRUN, *group, f"--nodelist={host}"]
        return [*srun, "/bin/sh", "-c", " ".join(command)]
    return [*_SSH, host, *command]


def _het_group(host: str, environ: Mapping[str, str]) -> list[str]:
    """Return the option --het-group, without which srun finds only nodes of the job's first
    component."""
    for group in range(parse_uint(environ.get("SLURM_HET_SIZE", ""), MAX_HOSTS) or 0):
        nodes = environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{group}", "")
        if nodes and host in expand_hosts(nodes, "SLURM_JOB_NODELIST"):
            return [f"--het-group={group}"]
    return []


def write_settings(file: Path, agent: str, environ: Mapping[str, str]) -> None:
    """Write the FILE that `main` reads."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump({"agent": agent, "environ": dict(environ)}, out)


def parse_ssh_arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return host and command of a command line with arguments of ssh."""
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in _OPTIONS_WITH_VALUE and rest:
            rest.pop(0)
        elif option not in _FLAGS and option[:2] not in _OPTIONS_WITH_VALUE:
            raise SystemExit(f"launcher.process.agent: unknown option {option}")
    if len(rest) < 2:
        raise SystemExit("usage: launcher.process.agent FILE [options] HOST COMMAND...")
    return rest[0].rpartition("@")[2], rest[1:]


def daemon_command(command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the words that run a daemon with its own temporary folder and with the MCA parameters
    in `environ`."""
    variables = " ".join(
        [f'${{{name}:+{name}="${name}"}}' for name in (*INHERITED, "TMPDIR")]
        + [shlex.quote(f"{name}={value}") for name, value in environ.items() if "_MCA_" in name]
    )
    quoted = shlex.quote(" ".join(command))
    script = _DAEMON_SCRIPT.format(variables=variables, login=_login_shell(), command=quoted)
    return ["exec", "/bin/sh", "-c", shlex.quote(script)]


def _login_shell() -> str:
    """Return the shell whose syntax PRTE uses in its commands: the user's login shell."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        return "/bin/sh"
    return shell if shell.endswith("csh") else "/bin/sh"


def main(argv: list[str]) -> NoReturn:
    """Replace this process by the program that runs the command on the node."""
    file, *ssh_arguments = argv
    host, command = parse_ssh_arguments(ssh_arguments)
    settings = json.loads(Path(file).read_text())
    environ = settings["environ"]
    remote = remote_command(host, daemon_command(command, environ), environ, settings["agent"])
    bind_to_parent(0, signal.SIGTERM)  # a connection ends with the DVM that requested it
    try:
        os.execvpe(remote[0], remote, environ)
    except OSError as error:
        message = f"launcher.process.agent: cannot start {remote[0]}: {error.strerror}"
        raise SystemExit(message) from error


if __name__ == "__main__":
    main(sys.argv[1:])
