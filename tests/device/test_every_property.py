# SPDX-License-Identifier: LGPL-2.1-or-later
"""Walks every property of several models: is it well made, does it answer, does it survive what is wrong?

The driver runs in this process, with a simulated camera at the USB level; requests come as bytes, as from a
link. A handler never waits, so the first answer must be there when the request has been dispatched.
"""

from __future__ import annotations

import logging
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import pytest

from indi_qsi import propertydocs
from indi_qsi.bus import Bus
from indi_qsi.fleet import Fleet
from indi_qsi.properties import Hub
from indi_qsi.properties.config import Config
from indi_qsi.propertydocs import DEVICE, GUIDER, MODELS, REVEALING
from indi_qsi.wire.limits import MAX_NAME
from indi_qsi.wire.messages import Problem
from indi_qsi.wire.parser import Parser
from tests.clients.bench import Witness
from tests.support.indi import RecordingLink, eventually, request, values
from tests.support.rig import stand_alone

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "properties.md"
COLOUR = "540cwsg"

GROUPS = {
    "Main Control",
    "Options",
    "General Info",
    "Image Settings",
    "Image Info",
    "Guider Control",
    "Filter Wheel",
    "WCS",
    "Camera Settings",
}
# Both limits 0: no range, any value.
FORMAT = re.compile(r"%[+ 0-]*\d*(\.\d*)?[fgeEG]|%\d+\.\d+m")

# Not set by the walk, and why.
NOT_SET = {
    "CONNECTION": "ends the walk",
    "SIMULATION": "another camera only while none is connected: test_simulation_is_refused_while_connected",
    "CONFIG_PROCESS": "not a value; test_saved_values_come_back_in_a_fresh_process",
    "CCD_EXPOSURE": "its final state is the end of an exposure: tests/end_to_end/test_exposure.py",
    "CCD_ROLE": "brings all other settings back; test_role_is_a_setting_like_others",
    "GUIDER_DEVICE": "is on already, for the walk",
    "DEBUG": "is on already, for the walk",
}
# What is final only after minutes: Busy is an answer.
LASTING = {
    "CCD_TEMPERATURE": "the CCD needs minutes",
    "CCD_COOLER": "warming up needs minutes",
}
# Other valid values, where any number within the limits or any text will not do.
OTHER = {
    "CCD_FRAME": {"X": "16", "Y": "8", "WIDTH": "64", "HEIGHT": "32"},
    "CCD_BINNING": {"HOR_BIN": "2", "VER_BIN": "2"},
    "CCD_TEMPERATURE": {"CCD_TEMPERATURE_VALUE": "10"},
    "TELESCOPE_TIMED_GUIDE_NS": {"TIMED_GUIDE_N": "20", "TIMED_GUIDE_S": "0"},
    "TELESCOPE_TIMED_GUIDE_WE": {"TIMED_GUIDE_W": "0", "TIMED_GUIDE_E": "20"},
    "CCD_CFA": {"CFA_OFFSET_X": "1", "CFA_OFFSET_Y": "0", "CFA_TYPE": "GRBG"},
    "UPLOAD_SETTINGS": {"UPLOAD_DIR": "_HOME_/elsewhere", "UPLOAD_PREFIX": "M_31_XXX"},
    "PIXEL_MASK": {"PIXELS": "12,34 20,17", "FILE": ""},
    "FITS_HEADER": {"KEYWORD_NAME": "OBJECT", "KEYWORD_VALUE": "M 31", "KEYWORD_COMMENT": "a galaxy"},
}
# Texts that no text vector may swallow.
BAD_TEXTS = {"a new line": "a\nb", "a control character": "a\x7fb", "too long": "x" * 2000}
BAD_NUMBERS = ("nan", "-inf", "1e999", "", "soon", "0x10", "5 %", "1:99", "1:2:3:4", "9" * 80)
# What refuses these as well, by vector.
TRAVERSAL = {
    "UPLOAD_SETTINGS": [
        {"UPLOAD_DIR": "/tmp/../etc"},
        {"UPLOAD_DIR": "relative/path"},
        {"UPLOAD_DIR": "_HOME_/../.."},
        {"UPLOAD_PREFIX": "../../x"},
        {"UPLOAD_PREFIX": "a/b"},
        {"UPLOAD_PREFIX": ".hidden"},
        {"UPLOAD_PREFIX": ""},
    ],
    "FITS_HEADER": [
        {"KEYWORD_NAME": "NAXIS1", "KEYWORD_VALUE": "1"},
        {"KEYWORD_NAME": "TOO_LONG_A_NAME", "KEYWORD_VALUE": "1"},
        {"KEYWORD_NAME": "ÄÖ", "KEYWORD_VALUE": "1"},
    ],
    "PIXEL_MASK": [
        {"PIXELS": "99999,1"},
        {"PIXELS": "here"},
        {"FILE": "/no/such/../file"},
        {"FILE": "/dev/zero"},
    ],
    "FILTER_NAME": [{"FILTER_SLOT_NAME_1": "   "}],
    "CCD_CFA": [{"CFA_TYPE": "RGB"}, {"CFA_TYPE": "XXXX"}, {"CFA_OFFSET_X": "2"}],
}
# A refusal names what would do, in one of these ways.
SAYS_WHAT_IS_VALID = re.compile(
    r"valid|range|\.\.|it has|needs|either On or Off|at most|takes no|must|choose|is a \w+ vector"
    r"|without elements|cannot be read|no name of a file|is not a file|to 64 characters|are 0 or 1|give",
)


class Walk:
    """A connected camera with everything switched on that makes further vectors appear."""

    def __init__(self, model: str, home: Path) -> None:
        self.model = model
        self.hub = Hub()
        self.link = RecordingLink()
        self.hub.attach(self.link)
        self.bus = Bus(f"sim:{model}")
        self.fleet = Fleet(self.hub, self.bus, DEVICE, home / ".indi")
        self.device = self.hub.devices[0]
        self.ask("Switch", "CONNECTION", {"CONNECT": "On"})
        eventually(lambda: self.device.get("CCD1"), f"the {model} connects")
        for vector, switch in REVEALING:
            self.ask("Switch", vector, {switch: "On"})
        propertydocs.ask(self.hub, "CONNECTION", "CONNECT", GUIDER)
        eventually(lambda: len(propertydocs.definitions(self.hub, GUIDER)) == 5, "the guider connects")

    def close(self) -> None:
        self.ask("Switch", "DEBUG", {"DISABLE": "On"})
        self.fleet.close()
        self.bus.close()

    def definitions(self, permission: str | None = None) -> list[ET.Element]:
        """Of the camera's own device."""
        return [e for e in propertydocs.definitions(self.hub) if permission in (None, e.get("perm"))]

    def ask(self, kind: str, vector: str, elements: dict[str, str]) -> list[ET.Element]:
        """Sends a request, and returns what was told about the vector, or said, by the time it returns."""
        inner = "".join(f"<one{kind} name='{escape(n)}'>{text(v)}</one{kind}>" for n, v in elements.items())
        self.link.take()
        xml = f"<new{kind}Vector device='{DEVICE}' name='{vector}'>{inner}</new{kind}Vector>"
        request(self.hub, self.link, xml)
        told = self.link.take()
        return [
            m
            for m in told
            if m.get("name") == vector or (m.tag == "message" and vector in m.get("message", ""))
        ]

    def now(self, vector: str) -> dict[str, str]:
        """The present values, as clients are told."""
        found = self.device.get(vector)
        assert found is not None
        return dict(found.as_request(DEVICE).values)

    def state(self, vector: str) -> str:
        found = self.device.get(vector)
        return found.state.value if found is not None else "gone"


def text(value: str) -> str:
    """As XML, control characters included."""
    return re.sub("[\x00-\x1f\x7f]", lambda match: f"&#{ord(match[0])};", escape(value))


def kind_of(definition: ET.Element) -> str:
    return definition.tag.removeprefix("def").removesuffix("Vector")


@contextmanager
def at_home(home: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("INDICONFIG", raising=False)
        yield home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_home(tmp_path_factory.mktemp("home")) as folder:
        yield folder


@pytest.fixture(scope="module", params=MODELS)
def walk(request: pytest.FixtureRequest, home: Path) -> Iterator[Walk]:
    walk = Walk(request.param, home)
    yield walk
    walk.close()


def test_every_vector_is_well_made(walk: Walk) -> None:
    problems = []
    document = DOCUMENT.read_text()
    for vector in [*propertydocs.definitions(walk.hub), *propertydocs.definitions(walk.hub, GUIDER)]:
        name, label, group = (vector.attrib[key] for key in ("name", "label", "group"))
        for what in (name, label, group, vector.attrib["device"]):
            if not (0 < len(what) < MAX_NAME and what.isprintable()):
                problems.append(f"{name}: {what!r} is no name or label of 1 to 63 characters")
        if group not in GROUPS:
            problems.append(f"{name}: unknown group {group}")
        if f"### {name}\n" not in document:
            problems.append(f"{name} is not in {DOCUMENT.name}")
        problems += [f"{name}.{problem}" for element in vector for problem in element_problems(element)]
        if len({element.attrib["name"] for element in vector}) != len(vector) or not len(vector):
            problems.append(f"{name}: elements are missing or named twice")
        button = vector.get("perm") == "wo"  # INDI's own CCD_FRAME_RESET is one, and Off
        if (
            not button
            and vector.get("rule") == "OneOfMany"
            and list(values(vector).values()).count("On") != 1
        ):
            problems.append(f"{name}: not exactly one switch is On")
    assert not problems


def element_problems(element: ET.Element) -> list[str]:
    name, label = element.attrib["name"], element.attrib["label"]
    problems = [
        f"{name}: {what!r} is no name or label"
        for what in (name, label)
        if not (0 < len(what) < MAX_NAME and what.isprintable())
    ]
    if element.tag != "defNumber":
        return problems
    if not FORMAT.fullmatch(element.attrib["format"]):
        problems.append(f"{name}: format {element.attrib['format']}")
    low, high, step = (float(element.attrib[key]) for key in ("min", "max", "step"))
    if not low < high or step < 0:
        problems.append(f"{name}: range {low}..{high}, step {step}")
    value = float(element.text or "nan")
    # An exposure that is over shows 0, whatever the shortest one is.
    if not low <= value <= high and name != "CCD_EXPOSURE_VALUE":
        problems.append(f"{name}: {value} is outside of {low}..{high}")
    if {name.lower(), label.lower()} & {"gain", "offset"}:
        problems.append(f"{name}: clients take it for the camera's gain or offset")
    return problems


def test_no_vector_that_misleads_clients(walk: Walk) -> None:
    names = {vector.attrib["name"] for vector in walk.definitions()}
    assert not {name for name in names if "STREAM" in name}
    assert ("CCD_CFA" in names) == (walk.model == COLOUR)
    assert not {"CCD_GAIN", "CCD_OFFSET", "CCD_CONTROLS"} & names


def other_values(vector: ET.Element) -> list[dict[str, str]]:
    """Requests that are valid and change something; the last one of a switch is what it was."""
    name, kind = vector.attrib["name"], kind_of(vector)
    if name in OTHER:
        return [OTHER[name]]
    now = values(vector)
    if kind == "Switch":
        if vector.get("rule") == "AnyOfMany":
            return [{n: "Off" if on == "On" else "On"} for n, on in now.items()]
        return [{n: "On"} for n in sorted(now, key=lambda n: now[n] == "On")]
    if kind == "Text":
        return [{n: f"Other {position}"} for position, n in enumerate(now)]
    numbers = {}
    for element in vector:
        low, high, step = (float(element.attrib[key]) for key in ("min", "max", "step"))
        value = float(element.text or "0")
        step = step or (high - low) / 10
        numbers[element.attrib["name"]] = str(value + step if value + step <= high else value - step)
    return [numbers]


def test_every_valid_request_is_fulfilled(walk: Walk) -> None:
    problems = []
    for vector in [*walk.definitions("rw"), *walk.definitions("wo")]:
        name = vector.attrib["name"]
        if name in NOT_SET:
            continue
        for wanted in other_values(vector):
            answers = walk.ask(kind_of(vector), name, wanted)
            if not [m for m in answers if m.tag.startswith("set")]:
                problems.append(f"{name} {wanted}: no answer at once")
                continue
            if name not in LASTING:
                eventually(lambda name=name: walk.state(name) != "Busy", f"{name} {wanted} ends")  # type: ignore[misc]
            if walk.state(name) == "Alert":
                reasons = [m.get("message") for m in [*answers, *walk.link.take()] if m.get("message")]
                problems.append(f"{name} {wanted}: {reasons}")
    assert not problems


def test_no_read_only_vector_can_be_set(walk: Walk) -> None:
    for vector in walk.definitions():
        name, kind = vector.attrib["name"], kind_of(vector)
        if vector.get("perm", "ro") == "ro" and kind in ("Number", "Text", "Switch"):
            (answer,) = walk.ask(kind, name, {next(iter(values(vector))): "1"})
            assert answer.tag == "message" and "read-only" in answer.attrib["message"]


def bad_requests(vector: ET.Element) -> Iterator[tuple[str, dict[str, str]]]:
    """Kind and elements of what must be refused."""
    name, kind, now = vector.attrib["name"], kind_of(vector), values(vector)
    first = next(iter(now))
    yield kind, {"NO_SUCH_ELEMENT": "1" if kind == "Number" else "On"}
    yield kind, {}
    yield ("Text" if kind == "Number" else "Number"), {first: "1"}
    if kind == "Number":
        for element in vector:
            low, high = float(element.attrib["min"]), float(element.attrib["max"])
            for bad in (*BAD_NUMBERS, str(low - 1 - abs(low)), str(high * 2 + 1)):
                yield kind, {element.attrib["name"]: bad}
    elif kind == "Switch":
        for bad in ("Maybe", "", "1", "on", "O" * 300):
            yield kind, {first: bad}
        if vector.get("rule") != "AnyOfMany" and len(now) > 1:
            yield kind, dict.fromkeys(now, "On")
        if vector.get("rule") == "OneOfMany":
            yield kind, dict.fromkeys(now, "Off")
    else:
        for bad in BAD_TEXTS.values():
            yield kind, {first: bad}
    for elements in TRAVERSAL.get(name, ()):
        yield kind, elements


def test_every_bad_request_is_refused_and_changes_nothing(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = []
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # it takes longer than the work
    for vector in [*walk.definitions("rw"), *walk.definitions("wo")]:
        name = vector.attrib["name"]
        unchanged = {} if name == "CCD_TEMPERATURE" else walk.now(name)  # that shows what is measured
        for kind, elements in bad_requests(vector):
            what = f"{name} {kind} { {n: v[:20] for n, v in elements.items()} }"
            answers = walk.ask(kind, name, elements)
            if "FILE" in elements:  # it is being looked at
                eventually(lambda name=name: walk.state(name) != "Busy", "the file is refused")  # type: ignore[misc]
                later = [m for m in walk.link.take() if m.get("name") == name]
                answers = [m for m in (*answers, *later) if m.get("state") != "Busy"]
            refusals = [m for m in answers if m.tag == "message" or m.get("message")]
            if len(refusals) != 1 or len(answers) != 1:
                problems.append(f"{what}: {[(m.tag, m.get('state'), m.get('message')) for m in answers]}")
                continue
            message = refusals[0].get("message", "")
            if not SAYS_WHAT_IS_VALID.search(message):
                problems.append(f"{what}: says only {message!r}")
            if unchanged and walk.now(name) != unchanged:
                problems.append(f"{what}: changed {walk.now(name)}")
    assert not problems


@pytest.mark.parametrize("size", [5_000, 1 << 20])
def test_a_text_beyond_all_limits_is_refused(walk: Walk, size: int) -> None:
    """It is not even read to its end, but answered; what follows it is served, and nothing is changed."""
    before = [values(v) for v in walk.definitions("rw") if kind_of(v) == "Text"]
    parser = Parser()
    huge = f"<newTextVector device='{DEVICE}' name='UPLOAD_SETTINGS'><oneText name='UPLOAD_DIR'>/{'x' * size}</oneText></newTextVector>"
    after = f"<getProperties version='1.7' device='{DEVICE}' name='CONNECTION'/>"
    walk.link.take()
    for event in parser.feed(huge.encode() + after.encode()):
        if isinstance(event, Problem):
            walk.hub.refuse(event)
        else:
            walk.hub.dispatch(walk.link, event)
    # The camera's temperatures go on being told, whatever is asked.
    told = [m for m in walk.link.take() if m.get("name") in ("UPLOAD_SETTINGS", "CONNECTION")]
    answer, definition = told
    assert (answer.get("name"), answer.get("state")) == ("UPLOAD_SETTINGS", "Alert")
    assert "more than" in answer.attrib["message"]
    assert (definition.tag, definition.get("name")) == ("defSwitchVector", "CONNECTION")
    assert [values(v) for v in walk.definitions("rw") if kind_of(v) == "Text"] == before


def test_simulation_is_refused_while_connected(walk: Walk) -> None:
    (answer,) = walk.ask("Switch", "SIMULATION", {"ENABLE": "On"})
    assert answer.get("state") == "Alert" and "Disconnect first" in answer.get("message", "")


def test_role_is_a_setting_like_others(walk: Walk) -> None:
    for role in ("ROLE_GUIDER", "ROLE_MAIN"):
        walk.ask("Switch", "CCD_ROLE", {role: "On"})
        eventually(lambda: walk.state("CCD_ROLE") != "Busy", "the role changes")
        assert walk.state("CCD_ROLE") == "Ok"


@pytest.mark.parametrize("model", ["683s", COLOUR])
def test_saved_values_come_back_in_a_fresh_process(model: str, home: Path, tmp_path: Path) -> None:
    """From the config file alone: what is kept for the camera besides is taken away."""
    indi = tmp_path / "home" / ".indi"
    indi.mkdir(parents=True)
    # Old cameras leave questions unanswered, a second each; the walk has asked them.
    known = home / ".indi" / "qsi-capabilities.json"
    if known.exists():
        shutil.copy(known, indi)
    wanted: dict[str, dict[str, str]] = {}
    for process in ("saves", "loads"):
        folder = tmp_path
        with (
            stand_alone(folder, {"INDI_QSI_USB": f"sim:{model}"}) as server,
            Witness(server.address) as client,
        ):
            client.connect()
            if process == "saves":
                client.put("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
                saved = [r.name for r in Config(DEVICE, {"HOME": str(tmp_path / "home")}).load()]
                assert len(saved) > 10
                for name in saved:
                    vector = client.definition(name)
                    client.put(kind_of(vector), name, **other_values(vector)[0])
                client.put("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
                wanted = {name: values(client.definition(name)) for name in saved}
                (indi / "qsi-cameras.json").unlink(missing_ok=True)
                continue
            client.put("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
            for name, expected in wanted.items():
                eventually(lambda n=name: client.definition(n).get("state") != "Busy", f"{name} ends")  # type: ignore[misc]
                assert (name, values(client.definition(name))) == (name, expected)


def test_the_document_is_up_to_date(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else: python -m indi_qsi.propertydocs > docs/properties.md"""
    fresh = tmp_path / ".indi"
    fresh.mkdir()
    if (known := home / ".indi" / "qsi-capabilities.json").exists():
        shutil.copy(known, fresh)
    monkeypatch.setattr(propertydocs, "_home", lambda: at_home(tmp_path))
    assert propertydocs.render(propertydocs.collect()) == DOCUMENT.read_text()
