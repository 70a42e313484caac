# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names of a process's cameras: who gets the plain one, and what happens when others have cameras too."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indi_qsi import fleet as fleet_module
from indi_qsi.autoconnect import AutoConnect
from indi_qsi.bus import Bus
from indi_qsi.device.device import QsiDevice
from indi_qsi.device.memory import FILE
from indi_qsi.fleet import FIRST, Fleet
from indi_qsi.properties import Hub, State
from tests.support.indi import RecordingLink, eventually, request
from usbproto import hotplug
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.usbdevice import Handle

DEVICE = "QSI CCD"
LOW, HIGH = "00640001", "00683001"  # as the driver looks at them, LOW comes first
LOW_DEVICE, HIGH_DEVICE = f"{DEVICE} {LOW}", f"{DEVICE} {HIGH}"


class Bench:
    """Two cameras on the computer's USB, and driver processes as far as a fleet is one."""

    def __init__(self, home: Path) -> None:
        self.directory = home / ".indi"
        self.commands: list[tuple[str, str]] = []  # serial number, name
        self.cameras = {
            serial: SimulatedCamera(model, listener=partial(self._note, serial))
            for model, serial in (("640wsg", LOW), ("683wsg", HIGH))
        }
        devices = [camera.device for camera in self.cameras.values()]
        self.backend = SimulatorBackend(devices)
        self.hub = Hub()
        self.link = RecordingLink()
        self.hub.attach(self.link)
        self.fleets: list[Fleet] = []

    def _note(self, serial: str, name: str, facts: Mapping[str, Any]) -> None:
        if name == "command":
            self.commands.append((serial, facts["command"]))

    def start(self, arrived: Callable[[QsiDevice], None] | None = None, serial: str | None = None) -> Fleet:
        bus = Bus()
        bus._backend = self.backend
        fleet = Fleet(self.hub, bus, DEVICE, self.directory, serial, arrived)
        self.fleets.append(fleet)
        return fleet

    def close(self) -> None:
        for fleet in self.fleets:
            fleet.close()
        self.backend.close()
        for camera in self.cameras.values():
            camera.close()

    def grab(self, serial: str) -> Handle:
        """Another process has the camera."""
        handle = self.cameras[serial].device.open()
        handle.claim(0)
        return handle

    def unplug(self, serial: str) -> None:
        self.cameras[serial].device.unplug()

    def plug(self, serial: str) -> None:
        self.cameras[serial].device.replug()

    def names(self) -> list[str]:
        return [device.name for device in self.hub.devices]

    def wait_for(self, *names: str) -> None:
        """For clients, and in the fleet, which has a device a moment later."""

        def there() -> bool:
            fleet = [device.name for device in self.fleets[-1].devices]
            return self.names() == fleet == list(names)

        eventually(there, f"{names}, not {self.names()}")

    def ask(self, name: str, switch: str = "CONNECT") -> None:
        """Asks a device to connect, or not."""
        request(
            self.hub,
            self.link,
            f"<newSwitchVector device='{name}' name='CONNECTION'><oneSwitch name='{switch}'>On</oneSwitch>"
            "</newSwitchVector>",
        )

    def settled(self, name: str) -> State:
        vector = next(device.get("CONNECTION") for device in self.hub.devices if device.name == name)
        assert vector is not None
        return eventually(lambda: vector.state is not State.BUSY and vector.state, "CONNECTION is settled")

    def connect(self, name: str) -> State:
        self.ask(name)
        return self.settled(name)

    def period(self, name: str) -> float:
        vector = next(device.get("POLLING_PERIOD") for device in self.hub.devices if device.name == name)
        assert vector is not None
        return float(vector["PERIOD_MS"])

    @property
    def memory(self) -> dict[str, dict[str, str]]:
        path = self.directory / FILE
        return json.loads(path.read_text()).get(FIRST, {}) if path.exists() else {}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("INDICONFIG", raising=False)
    monkeypatch.setattr(fleet_module, "WATCH_DELAY", 0.0)
    monkeypatch.setattr(hotplug, "INTERVAL", 0.02)
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def serials(fleet: Fleet) -> dict[str, str | None]:
    return {device.name: device.serial for device in fleet.devices}


def presumed(fleet: Fleet) -> str | None:
    return fleet.devices[0].source.presumed


def test_a_device_is_bound_when_it_has_opened_a_camera(bench: Bench) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    assert serials(fleet) == {DEVICE: None, HIGH_DEVICE: HIGH}
    assert bench.memory == {}
    assert bench.connect(DEVICE) is State.OK
    assert serials(fleet) == {DEVICE: LOW, HIGH_DEVICE: HIGH}
    assert bench.memory == {f"{DEVICE} libusb": {"serial": LOW}}
    assert bench.connect(HIGH_DEVICE) is State.OK
    assert bench.names() == [DEVICE, HIGH_DEVICE]


def test_a_camera_that_cannot_be_opened_does_not_bind(bench: Bench) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    handles = [bench.grab(serial) for serial in (LOW, HIGH)]
    assert bench.connect(DEVICE) is State.ALERT
    assert serials(fleet)[DEVICE] is None and bench.memory == {}
    for handle in handles:
        handle.close()


def test_a_camera_that_is_opened_before_it_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "WATCH_DELAY", 3600.0)
    fleet = bench.start()
    assert bench.connect(DEVICE) is State.OK
    fleet._watch()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    assert serials(fleet) == {DEVICE: LOW, HIGH_DEVICE: HIGH}


def test_the_camera_that_was_seen_first_is_the_first_devices(bench: Bench) -> None:
    bench.unplug(LOW)
    fleet = bench.start()
    eventually(lambda: presumed(fleet) == HIGH, "it is seen")
    bench.plug(LOW)
    bench.wait_for(DEVICE, LOW_DEVICE)
    assert bench.connect(DEVICE) is State.OK
    assert serials(fleet) == {DEVICE: HIGH, LOW_DEVICE: LOW}


def test_a_camera_that_left_before_it_was_opened_is_not_presumed_any_more(bench: Bench) -> None:
    bench.unplug(HIGH)
    fleet = bench.start()
    eventually(lambda: presumed(fleet) == LOW, "it is seen")
    bench.unplug(LOW)
    eventually(lambda: presumed(fleet) is None, "it is gone")
    bench.plug(HIGH)
    eventually(lambda: presumed(fleet) == HIGH, "the other one is seen")
    bench.plug(LOW)
    bench.wait_for(DEVICE, LOW_DEVICE)


def test_the_presumed_camera_is_in_use_by_another_process(bench: Bench) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    replaced = fleet.devices[1]
    handle = bench.grab(LOW)
    assert bench.connect(DEVICE) is State.OK
    bench.wait_for(DEVICE, LOW_DEVICE)
    assert serials(fleet) == {DEVICE: HIGH, LOW_DEVICE: LOW}
    assert bench.memory == {f"{DEVICE} libusb": {"serial": HIGH}}
    assert replaced.removed and not replaced.thread.stuck(0.0)
    assert [t.name for t in threading.enumerate() if HIGH_DEVICE in t.name] == []
    gone = [m.get("device") for m in bench.link.take() if m.tag == "delProperty" and m.get("name") is None]
    assert gone == [HIGH_DEVICE]
    assert bench.connect(LOW_DEVICE) is State.ALERT
    handle.close()
    assert bench.connect(LOW_DEVICE) is State.OK


def test_the_first_device_leaves_a_camera_to_its_own_device(bench: Bench) -> None:
    """Connected, and also while the camera is waited for: only the device that lost it takes it again."""
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    own = fleet.devices[1]
    assert bench.connect(HIGH_DEVICE) is State.OK
    handle = bench.grab(LOW)
    assert bench.connect(DEVICE) is State.ALERT
    bench.unplug(HIGH)
    eventually(lambda: own.waiting, "the loss is noticed")
    bench.plug(HIGH)
    assert bench.connect(DEVICE) is State.ALERT
    eventually(lambda: own.connected, "it is back")
    handle.close()
    assert bench.connect(DEVICE) is State.OK
    assert serials(fleet) == {DEVICE: LOW, HIGH_DEVICE: HIGH}


@pytest.mark.parametrize("order", [(DEVICE, HIGH_DEVICE), (HIGH_DEVICE, DEVICE)])
def test_two_devices_that_connect_at_the_same_time(bench: Bench, order: tuple[str, str]) -> None:
    """With one free camera for both: one gets it, and each camera has one device afterwards."""
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    handle = bench.grab(LOW)
    for name in order:
        bench.ask(name)
    if bench.settled(DEVICE) is State.OK:
        bench.wait_for(DEVICE, LOW_DEVICE)
        assert serials(fleet) == {DEVICE: HIGH, LOW_DEVICE: LOW}
    else:
        assert bench.settled(HIGH_DEVICE) is State.OK
        assert bench.names() == [DEVICE, HIGH_DEVICE]
        assert serials(fleet) == {DEVICE: None, HIGH_DEVICE: HIGH}
    handle.close()


def test_the_other_device_connects_while_the_first_one_opens_its_camera(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first device has claimed it: the other one fails, and is closed with its attempt under way."""
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    other = fleet.devices[1]
    handle = bench.grab(LOW)
    in_the_middle, asked = threading.Event(), threading.Event()
    opened = fleet._opened

    def slowly(device: QsiDevice, serial: str) -> None:
        in_the_middle.set()
        assert asked.wait(20)
        opened(device, serial)

    monkeypatch.setattr(fleet.devices[0], "_opened", slowly)
    bench.ask(DEVICE)
    assert in_the_middle.wait(20)
    bench.ask(HIGH_DEVICE)
    asked.set()
    assert bench.settled(DEVICE) is State.OK
    bench.wait_for(DEVICE, LOW_DEVICE)
    assert other.removed
    handle.close()


def test_the_process_ends_while_the_first_device_opens_its_camera(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No device is made or left behind."""
    before = set(threading.enumerate())
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    handle = bench.grab(LOW)
    in_the_middle = threading.Event()
    opened = fleet._opened

    def late(device: QsiDevice, serial: str) -> None:
        in_the_middle.set()
        eventually(lambda: fleet._closed, "the process ends")
        opened(device, serial)

    monkeypatch.setattr(fleet.devices[0], "_opened", late)
    bench.ask(DEVICE)
    assert in_the_middle.wait(20)
    fleet.close()
    assert bench.names() == []
    assert [t.name for t in threading.enumerate() if t not in before and "camera" in t.name] == []
    handle.close()


def test_a_simulated_camera_does_not_bind(bench: Bench) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    fleet.devices[0].source.simulate = True
    assert bench.connect(DEVICE) is State.OK
    assert fleet.devices[0].source.serial is None and bench.memory == {}
    assert bench.names() == [DEVICE, HIGH_DEVICE]


def test_a_process_that_is_bound_to_a_camera_has_no_other_device(bench: Bench) -> None:
    told: list[str] = []
    fleet = bench.start(lambda device: told.append(device.name), serial=HIGH)
    eventually(lambda: told, "the cameras are seen")
    assert bench.connect(DEVICE) is State.OK
    assert serials(fleet) == {DEVICE: HIGH} and told == [DEVICE]
    assert bench.memory == {}


def test_what_another_process_has_written_stays(bench: Bench) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    remembered = {FIRST: {f"{DEVICE} libusb": {"serial": LOW}}}
    (bench.directory / FILE).parent.mkdir(exist_ok=True)
    (bench.directory / FILE).write_text(json.dumps(remembered))
    handle = bench.grab(LOW)
    assert bench.connect(DEVICE) is State.OK
    assert serials(fleet)[DEVICE] == HIGH
    assert bench.memory == remembered[FIRST]
    handle.close()


# --- what users have ---


def config(device: str, period: int) -> str:
    return (
        f"<INDIDriver>\n<newNumberVector device='{device}' name='POLLING_PERIOD'>\n"
        f"  <oneNumber name='PERIOD_MS'>{period}</oneNumber>\n</newNumberVector>\n</INDIDriver>\n"
    )


@pytest.mark.parametrize("first", [LOW, HIGH])
def test_the_files_of_earlier_versions_give_the_same_names(bench: Bench, first: str) -> None:
    """An earlier version wrote the first camera as soon as it saw it; the user has two, and saved configs."""
    other = HIGH if first == LOW else LOW
    bench.directory.mkdir()
    files = {
        FILE: json.dumps({FIRST: {f"{DEVICE} libusb": {"serial": first}}}, indent=1) + "\n",
        f"{DEVICE}_config.xml": config(DEVICE, 750),
        f"{DEVICE} {other}_config.xml": config(f"{DEVICE} {other}", 850),
    }
    for name, text in files.items():
        (bench.directory / name).write_text(text)
    fleet = bench.start()
    assert serials(fleet) == {DEVICE: first}  # before any camera is seen
    bench.wait_for(DEVICE, f"{DEVICE} {other}")
    for name in (f"{DEVICE} {other}", DEVICE):
        assert bench.connect(name) is State.OK
    assert serials(fleet) == {DEVICE: first, f"{DEVICE} {other}": other}
    assert bench.names() == [DEVICE, f"{DEVICE} {other}"]
    assert [bench.period(name) for name in bench.names()] == [750, 850]
    for name, text in files.items():
        assert (bench.directory / name).read_text() == text


def test_the_camera_of_a_user_with_one_is_not_replaced_by_another(bench: Bench) -> None:
    """It is away tonight: the other one has a device of its own, and the first device does not take it."""
    bench.directory.mkdir()
    (bench.directory / FILE).write_text(json.dumps({FIRST: {f"{DEVICE} libusb": {"serial": HIGH}}}))
    bench.unplug(HIGH)
    fleet = bench.start()
    bench.wait_for(DEVICE, LOW_DEVICE)
    assert bench.connect(DEVICE) is State.ALERT
    assert serials(fleet) == {DEVICE: HIGH, LOW_DEVICE: LOW}


# --- connecting what arrives ---


@pytest.fixture
def auto() -> Iterator[AutoConnect]:
    auto = AutoConnect(retry=0.1)
    yield auto
    auto.close()


def test_each_camera_that_arrives_is_connected(bench: Bench, auto: AutoConnect) -> None:
    fleet = bench.start(auto.arrived)
    eventually(lambda: [device.connected for device in fleet.devices] == [True, True], "both are connected")
    assert serials(fleet) == {DEVICE: LOW, HIGH_DEVICE: HIGH}
    assert connects(bench) == {LOW: 1, HIGH: 1}


def test_the_free_camera_is_connected_once_and_the_other_when_it_is_free(
    bench: Bench, auto: AutoConnect
) -> None:
    handle = bench.grab(LOW)
    fleet = bench.start(auto.arrived)
    eventually(lambda: any(device.connected for device in fleet.devices), "the free one is connected")
    handle.close()
    eventually(lambda: [device.connected for device in fleet.devices] == [True, True], "both are connected")
    assert sorted(filter(None, serials(fleet).values())) == [LOW, HIGH]
    assert connects(bench) == {LOW: 1, HIGH: 1}


def test_the_presumed_camera_is_connected_by_its_new_device(bench: Bench) -> None:
    """The first device got the other camera; the owner of the fleet hears of the new device."""
    told: list[QsiDevice] = []
    fleet = bench.start(told.append)
    bench.wait_for(DEVICE, HIGH_DEVICE)
    first, replaced = fleet.devices
    eventually(lambda: told == [first, replaced], "both are seen")
    handle = bench.grab(LOW)
    assert bench.connect(DEVICE) is State.OK
    eventually(lambda: told[2:] == [fleet.devices[1]], "the new device is reported")
    assert told[2].serial == LOW
    handle.close()


def test_a_device_that_was_removed_is_not_asked_to_connect(bench: Bench, auto: AutoConnect) -> None:
    fleet = bench.start()
    bench.wait_for(DEVICE, HIGH_DEVICE)
    replaced = fleet.devices[1]
    handles = [bench.grab(LOW), bench.grab(HIGH)]
    auto.arrived(replaced)
    eventually(lambda: replaced in auto._due, "it is tried")
    handles[1].close()
    # What matters is that it is closed while it is retried, not by whom.
    replaced.close()
    eventually(lambda: replaced not in auto._due, "it is forgotten")
    auto.arrived(replaced)
    assert replaced not in auto._due
    handles[0].close()


def connects(bench: Bench) -> dict[str, int]:
    """How often each camera was initialised."""
    return {serial: bench.commands.count((serial, "Init")) for serial in (LOW, HIGH)}
