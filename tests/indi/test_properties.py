# SPDX-License-Identifier: LGPL-2.1-or-later
"""The property model: what clients may do, what they are told, and in which order."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

import pytest

from indi_qsi.links.frame import Frame
from indi_qsi.properties import (
    BlobElement,
    BlobVector,
    Device,
    Hub,
    Level,
    LightElement,
    LightVector,
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
)
from indi_qsi.wire.messages import BlobPolicy, DelProperty, Kind, NewVector, SnoopedVector
from tests.support.indi import RecordingLink, request, values


def number(**more: Any) -> NumberVector:
    elements = [NumberElement("X", "x", 1, "%.2f", 0, 10, 0.5), NumberElement("Y", "y", 2, "%g", -5, 5)]
    return NumberVector("NUM", "Numbers", "Main", elements, permission=Permission.RW, **more)


def text(**more: Any) -> TextVector:
    elements = [TextElement("A", "a", "one", max_length=5), TextElement("B", "b", "two")]
    return TextVector("TXT", "Texts", "Main", elements, permission=Permission.RW, **more)


def switch(rule: Rule = Rule.ONE_OF_MANY, on: str = "A", **more: Any) -> SwitchVector:
    elements = [SwitchElement(name, name.lower(), name == on) for name in "ABC"]
    return SwitchVector("SW", "Switches", "Main", elements, permission=Permission.RW, rule=rule, **more)


class World:
    """A hub with one live device and one link."""

    def __init__(self, *vectors: Any) -> None:
        self.hub = Hub()
        self.link = RecordingLink()
        self.hub.attach(self.link)
        self.device = Device("D", self.hub)
        self.device.add(*vectors)
        self.hub.add_device(self.device)
        self.link.take()

    def ask(self, kind: str, name: str, **given: str) -> Any:
        """Sends a request; returns the only answer, or None."""
        inner = "".join(f"<one{kind} name='{key}'>{text}</one{kind}>" for key, text in given.items())
        data = f"<new{kind}Vector device='D' name='{name}'>{inner}</new{kind}Vector>"
        request(self.hub, self.link, data)
        answers = self.link.take()
        assert len(answers) <= 1
        return answers[0] if answers else None


# Definitions.


def test_definitions_come_in_order_and_again_with_present_values() -> None:
    lights = LightVector("LT", "", "Main", [LightElement("L", "", State.BUSY)])
    world = World(
        number(), text(), switch(), lights, BlobVector("BL", "Blob", "Main", [BlobElement("B", "b")])
    )
    vector = world.device.vectors["NUM"]
    vector.set({"X": 3.25}, state=State.BUSY)
    world.link.take()
    request(world.hub, world.link, "<getProperties version='1.7'/>")
    defined = world.link.take()
    assert [element.attrib["name"] for element in defined] == ["NUM", "TXT", "SW", "LT", "BL"]
    assert defined[0].attrib["state"] == "Busy"
    assert defined[0].attrib["label"] == "Numbers"
    first = defined[0][0]
    assert first.text == "3.25"
    assert first.attrib == {
        "name": "X", "label": "x", "format": "%.2f", "min": "0.0", "max": "10.0", "step": "0.5"
    }  # fmt: skip
    assert values(defined[2]) == {"A": "On", "B": "Off", "C": "Off"}
    assert defined[2].attrib["rule"] == "OneOfMany"
    assert values(defined[3]) == {"L": "Busy"}
    assert defined[3].attrib["label"] == "LT"
    assert [blob.attrib for blob in defined[4]] == [{"name": "B", "label": "b"}]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ("device='D'", ["NUM", "TXT"]),
        ("device='D' name='TXT'", ["TXT"]),
        ("device='E'", []),
        ("name='NUM'", ["NUM"]),
    ],
)
def test_definitions_of_what_was_asked_for(attributes: str, names: list[str]) -> None:
    world = World(number(), text())
    other = RecordingLink()
    world.hub.attach(other)
    request(world.hub, world.link, f"<getProperties version='1.7' {attributes}/>")
    assert [element.attrib["name"] for element in world.link.take()] == names
    assert other.data == b""


def test_vectors_that_come_and_go() -> None:
    world = World(number())
    late = text()
    assert not late.defined
    late.set({"A": "new"}, state=State.OK)
    assert world.link.take() == []
    world.device.add(late)
    (definition,) = world.link.take()
    assert definition.tag == "defTextVector"
    assert values(definition)["A"] == "new"
    assert late.defined
    world.device.remove(late, switch())
    (gone,) = world.link.take()
    assert (gone.tag, gone.attrib["name"]) == ("delProperty", "TXT")
    assert world.device.get("TXT") is None
    late.set({"A": "later"})
    assert world.link.take() == []
    world.device.add(late)
    assert values(world.link.take()[0])["A"] == "later"


def test_names_are_unique_and_fit_the_c_library() -> None:
    world = World(number())
    with pytest.raises(ValueError, match="already has"):
        world.device.add(number())
    with pytest.raises(ValueError, match="already belongs"):
        Device("E", world.hub).add(world.device.vectors["NUM"])
    with pytest.raises(ValueError, match="there is already a device"):
        world.hub.add_device(Device("D", world.hub))
    for name in ("", "x" * 64, "a\nb"):
        with pytest.raises(ValueError, match="printable"):
            Device(name, world.hub)


def test_a_device_that_goes() -> None:
    world = World(number())
    world.hub.remove_device(world.device)
    (gone,) = world.link.take()
    assert gone.tag == "delProperty"
    assert "name" not in gone.attrib
    world.device.vectors["NUM"].set({"X": 1.0})
    assert world.ask("Number", "NUM", X="1") is None


# Updates.


def test_every_set_is_sent_also_without_a_change() -> None:
    vector = number()
    world = World(vector)
    for _ in range(2):
        vector.set({"X": 1.0}, state=State.OK, message="fine", level=Level.WARNING)
        (update,) = world.link.take()
        assert update.tag == "setNumberVector"
        assert values(update) == {"X": "1.0", "Y": "2.0"}
        assert update.attrib["message"] == "[WARNING] fine"
    vector.set(state=State.BUSY)
    assert world.link.take()[0].attrib["state"] == "Busy"
    assert vector.state is State.BUSY


def test_a_wrong_set_changes_nothing() -> None:
    vector = number()
    world = World(vector)
    with pytest.raises(KeyError):
        vector.set({"X": 5.0, "Z": 1.0})
    with pytest.raises(ValueError, match="cannot be nan"):
        vector.set({"X": math.nan})
    assert vector.values == {"X": 1.0, "Y": 2.0}
    assert world.link.take() == []


def test_limits_change_with_and_without_clients() -> None:
    vector = number()
    vector.set_limits("X", maximum=20)
    world = World(vector)
    assert world.ask("Number", "NUM", X="15").attrib["state"] == "Ok"
    vector.set_limits("X", minimum=1, maximum=12, step=2)
    (update,) = world.link.take()
    assert update[0].attrib == {"name": "X", "min": "1.0", "max": "12.0", "step": "2.0"}
    assert vector.limits("X") == (1.0, 12.0)
    assert vector["X"] == 15.0
    with pytest.raises(ValueError, match="finite"):
        vector.set_limits("X", maximum=math.inf)
    with pytest.raises(KeyError):
        vector.set_limits("Z", maximum=1)


def test_switches_the_driver_sets() -> None:
    vector = switch()
    World(vector)
    vector.set({"B": True})
    assert vector.values == {"A": False, "B": True, "C": False}
    vector.select("C", state=State.OK)
    assert vector.selected == "C"
    vector.select(None)
    assert vector.selected is None
    with pytest.raises(ValueError, match="more than one"):
        vector.set({"A": True, "B": True})
    with pytest.raises(KeyError):
        vector.select("Z")
    several = switch(Rule.ANY_OF_MANY)
    several.set({"B": True})
    assert several.values == {"A": True, "B": True, "C": False}


# Requests.


def test_without_a_handler_requests_are_applied() -> None:
    world = World(number(), text(), switch())
    answer = world.ask("Number", "NUM", X=" 0:30\n")
    assert answer.attrib["state"] == "Ok"
    assert values(answer) == {"X": "0.5", "Y": "2.0"}
    assert values(world.ask("Text", "TXT", B="three")) == {"A": "one", "B": "three"}
    assert values(world.ask("Switch", "SW", B="On")) == {"A": "Off", "B": "On", "C": "Off"}


def test_a_handler_gets_typed_values_and_answers_itself() -> None:
    seen: list[Request[float]] = []
    vector = number(on_request=seen.append)
    world = World(vector)
    assert world.ask("Number", "NUM", X="3") is None
    (got,) = seen
    assert (got.vector, got.link) == (vector, world.link)
    assert got.given == {"X": 3.0}
    assert got.values == {"X": 3.0, "Y": 2.0}
    assert vector["X"] == 1.0
    vector.refuse("not now")
    (answer,) = world.link.take()
    assert (answer.attrib["state"], answer.attrib["message"]) == ("Alert", "[ERROR] not now")
    assert values(answer) == {"X": "1.0", "Y": "2.0"}


@pytest.mark.parametrize(
    ("kind", "name", "given", "state", "message"),
    [
        ("Number", "NUM", {"X": "11"}, "Alert", "X cannot be 11; valid range 0..10"),
        ("Number", "NUM", {"Y": "1", "X": "-0.001"}, "Alert", "valid range 0..10"),
        ("Number", "NUM", {"X": "nan"}, "Alert", "not a number; valid range 0..10"),
        ("Number", "NUM", {"X": "1" * 80}, "Alert", "64 characters"),
        ("Number", "NUM", {"Y": "1", "Z": "1"}, "Idle", "no element 'Z'; it has X, Y"),
        ("Number", "NUM", {}, "Idle", "without elements"),
        ("Text", "TXT", {"A": "sixsix"}, "Alert", "at most 5 characters"),
        ("Text", "TXT", {"B": "a\nb"}, "Alert", "control characters"),
        ("Text", "TXT", {"B": "a\u2028b"}, "Alert", "control characters"),
        ("Text", "TXT", {"C": "x"}, "Idle", "no element 'C'; it has A, B"),
        ("Switch", "SW", {"A": "Off"}, "Idle", "exactly one switch On, not 0"),
        ("Switch", "SW", {"A": "On", "B": "On"}, "Idle", "exactly one switch On, not 2"),
        ("Switch", "SW", {"A": "yes"}, "Alert", "either On or Off, not 'yes'"),
        ("Switch", "SW", {"Z": "On"}, "Idle", "no element 'Z'"),
    ],
)
def test_refused_requests(kind: str, name: str, given: dict[str, str], state: str, message: str) -> None:
    called: list[Any] = []
    vectors = [
        number(on_request=called.append),
        text(on_request=called.append),
        switch(on_request=called.append),
    ]
    world = World(*vectors)
    before = world.device.vectors[name].values
    for present, after in ((State.OK, state), (State.BUSY, "Busy")):  # a Busy speaks of an earlier request
        for vector in vectors:
            vector.set(state=present)
        world.link.take()
        answer = world.ask(kind, name, **given)
        assert answer.tag == f"set{kind}Vector"
        assert answer.attrib["state"] == after
        assert answer.attrib["message"].startswith("[ERROR] ")
        assert message in answer.attrib["message"]
        assert world.device.vectors[name].values == before
        assert called == []


def states(world: World) -> list[tuple[str, str, str]]:
    return [(m.attrib["state"], values(m)["X"], m.get("message", "")) for m in world.link.take()]


def test_accepted_requests_keep_it_busy_until_the_last_one_ends() -> None:
    vector = number()
    world = World(vector)
    world.link.take()
    first = vector.accept({"X": 3})
    vector.set({"X": 4}, state=State.OK)  # a poll
    vector.show({"X": 4}, state=State.IDLE)  # nothing new
    second = vector.accept()
    assert first.end(State.OK, {"X": 5})
    vector.refuse("not now")
    assert [first.open, second.open, vector.pending] == [False, True, True]
    assert second.end(State.ALERT, message="too far")
    assert not second.end(State.OK) and not vector.pending
    vector.set({"X": 6}, state=State.IDLE)
    assert states(world) == [
        ("Busy", "3.0", ""),
        ("Busy", "4.0", ""),
        ("Busy", "4.0", ""),
        ("Busy", "5.0", ""),
        ("Busy", "5.0", "[ERROR] not now"),
        ("Alert", "5.0", "[ERROR] too far"),
        ("Idle", "6.0", ""),
    ]


def test_the_refusal_of_a_newer_request_leaves_the_older_one() -> None:
    vector = number()
    world = World(vector)
    older, newer = vector.accept(), vector.accept()
    world.link.take()
    newer.end(State.ALERT, message="out of reach")
    older.end(State.OK)
    assert [(state, message) for state, _, message in states(world)] == [
        ("Busy", "[ERROR] out of reach"),
        ("Ok", ""),
    ]


def test_a_replaced_request_ends_with_the_newer_one() -> None:
    vector = number()
    world = World(vector)
    older, newer = vector.accept(), vector.accept()
    world.link.take()
    older.superseded()
    assert states(world) == []
    newer.end(State.OK)
    assert [state for state, _, _ in states(world)] == ["Ok"]


def test_all_end_by_one_update() -> None:
    vector = number()
    world = World(vector)
    answers = [vector.accept() for _ in range(3)]
    world.link.take()
    vector.end_all(State.IDLE, {"X": 0})
    assert [state for state, _, _ in states(world)] == ["Idle"]
    assert not any(answer.end(State.OK) for answer in answers)


def test_an_error_of_a_handler_ends_what_it_had_accepted() -> None:
    def fail(request: Request[float]) -> None:
        request.vector.accept()
        raise ValueError("a fault")

    vector = number(on_request=fail)
    world = World(vector)
    request(
        world.hub,
        world.link,
        "<newNumberVector device='D' name='NUM'><oneNumber name='X'>3</oneNumber></newNumberVector>",
    )
    assert vector.state is State.ALERT and not vector.pending


def test_refused_with_a_message_only() -> None:
    fixed = TextVector("RO", "", "Main", [TextElement("A", "a")], permission=Permission.RO)
    world = World(number(), fixed, LightVector("LT", "", "Main", [LightElement("L", "l")]))
    for kind, name, message in [
        ("Text", "RO", "Cannot set read-only property RO"),
        ("Text", "LT", "Cannot set read-only property LT"),
        ("Text", "NUM", "NUM is a Number vector, not a Text vector"),
        ("Text", "NONE", "Property NONE is not defined in D"),
    ]:
        answer = world.ask(kind, name, A="x")
        assert answer.tag == "message"
        assert message in answer.attrib["message"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"B": "On"}, {"A": False, "B": True, "C": False}),
        ({"A": "Off", "B": "On", "C": "Off"}, {"A": False, "B": True, "C": False}),
        ({"A": "Off"}, {"A": False, "B": False, "C": False}),
        ({"A": "On", "B": "On"}, None),
    ],
)
def test_at_most_one(given: dict[str, str], expected: dict[str, bool] | None) -> None:
    vector = switch(Rule.AT_MOST_ONE)
    answer = World(vector).ask("Switch", "SW", **given)
    assert answer.attrib["state"] == ("Ok" if expected else "Idle")
    assert vector.values == (expected or {"A": True, "B": False, "C": False})


def test_any_of_many_changes_only_what_is_named() -> None:
    vector = switch(Rule.ANY_OF_MANY)
    World(vector).ask("Switch", "SW", B="On", C="On")
    assert vector.values == {"A": True, "B": True, "C": True}


def test_a_handler_may_check_the_range_itself() -> None:
    vector = number(check_limits=False)
    assert World(vector).ask("Number", "NUM", X="-3").attrib["state"] == "Ok"
    assert World(number(check_limits=False)).ask("Number", "NUM", X="nan").attrib["state"] == "Alert"


def test_a_fixed_value_is_a_limit_too() -> None:
    vector = NumberVector(
        "BIN", "", "Main", [NumberElement("H", "h", 1, "%g", 1, 1)], permission=Permission.RW
    )
    world = World(vector)
    assert world.ask("Number", "BIN", H="2").attrib["state"] == "Alert"
    assert world.ask("Number", "BIN", H="1").attrib["state"] == "Ok"


def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Request[float]) -> None:
        raise RuntimeError("oops")

    world = World(number(on_request=fail))
    answer = world.ask("Number", "NUM", X="1")
    assert answer.attrib["state"] == "Alert"
    assert "oops" in answer.attrib["message"]
    assert any(record.exc_info for record in caplog.records)


def test_requests_from_the_driver_itself_have_no_link() -> None:
    seen: list[Request[float]] = []
    world = World(number(on_request=seen.append))
    world.hub.dispatch(None, NewVector(Kind.NUMBER, "D", "NUM", (("X", "2"),)))
    assert seen[0].link is None


def test_unknown_devices_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(number())
    for _ in range(3):
        request(
            world.hub, world.link, "<newTextVector device='E' name='T'><oneText name='A'/></newTextVector>"
        )
    assert len(caplog.records) == 1
    assert world.link.take() == []


# Messages, pings, policies, snooping.


def test_messages_go_to_clients_and_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    world = World(number())
    with caplog.at_level(logging.INFO):
        world.device.message("hello <you>")
    (told,) = world.link.take()
    assert told.attrib["message"] == "[INFO] hello <you>"
    assert told.attrib["device"] == "D"
    assert "hello <you>" in caplog.text


def test_pings_and_policies() -> None:
    world = World()
    request(
        world.hub,
        world.link,
        "<pingRequest uid='7'/><pingReply uid='8'/><enableBLOB device='D'>Also</enableBLOB>",
    )
    (reply,) = world.link.take()
    assert (reply.tag, reply.attrib) == ("pingReply", {"uid": "7"})
    assert world.link.pongs == ["8"]
    assert world.link.policies == [("D", None, BlobPolicy.ALSO)]


def test_snooping() -> None:
    world = World()
    seen: list[SnoopedVector | DelProperty] = []
    world.hub.snoop("Mount", "COORD", seen.append)
    (asked,) = world.link.take()
    assert asked.attrib == {"version": "1.7", "device": "Mount", "name": "COORD"}
    later, client = RecordingLink(), RecordingLink(can_snoop=False)
    world.hub.attach(later)
    world.hub.attach(client)
    assert len(later.take()) == 1
    assert client.take() == []
    request(
        world.hub,
        world.link,
        "<setNumberVector device='Mount' name='COORD' state='Ok'><oneNumber name='RA'>1</oneNumber>"
        "</setNumberVector>"
        "<setNumberVector device='Mount' name='OTHER'/><setNumberVector device='Other' name='COORD'/>"
        "<delProperty device='Mount' name='OTHER'/><delProperty device='Mount'/>",
    )
    assert [type(message) for message in seen] == [SnoopedVector, DelProperty]
    assert seen[0].values == (("RA", "1"),)  # type: ignore[union-attr]
    world.hub.unsnoop(seen.append)
    request(world.hub, world.link, "<delProperty device='Mount'/>")
    assert len(seen) == 2


# Frames.


def test_a_frame_goes_to_each_link_with_a_reference_of_its_own() -> None:
    vector = BlobVector("BL", "", "Main", [BlobElement("B", "b")])
    world = World(vector)
    other = RecordingLink()
    world.hub.attach(other)
    frame = Frame(10, ".fits")
    vector.send("B", frame)
    frame.release()
    for link in (world.link, other):
        (item,) = link.blobs
        assert (item.device, item.name, item.element, item.state) == ("D", "BL", "B", State.OK)
        assert len(item.frame.buffer) == 10
        item.frame.release()
    with pytest.raises(ValueError, match="released"):
        _ = frame.buffer
    with pytest.raises(KeyError):
        vector.send("Z", frame)


def test_a_frame_of_a_vector_that_nobody_sees_is_not_kept() -> None:
    vector = BlobVector("BL", "", "Main", [BlobElement("B", "b")])
    with Frame(10, ".fits") as frame:
        vector.send("B", frame)
    with pytest.raises(ValueError, match="released"):
        frame.hold()


# Threads.


def test_many_threads_change_one_vector() -> None:
    vector = number()
    world = World(vector)

    def change(value: float) -> None:
        for _ in range(100):
            vector.set({"X": value, "Y": value})

    threads = [threading.Thread(target=change, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    updates = [values(update) for update in world.link.take()]
    assert len(updates) == 400
    assert all(update["X"] == update["Y"] for update in updates)
    assert updates[-1]["X"] == str(vector["X"])
