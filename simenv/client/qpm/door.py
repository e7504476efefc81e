"""Whether a call may come in: with the token this QPM was told, if it was told one.

Without one a token is taken and not looked at: a QPM has the rights of its client, and no more.
"""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path
from typing import Any

from simenv.client.qpm import fields
from simenv.errors import ConfigError
from simenv.qpm.errors import ExecutionError
from simenv.qpm.states import Reason


class Door:
    """Thread-safe."""

    def __init__(self, token: str | None = None) -> None:
        self._token = None if token is None else token.encode("utf-8", "surrogatepass")

    def check(self, token: Any) -> None:
        """ExecutionError where it is no token, or not the one."""
        given = fields.optional_text("token", token)
        if self._token is None:
            return
        shown = b"" if given is None else given.encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(shown, self._token):
            raise ExecutionError(
                "this call carries no token" if given is None else "this call's token is wrong",
                hint="token=: what the QPM's token file holds",
                reason=Reason.CREDENTIAL,
            )


def read_token(path: Path) -> str:
    """The first line of a file that nobody else may read. ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            text = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path}: {error}", hint="a file with a token") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"token file {path} can be read by others",
            hint=f"chmod 600 {path}, and it must be yours",
        )
    if not 0 < len(text) <= fields.MAX_TEXT_CHARS:
        raise ConfigError(
            f"token file {path} holds no token",
            hint=f"1 to {fields.MAX_TEXT_CHARS} characters in its first line",
        )
    return text
