"""The hook of the JupyterHub example gives each notebook the identity of its user."""

import asyncio
import json
import os
import pwd
import runpy
import ssl
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from live import environment

from simenv.client.environments import await_gateway

CONFIG = Path(__file__).parents[2] / "examples" / "jupyterhub" / "jupyterhub_config.py"
COMMAND = Path(sys.prefix) / "bin" / "simenv"
USER = pwd.getpwuid(os.geteuid()).pw_name


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Any:
    """The hook that the configuration sets, as JupyterHub loads it."""
    for name, value in variables.items():
        monkeypatch.setenv(f"SIMENV_{name}", value)
    config: Any = defaultdict(SimpleNamespace)
    found = SimpleNamespace(Spawner=config["Spawner"])
    runpy.run_path(str(CONFIG), {"get_config": lambda: found})
    assert "PATH" in found.Spawner.env_keep
    return found.Spawner.pre_spawn_hook


def spawned(hook: Any, user: str) -> dict[str, str]:
    """Variables of the notebook server of a user."""
    spawner = SimpleNamespace(user=SimpleNamespace(name=user), environment={})
    asyncio.run(hook(spawner))
    return spawner.environment


def test_local_user_gets_the_address_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = loaded(monkeypatch, NAME="lab")
    assert spawned(hook, USER) == {"SIMENV_SERVICE": f"local:{USER}/lab"}
    with pytest.raises(KeyError):
        spawned(hook, "nobody-of-this-host")


def test_other_user_gets_a_token_that_the_gateway_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = {"physics": {"users": ["ana"]}}
    with environment(accounts=accounts, gateway={"listen": "127.0.0.1:0"}) as live:
        gateway = await_gateway(live.home)
        assert gateway is not None
        hook = loaded(monkeypatch, NAME=live.name, USERS="token", COMMAND=str(COMMAND))
        found = spawned(hook, "ana")
        with live.client() as client:
            assert [token.user for token in client.tokens.listed()] == ["ana"]
        secret = found["QISKIT_IBM_TOKEN"]
        answer = httpx.get(
            f"{found['QISKIT_IBM_URL']}/backends",
            headers={"Authorization": f"apikey {secret}"},
            verify=ssl.create_default_context(cafile=found["SSL_CERT_FILE"]),
        )
        assert answer.status_code == 200, answer.text
        assert secret not in json.dumps(dict(os.environ))
    with pytest.raises(RuntimeError, match="no token for ana: "):  # the environment is down
        spawned(hook, "ana")
