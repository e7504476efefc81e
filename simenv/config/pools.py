"""Pools and drift of devices, parsed; the syntax of names and sizes.

Parse the drift of a pool's device: `replay` or `walk`, and `key=value` pairs joined by colons.
`replay:factor=86400` replays the dated snapshots of the device's folder, one day per second.
`walk:seed=7:every_s=3600:spread=0.1` is a random walk. `outages=7200+600/90000+60`: begins and
lengths in seconds of the device's time, from the start of the drift. `t1_jumps=2+600+0.2`: T1 of
each qubit jumps twice an hour, for 600 s in the mean, to 0.2 of its value.

Parse pools: a table of `simenv.toml`, or NAME:key=value,... of a command line. Both have the same
keys. `workers=N` means min=N,max=N; `workers=auto` means one worker for each GPU. `memory` is a
size. Node patterns are joined by `+` on a command line, where a comma separates keys, and are a
list in `simenv.toml`. `slurm` and `pbs` are tables of `simenv.toml` alone: the nodes of the pool
come by jobs of the site.
"""

from __future__ import annotations

import difflib
import re
import shlex
import string
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from simenv.errors import ConfigError
from simenv.model import JobSpec, PoolSpec
from simenv.model.task_rules import MAX_RANKS, MAX_WORKERS

EXTERNAL = "external"  # the engine that starts a program for each circuit
PLACEHOLDERS = ("circuit", "shots", "seed", "ranks")
_NEEDED = ("circuit", "shots")
_MAX_CHARS = 2_048
_EXAMPLE = "command = 'nwq_qasm -q {circuit} --shots {shots} --random_seed {seed}'"


def check_command(command: str, subject: str) -> None:
    """Check a command. Raises ConfigError if it cannot be split into words, lacks a required
    placeholder or has an unknown one."""
    problem = _problem(command)
    if problem:
        raise ConfigError(f"{subject}: command = {command[:120]!r} {problem}", hint=_EXAMPLE)


def _problem(command: str) -> str:
    if len(command) > _MAX_CHARS or not command.isprintable():
        return f"is not one printable line of at most {_MAX_CHARS} characters"
    try:
        tokens = shlex.split(command)
    except ValueError as error:
        return f"cannot be split into words: {error}"
    if not tokens or "{" in tokens[0]:
        return "does not begin with a program"
    try:
        parts = [part for token in tokens for part in string.Formatter().parse(token)]
    except ValueError as error:
        return f"has a brace alone ({error}); a brace itself is written twice"
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            return f"has {{{name}}}; there are " + ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
    names = {part[1] for part in parts}
    lacking = [each for each in _NEEDED if each not in names]
    return f"lacks {{{lacking[0]}}}" if lacking else ""


NAME_RULE = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")


def check_name(name: str, subject: str = "environment") -> str:
    """Return the name if it follows NAME_RULE. Raises ConfigError, which names `subject`."""
    if not NAME_RULE.match(name):
        hint = "a name is a-z, then up to 63 of a-z 0-9 _ . -"
        raise ConfigError(f"{subject} name {name[:80]!r} is not allowed", hint=hint)
    return name


def nearest(name: str, choices: Iterable[str]) -> str:
    """Hint for an unknown word: the most similar choice, else all choices."""
    candidates = tuple(choices)
    matches = difflib.get_close_matches(name, candidates, 1)
    return f"did you mean `{matches[0]}`?" if matches else f"known: {', '.join(candidates)}"


MAX_BYTES = 2**60
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?)?B?\Z", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def as_table(raw: object, subject: str) -> dict[str, object]:
    """Return a table of a configuration. Raises ConfigError if it is none."""
    if isinstance(raw, msgspec.Struct):
        return msgspec.structs.asdict(raw)
    if not isinstance(raw, Mapping):
        hint = f"[{subject.split(': ')[-1]}]"
        raise ConfigError(f"{subject} = {str(raw)[:80]!r} is not a table", hint=hint)
    return dict(raw)


def size(value: object, subject: str) -> int:
    """Parse a size such as `512MiB`, `2GB`, `1.5G`, `4096` as bytes. K, M, G and T are powers of
    1,024, as in sites' documentation. Raises ConfigError, which names `subject`."""
    if isinstance(value, int) and not isinstance(value, bool):
        count = float(value)
    else:
        result = _SIZE.match(value.strip()) if isinstance(value, str) else None
        if result is None:
            hint = "512MiB, 2GiB, or bytes"
            raise ConfigError(f"{subject} = {str(value)[:80]!r} is not a size", hint=hint)
        count = float(result[1]) * 1024 ** _POWERS.get((result[2] or "")[:1].lower(), 0)
    if not 0 <= count <= MAX_BYTES:
        raise ConfigError(f"{subject} = {str(value)[:80]} is outside 0 .. 1024 PiB")
    return int(count)


KINDS = ("replay", "walk")
_OF_WALK = ("every_s", "spread")
MAX_FACTOR = 1e9
EXAMPLE = "walk:seed=7:every_s=3600:spread=0.1:factor=60:outages=7200+600"


class DriftSpec(msgspec.Struct, frozen=True):
    """Drift of the device of a pool."""

    kind: str
    factor: float = 1.0  # seconds of the device in one second of the clock
    seed: int = 0
    every_s: float = 3600.0  # of the device's time, between two steps of a walk
    spread: float = 0.1  # relative standard deviation of each value of a walk
    outages: tuple[tuple[float, float], ...] = ()  # begin and length
    # Of each qubit without jumps of T1 in its snapshot: rate per hour, mean dwell in seconds,
    # factor; (): none.
    t1_jumps: tuple[float, ...] = ()


def drift_of(text: str, source: str) -> DriftSpec:
    """Parse the value of `drift`. Raises ConfigError, which names the key, the value and the
    allowed ones."""
    kind, *pairs = text.split(":")
    if kind not in KINDS:
        hint = nearest(kind[:64], KINDS)
        raise ConfigError(f"{source}: drift = {text[:80]!r} is not known", hint=hint)
    values: dict[str, object] = {"kind": kind}
    keys = [key for key in DriftSpec.__struct_fields__[1:] if kind == "walk" or key not in _OF_WALK]
    parsers = {"outages": _outages, "t1_jumps": _t1_jumps}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in keys or key in values:
            hint = f"{kind} has {', '.join(keys)}, each once; {EXAMPLE}"
            raise ConfigError(f"{source}: drift: {pair[:80]!r} is not understood", hint=hint)
        values[key] = parsers[key](value, source) if key in parsers else value
    try:
        result = msgspec.convert(values, DriftSpec, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: drift: {error}", hint=EXAMPLE) from error
    if not (
        0 < result.factor <= MAX_FACTOR
        and 0 < result.every_s <= MAX_FACTOR
        and 0 <= result.spread <= 2
        and 0 <= result.seed < 2**63
    ):
        hint = "factor and every_s above 0, at most 1e9; spread 0 to 2; seed 0 or more"
        raise ConfigError(f"{source}: drift = {text[:80]!r} is out of range", hint=hint)
    return result


def _outages(text: str, source: str) -> tuple[tuple[float, float], ...]:
    results = []
    for part in text.split("/"):
        begin, _, length = part.partition("+")
        try:
            pair = float(begin), float(length)
        except ValueError:
            pair = (-1.0, 0.0)
        if not (0 <= pair[0] <= 1e12 and 0 < pair[1] <= 1e12):
            text = f"{source}: drift: outages={text[:80]!r} is not understood"
            raise ConfigError(text, hint=EXAMPLE)
        results.append(pair)
    return tuple(sorted(results))


def _t1_jumps(text: str, source: str) -> tuple[float, ...]:
    limits = ((1e-9, 1e6), (1e-3, 1e9), (1e-6, 1.0))
    try:
        results = tuple(map(float, text.split("+")))
    except ValueError:
        results = ()
    if len(results) != 3 or not all(
        low <= value <= high for value, (low, high) in zip(results, limits, strict=True)
    ):
        hint = "rate per hour, mean dwell in seconds, low T1 / T1 (at most 1): t1_jumps=2+600+0.2"
        raise ConfigError(f"{source}: drift: t1_jumps={text[:80]!r} is not understood", hint=hint)
    return results


KEYS = (
    *("name", "engine", "workers", "min", "max", "ranks", "memory", "idle_s", "nodes"),
    *("provider", "device", "pace", "drift", "command", "environ", "slurm", "pbs"),
)
AUTO = "auto"  # of workers: one for each GPU
MAX_IDLE_S = 10**8
_POOL_EXAMPLE = "NAME:engine=statevector,workers=4,ranks=2,memory=2GiB,nodes=gpu*+node7"
_ON_DEMAND = re.compile(r"(.+)\.x\d+\Z")
MACHINE = "hardware"  # the engine whose one worker holds a machine
QRMI = "qrmi"  # the module of a provider that is a resource of QRMI
_PROVIDER = re.compile(rf"([^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*|{QRMI}:[\w.-]+)\Z")
_PROVIDER_CHARS = 256
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}\*?\Z")
_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9_.*?-]{0,254}\Z")


def pool_text(text: str) -> PoolSpec:
    """Parse `NAME:engine=E,workers=N`. Raises ConfigError."""
    name, _, rest = text.partition(":")
    settings: dict[str, object] = {"name": name}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or key == "name":
            hint = _POOL_EXAMPLE
            raise ConfigError(f"--pool {text[:80]!r}: {part!r} is not understood", hint=hint)
        if key in settings:
            raise ConfigError(f"--pool {text[:80]!r}: {key} is given twice")
        if key == "device" and not value:
            raise ConfigError(f"--pool {text[:80]!r}: device is empty", hint="device=NAME, or none")
        settings[key] = value
    return pool_of(settings, f"--pool {text[:80]!r}")


def pool_of(table: Mapping[str, object], source: str) -> PoolSpec:
    """Return the pool that a table specifies; its values may be text. Raises ConfigError, which
    names the key, the value and the allowed values."""
    values = dict(table)
    if "memory_bytes" in values:  # its name in a PoolSpec
        values["memory"] = values.pop("memory_bytes")
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{source}: unknown key {key!r}", hint=nearest(key, KEYS))
    if "memory" in values:
        values["memory_bytes"] = size(values.pop("memory"), f"{source}: memory")
    for system in JOB_SYSTEMS:
        if system in values:
            if "jobs" in values:
                raise ConfigError(f"{source}: slurm and pbs exclude one another")
            values["jobs"] = jobs_of(values.pop(system), f"{source}: {system}", system)
    workers = values.pop("workers", None)
    if workers is not None and {"min", "max"} & set(values):
        hint = "NAME:workers=N means NAME:min=N,max=N; min=0,max=8: as many as are needed"
        raise ConfigError(f"{source}: workers cannot be combined with min or max", hint=hint)
    for key in ("nodes", "environ"):
        several = values.get(key)
        if isinstance(several, list | tuple):
            several = ",".join(map(str, several))
        if isinstance(several, str):
            values[key] = several.replace("+", ",")
    try:
        if workers == AUTO:
            values["auto_workers"] = True
        elif workers is not None:
            least = msgspec.convert(workers, int, strict=False)
            values |= {"min": least, "max": max(1, least)}
        spec = msgspec.convert(values, PoolSpec, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}", hint=_POOL_EXAMPLE) from error
    if "max" not in values and spec.min > spec.max:
        spec = msgspec.structs.replace(spec, max=spec.min)
    if spec.jobs is not None and not spec.nodes:
        spec = msgspec.structs.replace(spec, nodes=f"{spec.name}:*")
    check_pool(spec, source)
    return spec


def check_pool(pool: PoolSpec, source: str) -> None:
    """Check a pool by itself. Raises ConfigError if no environment can have such a pool."""
    check_name(pool.name, "pool")
    subject = f"{source}: pool {pool.name!r}"
    if match := _ON_DEMAND.match(pool.name):
        hint = f"{match[1]}-x, or another name that does not end in .x and a number"
        raise ConfigError(f"{subject} has a name of the form that gangs have", hint=hint)
    if not 0 <= pool.min <= pool.max <= MAX_WORKERS or pool.max < 1:
        hint = f"0 <= min <= max, 1 <= max <= {MAX_WORKERS}"
        raise ConfigError(f"{subject} wants min={pool.min}, max={pool.max} workers", hint=hint)
    if not 0 <= pool.idle_s <= MAX_IDLE_S:
        raise ConfigError(f"{subject}: idle_s = {pool.idle_s} is outside 0 .. {MAX_IDLE_S}")
    if not 1 <= pool.ranks <= MAX_RANKS:
        raise ConfigError(f"{subject}: ranks = {pool.ranks} is outside 1 .. {MAX_RANKS}")
    size(pool.memory_bytes, f"{subject}: memory")
    _check_provider(pool, subject)
    _check_environ(pool, subject)
    _check_program(pool, subject)
    if pool.device:
        check_name(pool.device, f"{subject}: device")
    if (pool.pace or pool.drift) and not pool.device:
        text = f"{subject}: {'pace' if pool.pace else 'drift'} without a device"
        raise ConfigError(text, hint="NAME:device=DEVICE,pace=true,drift=replay")
    if pool.drift:
        drift_of(pool.drift, subject)
    if pool.jobs is not None:
        _check_jobs(pool, pool.jobs, subject)
        return
    for pattern in pool.nodes.split(",") if pool.nodes else ():
        if not _PATTERN.match(pattern):
            text = f"{subject}: nodes = {pattern[:80]!r} is not a node's name or a pattern of them"
            hint = "* and ? stand for what differs; several are joined by +: gpu*+node7"
            raise ConfigError(text, hint=hint)


def _check_provider(pool: PoolSpec, subject: str) -> None:
    """Check `provider`. One worker of one rank holds a machine for the whole life of its pool."""
    example = "NAME:engine=hardware,provider=MODULE:FACTORY"
    if pool.provider and pool.device:
        hint = f"a machine's is {example}"
        raise ConfigError(f"{subject} has a provider and a device", hint=hint)
    if (pool.engine == MACHINE) != bool(pool.provider):
        lacks = "no provider" if pool.engine == MACHINE else f"engine={pool.engine} with a provider"
        raise ConfigError(f"{subject} has {lacks}", hint=f"a machine's pool is {example}")
    if not pool.provider:
        return
    if not _PROVIDER.match(pool.provider) or len(pool.provider) > _PROVIDER_CHARS:
        hint = "a module found from here or on PYTHONPATH, and a function in it that takes no"
        hint += " arguments and returns a BackendV2 of Qiskit"
        text = f"{subject}: provider = {pool.provider[:80]!r} is no MODULE:FACTORY"
        raise ConfigError(text, hint=hint)
    if (pool.min, pool.max, pool.ranks) != (1, 1, 1):
        text = f"{subject} wants {pool.min} to {pool.max} workers of {pool.ranks} ranks"
        hint = "a machine is held by one worker of one rank: leave workers and ranks out"
        raise ConfigError(text, hint=hint)


def _check_environ(pool: PoolSpec, subject: str) -> None:
    """Check `environ`: names of variables, or beginnings of names, for the worker of a machine."""
    if pool.provider.startswith(f"{QRMI}:") and not pool.environ:
        name = pool.provider.removeprefix(f"{QRMI}:")
        text = (
            f"{subject} has a provider of QRMI, which reads environment variables, and no environ"
        )
        raise ConfigError(text, hint=f"environ={name}_QRMI_*+QRMI_*")
    if pool.environ and not pool.provider:
        hint = "leave it out: only the provider of a machine reads variables of the site"
        raise ConfigError(f"{subject} has environ and no provider", hint=hint)
    check_variables(pool.environ, subject)


def check_variables(environ: str, subject: str) -> None:
    """Check names of environment variables, or beginnings of names. Raises ConfigError."""
    for pattern in environ.split(",") if environ else ():
        if not _VARIABLE.match(pattern):
            text = (
                f"{subject}: environ = {pattern[:80]!r} is not a variable's name or its beginning"
            )
            raise ConfigError(text, hint="LAB_TOKEN,LAB_URL, or LAB_*; after --pool joined by +")


def _check_program(pool: PoolSpec, subject: str) -> None:
    """Check `command`. Workers of one rank start the program, which starts ranks of its own."""
    example = "NAME:engine=external,command=PROGRAM {circuit} {shots}"
    if (pool.engine == EXTERNAL) != bool(pool.command):
        lacks = "no command" if pool.engine == EXTERNAL else f"engine={pool.engine} with a command"
        raise ConfigError(f"{subject} has {lacks}", hint=f"an external simulator's is {example}")
    if not pool.command:
        return
    check_command(pool.command, subject)
    if pool.ranks != 1 or pool.device:
        conflict = f"device={pool.device}" if pool.device else f"ranks={pool.ranks}"
        hint = "a program starts its own ranks: 'mpirun -n {ranks} PROGRAM ...', and has no noise"
        hint += " of a device"
        raise ConfigError(f"{subject} has a command and {conflict}", hint=hint)


# --- jobs of the site -----------------------------------------------------------------------------

JOB_SYSTEMS = ("slurm", "pbs")
JOB_KEYS = ("partition", "queue", "account", "nodes", "time", "slots", "memory", "gpus", "extra")
MIN_JOB_S, MAX_JOB_S = 60.0, 366 * 86_400.0
MAX_JOB_SLOTS, MAX_JOB_GPUS = 4_096, 64
_JOB_EXAMPLE = 'slurm = {partition = "gpu", time = "4:00:00", slots = 8}'
_TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4})(?::(\d{1,2}))?(?::(\d{1,2}))?\Z")
_OPTION = re.compile(r"[\x21-\x7e]{1,256}\Z")
# Options that a job of one node, with its script on standard input and its log in a known file,
# must have as the service sets them. A long one may be abbreviated, short ones may follow flags.
_FIXED_LONG = (
    *("array", "clusters", "cpus-per-task", "input", "job-name", "nodes", "ntasks"),
    *("ntasks-per-node", "open-mode", "output", "parsable", "requeue", "test-only", "time", "wait"),
    "wrap",
)
_FIXED_SHORT = {
    "slurm": re.compile(r"-[hHIkOQsvV]*[aciJMnNotW]"),
    "pbs": re.compile(r"-[fhVX]*[CGIJNRSjkorz]"),
}
_FIXED_RESOURCE = re.compile(r"(?:-l)?(?:.*,)?(?:select|walltime|nodes|ncpus|mem|ngpus)=")
_FIXED_ATTRIBUTE = re.compile(r"(?:-W)?(?:.*,)?(?:block|run_count|sandbox)=", re.IGNORECASE)


def jobs_of(raw: object, subject: str, system: str) -> JobSpec:
    """Parse a table `slurm` or `pbs` of a pool. Raises ConfigError, which names the key, the value
    and the allowed values."""
    if not isinstance(raw, Mapping):
        hint = f"a table in simenv.toml: {_JOB_EXAMPLE}"
        raise ConfigError(f"{subject} = {str(raw)[:80]!r} is not a table", hint=hint)
    values = dict(raw)
    for key in values:
        if key not in JOB_KEYS:
            raise ConfigError(f"{subject}: unknown key {key!r}", hint=nearest(str(key), JOB_KEYS))
    if "time" not in values:
        raise ConfigError(f"{subject} has no time", hint=_JOB_EXAMPLE)
    if {"partition", "queue"} <= values.keys():
        raise ConfigError(f"{subject}: partition and queue are the same: give one of them")
    if values.pop("nodes", 1) != 1:
        hint = "nodes = 1, the default: max of the pool bounds the number of jobs"
        raise ConfigError(f"{subject}: a job has one node", hint=hint)
    extra = values.pop("extra", ())
    try:
        words = shlex.split(extra) if isinstance(extra, str) else list(extra)
    except (TypeError, ValueError) as error:
        text = f"{subject}: extra cannot be split into words: {error}"
        raise ConfigError(text, hint='extra = "--constraint=a100"') from error
    converted = {
        "system": system,
        "time_s": _job_time_s(values.pop("time"), subject),
        "memory_bytes": size(values.pop("memory", 0), f"{subject}: memory"),
        "partition": values.pop("partition", values.pop("queue", "")),
        "extra": words,
    }
    try:
        return msgspec.convert({**values, **converted}, JobSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{subject}: {error}", hint=_JOB_EXAMPLE) from error


def _job_time_s(value: object, subject: str) -> float:
    """Parse a length of time as Slurm does: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    match = _TIME.match(str(value)) if isinstance(value, int | str) else None
    if match is None or isinstance(value, bool):
        hint = 'minutes, "4:00:00" or "1-12:00:00"'
        raise ConfigError(f"{subject}: time = {str(value)[:80]!r} is no length of time", hint=hint)
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)


def fixed_option(system: str, words: Sequence[str]) -> str:
    """Return the first of these words that would override an option of the service, or would be
    taken for a script; "" if there is none."""
    before = ""
    for word in words:
        name = word[2:].partition("=")[0]
        is_long, is_value = word.startswith("--"), not word.startswith("-")
        may_have_value = before.startswith("-") and "=" not in before
        if is_value and not (may_have_value and (before.startswith("--") or len(before) == 2)):
            return word
        if word in ("-", "--") or _FIXED_SHORT[system].match(word):
            return word
        if is_long and (system == "pbs" or any(each.startswith(name) for each in _FIXED_LONG)):
            return word
        for option, fixed in (("-l", _FIXED_RESOURCE), ("-W", _FIXED_ATTRIBUTE)):
            is_part = word.startswith(option) or before == option
            if system == "pbs" and is_part and fixed.match(word):
                return word
        before = word
    return ""


def _check_jobs(pool: PoolSpec, jobs: JobSpec, subject: str) -> None:
    """Check a pool whose nodes come by jobs. Its workers have one rank."""
    if pool.nodes != f"{pool.name}:*":
        hint = "the nodes are those of its jobs: extra chooses them"
        raise ConfigError(f"{subject} has {jobs.system} and nodes", hint=hint)
    if pool.ranks != 1 or pool.provider or pool.auto_workers:
        conflict = "provider" if pool.provider else "workers=auto"
        conflict = f"ranks={pool.ranks}" if pool.ranks != 1 else conflict
        hint = "its workers have one rank, and there are min to max of them"
        raise ConfigError(f"{subject} has {jobs.system} and {conflict}", hint=hint)
    for key, value, low, high in (
        ("time", jobs.time_s, MIN_JOB_S, MAX_JOB_S),
        ("slots", jobs.slots, 1, MAX_JOB_SLOTS),
        ("gpus", jobs.gpus, 0, MAX_JOB_GPUS),
    ):
        if not low <= value <= high:
            unit = " s" if key == "time" else ""
            text = f"{subject}: {jobs.system}.{key} = {value:g}{unit} is outside"
            raise ConfigError(f"{text} {low:g} .. {high:g}{unit}")
    for word in (*jobs.extra, *filter(None, (jobs.partition, jobs.account))):
        if not _OPTION.match(word):
            text = f"{subject}: {jobs.system}: {word[:80]!r} is not one word of an option"
            raise ConfigError(text, hint='extra = "--constraint=a100 --qos=low"')
    option = fixed_option(jobs.system, jobs.extra)
    if option:
        text = f"{subject}: {jobs.system}.extra has {option!r}, which is the service's to set"
        hint = "leave it out; time, slots, memory, gpus and partition are keys of their own"
        raise ConfigError(text, hint=hint)
