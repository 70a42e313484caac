# SPDX-License-Identifier: LGPL-2.1-or-later
"""What must come out when requests meet each other, the camera, and slow disks: one case after the other."""

from __future__ import annotations

import os
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.faults.clock import Clock
from tests.faults.rig import DEVICE, FRAME, Client, Rig
from tests.orders import bench
from tests.orders.model import Judge
from tests.orders.play import Player
from tests.orders.record import Event, Record
from tests.support.workbench import connected

EXPOSE = "c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.3"


@pytest.fixture
def player() -> Iterator[Player]:
    with bench.player("683wsg") as one:
        yield one


def play(player: Player, *steps: str) -> Record:
    """Plays them; nothing of what the model looks at may be wrong."""
    record = player.play(steps)
    judge = Judge(record)
    problems = judge.judge()
    player.kept = judge.kept
    assert not problems, "\n".join(problems)
    return record


def headers(record: Record) -> list[dict[str, str]]:
    return [dict(event.data) for event in record.events if event.kind == "frame"]


def updates(record: Record, vector: str) -> list[Event]:
    return [event for event in record.events if event.kind == "set" and event.name == vector]


def states(record: Record, vector: str) -> list[str]:
    """Without repetitions."""
    found = [event.state for event in updates(record, vector)]
    return [state for at, state in enumerate(found) if not at or found[at - 1] != state]


def happened(record: Record, name: str) -> list[Event]:
    return [event for event in record.events if event.kind == "camera" and event.name == name]


# --- what was asked first takes effect first ---


@pytest.mark.parametrize(
    ("request_", "card", "value"),
    [
        ("READOUT_QUALITY.QUALITY_LOW=On", "READOUTM", "Fast"),
        ("Gain.Low=On", "GAINMODE", "Low"),
        ("AUTO_ZERO.INDI_DISABLED=On", "ZEROLVL", None),
    ],
)
def test_a_setting_and_an_exposure_in_one_packet(
    player: Player, request_: str, card: str, value: str | None
) -> None:
    record = play(player, f"c0 {request_}", EXPOSE)
    (header,) = headers(record)
    assert header.get(card) == value


def test_a_role_and_an_exposure_in_one_packet(player: Player) -> None:
    """The other role has other settings."""
    guider = ("c0 CCD_ROLE.ROLE_GUIDER=On", "c0 READOUT_QUALITY.QUALITY_LOW=On", "c0 Gain.Low=On", "wait 1")
    play(player, *guider, "c0 CCD_ROLE.ROLE_MAIN=On")
    record = play(player, "c0 CCD_ROLE.ROLE_GUIDER=On", EXPOSE)
    (header,) = headers(record)
    assert (header["READOUTM"], header["GAINMODE"]) == ("Fast", "Low")


@pytest.mark.parametrize(("element", "bits"), [("SHUTTER_ON", 0x10), ("SHUTTER_OFF", 0x20)])
def test_the_shutter_and_an_exposure_in_one_packet(player: Player, element: str, bits: int) -> None:
    record = play(player, f"c0 CCD_SHUTTER.{element}=On", EXPOSE)
    (exposed,) = happened(record, "expose")
    modes = [event for event in happened(record, "alt_mode") if event.at < exposed.at]
    assert modes and modes[-1].data["bits"] == bits


def test_binning_frame_and_exposure_in_one_packet(player: Player) -> None:
    frame = "c0 CCD_FRAME.X=8 Y=4 WIDTH=40 HEIGHT=20"
    record = play(player, "c0 CCD_BINNING.HOR_BIN=2 VER_BIN=2", frame, EXPOSE)
    (header,) = headers(record)
    found = [header[name] for name in ("NAXIS1", "NAXIS2", "XBINNING", "YBINNING", "XORGSUBF", "YORGSUBF")]
    assert found == ["20", "10", "2", "2", "4", "2"]


def test_an_exposure_keeps_what_was_set_when_it_was_asked_for(player: Player) -> None:
    """Gain=Low, expose, Gain=High exposes with Low."""
    later = ("c0 Gain.High=On", "c0 CCD_BINNING.HOR_BIN=2 VER_BIN=2", "c0 CCD_FRAME_TYPE.FRAME_DARK=On")
    record = play(player, "c0 Gain.Low=On", EXPOSE, *later, "c0 UPLOAD_MODE.UPLOAD_BOTH=On")
    (header,) = headers(record)
    assert (header["GAINMODE"], header["XBINNING"], header["IMAGETYP"]) == ("Low", "1", "Light Frame")
    assert not record.files
    assert record.after["Gain"]["High"] == "On" and record.states["Gain"] == "Ok"


def test_a_new_exposure_ends_the_one_that_runs(player: Player) -> None:
    long = "c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=60"
    record = play(player, long, "until exposure_start 0.5", EXPOSE)
    assert states(record, "CCD_EXPOSURE") == ["Busy", "Ok"]
    first, second = happened(record, "exposure_start")
    assert second.at - first.at < 5
    assert len(headers(record)) == 1


def test_what_an_exposure_depends_on_is_defined_before_it(player: Player) -> None:
    """`indi_setprop A B` sends its requests in the order of definitions."""
    player.ready()
    client = Client(player.rig.hub)
    names = [e.get("name", "") for e in client.updates if e.tag.startswith("def")]
    player.rig.hub.detach(client)
    exposure = names.index("CCD_EXPOSURE")
    settings = (
        *("CCD_FRAME", "CCD_BINNING", "CCD_FRAME_TYPE", "CCD_ROLE", "Gain", "READOUT_QUALITY", "CCD_FLUSH"),
        *("Fan", "AUTO_ZERO", "CCD_SHUTTER", "EXTERNAL_TRIGGER", "FILTER_SLOT", "FILTER_NAME"),
        *("UPLOAD_MODE", "UPLOAD_SETTINGS", "CCD_COMPRESSION", "FITS_HEADER"),
        *("CCD_TRANSFER_FORMAT", "PIXEL_MASK", "CCD_FAST_TOGGLE", "CCD_FAST_COUNT"),
    )
    late = [name for name in settings if names.index(name) > exposure]
    assert not late


@pytest.mark.parametrize(
    ("setting", "card", "value"),
    [
        ("READOUT_QUALITY.QUALITY_LOW=On", "READOUTM", "Fast"),
        ("Gain.Low=On", "GAINMODE", "Low"),
        ("CCD_FRAME_TYPE.FRAME_DARK=On", "IMAGETYP", "Dark Frame"),
    ],
)
def test_one_indi_setprop_with_a_setting_and_an_exposure(
    tmp_path: Path, setting: str, card: str, value: str
) -> None:
    with connected(tmp_path) as (_, server, client):
        client.small_frame()
        exposure = f"{DEVICE}.CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.3"
        server.tool("indi_setprop", exposure, f"{DEVICE}.{setting}")
        header, _ = client.picture()
        assert header[card] == value


# --- the cooler, and a camera that waits for its trigger ---

ARMED = ("c0 EXTERNAL_TRIGGER.TRIGGER_LONG_FALLING=On", "wait 1", EXPOSE, "wait 1")


def cool(celsius: float) -> str:
    return f"c0 CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE={celsius}"


def test_the_last_of_two_set_points_holds_after_the_trigger(player: Player) -> None:
    play(player, *ARMED, cool(-20), "wait 0.17", cool(5), "wait 1", "trigger", "wait 10")
    cooler = player.rig.camera.hardware.cooler
    assert (cooler.on, cooler.to_ambient, cooler.set_point) == (True, False, 5.0)


def test_off_after_a_set_point_holds_after_the_trigger(player: Player) -> None:
    off = "c0 CCD_COOLER.COOLER_OFF=On"
    record = play(player, *ARMED, cool(-15), "wait 0.17", off, "wait 1", "trigger", "wait 10")
    cooler = player.rig.camera.hardware.cooler
    assert not cooler.on or cooler.to_ambient
    assert not [event for event in happened(record, "ignored") if "trigger" in event.data["why"]]


def test_a_set_point_is_open_until_it_is_reached_whatever_polls_come(player: Player) -> None:
    play(player, cool(20), "wait 120")
    assert player.clients[0].state("CCD_TEMPERATURE") == "Ok"
    record = play(player, *ARMED, cool(-15), "wait 10", "trigger", "wait 1500")
    asked = next(
        event for event in record.events if event.kind == "request" and event.name == "CCD_TEMPERATURE"
    )
    later = [event for event in updates(record, "CCD_TEMPERATURE") if event.at >= asked.at]
    final = next(event for event in later if event.state != "Busy")
    assert final.state == "Ok"
    assert abs(float(final.data["CCD_TEMPERATURE_VALUE"]) + 15) <= 0.25


# --- two devices on one port ---


def test_the_guider_device_is_connected_during_a_download(tmp_path: Path) -> None:
    with Clock():
        rig = Rig(tmp_path, rate=8_000)
        try:
            _connect_guider_during_a_download(rig)
        finally:
            rig.close()


def _connect_guider_during_a_download(rig: Rig) -> None:
    client = rig.client
    assert rig.connect() == "Ok"
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    client.new("Switch", "GUIDER_DEVICE", ENABLE="On")
    client.wait(lambda: client.state("GUIDER_DEVICE") == "Ok", "the second device is there")
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.3)
    while not rig.count("transfer"):
        rig.timeline_pause(0.05)
    rig.timeline_pause(1.0)
    assert client.value("EXPOSURE_PHASE", "PHASE") == "Downloading"
    client.forget()
    asked = time.monotonic()
    guider = f"{DEVICE} Guider"
    client.send(
        f"<newSwitchVector device='{guider}' name='CONNECTION'><oneSwitch name='CONNECT'>On</oneSwitch>"
        "</newSwitchVector>"
    )
    assert time.monotonic() - asked < 0.2, "the reader was blocked"

    def answered() -> list[ET.Element]:
        return [
            e
            for e in list(client.updates)
            if e.get("device") == guider and e.get("name") == "CONNECTION" and e.get("state") == "Ok"
        ]

    client.wait(answered, "the guider is connected")
    assert client.settled("CCD_EXPOSURE") == "Ok", client.last_words()
    assert len(client.frames) == 1
    np.testing.assert_array_equal(client.frames[0][1], rig.picture())


# --- one final state ---


def test_an_exposure_is_asked_for_while_the_one_before_ends_and_the_disk_is_slow(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, looks = os.access, []

    def slow(path: object, *arguments: int, **options: bool) -> bool:
        if "slow" in str(path):
            looks.append(path)
            time.sleep(1.0)
        return access(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "access", slow)
    upload = ("c0 UPLOAD_SETTINGS.UPLOAD_DIR=@/slow UPLOAD_PREFIX=P_XXX", "c0 UPLOAD_MODE.UPLOAD_BOTH=On")
    second = "c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.31"
    # The folder of the second one is looked at while the first one is saved and ends.
    record = play(player, *upload, EXPOSE, "until auto_zero 0.5", second)
    assert looks
    assert [header["EXPTIME"] for header in headers(record)][-1] == "0.31"
    assert "0.31" in [header["EXPTIME"] for header in record.files]
    assert updates(record, "CCD_EXPOSURE")[-1].state == "Ok"


@pytest.mark.parametrize("gap", [0, 1, 2, 5, 10, 20, 30])
def test_the_shutter_priority_and_an_exposure_soon_after(gap: int) -> None:
    with bench.player("640wsg") as player:
        priority = "c0 SHUTTER_PRIORITY.PRIORITY_ELECTRONIC=On"
        record = play(player, priority, *([f"wait {gap / 1000}"] if gap else []), EXPOSE)
        asked = next(event.at for event in record.events if event.kind == "request" and "EXPOS" in event.name)
        later = [event.state for event in updates(record, "CCD_EXPOSURE") if event.at >= asked]
        assert later[-1] == "Ok" and set(later[:-1]) == {"Busy"}, later


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (EXPOSE, "CCD_EXPOSURE.CCD_EXPOSURE_VALUE=nan"),
        (EXPOSE, "CCD_EXPOSURE.CCD_EXPOSURE_VALUE=1e9"),
        ("c0 FILTER_SLOT.FILTER_SLOT_VALUE=3", "FILTER_SLOT.FILTER_SLOT_VALUE=99"),
        (
            "c0 TELESCOPE_TIMED_GUIDE_WE.TIMED_GUIDE_W=500 TIMED_GUIDE_E=0",
            "TELESCOPE_TIMED_GUIDE_WE.TIMED_GUIDE_W=99999 TIMED_GUIDE_E=0",
        ),
        (cool(15), "CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE=999"),
        ("c0 Gain.Low=On", "Gain.Low=Off High=Off"),
    ],
)
@pytest.mark.parametrize("gap", ["wait 0.0001", "wait 0.1"])
def test_a_bad_value_for_a_busy_vector_brings_a_message_only(
    player: Player, good: str, bad: str, gap: str
) -> None:
    record = play(player, good, gap, f"c1 {bad}")
    vector = bad.partition(".")[0]
    refusal = [event for event in updates(record, vector) if "[ERROR]" in event.message]
    assert len(refusal) == 1
    final = "Idle" if "GUIDE" in vector else "Ok"
    if vector not in ("CCD_TEMPERATURE", "Gain"):  # the one takes minutes, the other no time
        assert states(record, vector) == ["Busy", final]


# --- others are served meanwhile ---

FLOOD = 20_000
FACTOR = 20.0  # times as long as without the flood is still prompt ...
PROMPT = 0.5  # s; ... and so is this
TRIES = 5  # what keeps clients waiting does so each time, a busy machine does not


def flood(player: Player) -> None:
    client = player.clients[0]
    for number in range(FLOOD):
        client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-(number % 20))


def abort_time(player: Player) -> float:
    """Real s from an abort to the camera's end of the exposure, which must be running."""
    ended = threading.Event()

    def listen(name: str, facts: object) -> None:
        if name == "abort":
            ended.set()

    events = player.rig.camera.events
    events.listeners.append(listen)
    begin = time.perf_counter()
    player.clients[1].new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert ended.wait(600), "the exposure is not ended"
    spent = time.perf_counter() - begin
    events.listeners.remove(listen)
    assert player.clients[0].settled("CCD_EXPOSURE") == "Idle"
    return spent


def disconnect_time(player: Player) -> float:
    client = player.clients[0]
    begin = time.perf_counter()
    player.clients[1].new("Switch", "CONNECTION", DISCONNECT="On")
    client.wait(lambda: client.state("CONNECTION") == "Idle", "the camera is disconnected", 600)
    return time.perf_counter() - begin


def begin_exposure(player: Player) -> None:
    player.ready()
    client, begun = player.clients[0], threading.Event()
    events = player.rig.camera.events

    def listen(name: str, facts: object) -> None:
        if name == "exposure_start":
            begun.set()

    events.listeners.append(listen)
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=3000)
    assert begun.wait(60)
    events.listeners.remove(listen)


@pytest.mark.parametrize("measure", [abort_time, disconnect_time])
def test_a_flood_of_set_points_keeps_nobody_waiting(
    player: Player, measure: Callable[[Player], float]
) -> None:
    tries = []
    for _ in range(TRIES):
        begin_exposure(player)
        usual = measure(player)
        begin_exposure(player)
        flood(player)
        spent = measure(player)
        if spent < max(FACTOR * usual, PROMPT):
            return
        tries.append(f"{spent:.3f} s, and {usual:.3f} s without the flood")
    pytest.fail("; ".join(tries))


def test_the_last_one_of_a_flood_of_set_points_holds(player: Player) -> None:
    player.ready()
    flood(player)
    cooler = player.rig.camera.hardware.cooler
    limit = time.monotonic() + 60
    while cooler.set_point != -((FLOOD - 1) % 20) and time.monotonic() < limit:
        time.sleep(0.5)
    time.sleep(5.0)
    assert cooler.on and cooler.set_point == -((FLOOD - 1) % 20)


@pytest.mark.parametrize(
    ("kind", "vector", "values"),
    [
        ("Text", "FILTER_NAME", {"FILTER_SLOT_NAME_1": "Ha"}),
        ("Switch", "CONFIG_PROCESS", {"CONFIG_SAVE": "On"}),
        ("Switch", "Gain", {"Low": "On"}),
        ("Text", "PIXEL_MASK", {"PIXELS": "3,4"}),
    ],
)
def test_a_disk_that_takes_three_seconds_keeps_nobody_waiting(
    player: Player, kind: str, vector: str, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    player.ready()
    client, other = player.clients[0], player.clients[1]
    if vector != "Gain":  # a setting waits for the end of an exposure
        begin_exposure(player)
    synced: list[float] = []

    def fsync(fd: int) -> None:
        time.sleep(3.0)
        synced.append(time.monotonic())

    monkeypatch.setattr(os, "fsync", fsync)
    begin = time.monotonic()
    client.new(kind, vector, **values)
    assert time.monotonic() - begin < 0.5, "the reader waited for the disk"
    assert client.state(vector) == "Busy"
    time.sleep(0.3)
    pulse = "TELESCOPE_TIMED_GUIDE_WE"
    other.new("Number", pulse, TIMED_GUIDE_W=200, TIMED_GUIDE_E=0)
    other.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.wait(lambda: client.state(pulse) == "Idle" and client.state("CCD_EXPOSURE") == "Idle", "served")
    assert time.monotonic() - begin < 2.0, "others waited for the disk"
    assert not synced and client.state(vector) == "Busy"
    assert client.settled(vector) == "Ok"
    assert synced and time.monotonic() >= synced[0]


# --- no camera, or another one ---

ABSENT = (
    "CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.4",
    "CCD_ABORT_EXPOSURE.ABORT=On",
    "Gain.Low=On",
    "READOUT_QUALITY.QUALITY_LOW=On",
    "CCD_ROLE.ROLE_GUIDER=On",
    "AUTO_ZERO.INDI_DISABLED=On",
    "CCD_SHUTTER.SHUTTER_ON=On",
    "CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE=5",
    "CCD_COOLER.COOLER_ON=On",
    "FILTER_SLOT.FILTER_SLOT_VALUE=4",
    "FILTER_NAME.FILTER_SLOT_NAME_2=Ha",
    "PIXEL_MASK.PIXELS=3,4",
    "LINK_TIMING.TIMING_VENDOR=On",
    "TELESCOPE_TIMED_GUIDE_WE.TIMED_GUIDE_W=200 TIMED_GUIDE_E=0",
)


@pytest.mark.parametrize("text", ABSENT)
@pytest.mark.parametrize("away", ["unplug", "power_off"])
def test_a_request_while_the_camera_is_away_is_refused_or_carried_out_later(
    player: Player, text: str, away: str
) -> None:
    back = {"unplug": "replug", "power_off": "power_on"}[away]
    play(player, away, "wait 3", f"c0 {text}", "wait 3", back, "wait 40", EXPOSE)


def simulate(rig: Rig) -> list[str]:
    """Asks for a simulated camera; what was said, if it was refused."""
    client = rig.client
    client.forget()
    client.new("Switch", "SIMULATION", ENABLE="On")
    client.wait(lambda: client.state("SIMULATION") != "Busy", "SIMULATION is answered")
    refused = client.state("SIMULATION") == "Alert" and client.value("SIMULATION", "ENABLE") == "Off"
    return client.said("SIMULATION") if refused else []


def test_the_camera_cannot_be_changed_while_it_is_connected(tmp_path: Path) -> None:
    with Clock():
        rig = Rig(tmp_path)
        assert rig.connect() == "Ok"
        assert simulate(rig)
        rig.close()


def test_the_camera_cannot_be_changed_while_it_is_connecting(tmp_path: Path) -> None:
    with Clock():
        rig = Rig(tmp_path, strange=["slow-init:10"])
        rig.client.new("Switch", "CONNECTION", CONNECT="On")
        rig.timeline_pause(2.0)
        assert rig.client.state("CONNECTION") == "Busy"
        said = simulate(rig)
        assert rig.client.settled("CONNECTION") == "Ok"
        rig.close()
        assert said


def test_the_camera_cannot_be_changed_while_it_is_waited_for(tmp_path: Path) -> None:
    with Clock():
        rig = Rig(tmp_path)
        assert rig.connect() == "Ok"
        rig.camera.device.unplug()
        rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is told")
        said = simulate(rig)
        rig.close()
        assert said
