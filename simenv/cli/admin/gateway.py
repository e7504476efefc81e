"""`simenv gateway` and `simenv web`: the environment over HTTP, its tokens, and variables for
clients.

Invariant: a token is printed once, by the command that makes it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from simenv import config, files
from simenv.cli import app, terminal
from simenv.cli.admin.keys import note_without_account
from simenv.cli.listing import Column, listed
from simenv.client.connection import address
from simenv.config import running_gateway
from simenv.errors import ConfigError, NotFoundError, OptionError
from simenv.model.devices import CalibrationSource

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.config import GatewayFile
    from simenv.wire.messages.credentials import TokenCreated, TokenInfo

OWN_USER = "(own user)"
PASQAL_PATH = "/pasqal"  # of Pasqal's API
PASQAL_TYPES = ("EMU_FREE", "EMU_MPS", "EMU_FRESNEL")  # of emulators that QRMI knows
API_PATH = "/experimental/api/v1"  # of IBM's API; the word keeps its client at this address
ENV_TOKEN = "12h"  # lifetime of the token that `env` makes
LINK_S = 600.0  # lifetime of a one-time link
# Of Debian and of Red Hat, where the OpenSSL of Python knows no other.
SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# Files of certificates for clients: those with requests, those with OpenSSL or rustls, and curl.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")

gateway = typer.Typer(help="Serve the environment over HTTP, and manage bearer tokens.")
tokens = typer.Typer(help="Manage the bearer tokens of HTTP clients.")
gateway.add_typer(tokens, name="tokens")


@gateway.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; default: that of simenv.toml, or any port of 127.0.0.1.")
    ] = "",
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="TLS, or plain HTTP on loopback.")
    ] = None,
) -> None:
    """Serve the environment over HTTP until interrupted; `simenv up --gateway` starts it along."""
    if context.invoked_subcommand is not None:
        return
    if importlib.util.find_spec("litestar") is None:
        text = "the packages of the gateway are not installed"
        raise ConfigError(text, hint="pip install 'simenv[gateway]'")
    common = app.settings_of(context)
    endpoint = address.find(common.name, common.service)
    name = endpoint.name
    argv = [config.interpreter(), "-P", "-m", "simenv.gateway", name]
    hint = "its owner makes one: simenv keys add gateway --role gateway"
    if isinstance(endpoint, address.KeyFileAddress):
        if endpoint.role == "client":  # it could exchange no token
            raise OptionError(
                f"a gateway needs another key than {endpoint.path}, of a client", hint=hint
            )
        argv += ["--service", str(endpoint.path)]
    elif isinstance(endpoint, address.FileAddress):
        argv += ["--home", str(endpoint.path.parent.absolute())]
    else:
        raise OptionError(f"a gateway needs a key, and {endpoint.path} has none", hint=hint)
    argv += ["--listen", listen] if listen else []
    argv += [] if tls is None else ["--tls" if tls else "--no-tls"]
    terminal.flush()
    os.execv(argv[0], argv)


def _running(context: typer.Context) -> GatewayFile:
    """Return the running gateway of the environment. Raises NotFoundError."""
    common = app.settings_of(context)
    endpoint = address.find(common.name, common.service)
    home = config.home_root() / endpoint.name
    if isinstance(endpoint, address.FileAddress):
        home = endpoint.path.parent
    found = running_gateway(home)
    if found is None:
        hint = "simenv gateway, or simenv up --gateway HOST:PORT"
        raise NotFoundError(f"no gateway of {endpoint.name!r} runs on this machine", hint=hint)
    return found


def _given_url(context: typer.Context, url: str) -> str:
    """Return the URL of the option --url, else, for the environment's own user, that of the gateway
    on this machine; "" for others. Raises ConfigError, NotFoundError."""
    common = app.settings_of(context)
    if url:
        return config.check_web_url(url, "--url")
    is_own = isinstance(address.find(common.name, common.service), address.FileAddress)
    return _running(context).url if is_own else ""


def _url_of(client: Client, made: TokenCreated) -> str:
    """Return the URL that the service names, which knows its present gateway, else that of the key
    file. Revokes the token and raises NotFoundError if neither names one."""
    path = Path(client.service)
    found = made.gateway
    if not found and address.is_personal(path):
        found = address.KeyFileAddress(path).gateway
    if not found:
        client.tokens.revoke(made.token.number)
        hint = "ask its administrator for the address of the gateway, and give it: --url URL"
        raise NotFoundError(f"environment {client.name!r} names no gateway", hint=hint)
    return found


@gateway.command()
def status(context: typer.Context) -> None:
    """Show the address of the running gateway."""
    common = app.settings_of(context)
    if not isinstance(address.find(common.name, common.service), address.FileAddress):
        with common.connect() as client:
            name, url = client.name, client.status().gateway
        if not url:
            hint = "its administrator starts one: simenv up --gateway HOST:PORT"
            raise NotFoundError(f"environment {name!r} has no gateway", hint=hint)
        lines = [f"gateway  {url}   simenv web prints a link"]
        common.answer({"environment": name, "url": url}, lines)
        return
    found = _running(context)
    value = {"environment": found.environment, "url": found.url, "pid": found.pid}
    text = f"gateway  {found.url}   process {found.pid}   version {found.version}"
    socket = f"socket   {found.socket}   for programs of this user on this machine"
    value |= {"version": found.version, "socket": found.socket}
    common.answer(value, [text, socket])


_TOKENS: tuple[Column[TokenInfo], ...] = (
    Column("NUMBER", lambda token: token.number),
    Column("USER", lambda token: token.user or OWN_USER),
    Column("ROLE", lambda token: token.role),
    Column("ACCOUNT", lambda token: token.account or "-"),
    Column("PURPOSE", lambda token: terminal.clean(token.purpose) or "-"),
    Column("MADE", lambda token: _time_text(token.at_s)),
    Column("EXPIRES", lambda token: _time_text(token.expires_s)),
    Column("USED", lambda token: _time_text(token.used_s) if token.used_s else "never"),
)


def _time_text(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


@tokens.command("list")
@listed(_TOKENS)
def list_tokens(client: Client) -> Iterable[TokenInfo]:
    """List your tokens, or those of all users for an admin; never their secrets."""
    return client.tokens.listed()


@tokens.command()
def add(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="User of the token; default: you.")] = "",
    role: Annotated[
        str, typer.Option(help="client or admin, not above your own; monitor: reads metrics.")
    ] = "client",
    account: Annotated[str, typer.Option(help="Account that is charged by default.")] = "",
    purpose: Annotated[str, typer.Option(help="Text for the list: notebook.")] = "",
    expires: Annotated[str, typer.Option(help="Time in which it is accepted: 12h, 30d.")] = "30d",
) -> None:
    """Make a token and print it."""
    lifetime_s, common = _span(expires), app.settings_of(context)
    with common.connect() as client:
        made = client.tokens.add(
            user, account=account, role=role, purpose=purpose, lifetime_s=lifetime_s
        )
        if user and made.token.role == "client":
            note_without_account(client.accounts.listed(), user)
    token = made.token
    common.answer(
        {"secret": made.secret, **msgspec.structs.asdict(token)},
        (
            f"token  {made.secret}",
            f"of     {token.user or OWN_USER}, role {token.role}, number {token.number}, until "
            f"{_time_text(token.expires_s)}",
            "       it is shown once; send it as `Authorization: Bearer TOKEN`",
        ),
    )


@tokens.command()
def revoke(
    context: typer.Context,
    numbers: Annotated[
        list[str],
        typer.Argument(help="Numbers of tokens, as `list` shows them.", metavar="NUMBER..."),
    ],
) -> None:
    """Revoke tokens at once; the tasks of their users stay."""
    common = app.settings_of(context)
    with common.connect() as client:
        for number in numbers:
            client.tokens.revoke(number)
            common.answer({"number": number, "revoked": True}, [f"token {number} is revoked"])


@gateway.command("env")
def environment(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="User of the new token; default: you.")] = "",
    url: Annotated[
        str, typer.Option(help="Address of the gateway; default: as `simenv web` finds it.")
    ] = "",
    expires: Annotated[str, typer.Option(help="Time in which the token is accepted.")] = ENV_TOKEN,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Bundled device that QRMI gets variables for; may be repeated."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the authority of the gateway's certificate; default: that of the"
            " environment."
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="File for the certificates that clients trust, which all may read; default: one"
            " below SIMENV_HOME, for yourself."
        ),
    ] = None,
) -> None:
    """Print `export NAME=value` lines for the clients of IBM, IQM and QRMI and for C, with a new
    token, and with the authority by which they check the gateway's certificate.

    In a shell: eval "$(simenv gateway env)". QRMI has variables for pools, imported devices and
    those of --device."""
    url, common = _given_url(context, url), app.settings_of(context)
    with common.connect() as client:
        known, asked = client.device_names(), device or []
        if unknown := sorted({*asked} - {*known}):
            raise NotFoundError(f"there is no device {unknown[0]!r:.80}", hint="simenv devices")
        imported = [name for name, source in known.items() if source is CalibrationSource.IMPORTED]
        names = sorted({*client.devices(), *imported, *asked})  # no pools of functions
        span = _span(expires)
        made = client.tokens.add(user, purpose="simenv gateway env", lifetime_s=span)
        url = url or _url_of(client, made)
        authority = made.authority if ca is None else read_authority(ca)
        values = variables(url, client.name, made.secret, names, authority, bundle)
    common.answer(values, (f"export {name}={shlex.quote(value)}" for name, value in values.items()))


def _span(expires: str) -> float:
    """Return a time span in seconds. Raises OptionError."""
    span_s = terminal.span_s(expires)
    if not span_s:
        raise OptionError(f"--expires {expires[:80]!r} is no time span", hint="90s, 1h30m, 30d")
    return span_s


def read_authority(path: Path) -> str:
    """Return the certificates of a PEM file. Raises OptionError."""
    try:
        text = path.read_text()
        ssl.create_default_context(cadata=text)
    except (OSError, ValueError) as error:
        raise OptionError(f"--ca {path}: {error}", hint="a PEM file of certificates") from error
    return text


def variables(
    url: str,
    environment: str,
    secret: str,
    backends: Iterable[str],
    authority: str = "",
    bundle: Path | None = None,
) -> Mapping[str, str]:
    """Return the variables of IBM's and IQM's clients, of C, and of QRMI for each backend and each
    of Pasqal's types of emulators. Backends whose names cannot be a part of a variable's name have
    none for QRMI. `authority`: certificates by which clients check the gateway's, "" for those of
    the system; they are written to `bundle`, or below SIMENV_HOME. Raises ConfigError."""
    crn = f"crn:v1:simenv:public:quantum-computing:local:a/{environment}:{environment}::"
    result = {
        "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        "QISKIT_IBM_URL": f"{url}{API_PATH}",
        "QISKIT_IBM_INSTANCE": crn,
        "QISKIT_IBM_TOKEN": secret,
        "IAM_URL": url,
        "QISKIT_FUNCTIONS_EXPERIMENTAL": "1",
        "IQM_SERVER_URL": url,
        "IQM_TOKEN": secret,
        "SIMENV_URL": url,
        "SIMENV_TOKEN": secret,
    }
    if authority and url.startswith("https:"):
        path = authority_files(environment, authority, bundle)[1]
        result |= dict.fromkeys(CA_VARIABLES, str(path))
    usable = [name for name in backends if name.isidentifier() and name.isascii()]
    for name in usable:
        result |= {
            f"{name}_QRMI_IBM_QCS_{key}": value
            for key, value in {
                "ENDPOINT": f"{url}{API_PATH}",
                "IAM_ENDPOINT": url,
                "IAM_APIKEY": secret,
                "SERVICE_CRN": crn,
                "SESSION_MODE": "dedicated",
            }.items()
        }
        result |= {f"{name}_QRMI_IQM_ISA_ENDPOINT": url, f"{name}_QRMI_IQM_ISA_TOKEN": secret}
    for name in PASQAL_TYPES:
        of_type = {
            "BASE_URL": f"{url}{PASQAL_PATH}",
            "AUTH_TOKEN": secret,
            "PROJECT_ID": environment,
        }
        result |= {f"{name}_QRMI_PASQAL_CLOUD_{key}": value for key, value in of_type.items()}
    result["QRMI_JOB_QPU_RESOURCES"] = ",".join(usable)
    result["QRMI_JOB_QPU_TYPES"] = ",".join(["ibm-quantum-compute-service"] * len(usable))
    return result


def authority_files(
    environment: str, authority: str, public: Path | None = None
) -> tuple[Path, Path]:
    """Store the certificates of an environment's authority below SIMENV_HOME, or, for a user
    without a home, in the user's folder for sockets on this node. Returns the file with them alone,
    and one with those of the system too, because clients that get a file use no others. `public`:
    path of the second one for users of other accounts. Raises ConfigError."""
    try:
        folder = files.private_folder(config.home_root() / "authorities")
    except ConfigError:
        folder = files.private_folder(config.lasting_socket_folder() / "authorities", "TMPDIR")
    mark = hashlib.blake2b(authority.encode(), digest_size=4).hexdigest()
    alone, bundle = folder / f"{environment}-{mark}.pem", folder / f"{environment}-{mark}.all.pem"
    bundle = bundle if public is None else public.absolute()
    named = (os.environ.get(name, "") for name in CA_VARIABLES)
    found = [*named, ssl.get_default_verify_paths().cafile or "", *SYSTEM_FILES]
    usable = [path for path in map(Path, filter(None, found)) if path.is_file()]
    system = next((path for path in usable if path.parent != folder), None)
    try:
        others = system.read_text(errors="replace") if system is not None else ""
        files.write_atomic(alone, authority.encode())
        files.write_atomic(bundle, f"{others.rstrip()}\n{authority}".lstrip().encode())
        if public is not None:
            bundle.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {alone} and {bundle}: {error.strerror}") from error
    return alone, bundle


def web(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            help="Address of the gateway; default: that on this machine, else the one that the"
            " service or the key file names."
        ),
    ] = "",
) -> None:
    """Print a one-time link to the page of the environment; it opens nothing."""
    url, common = _given_url(context, url), app.settings_of(context)
    with common.connect() as client:
        made = client.tokens.add(role="", purpose="simenv web", lifetime_s=LINK_S, once=True)
        url, name = url or _url_of(client, made), client.name
    link = f"{url}/login?token={made.secret}"
    value = {"url": link, "expires_s": made.token.expires_s}
    lines = [link, f"it opens one session, until {_time_text(made.token.expires_s)}"]
    if made.authority and link.startswith("https:"):
        path = authority_files(name, made.authority)[0]
        value["authority"] = str(path)
        lines.append(f"browsers trust it once they have imported the authority {path}")
    common.answer(value, lines)
