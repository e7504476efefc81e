"""Checks of a plugin's service record: its bindings, its place in a directory, and its methods."""

from __future__ import annotations

import inspect
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from simenv.qpm.contract import BINDINGS
from simenv.qpm.methods import NEEDED, REVISION1, REVISION2, Arguments
from simenv.qpm_check import check, fields
from simenv.qpm_check.check import BOTH, CheckNotApplicable, TargetProperty, row
from simenv.qpm_check.fake_defw.fakes import KEYS
from simenv.qpm_check.fields import expect_equal, has
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import CheckFailed, expect, impurities, short_repr

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
    expected: fields.Fields = {"name": str, "resources": list, "aliases": list}
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
