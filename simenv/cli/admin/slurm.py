"""`simenv slurm`: `--qpu` of Slurm's jobs; the plugin, the licences, the reservations of jobs.

`reserve` is what PrologSlurmctld runs, `env` what the SPANK plugin runs as the user of a job, and
`release` what EpilogSlurmctld runs. Where no service answers, `reserve` fails, and `env` requeues:
Slurm repeats the job.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from simenv.cli import app, terminal
from simenv.errors import (
    NoServiceError,
    NotFoundError,
    OptionError,
    SimenvError,
    SlurmAwayError,
    SlurmError,
    SlurmFileError,
    VersionMismatchError,
)

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.frontends.slurm.jobs import JobReservation, Reconciled
    from simenv.frontends.slurm.licenses import License, LicenseUpdate
    from simenv.model import ReservationInfo

CONF_FOLDER = Path("/etc/slurm")
DEFAULT = Path("build/slurm")
TOKEN_S = 365 * 86_400.0  # of a job's token, which ends with its reservation
SHARE_S = 30.0  # in which the job before must have returned its share, and the service answer
RETRY_S = 0.5  # pause before another look for a service that is away
SILENCE_S = 5.0  # of the service, after which `sync` holds all licences back
MUNGE = "SIMENV_MUNGE_SOCKET"

slurm = typer.Typer(help="Give jobs of Slurm their share of pools: sbatch --qpu=POOL:COUNT.")
Cluster = Annotated[
    str, typer.Option(help="ClusterName of slurm.conf; default: SLURM_CLUSTER_NAME.")
]
Conf = Annotated[Path, typer.Option("--conf", help="Folder of slurm.conf.")]


@slurm.command()
def build(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of the plugin.")] = DEFAULT,
    include: Annotated[
        str, typer.Option(help="Folder of slurm/spank.h, if the compiler does not search it.")
    ] = "",
) -> None:
    """Compile the SPANK plugin with CC, default cc, for the Slurm of this host."""
    from simenv.frontends import slurm as frontend

    plugin = frontend.build(folder, include=include)
    lines = (str(plugin), f"next: simenv slurm install --plugin {plugin} --service ADDRESS")
    app.settings_of(context).answer({"plugin": str(plugin)}, lines)


@slurm.command()
def install(
    context: typer.Context,
    plugin: Annotated[
        Path, typer.Option(help="The plugin that `build` made, at its path on all nodes.")
    ] = DEFAULT / "simenv_spank.so",
    conf: Conf = CONF_FOLDER,
    gateway: Annotated[str, typer.Option(help="URL of the gateway, for HTTP clients.")] = "",
    admin: Annotated[
        str, typer.Option(help="Address for prolog and epilog, which need the role admin.")
    ] = "",
    cluster: Cluster = "",
    program: Annotated[
        Path | None, typer.Option("--simenv", help="The command simenv on all nodes.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority of the gateway's certificate.")
    ] = None,
    option: Annotated[
        str, typer.Option(help="Name of the option of jobs, where another plugin has --qpu.")
    ] = "qpu",
) -> None:
    """Write the plugin's line in plugstack.conf, prolog, epilog, job_submit.lua and the file of
    licences, and print the lines that slurm.conf needs.

    `--service` is the address for users of all nodes: munge:OWNER@HOST:PORT/NAME. Nothing is
    written if Slurm of this host, whose slurmctld need not run, does not load the plugin.
    """
    from simenv.cli.admin.gateway import read_authority
    from simenv.frontends import slurm as frontend

    common = app.settings_of(context)
    service = str(common.service or os.environ.get("SIMENV_SERVICE", ""))
    if not service:
        hint = "simenv slurm install --service munge:OWNER@HOST:PORT/NAME"
        raise OptionError("the address of the environment is not given", hint=hint)
    if ca is not None:
        read_authority(ca)
    site = frontend.SlurmSite(
        service,
        _cluster(cluster, conf),
        gateway.rstrip("/"),
        os.environ.get(MUNGE, ""),
        admin,
        "" if ca is None else str(ca.absolute()),
        option.removeprefix("--"),
    )
    plugin, program = plugin.absolute(), (program or frontend.program()).absolute()
    frontend.check(plugin, conf, site, program)
    done = frontend.install(plugin, conf, site, program)
    value = {"files": [str(path) for path in done.files], "slurm_conf": list(done.slurm_conf)}
    wanted = [f"      {line}" for line in done.slurm_conf]
    restart = "then restart slurmctld, which looks for them when it starts"
    lines = [*value["files"], f"next: these lines in slurm.conf, {restart}:", *wanted]
    lines.append(f"and, on the host of slurmctld: systemctl enable --now {conf / frontend.UNIT}")
    common.answer(value, lines)


@slurm.command()
def reserve(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Number of the job.")],
    qpu: Annotated[str, typer.Option(help="Pools and their workers, as for sbatch: fez:2,main:1.")],
    cluster: Cluster = "",
    timeout: Annotated[
        float, typer.Option(callback=app.seconds, help="Longest wait for the share.")
    ] = SHARE_S,
) -> None:
    """Reserve the share of a job for its user. PrologSlurmctld runs it, with the role admin."""
    from simenv.frontends.slurm import jobs

    common, number = app.settings_of(context), jobs.job_number(job)
    shares = jobs.shares_of(qpu)
    client, left_s = _connect_within(common, timeout)
    with client:
        made = jobs.reserve(client, number, _cluster(cluster), shares, left_s)
    numbers = {each.share.pool: each.number for each in made}
    lines = [f"reservation {each.number} of job {number}: {each.share}" for each in made]
    common.answer({"job": number, "reservations": numbers}, lines)


@slurm.command("env")
def environment(
    context: typer.Context,
    qpu: Annotated[
        str, typer.Option(help="Pools and their workers, as for sbatch: fez:2,main:1.")
    ] = "",
    job: Annotated[str, typer.Option(help="Number of the job; default: SLURM_JOB_ID.")] = "",
    cluster: Cluster = "",
    gateway: Annotated[str, typer.Option(help="URL of the gateway, for HTTP clients.")] = "",
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority of the gateway's certificate.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(callback=app.seconds, help="Longest wait for the reservation.")
    ] = SHARE_S,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print NAME=VALUE, for the plugin.")
    ] = False,
    requeue: Annotated[
        bool,
        typer.Option("--requeue", help="Requeue the job where no service answers; for the plugin."),
    ] = False,
) -> None:
    """Print the variables of a running job with --qpu, for its clients.

    The plugin does so for batch jobs and for srun. In a shell of salloc:
    eval "$(simenv slurm env --qpu POOL)"."""
    from simenv.frontends.slurm import jobs

    common = app.settings_of(context)
    number = jobs.job_number(job or os.environ.get("SLURM_JOB_ID", ""))
    shares = jobs.shares_of(qpu)
    service = str(common.service or os.environ.get("SIMENV_SERVICE", "")) or common.environment
    try:
        client, left_s = _connect_within(common, timeout)
        with client:
            made = jobs.reserved(client, number, _cluster(cluster), shares, left_s)
            values = jobs.variables(number, service, made, os.environ.get(MUNGE, ""))
            if gateway:
                values |= _http_variables(client, gateway.rstrip("/"), number, made, ca)
            else:
                values |= jobs.qrmi_variables(service, made)
    except (NoServiceError, SlurmAwayError) as error:
        if requeue:
            _requeue(number, error)
        raise
    values = jobs.recorded(jobs.with_qrmi(values, number, os.environ))
    prefix = "" if plain else "export "
    common.answer(
        values,
        (
            f"{prefix}{name}={value if plain else shlex.quote(value)}"
            for name, value in values.items()
        ),
    )


def _requeue(number: int, error: SimenvError) -> None:
    """Have Slurm requeue a job that has no variables, as it does where the prolog fails. The
    message of the error, which the job's output has, gets what became of that."""
    from simenv.frontends.slurm import jobs

    try:
        jobs.requeue(number)
    except SimenvError as other:
        fate = f"Slurm does not requeue job {number}: {other.message}"
    else:
        fate = f"Slurm requeues job {number}"
    error.message = f"{error.message}; {fate}"


def _connect_within(common: app.Settings, timeout_s: float) -> tuple[Client, float]:
    """Return a client, and the time that is left in s. A service that is away, or goes away, may
    come back until then. Raises NoServiceError."""
    end_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, end_s - time.monotonic())
        try:
            return common.connect(patience_s=max(SILENCE_S, left_s)), left_s
        except NoServiceError:
            if left_s <= RETRY_S:
                raise
        time.sleep(RETRY_S)


def _http_variables(
    client: Client, url: str, number: int, made: Sequence[JobReservation], ca: Path | None
) -> dict[str, str]:
    """Variables of HTTP clients: a token for each reservation, which ends with it. QRMI gets that
    of each device, the other clients the first. `ca`: file with the authority of the gateway's
    certificate, None for that of the environment."""
    from simenv.cli.admin.gateway import read_authority, variables

    values: dict[str, str] = {}
    pools: list[str] = []
    for each in made:
        token = client.tokens.add(
            purpose=f"Slurm job {number}", lifetime_s=TOKEN_S, reservation=each.number
        )
        authority = token.authority if ca is None else read_authority(ca)
        of_pool = variables(url, client.name, token.secret, [each.share.pool], authority)
        pools += filter(None, [of_pool["QRMI_JOB_QPU_RESOURCES"]])
        values = {**of_pool, **values}
    types = ",".join(["ibm-quantum-compute-service"] * len(pools))
    return values | {"QRMI_JOB_QPU_RESOURCES": ",".join(pools), "QRMI_JOB_QPU_TYPES": types}


@slurm.command()
def release(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Number of the job.")],
    cluster: Cluster = "",
) -> None:
    """End the reservations of a job, with their tasks. EpilogSlurmctld runs it."""
    from simenv.frontends.slurm import jobs

    common, number = app.settings_of(context), jobs.job_number(job)
    with common.connect() as client:
        ended = jobs.release(client, number, _cluster(cluster), "its job has ended")
    lines = [f"reservation {each} of job {number} has ended" for each in ended]
    common.answer({"job": number, "ended": ended}, lines or [f"job {number} has no reservation"])


@slurm.command()
def sync(
    context: typer.Context,
    every: Annotated[
        float,
        typer.Option(callback=app.seconds, help="Repeat after so many seconds, until interrupted."),
    ] = 0.0,
    conf: Conf = CONF_FOLDER,
    cluster: Cluster = "",
    pool: Annotated[
        list[str] | None, typer.Option("--pool", help="This pool alone; may be repeated.")
    ] = None,
    lower: Annotated[
        bool, typer.Option("--lower", help="Lower the counts of pools that were made smaller.")
    ] = False,
) -> None:
    """Keep the licences equal to the capacity of the pools, end the reservations of jobs that have
    ended or are without licences, and renew those of running jobs. Jobs that have licences without
    a reservation are named. While the service is away or refuses this process, all licences are
    held back, as are those of a --pool that there is not; where the service is of another version,
    the command then ends.

    With --every it runs as a daemon, beside slurmctld. It needs the role admin, may write the file
    of licences, and is an operator of Slurm: SlurmUser, as whom the unit of `install` runs it.
    """
    from simenv.frontends.slurm import LICENSES, jobs, licenses

    common, name = app.settings_of(context), _cluster(cluster)
    synchroniser = licenses.LicenseSynchroniser(conf / LICENSES, name, tuple(pool or ()))
    client: Client | None = None
    failures: list[str] = []
    named: list[jobs.UnreservedJob] = []

    def report(done: LicenseUpdate, result: Reconciled) -> None:
        nonlocal named
        values = {**msgspec.structs.asdict(done), **msgspec.structs.asdict(result)}
        fresh = [each for each in result.unreserved if each not in named]
        named = result.unreserved
        lines = [*_lines_of(done, result, whole=not every), *map(str, fresh)]
        if lines:
            common.answer(values, lines)
            terminal.flush()

    def tell(reasons: list[str]) -> None:
        nonlocal failures
        if reasons and reasons != failures:
            terminal.note(f"{terminal.format_time(time.time())}  {'; '.join(reasons)}")
        failures = reasons

    try:
        while True:
            try:
                client = client or common.connect(patience_s=SILENCE_S)
                result = jobs.reconcile(client, name, time.time_ns(), synchroniser.pools)
                done = synchroniser.synchronise(client, lower=lower)
                report(done, result)
                missing = [f"there is no pool {each!r}" for each in done.missing]
                if missing and not every:
                    raise NotFoundError("; ".join(missing), hint="simenv pools")
                tell(missing)
            except SimenvError as error:  # of the service, Slurm or the file: it will come back
                if not every:
                    raise
                reasons = [str(error)]
                # Else the service gives no reservations: it is away, or refuses whatever it is.
                if not isinstance(error, SlurmError | SlurmFileError):
                    if client is not None:
                        client.close()
                        client = None
                    try:
                        report(synchroniser.hold_all(), jobs.Reconciled([], [], named))
                    except SimenvError as other:  # Slurm, too, may be away
                        reasons.append(f"licences are not held back: {other}")
                tell(reasons)
                if isinstance(error, VersionMismatchError):
                    raise  # the unit starts this process again, of the new version
            if not every:
                return
            time.sleep(every)
    finally:
        if client is not None:
            client.close()


def _lines_of(done: LicenseUpdate, result: Reconciled, *, whole: bool) -> Iterator[str]:
    """What was done; `whole`: also licences that are as they were."""
    if whole or done.reconfigured:
        counts = ", ".join(f"{name}:{count}" for name, count in done.licenses.items()) or "none"
        yield f"licences  {counts}{'  (written)' if done.reconfigured else ''}"
    if whole or done.changed:
        counts = ", ".join(f"{name}:{count}" for name, count in done.held.items() if count)
        yield f"held      {counts or 'none'}"
    for what, numbers in (("ended", result.ended), ("renewed", result.renewed)):
        if numbers:
            yield f"{what:<9} {', '.join(map(str, numbers))}"


@slurm.command()
def status(context: typer.Context, cluster: Cluster = "") -> None:
    """Show the licences of each pool, its capacity, and the reservations of jobs.

    The exit code is 1 if the licences that are not held back differ from a pool's capacity, or
    Slurm does not answer."""
    from simenv.frontends.slurm import jobs, licenses

    common, name = app.settings_of(context), _cluster(cluster)
    known: dict[str, licenses.License] | None = None
    held: dict[str, int] = {}
    try:
        known, held = licenses.controller_licenses(), licenses.held_licenses()
    except SimenvError as error:
        terminal.note(f"Slurm does not answer: {terminal.clean(error.message)}")
    with common.connect() as client:
        counts = licenses.capacities(client, name, (), known)
        live = jobs.of_cluster(client, name)
    rows = [_row(pool, each.available, live, known, held) for pool, each in counts.items()]
    shown = [
        {"reservation": each.id, "job": each.job, "user": each.owner, "account": each.account,
         "pool": each.device, "workers": each.workers, "used_s": each.actual_total_ns / 1e9}
        for each in live
    ]  # fmt: skip
    common.answer({"pools": rows, "reservations": shown}, ())
    if not common.as_json:
        texts = [["-" if cell is None else str(cell) for cell in row.values()] for row in rows]
        terminal.table(
            [("POOL", "CAPACITY", "LICENCES", "HELD", "USED", "RESERVED"), *texts], left=1
        )
        for each in live:
            owner = each.owner or "(own user)"
            terminal.line(f"job {each.job} of {owner}: {each.workers} of {each.device}")
    if any(known is None or row["licenses"] - row["held"] != row["capacity"] for row in rows):
        if known is not None:
            terminal.note("licences differ from capacities: simenv slurm sync")
        raise typer.Exit(1)


def _row(
    pool: str,
    capacity: int,
    live: Sequence[ReservationInfo],
    known: Mapping[str, License] | None,
    held: Mapping[str, int],
) -> dict[str, Any]:
    """One pool of `status`. `known` None: Slurm does not answer."""
    from simenv.frontends.slurm import licenses

    license_ = None if known is None else known.get(pool) or licenses.License(0, 0)
    return {
        "pool": pool,
        "capacity": capacity,
        "licenses": None if license_ is None else license_.total,
        "held": None if license_ is None else held.get(pool, 0),
        "used": None if license_ is None else license_.used,
        "reserved": sum(each.workers for each in live if each.device == pool),
    }


def _cluster(given: str, conf: Path | None = None) -> str:
    """Return the cluster's name, of slurm.conf if there is one: slurmctld need not answer. `conf`:
    its folder; None: that of Slurm's commands. Raises OptionError if it is not known."""
    from simenv.frontends.slurm import conf_value, jobs

    name = given or os.environ.get("SLURM_CLUSTER_NAME", "")
    if not name:
        path = os.environ.get("SLURM_CONF", "") or CONF_FOLDER / "slurm.conf"
        name = conf_value(conf or Path(path).parent, "ClusterName").lower()  # as Slurm shows it
    if not name:
        shown = jobs.run(["scontrol", "show", "config"])
        lines = [line.partition("=") for line in shown.splitlines()]
        name = next((value.strip() for key, _, value in lines if key.strip() == "ClusterName"), "")
    if not name or not name.isprintable() or len(name) > 64 or "/" in name:
        raise OptionError(f"cluster {name[:80]!r} is no name of a cluster", hint="--cluster NAME")
    return name
