"""A gateway of the environment's own user, where the service listens for nobody else."""

import asyncio
from pathlib import Path

import pytest
from failing import fails

from simenv.client.client import Client
from simenv.client.connection.address import FileAddress
from simenv.errors import ConfigError, NotAllowedError
from simenv.gateway import clients
from simenv.gateway.clients import ClientPool


def test_user_is_served_by_connection_file(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CHECK_S", 0.0)
    path = Path(env.service)
    admin, client = (env.tokens.add(role=role).secret for role in ("admin", "client"))

    async def serve() -> None:
        pool = ClientPool(Client(FileAddress(path)), FileAddress(path))
        for _ in range(2):  # the second time the token is confirmed again
            caller = await pool.caller(admin)
            assert (caller.user, caller.role) == ("", "admin")
        assert pool.entry(caller).client.keys.listed() == []
        fails(NotAllowedError, "", pool.entry(await pool.caller(client)).client.keys.listed)
        pool.close()

    asyncio.run(serve())
    fails(ConfigError, "without a gateway for other users", env.tokens.add, "ana")
    for each in env.tokens.listed():
        env.tokens.revoke(each.number)
