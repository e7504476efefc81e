"""`simenv devices` without an environment: import, list, show, remove."""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calibration_samples as samples
import lab_distribution
import pytest
from msgspec.structs import replace
from shell import Shell, shell_of

from noise_models import library, snapshot, terms
from noise_models.calibration import T1Jumps
from noise_models.importers import REGISTRY, import_snapshot, importers
from simenv.calibration import device_files
from simenv.cli import completion
from simenv.cli.devices import new, overview
from tests.noise_models.snapshots import linked
from tests.noise_models.test_linked_modules import LOGICAL


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without environments and devices."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("SIMENV_HOME", str(folder))
    return folder


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    return shell_of("", capfd)


def write(folder: Path, form: str) -> list[str]:
    """Files of a format's sample; their paths."""
    paths = []
    for name, data in samples.files()[form].items():
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    return paths


@pytest.mark.parametrize("form", sorted(samples.files()))
def test_import_list_show_and_remove(form: str, shell: Shell, tmp_path: Path, home: Path) -> None:
    result = shell("devices", "import", *write(tmp_path, form), "--name", "mine", "--json", code=0)
    assert (result.object["name"], result.object["report"]["format"]) == ("mine", form)
    path = home / "devices" / "mine.json"
    assert result.object["file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = snapshot.load(path.read_bytes())
    assert document.digest.hex() == result.object["digest"]
    assert document.coordinates or not document.coupling  # for drawings
    rows = [row.split("\t") for row in shell("devices", "-o", "name,source").out.splitlines()]
    assert ["mine", "imported"] in rows
    outcome = shell("devices", "show", "mine", "--json").object
    assert outcome["source"] == "imported"
    assert outcome["snapshot"]["num_qubits"] == document.num_qubits
    assert shell("devices", "show", "mine").code == 0
    assert shell("devices", "remove", "mine").code == 0
    assert not path.exists()
    assert shell("devices", "remove", "mine").code == 4


def test_report_names_used_ignored_and_clamped_fields(shell: Shell, tmp_path: Path) -> None:
    result = shell("devices", "import", *write(tmp_path, "ibm-properties"), code=0)
    lines = result.out.splitlines()
    assert lines[0].startswith("imported ibm_sample: 3 qubits, format ibm-properties, snapshot ")
    for each in (
        "qubits[*].T1",
        "qubits[*].anharmonicity",
        "qubits[*].excited",
        "T2 = 130 us is above 2 T1; used: 100 us",
    ):
        assert each in result.out
    again = shell("devices", "import", *write(tmp_path, "ibm-properties"))
    assert again.out.startswith("replaced ibm_sample")


def test_devices_are_listed_where_no_environment_is_up(shell: Shell) -> None:
    result = shell("devices", "--json")
    assert (result.code, [row["name"] for row in result.objects]) == (0, list(library.BUNDLED))
    assert {row["kind"] for row in result.objects} == {"emulated"}
    assert "no environment is up" in result.err


def test_damaged_device_file_is_named_and_hides_no_other(shell: Shell, home: Path) -> None:
    (home / "devices").mkdir(mode=0o700)
    (home / "devices" / "bad.json").write_text('{"kind": "snapshot", "num_qubits": -1}')
    outcome = shell("devices", code=0)
    assert "bad.json" in outcome.err
    assert "trapped-ions" in outcome.out
    result = shell("devices", "show", "bad", "--json")
    assert (result.code, result.object["error"]["code"]) == (2, "calibration")
    assert "name" in result.object["error"]["message"]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("import",), 2, "--provider"),
        (("import", "missing.json"), 2, "cannot read"),
        (("import", "/dev/zero"), 2, "more than 67,108,864 bytes"),
        (("import", "{file}", "--format", "abacus"), 2, "known: auto"),
        (("import", "{file}", "--name", "ideal"), 2, "bundled profile"),
        (("import", "{file}", "--name", "../x"), 2, "not allowed"),
        (("import", "{file}", "{file}"), 2, "two files"),
        (("import", "--provider", "nowhere"), 2, "MODULE:FUNCTION"),
        (("import", "--provider", "nowhere:one"), 2, "nowhere"),
        (("show", "abacus"), 4, "abacus"),
        (("show", "ideal", "--qubit", "99"), 2, "32 qubits"),
        (("show", "ideal", "--plot", "x.pdf"), 2, ".png"),
        (("remove", "ideal"), 4, "ideal"),
    ],
)
def test_refusals_name_the_reason(
    words: tuple[str, ...], code: int, part: str, shell: Shell, tmp_path: Path
) -> None:
    [file] = write(tmp_path, "cunqa")
    result = shell("devices", *(word.format(file=file) for word in words))
    assert result.code == code, result.err
    assert part in result.err


def test_values_of_one_qubit_are_shown_with_their_dates(shell: Shell, tmp_path: Path) -> None:
    shell("devices", "import", *write(tmp_path, "ibm-properties"), "--name", "mine")
    got = shell("devices", "show", "mine", "--qubit", "0")
    assert [row.split() for row in got.out.splitlines()][1] == ["t1_us", "100.5", samples.EARLIER]
    outcome = shell("devices", "show", "mine", "--qubit", "0", "--json").object
    assert outcome["values"]["p10"] == 0.03
    assert {gate["name"] for gate in outcome["gates"]} == {"rz", "sx", "x", "cz"}


def test_the_picture_of_a_lattice_is_a_png_file(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("superconducting-lattice", "trapped-ions", "ideal"):
        path = tmp_path / f"{name}.png"
        assert shell("devices", "show", name, "--plot", str(path)).code == 0
        assert path.read_bytes().startswith(b"\x89PNG")


def test_no_matplotlib(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from simenv.cli import terminal

    def find_spec(name: str) -> Any:
        return None

    monkeypatch.setattr(terminal.importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(library, "PACKAGE", "none")
    result = shell("devices", "show", "ideal", "--plot", str(tmp_path / "x.png"), code=2)
    assert "pip install 'simenv[plots]'" in result.err


def test_the_target_of_a_qiskit_backend_is_imported(shell: Shell, home: Path) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    provider = "qiskit_ibm_runtime.fake_provider:FakeLimaV2"
    outcome = shell("devices", "import", "--provider", provider, "--name", "target", "--json")
    assert outcome.code == 0, outcome.err
    value, _ = overview.load("target")
    result, _ = overview.load("lima")
    assert value.source_format == "qiskit-target"
    assert [q.t1_us for q in value.qubits] == pytest.approx([q.t1_us for q in result.qubits])
    assert set(value.coupling) == set(result.coupling)
    errors = {(gate.name, gate.qubits): gate.error for gate in result.gates}
    for gate in value.gates:
        if len(gate.qubits) == 2:
            assert gate.error == pytest.approx(errors[gate.name, gate.qubits])
    assert value.dynamic == result.dynamic


def test_imported_device_replaces_one_of_qiskit_ibm_runtime(shell: Shell, tmp_path: Path) -> None:
    result = shell("devices", "import", *write(tmp_path, "cunqa"), "--name", "lima", code=0)
    assert ("in place of that of qiskit" in result.err) == bool(library.resolve("lima"))
    assert overview.load("lima")[1] == "imported"
    result = shell("devices", "new", "lima", "--qubits", "2")
    assert ("in place of that of qiskit" in result.err) == bool(library.resolve("lima"))
    shell("devices", "remove", "lima")
    if library.resolve("lima"):
        assert overview.load("lima")[1] == "qiskit-ibm-runtime"


def lacking(form: str) -> dict[str, bytes]:
    """A sample that lacks something: where it lacks nothing, without its readout errors."""
    if form == "simenv":
        ions = import_snapshot(samples.files()["trapped-ion"])[0]
        return {"ions.json": snapshot.dump(replace(ions, qubits=()))}
    if form == "trapped-ion":
        return {"ions.json": samples.encoded({**samples.trapped_ion(), "p_meas": None})}
    if form == "ionq":
        value = samples.ionq()
        del value["fidelity"]["spam"]
        return {"ions.json": samples.encoded(value)}
    if form == "cunqa":
        value = samples.cunqa()
        for qubit in value["Qubits"].values():
            for key in [key for key in qubit if "eadout fidelity" in key or "RO fidelity" in key]:
                del qubit[key]
        return {"noise.json": samples.encoded(value)}
    if form == "iqm":
        value = samples.iqm()
        rows = [each for each in value["observations"] if "ssro" not in each["dut_field"]]
        return {"metrics.json": samples.encoded({**value, "observations": rows})}
    return samples.files()[form]


@pytest.mark.parametrize("form", sorted(REGISTRY))
def test_report_of_each_format_begins_with_what_the_device_lacks(
    form: str, shell: Shell, tmp_path: Path
) -> None:
    for name, data in lacking(form).items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in lacking(form)]
    result = shell("devices", "import", *paths, "--name", "mine", "--format", form, code=0)
    assert result.out.splitlines()[2:4] == ["", "the device does not have"]


def test_device_of_a_few_numbers_is_made_and_listed(shell: Shell, home: Path) -> None:
    words = ("--qubits", "5", "--t1-us", "120", "--t2-us", "80", "--error-2q", "0.006")
    result = shell("devices", "new", "small", *words, code=0)
    lines = result.out.splitlines()
    assert lines[0] == "made small: 5 qubits, 4 pairs"
    assert lines[2:4] == ["", "the device does not have"]
    assert lines[4].split()[0] == "measure"
    value, _ = overview.load("small")
    assert value.qubits[4].t1_us == 120.0
    again = shell("devices", "new", "small", *words, "--json")
    assert (again.object["replaced"], again.err) == (True, "")


def test_device_that_another_replaces_is_kept_for_an_import(
    shell: Shell, tmp_path: Path, home: Path
) -> None:
    shell("devices", "import", *write(tmp_path, "cunqa"), "--name", "chip")
    first = overview.load("chip")[0]
    result = shell("devices", "new", "chip", "--qubits", "2")
    assert result.out.startswith("replaced chip")
    kept = home / "devices" / "chip.json.replaced"
    assert f"simenv devices import {kept} --name OTHER" in result.err
    assert shell("devices", "import", str(kept), "--name", "former").code == 0
    assert overview.load("former")[0] == first
    assert device_files.names() == ["chip", "former"]
    shell("devices", "remove", "chip")
    assert not kept.exists()


def test_new_device_has_the_clock_that_it_is_given(shell: Shell) -> None:
    words = ("--duration-1q-ns", "32", "--duration-2q-ns", "68", "--dt-ns", "4")
    shell("devices", "new", "timed", "--qubits", "3", *words, code=0)
    assert overview.load("timed")[0].dt_ns == 4.0


def test_template_in_a_file_is_imported(shell: Shell, tmp_path: Path, home: Path) -> None:
    file = tmp_path / "mine.json"
    words = ("--lattice", "heavy-hex:2x4", "--template", "--file", str(file))
    assert shell("devices", "new", "mine", *words).code == 0
    assert not (home / "devices" / "mine.json").exists()
    result = shell("devices", "import", str(file))
    assert result.out.startswith("imported mine: 9 qubits, format simenv")
    assert "does not have" not in result.out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("x",), "no number of qubits"),
        (("x", "--qubits", "3", "--t1-us", "long"), "--t1-us: 'long'"),
        (("x", "--couplings", "0-1", "--lattice", "line"), "give one of the two"),
        (("x", "--couplings", "0:1"), "'0:1' is not a pair"),
        (("ideal", "--qubits", "3"), "bundled profile"),
        (("x", "--qubits", "3", "--file", "/nowhere/x.json"), "cannot write"),
    ],
)
def test_device_that_cannot_be_made_is_refused(
    words: tuple[str, ...], part: str, shell: Shell
) -> None:
    assert part in shell("devices", "new", *words, code=2).err


def test_renamed_column_is_refused_by_name_and_accepted_by_an_option(
    shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(samples.IBM_CSV.replace("T2 (us)", "Coherence (us)"))
    result = shell("devices", "import", str(path), "--name", "chip", code=2)
    assert "Coherence (us)" in result.err
    assert "--allow-ignored" in result.err
    result = shell("devices", "import", str(path), "--name", "chip", "--allow-ignored", code=0)
    head = result.out.split("used (")[0]
    assert "T2 " in head
    assert "noise that was left out" in head
    assert "column Coherence (us)" in head


def test_a_low_t1_is_named(shell: Shell, home: Path) -> None:
    lattice = library.load("superconducting-lattice")
    jumps = T1Jumps(2.0, 600.0, 0.5, low=True)
    qubit = replace(lattice.qubits[0], t1_us=100.0, t1_jumps=jumps)
    document = replace(lattice, qubits=(qubit, *lattice.qubits[1:]))
    (home / "devices").mkdir()
    (home / "devices" / "jumping.json").write_bytes(snapshot.dump(document))
    text = shell("devices", "show", "jumping").out
    assert "low T1      qubit 0: 50 us" in text
    assert "jump_dwell" in text
    assert "t1_jumps.factor" in shell("devices", "show", "jumping", "--qubit", "0").out


def test_learned_errors_of_layers_are_added_to_a_device(shell: Shell, home: Path) -> None:
    file = str(Path(__file__).parents[4] / "examples/noise_learner.json")
    assert shell("devices", "new", "four", "--qubits", "4").code == 0
    shell("devices", "layers", "four", file)
    result = shell("devices", "layers", "four", file, "--date", "2026-02-26", "--json").object
    assert (result["added"], result["replaced"], result["layers"]) == (0, 2, 2)
    document = snapshot.load((home / "devices/four.json").read_bytes())
    assert {each.calibrated for each in document.layers} == {"2026-02-26"}
    assert all("NoiseLearner" in each.source for each in document.layers)
    shown = shell("devices", "show", "four").out
    assert "2 layers" in shown
    assert "cz 0-1, cz 2-3: 24 rates on 4 qubits" in shown
    assert shell("devices", "layers", "four", file, "--to", "ideal").code != 0
    result = shell("devices", "layers", "trapped-ions", file, "--to", "ions", code=2)
    assert "no native gate on two qubits" in result.err
    assert shell("devices", "layers", "four", file, "--date", "yesterday").code == 2
    assert shell("devices", "new", "three", "--qubits", "3").code == 0
    assert "out of range" in shell("devices", "layers", "three", file).err


def test_rotations_and_joint_readout_are_made_and_shown(shell: Shell, tmp_path: Path) -> None:
    angles = ("--zz-angle-rad", "0.08", "--iz-angle-rad", "0.06")
    file = tmp_path / "turned.json"
    shell("devices", "new", "turned", "--qubits", "2", *angles, "--file", str(file), code=0)
    document = json.loads(file.read_text())
    column = [
        [0.9, 0.0, 0.0, 0.1],
        [0.0, 0.9, 0.1, 0.0],
        [0.0, 0.1, 0.9, 0.0],
        [0.1, 0.0, 0.0, 0.9],
    ]
    document["correlated_readout"] = [{"qubits": [0, 1], "confusion": column}]
    file.write_text(json.dumps(document))
    assert shell("devices", "import", str(file)).code == 0
    shown = shell("devices", "show", "turned", "--qubit", "1").out
    rows = [" ".join(row.split()) for row in shown.splitlines()]
    assert {"cz rotation ZZ 0-1 0.08 rad", "cz rotation IZ 0-1 0.06 rad"} <= set(rows)
    assert "cz rotation ZI 1-0 0.06 rad" in rows  # of the gate with its qubits in the other order
    assert "joint_flip 0-1 0.1" in rows
    others = shell("devices", "show", "turned", "--qubit", "1", "--json").object["others"]
    assert {"joint_flip", "cz rotation ZZ"} <= {each["name"] for each in others}


def test_every_value_is_an_option_and_is_shown(shell: Shell) -> None:
    assert {each.name: each.help for each in terms.VALUES} == dict(new._VALUES)
    one = {"dt_ns": "4", "readout_error": "", "jump_factor": "0.3", "jump_dwell_s": "600"}
    given = {each.name: one.get(each.name, "0.01") for each in terms.VALUES}
    words = [f"--{name.replace('_', '-')}={text}" for name, text in given.items()]
    shell("devices", "new", "full", "--qubits", "2", *words, code=0)
    shown = shell("devices", "show", "full").out
    listed = [
        *shown.splitlines(),
        *shell("devices", "show", "full", "--qubit", "1").out.splitlines(),
    ]
    names = [row.split("  ")[0] for row in listed]
    for each in terms.VALUES:
        stem = each.name.rpartition("_")[0]
        if each.kind in ("qubit", "jumps", "pair", "crosstalk") and given[each.name]:
            assert {each.name, stem} & set(names), each.name
    assert {"cz rotation ZZ", "cz leakage", "cz seepage", "cz over-rotation"} <= set(names)


TABLE = (
    "qubit,t1_us,t2_us,readout_error,sx_error,cz_error\n"
    "0,120,80,0.01,0.0003,1:0.006\n1,110,90,0.012,0.0004,0:0.006\n"
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def installed(*more: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        monkeypatch.syspath_prepend(lab_distribution.install(folder, *more))

    return installed


def test_table_of_a_laboratory_is_imported_and_its_command_runs(
    shell: Shell, install: Callable[..., None], tmp_path: Path
) -> None:
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    assert shell("devices", "import", str(table)).code == 2
    install()
    result = shell("devices", "import", str(table), "--name", "chip", "--json", code=0)
    assert result.object["report"]["format"] == "lab-table"
    shown = shell("worst", "chip")
    assert (shown.code, shown.out) == (0, "cz (0, 1): 0.006\n")
    assert shell("worst", "chip", "--json").object["error"] == 0.006
    assert "worst" in shell("--help").out.split("Installed commands")[1]
    table.write_text(TABLE.replace("readout_error", "read_err"))
    assert "read_err: looks like noise" in shell("devices", "import", str(table)).err
    table.write_text(TABLE.replace("120", "long"))
    assert "row 2: t1_us: 'long' is not a number" in shell("devices", "import", str(table)).err


def test_an_importer_that_raises_another_error_is_named_with_it(
    shell: Shell, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    monkeypatch.setattr(importers()["lab-table"], "read", staticmethod(lambda *_: 1 // 0))
    failed = shell("devices", "import", str(table)).err
    assert "lab-table: the importer failed: ZeroDivisionError" in failed


def test_command_that_cannot_be_loaded_says_why_and_hides_no_other(
    shell: Shell, install: Callable[..., None]
) -> None:
    install("[simenv.commands]", "lost = nowhere:command\nsubmit = lab_tools:worst")
    assert "nowhere:command cannot be loaded: ModuleNotFoundError" in shell("lost", code=2).err
    assert "quantum" in shell("submit", "--help").out + "quantum"
    listed = shell("--help")
    assert (listed.code, listed.out.count("\n  submit ")) == (0, 1)


def test_completion_of_the_first_word_has_its_name_and_imports_no_command(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.delitem(sys.modules, "lab_tools", raising=False)
    monkeypatch.setenv("COMP_WORDS", "simenv wor")
    assert "worst" in completion.tree().commands
    assert "lab_tools" not in sys.modules


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("lost = nowhere:Importer", "ModuleNotFoundError"),
        ("other = lab_tools:LabTable", "not an importer of that name"),
    ],
)
def test_importer_that_cannot_be_used_is_named(
    line: str, part: str, shell: Shell, install: Callable[..., None], tmp_path: Path
) -> None:
    install("[simenv.importers]", line)
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    assert part in shell("devices", "import", str(table), "--format", "abacus", code=2).err
    assert shell("devices", "import", str(table), "--name", "chip").code == 0  # the other works
    table.write_text("qubit,colour\n0,red\n")
    assert part in shell("devices", "import", str(table)).err


def test_answer_of_the_wrong_shape_is_an_error_of_the_importer(
    shell: Shell, install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    table = tmp_path / "chip.csv"
    table.write_text(TABLE)
    found = importers()["lab-table"]
    for answer in (None, (1, 2)):
        monkeypatch.setattr(found, "read", lambda *_, answer=answer: answer)
        result = shell("devices", "import", str(table), "--format", "lab-table")
        assert "the importer failed: TypeError" in result.err


def test_without_the_distribution_there_are_no_further_importers() -> None:
    assert "lab-table" not in importers()


def test_modules_links_and_logical_qubits_are_shown(shell: Shell, tmp_path: Path) -> None:
    logical = replace(linked(), modules=(), links=(), logical=LOGICAL, coupling=((0, 1),), gates=())
    for name, device in (("duo", linked()), ("coded", logical)):
        path = tmp_path / f"{name}.json"
        path.write_bytes(snapshot.dump(replace(device, name=name)))
        shell("devices", "import", str(path))
    shown = shell("devices", "show", "duo").out
    assert "a: 3 qubits (1 for links), b: 3 qubits (1 for links)" in " ".join(shown.split())
    row = next(line.split() for line in shown.splitlines() if line.startswith("1-3"))
    assert row == ["1-3", "0.05", "10000", "101", "5"]
    assert "1-3" in shell("devices", "show", "duo", "--qubit", "3").out
    assert "1-3  " not in shell("devices", "show", "duo", "--qubit", "5").out
    text = " ".join(shell("devices", "show", "coded").out.split())
    assert "rotated surface code of distance 3 on square-lattice, 17 qubits for each" in text
    stored = json.loads(shell("devices", "show", "duo", "--json").out)["snapshot"]
    assert stored["links"][0]["pair"] == [1, 3]


def test_linked_device_has_the_modules_and_links_of_the_words(shell: Shell) -> None:
    words = ("a=trapped-ions", "b=ideal", "--name", "duo")
    links = ("a.1-b.0:fidelity=0.97,rate_hz=1e5,latency_ns=250", "a.2-b.3:IZ=0.02,ZI=0.01")
    given = [word for link in links for word in ("--link", link)]
    result = shell("devices", "link", *words, *given)
    assert result.out.startswith("made duo: 2 modules, 64 qubits, 2 links of 4 communication qubit")
    found = overview.load("duo")[0]
    assert [(each.name, each.communication) for each in found.modules] == [
        ("a", (1, 2)),
        ("b", (32, 35)),
    ]
    first, second = found.links
    assert (first.fidelity, first.rate_hz, first.latency_ns) == (0.97, 1e5, 250.0)
    assert {each.pauli: each.probability for each in second.paulis} == {"IZ": 0.02, "ZI": 0.01}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("a=ideal", "b=nosuch"), "no device 'nosuch'"),
        (("a=ideal", "a=ideal"), "module 'a=ideal'"),
        (("ideal", "b=ideal"), "module 'ideal'"),
        (("a=ideal", "b=neutral-atoms"), "neutral-atoms has no measurements and conditions"),
    ],
)
def test_modules_that_cannot_be_linked_are_named(
    shell: Shell, words: tuple[str, ...], part: str
) -> None:
    result = shell("devices", "link", *words, "--name", "x", "--link", "a.0-b.0:fidelity=1")
    assert result.code != 0
    assert part in result.err


@pytest.mark.parametrize(
    ("link", "part"),
    [
        ("a.0-b.0", "one of fidelity and paulis"),
        ("a.0:fidelity=1", "names no two qubits"),
        ("a.0-b.0:fidelity=high", "'fidelity=high'"),
        ("a.0-b.0:fidelty=0.9", "'fidelty=0.9'"),
        ("a.0-b.0:fidelity=0.9,fidelity=0.8", "'fidelity=0.8'"),
        ("a.0-b.0:fidelity=0.9,rate_hz=0", "a.0-b.0 has the rate 0.0 /s"),
        ("a.0-b.0:fidelity=0.9,herald_ns=100,attempts_max=1.5", "no whole number"),
        ("a.0-a.1:fidelity=0.9", "joins module 'a' with itself"),
        ("a.0-c.0:fidelity=0.9", "there is no module 'c'"),
    ],
)
def test_bad_links_are_named(shell: Shell, link: str, part: str) -> None:
    result = shell("devices", "link", "a=ideal", "b=ideal", "--name", "x", "--link", link)
    assert result.code != 0
    assert part in result.err


def test_figures_of_atoms_are_in_the_columns_of_qubits(shell: Shell, home: Path) -> None:
    rows = shell("devices", "-o", "name,readout,t1_us", code=0).out.splitlines()
    assert ["neutral-atoms-analog", "0.045", "75"] in [row.split("\t") for row in rows]
