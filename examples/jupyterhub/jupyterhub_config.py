"""JupyterHub: each notebook uses the environment as its own user.

    jupyterhub -f examples/jupyterhub/jupyterhub_config.py

The hub runs as the owner of the environment, or as root with OWNER below. See
docs/guides/jupyterhub.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from typing import Any

OWNER = os.environ.get("SIMENV_OWNER", "")  # user that runs the environment; "": the hub's own
NAME = os.environ.get("SIMENV_NAME", "default")  # the environment's
SIMENV = os.environ.get("SIMENV_COMMAND", "simenv")
TOKEN_LIFETIME = "12h"
# File for the certificates by which notebooks check the gateway; they must be able to read it.
CERTIFICATES = os.environ.get("SIMENV_CERTIFICATES", "")
# Users of this host are known by their processes. Set it to False if notebooks run in containers or
# as one system user, or if their programs are written for IBM's clients.
USERS_ARE_LOCAL = os.environ.get("SIMENV_USERS", "local") == "local"


async def identify(spawner: Any) -> None:
    """Hook of JupyterHub before a notebook server starts: give it its user's identity."""
    if USERS_ARE_LOCAL:
        pwd.getpwnam(spawner.user.name)  # KeyError: the hub's user is no user of this host
        owner = OWNER or pwd.getpwuid(os.geteuid()).pw_name
        spawner.environment["SIMENV_SERVICE"] = f"local:{owner}/{NAME}"
        return
    spawner.environment.update(await token_variables(spawner.user.name))


async def token_variables(user: str) -> dict[str, str]:
    """Return the variables of IBM's client and of QRMI, with a new token of a user. Raises
    RuntimeError with the reason if the environment does not know the user or has no gateway."""
    command = [SIMENV, "gateway", "env", "--user", user, "--expires", TOKEN_LIFETIME]
    command += ["--name", NAME, "--json"]
    command += ["--bundle", CERTIFICATES] if CERTIFICATES else []
    if OWNER and os.geteuid() == 0:
        command = ["runuser", "-u", OWNER, "--", *command]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"no token for {user}: {errors.decode(errors='replace').strip()}")
    values: dict[str, str] = json.loads(output)
    return values


c = get_config()  # type: ignore[name-defined]  # noqa: F821  # defined by JupyterHub
c.Spawner.pre_spawn_hook = identify
# The kernel of a notebook needs nothing else of the hub's environment.
c.Spawner.env_keep = ["PATH", "LANG", "LC_ALL", "VIRTUAL_ENV"]
