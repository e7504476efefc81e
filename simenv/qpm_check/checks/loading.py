"""Checks of loading a plugin package, and of its service record.

Loading: metadata, construction, threads and files left. Service record: bindings, directory, and
method signatures.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from simenv.qpm.contract import BINDINGS
from simenv.qpm.methods import NEEDED, REVISION1, REVISION2, Arguments
from simenv.qpm_check import check
from simenv.qpm_check.check import BOTH, CheckNotApplicable, TargetProperty, expect_equal, has, row
from simenv.qpm_check.checks.records import EVENT
from simenv.qpm_check.fake_defw.fakes import KEYS
from simenv.qpm_check.fake_defw.loader import OURS
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import CheckFailed, CheckSkipped, expect, impurities, short_repr

MOST_S = 0.001
QUICK_S = 2.0
ENDS_S = 10.0
MOST_LEFT = 2  # threads: those of a library may stay as long as the process
IMPORT_S = 60.0
BEGINS_S = 2.0  # a program that starts something in a foreign process has done so by then
STARTS_S = 5.0
LOOK_S = 0.05
OWN_FILES = 4  # connections of the DEFw double
_PACKAGE = (TargetProperty.PACKAGE,)
_load = check.row_with(revisions=BOTH, needs=_PACKAGE, opens=False)


@_load("load.import", "it imports while the host is half built")
def imports(session: CheckSession) -> None:
    expect(not _facts(session)["import_error"], _last(_facts(session)["import_error"]))


_IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2])"


@_load("load.bare", "it imports where nothing of DEFw is")
def bare(session: CheckSession) -> None:
    folder = Path(_facts(session)["folder"])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT, str(folder.parent), folder.name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=IMPORT_S,
    )  # fmt: skip
    expect(done.returncode == 0, _last(done.stderr))


@_load("load.metadata", "svc_info: name QPM, module, description, version")
def metadata(session: CheckSession) -> None:
    facts = _loaded(session)
    found = facts["svc_info_found"]
    expect(found == "dict", f"svc_info is {found or 'not there'}")
    info = facts["svc_info"]
    expect_equal("svc_info['name']", info.get("name"), "QPM")
    expect_equal("svc_info['module']", info.get("module"), facts["module"])
    expect(isinstance(info.get("description"), str) and info["description"],
           f"svc_info['description'] is {short_repr(info.get('description'))}")  # fmt: skip
    expect(type(info.get("version")) in (int, float),
           f"svc_info['version'] is {short_repr(info.get('version'))}, not a number")  # fmt: skip
    mode = info.get("instance_mode", "per_connection")
    expect(mode in ("per_connection", "singleton"), f"svc_info['instance_mode'] is {mode!r}")


@_load("load.singleton", "one object for all clients: instance_mode singleton", revisions=(2,))
def singleton(session: CheckSession) -> None:
    mode = _loaded(session)["svc_info"].get("instance_mode", "per_connection")
    expect(mode == "singleton", f"instance_mode is {mode!r}: six clients would get six objects")


@row("load.per-connection", "an object for each client's proxy: instance_mode per_connection",
     revisions=(1,), needs=_PACKAGE, opens=False)  # fmt: skip
def per_connection(session: CheckSession) -> None:
    mode = _loaded(session)["svc_info"].get("instance_mode", "per_connection")
    message = f"instance_mode is {mode!r}: clients would share one queue and one registration"
    expect(mode == "per_connection", message)


@_load("load.launcher", "in a process that is no service, such as the launcher's, nothing is begun")
def launcher(session: CheckSession) -> None:
    disabled = "DEFW_DISABLE_RESMGR" if session.revision == 1 else "DEFW_DISABLE_DIRSVC"
    phase = {"DEFW_AGENT_TYPE": "agent", "DEFW_SHELL_TYPE": "cmdline", disabled: "yes"}
    facts = _loaded(session)
    with _process(session, phase) as control:
        deadline = time.monotonic() + BEGINS_S
        while time.monotonic() < deadline:
            now = control.host("left")
            expect(not now["children"], f"it started {len(now['children'])} processes")
            more = now["files"] - facts["before"]["files"] - OWN_FILES
            expect(more <= 0, f"it opened {more} files or connections")
            time.sleep(LOOK_S)


@row("load.executable", "sys.executable, the host's own program there, is not started as a Python",
     revisions=BOTH, needs=_PACKAGE, opens=False)  # fmt: skip
def executable(session: CheckSession) -> None:
    _loaded(session)
    with (
        tempfile.TemporaryDirectory(prefix="qpm-check-") as home,
        _process(session, {"HOME": home}, bare=True) as control,
    ):
        control.host("made")
        deadline = time.monotonic() + STARTS_S
        while time.monotonic() < deadline and not control.started():
            time.sleep(LOOK_S)
        started = control.started()
    expect(not started, f"it was started {len(started)} times, as: python3 {started[:1]}")


@_load("load.classes", "service_classes lists a class QPM")
def classes(session: CheckSession) -> None:
    facts = _loaded(session)
    expect(facts["classes_found"] in ("list", "tuple"),
           f"service_classes is {facts['classes_found'] or 'not there'}, not a list")  # fmt: skip
    expect("QPM" in facts["classes"], f"service_classes has {facts['classes']}, and no QPM")


@_load("load.initialize", "initialize() returns at once and raises nothing")
def initialize(session: CheckSession) -> None:
    facts = _loaded(session)
    expect(facts["has_initialize"], "there is no function initialize")
    expect(not facts["initialize_error"],
           f"a host swallows it: {_last(facts['initialize_error'])}")  # fmt: skip
    elapsed_s = facts["initialize_s"]
    expect(elapsed_s < QUICK_S, f"it took {elapsed_s:.1f} s; the host is still loading meanwhile")


@row("load.opens", "a QPM comes up and says that it is ready", revisions=BOTH)
def opens(session: CheckSession) -> None:
    session.q.is_ready()


@row("load.uninitialize", "uninitialize() ends what was begun and raises nothing",
     revisions=BOTH, needs=_PACKAGE, alone=True)  # fmt: skip
def uninitialize(session: CheckSession) -> None:
    facts, control = _loaded(session), session.control
    expect(facts["has_uninitialize"], "there is no function uninitialize")
    session.run()
    error = control.host("uninitialize")
    expect(not error, _last(error))

    def left() -> list[str]:
        """Threads and processes that did not exist before the plugin was loaded."""
        now, before = control.host("left"), facts["before"]["threads"]
        names = [name.rpartition(" (")[0] for name in now["threads"]]
        prior = {name.rpartition(" (")[0] for name in before}  # of another process of the plugin's
        threads = [n for n in names if n not in prior and not n.startswith(OURS)]
        result = [f"thread {name}" for name in threads] if len(threads) > MOST_LEFT else []
        return result + [f"process {number}" for number in now["children"]]

    limit_s = min(ENDS_S, session.wait_s)
    with suppress(CheckFailed):
        session.until(lambda: not left(), "the end of what was begun", limit_s)
    expect(not left(), f"{limit_s:g} s after it there is still: {', '.join(left()[:5])}")


@_load("load.start-false", "QPM(start=False) takes less than 1 ms")
def start_false(session: CheckSession) -> None:
    elapsed_s = _started(session)["start_false_s"]
    expect(elapsed_s < MOST_S, f"the fastest of 20 took {1e3 * elapsed_s:.2f} ms")


@_load("load.start-false-idle", "QPM(start=False) starts and opens nothing")
def start_false_idle(session: CheckSession) -> None:
    left = _started(session)["start_false_left"]
    expect(not left, f"20 of them left behind: {', '.join(left[:5])}")


@_load("load.start-false-anywhere", "QPM(start=False) needs no environment variable")
def start_false_anywhere(session: CheckSession) -> None:
    with _process(session, bare=True) as control:
        facts = control.host("facts")
    expect(not facts["start_false_error"], _last(facts["start_false_error"]))


@row("load.lookups", "50 look-ups leave nothing behind", revisions=BOTH, needs=_PACKAGE)
def lookups(session: CheckSession) -> None:
    control = session.control
    before = control.host("left")
    for _ in range(50):
        control.host("query")
    after = control.host("left")
    grown = len(after["threads"]) - len(before["threads"])
    expect(grown <= 5, f"50 look-ups left {grown} threads")
    more = after["files"] - before["files"]
    expect(more <= 5, f"50 look-ups left {more} open files")
    expect(after["children"] == before["children"], "look-ups started processes")


@row("load.clients", "30 clients that come, listen and go leave nothing behind",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def clients(session: CheckSession) -> None:
    session.run()
    control = session.control
    before = control.host("left")
    more = session.under
    for number in range(30):
        listener = session.listener()
        listener.register(EVENT, **more)
        session.submit(by=listener.q)
        listener.taken()
        listener.q.is_ready()  # by now the host's call with the event is answered
        link: Any = listener.q.link
        link.leave() if number % 2 else link.die()

    def settled() -> bool:
        return len(control.host("left")["threads"]) - len(before["threads"]) <= 8

    session.until(settled, "the end of the threads of 30 clients that have gone")


def _process(
    session: CheckSession, environ: dict[str, str] | None = None, *, bare: bool = False
) -> Any:
    """Load the plugin in its own process; see `plugin.PluginTarget.process`."""
    plugin: Any = session.target
    return plugin.process(session.revision, environ, bare=bare)


def _facts(session: CheckSession) -> dict[str, Any]:
    plugin: Any = session.target
    entries: dict[str, Any] = plugin.facts(session.revision)
    return entries


def _loaded(session: CheckSession) -> dict[str, Any]:
    facts = _facts(session)
    if facts["import_error"]:
        raise CheckSkipped("it could not be imported")
    return facts


def _started(session: CheckSession) -> dict[str, Any]:
    facts = _loaded(session)
    expect(not facts["start_false_error"], _last(facts["start_false_error"]))
    return facts


def _last(text: str) -> str:
    """Last line of a traceback: the error."""
    return text.strip().splitlines()[-1] if text.strip() else ""


SIMULATOR = 2
EXAMPLES = {"QB": 4, "TNQVM": 8, "NWQSIM": 16}  # type bits that examples of revision 1 request
TYPES = {1: 1 | 2 | 4 | 8 | 16, 2: 1 | 2}
CAPABILITIES = {1: 1 | 2, 2: 1 | 2 | 4}
AGAIN_S = 30.0
_TRANSPORT = (TargetProperty.TRANSPORT,)
_remote = check.row_with(needs=_TRANSPORT)


@row("query.record", "query: one service record, by the class that answers", revisions=BOTH)
def record(session: CheckSession) -> None:
    card = session.subject.card()
    for name in ("service_name", "description"):
        value = getattr(card, name)
        expect(isinstance(value, str) and value, f"{name} is {short_repr(value)}")
    home = (card.module_name, card.class_name)
    expect_equal("class_name and module_name", home, tuple(card.home))
    limit = card.max_capacity
    is_limit = type(limit) is int and (limit == -1 or limit >= 1)
    expect(is_limit, f"max_capacity is {short_repr(limit)}")


@row("query.bits", "type and capability bits are the contract's", revisions=BOTH)
def bits(session: CheckSession) -> None:
    card = session.subject.card()
    for what, value, valid_mask in (
        ("type", card.types, TYPES[session.revision]),
        ("capability", card.capabilities, CAPABILITIES[session.revision]),
    ):
        is_mask = isinstance(value, int) and not isinstance(value, bool)
        expect(is_mask, f"{what} bits: {short_repr(value)}")
        expect(value & ~valid_mask == 0, f"{what} bits {value} have some that nobody knows")
    expect(card.types & 3, f"type bits {card.types}: neither hardware (1) nor simulator (2)")
    is_text = isinstance(card.text, str) and card.text
    expect(is_text, f"their description is {short_repr(card.text)}")


@row("query.properties", "properties: identity, widths, kinds")
def properties(session: CheckSession) -> None:
    result = has(
        "properties", session.subject.card().properties,
        {
            "service_type": str, "service_id": str, "provider": str, "device_id": str,
            "target_id": str, "num_qubits": int, "max_shots": int, "qpm_type": int,
            "qpm_capabilities": int, "simulator": bool, "hardware": bool, "selector": dict,
            "api_bindings": list, "controller": dict,
        },
        {"circuit_formats": list},
    )  # fmt: skip
    expect_equal("service_type", result["service_type"], "qfw.qpm")
    expect(result["num_qubits"] >= 1, f"num_qubits is {result['num_qubits']}")
    expect(result["max_shots"] >= 1, f"max_shots is {result['max_shots']}")
    card = session.subject.card()
    expect_equal("qpm_type", result["qpm_type"], int(card.types))
    expect_equal("qpm_capabilities", result["qpm_capabilities"], int(card.capabilities))
    expect(not (bad := impurities(result, "properties")), f"{bad[:1]}")


@row("query.selector", "selector: name, resources with the device, aliases with QPM")
def selector(session: CheckSession) -> None:
    reported = session.subject.card().properties
    expected: check.Fields = {"name": str, "resources": list, "aliases": list}
    result = has("selector", reported.get("selector"), expected)
    resources, aliases = result["resources"], result["aliases"]
    device, provider = reported["device_id"], reported["provider"]
    expect(device in resources, f"resources {resources} lack the device {device!r}")
    expect("QPM" in aliases, f"aliases {aliases} lack 'QPM'")
    expect(provider in aliases, f"aliases {aliases} lack the provider")


@row("query.bindings", "api_bindings: all six, by the names of their clients")
def bindings(session: CheckSession) -> None:
    card = session.subject.card()
    offered = {}
    for binding in card.properties.get("api_bindings") or ():
        entry = has(
            "a binding", binding,
            {"binding_name": str, "client_module": str, "client_class": str,
             "service_module": str, "service_class": str, "version": int},
        )  # fmt: skip
        offered[entry["binding_name"]] = entry
    for binding in BINDINGS:
        name = binding.binding_name
        if name not in offered:
            raise CheckFailed(f"no binding {name!r}; there are: {', '.join(offered)}")
        entry = offered[name]
        client = (binding.client_module, binding.client_class)
        expect_equal(f"client of {name}", (entry["client_module"], entry["client_class"]), client)
        home = (entry["service_module"], entry["service_class"])
        expect_equal(f"service class of {name}", home, tuple(card.home))
        expect_equal(f"version of {name}", entry["version"], 1)


@row("query.default-binding", "the execution binding stands in the properties once more")
def default_binding(session: CheckSession) -> None:
    card = session.subject.card()
    expected = {
        "binding_name": "execution",
        "client_module": BINDINGS[0].client_module,
        "client_class": BINDINGS[0].client_class,
        "service_module": card.home[0],
        "service_class": card.home[1],
    }
    entries = {name: card.properties.get(name) for name in expected}
    expect_equal("the default binding", entries, expected)


@row("query.lookup", "a client that wants any QPM, or one of its kind, finds it",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def lookup(session: CheckSession) -> None:
    card = session.subject.card()
    for types, capabilities in ((-1, -1), (card.types, card.capabilities)):
        result = session.control.host("lookup", types, capabilities)
        expect(result, f"type {types} with capabilities {capabilities} does not find it")
    expect(not session.control.host("lookup", 1 << 20, -1), "it matches bits it does not have")


@row("query.examples", "a simulator is found by a host's examples: as QB, TNQVM or NWQSIM",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def examples(session: CheckSession) -> None:
    types = session.subject.card().types
    if not types & SIMULATOR:
        raise CheckNotApplicable("it is no simulator")
    results = [name for name, bit in EXAMPLES.items() if session.control.host("lookup", bit, -1)]
    expect(results, f"type bits {types}: no example finds it, they ask for {EXAMPLES}")


@_remote("register.directory", "it registers itself, with all a directory asks")
def directory(session: CheckSession) -> None:
    records = session.control.host("registered")
    expect(len(records) == 1, f"{len(records)} registrations")
    for key in KEYS:
        expect(key in records[0], f"the registration has no {key!r}")
    reported = session.subject.card().properties
    for key in ("service_id", "service_type"):
        expect_equal(f"{key} of the registration", records[0][key], reported[key])


@_remote("register.resolve", "every binding is found by kind, name, resource and alias")
def resolve(session: CheckSession) -> None:
    reported = session.subject.card().properties
    selector = reported["selector"]
    for expected in (
        {"service_type": "qfw.qpm"}, {"service_id": reported["service_id"]},
        {"selector_resource": reported["device_id"]}, {"selector_alias": "QPM"},
        {"selector_name": selector["name"]}, {"properties": {"provider": reported["provider"]}},
        {"qpm_type": reported["qpm_type"], "qpm_capabilities": reported["qpm_capabilities"]},
    ):  # fmt: skip
        for binding in REVISION2:
            result = session.control.host("resolve", {**expected, "binding_name": binding})
            expect(len(result) == 1, f"{expected} finds {len(result)} entries of {binding}")


@_remote("register.again", "it registers again when the directory was lost", alone=True)
def again(session: CheckSession) -> None:
    control = session.control
    control.host("lose_directory", 1.0)
    session.until(lambda: control.host("registered"), "a registration with the new one", AGAIN_S)


@_remote("register.service-id", "QFW_QPM_SERVICE_ID is its id")
def service_id(session: CheckSession) -> None:
    plugin: Any = session.target
    with plugin.process(2, {"QFW_QPM_SERVICE_ID": "qpm:checked:1"}) as control:
        reported = control.host("query")["card"]["properties"]
    expect_equal("service_id", reported["service_id"], "qpm:checked:1")


@_remote("register.ready-file", "QFW_SERVICE_READY_FILE gets its line once it is ready")
def ready_file(session: CheckSession) -> None:
    plugin: Any = session.target
    with tempfile.TemporaryDirectory(prefix="qpm-check-") as folder:
        path = Path(folder) / "ready"
        with plugin.process(2, {"QFW_SERVICE_READY_FILE": str(path)}) as control:
            control.host("facts")
            deadline = time.monotonic() + AGAIN_S
            while not (path.exists() and path.read_text().endswith("\n")):
                expect(time.monotonic() < deadline, f"no line within {AGAIN_S:g} s")
                time.sleep(0.02)
        line = json.loads(path.read_text().splitlines()[0])
    has("the line", line, {"ready": bool, "message": str, "timestamp_ns": int})


def _methods(session: CheckSession, expected: Any) -> None:
    there = session.subject.signatures()
    reported = [
        text
        for name, arguments in expected.items()
        for text in _misfits(name, there.get(name), arguments)
    ]
    expect(not reported, "; ".join(reported[:5]))


@row("methods.single", "the one class of revision 1 has its methods", revisions=(1,))
def of_single(session: CheckSession) -> None:
    there = session.subject.signatures()
    expected = {**REVISION1}
    for name in ("reserve", "release"):  # revision 2 has these names too, with other arguments
        expect(name in there, f"there is no method {name}")
        expected.pop(name)
    _methods(session, expected)


def _of_binding(binding: str) -> check.Check:
    @row(f"methods.{binding}", f"{binding} has its methods and arguments")
    def of_binding(session: CheckSession) -> None:
        _methods(session, REVISION2[binding])

    return of_binding


of_execution, of_admission, of_policy, of_scheduler, of_telemetry, of_control = map(
    _of_binding, REVISION2
)


def _misfits(method: str, signature: inspect.Signature | None, wanted: Arguments) -> list[str]:
    """Reasons why a host's call would not match the signature; the `reserve` of the two revisions
    differs in names only."""
    if signature is None:
        return [f"there is no method {method}"]
    names = list(signature.parameters)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    takes_named = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    settings = []
    for place, (name, default) in enumerate(wanted):
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not (takes_any and takes_named):
                settings.append(f"{method} has no argument {name!r}")
            continue
        at, given = names.index(name), parameter.default
        if parameter.kind is not parameter.KEYWORD_ONLY and at != place:
            settings.append(f"{method}: {name!r} is argument {at + 1}, not {place + 1}")
        if default is not NEEDED and given is NEEDED:
            settings.append(f"{method}: {name!r} must be given, but a host may leave it out")
        elif default is not NEEDED and given != default:
            settings.append(f"{method}: {name!r} is {given!r} by default, not {default!r}")
    wanted_names = {name for name, _ in wanted}
    settings += [
        f"{method} needs an argument {name!r} that no host gives"
        for name, parameter in signature.parameters.items()
        if name not in wanted_names and parameter.default is NEEDED
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]  # fmt: skip
    return settings
