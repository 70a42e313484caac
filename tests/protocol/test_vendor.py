# SPDX-License-Identifier: LGPL-2.1-or-later
"""What we send is what the vendor's library was recorded to send, but for the differences listed here.

`tests/data/vendor` holds recorded sessions of the vendor's library under its own INDI driver. The same
operations are done with our `Camera`; both sides then pass through `DIFFERENCES`, and what remains must be the
same bytes in the same order. (That the simulated camera understands the vendor's packets is tested with it.)
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.bench import Bench, bench, usb_bench
from usbproto import ftdi
from usbproto import packets as p
from usbproto.camera import Exposure
from usbproto.models import Address
from usbproto.relays import Direction
from usbproto.settings import GainChoice
from usbproto.simulator.sky import Scene
from usbproto.timing import FAST, VENDOR

DATA = Path(__file__).parents[1] / "data" / "vendor"
BASES = ("583", "683")

# A session: (step, packet in hexadecimal).
Session = list[tuple[str, str]]
Edit = Callable[[Session], Session]


@functools.cache
def recorded(base: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads((DATA / f"{base}.json").read_text())["steps"]
    return steps


def vendor_session(base: str) -> Session:
    return [(step["step"], row[0]) for step in recorded(base) for row in step["exchanges"]]


# --- our session ---


def sub_frame(b: Bench, binning: int = 1) -> Any:
    return b.window(64, 48, 100, 200, binning)


def connect(b: Bench) -> None:
    b.connect()
    # The recorded driver then set what its user had chosen.
    b.camera.apply_settings(replace(b.camera.settings, flush=p.Flush.NORMAL))


def connect_again(b: Bench) -> None:
    kept = b.camera.settings
    b.connect()
    b.camera.choose_gain(GainChoice.LOW)
    b.camera.apply_settings(kept)


def guide_and_cut(b: Bench) -> None:
    assert b.camera.relays is not None
    b.camera.relays.pulse(Direction.SOUTH, 2.0)
    b.time.advance(0.3)
    b.camera.relays.pulse(Direction.NORTH, 0.1)


def pulse(b: Bench, direction: Direction, seconds: float) -> None:
    assert b.camera.relays is not None
    b.camera.relays.pulse(direction, seconds)
    b.time.advance(0.6)


def filter_3(b: Bench) -> None:
    assert b.camera.wheel is not None
    b.camera.wheel.move(2)
    while b.camera.wheel.moving():
        b.time.advance(0.1)


def fast_readout(b: Bench) -> None:
    if b.camera.available.fast_readout:
        b.camera.apply_settings(replace(b.camera.settings, fast_readout=True))


def manual_shutter(b: Bench) -> None:
    b.camera.alt_modes.manual_shutter(True)
    b.camera.alt_modes.move_shutter(True)
    b.camera.alt_modes.move_shutter(False)
    b.camera.alt_modes.manual_shutter(False)


def abort(b: Bench) -> None:
    b.camera.start_exposure(Exposure(10.0, sub_frame(b)))
    b.time.advance(1.5)
    b.camera.abort_exposure()


OPERATIONS: dict[str, Callable[[Bench], object]] = {
    "connect": connect,
    "cooler on + setpoint -5": lambda b: b.camera.cool_to(-5.0),
    "filter 3": filter_3,
    "frame 64x48 at 100,200": lambda b: b.camera.temperatures(),
    "light 0.1 s": lambda b: b.take(sub_frame(b), 0.1),
    "dark 0.2 s": lambda b: b.take(sub_frame(b), 0.2, light=False),
    "bias": lambda b: b.take(sub_frame(b), 0.0, light=False),
    "bin 2x2 light 1.2345 s": lambda b: b.take(sub_frame(b, 2), 1.2345),
    "guide N 250": lambda b: pulse(b, Direction.NORTH, 0.25),
    "guide W 120": lambda b: pulse(b, Direction.WEST, 0.12),
    "guide S 2000 then N 100 (abort relays)": guide_and_cut,
    "gain low": lambda b: b.camera.choose_gain(GainChoice.LOW),
    "fan quiet": lambda b: b.camera.apply_settings(replace(b.camera.settings, fan=p.Fan.QUIET)),
    "readout fast": fast_readout,
    "shutter manual open, close": manual_shutter,
    "abort: 10 s exposure aborted after 1.5 s": abort,
    "full frame light 1 s": lambda b: b.take(b.window(*b.simulated.model.sensor.active), 1.0),
    "cooler off": lambda b: b.camera.cooler_off(),
    "disconnect": lambda b: b.camera.close(),
    "connect again": connect_again,
}


@functools.cache
def our_session(base: str) -> Session:
    session: Session = []
    with bench(f"{base}wsg", connect=False) as b:
        b.simulated.set_scene(Scene.DARK)
        first = recorded(base)[0]["exchanges"]
        defaults = next(row[1] for row in first if row[0] == "4c00")
        b.answers(p.GET_DEFAULT_SETTINGS, bytes.fromhex(defaults), times=99)
        for step in recorded(base):
            name = step["step"]
            if not name.startswith("connect"):  # a new connection has a new record
                b.forget()
            OPERATIONS[name](b)
            session += [(name, packet.hex()) for packet in b.channel.sent]
    return session


# --- the differences ---


def only(pattern: str, steps: str = "", first_kept: bool = False) -> Edit:
    """Takes away the packets that match, in the steps that match (all but the first of each step)."""

    def edit(session: Session) -> Session:
        kept: Session = []
        seen: set[str] = set()
        for step, packet in session:
            drop = re.fullmatch(pattern, packet) and re.search(steps, step)
            if drop and first_kept and step not in seen:
                seen.add(step)
                drop = None
            if not drop:
                kept.append((step, packet))
        return kept

    return edit


def with_bytes(pattern: str, replacement: str) -> Edit:
    return lambda session: [(step, re.sub(f"^{pattern}$", replacement, packet)) for step, packet in session]


def behind(packet: str, predecessor: str) -> Edit:
    """Puts the packet behind another one of the same step."""

    def edit(session: Session) -> Session:
        moved: Session = []
        present = {step for step, other in session if other == packet}
        for step, other in session:
            if other != packet:
                moved.append((step, other))
            if other == predecessor and step in present:
                moved.append((step, packet))
        return moved

    return edit


def no_unchanged_settings(session: Session) -> Session:
    """Takes away SetAdvSettings that change nothing, and the GetCCDSpecs behind them."""
    kept: Session = []
    step_before, last, skip = "", "", False
    for step, packet in session:
        if step != step_before and step.startswith("connect"):
            last = ""
        step_before = step
        if packet.startswith("4d") and packet == last:
            skip = True
        elif not (skip and packet == "5800"):
            kept.append((step, packet))
        if packet.startswith("4d"):
            last = packet
        elif packet == "5800":
            skip = False
    return kept


def kept_settings_first(session: Session) -> Session:
    """At the second connect: the settings that were kept, instead of the defaults."""
    settings = [packet for step, packet in session if step == "connect again" and packet.startswith("4d")]
    changed: Session = []
    for step, packet in session:
        at = step == "connect again" and packet.startswith("4d")
        changed.append((step, settings[-1] if at else packet))
    return changed


def manual_mode_left(session: Session) -> Session:
    """Takes away the bits that are written without the last order to the shutter."""
    at = max(i for i, (step, packet) in enumerate(session) if packet == "4f0120")
    step = session[at][0]
    assert session[at + 1] == (step, "4f0100")
    return [*session[: at + 1], *session[at + 2 :]]


def same(session: Session) -> Session:
    return session


@dataclass(frozen=True)
class Difference:
    """`vendor` and `ours` take away from each side what the other one does not have."""

    reason: str
    vendor: Edit = same
    ours: Edit = same


DIFFERENCES = {
    "state at connect": Difference(
        "GetDeviceState tells whether a program that was killed left an exposure running, which is ended",
        ours=only("4200", "^connect"),
    ),
    "trigger mode off": Difference(
        "we leave trigger mode after all probes, the vendor between them: no probe depends on it",
        ours=behind("710100", "5c00"),
    ),
    "no probe of filter trims": Difference(
        "asked when a trim is wanted for the first time: it would cost a 500 Series camera 1 s at each connect",
        vendor=only("5a020000", "^connect"),
    ),
    "EEPROM": Difference(
        "each byte that is shown is read once; the vendor reads some three times",
        vendor=only("6002...."),
        ours=only("6002...."),
    ),
    "one look at the defaults": Difference(
        "GetDefaultAdvDetails answers the same twice",
        vendor=only("4c00", "^connect", first_kept=True),
    ),
    "kept settings": Difference(
        "we connect with the camera's defaults and then apply what a program kept; the vendor's library keeps "
        "settings itself",
        ours=kept_settings_first,
    ),
    "settings only when they change": Difference(
        "the vendor's driver sends SetAdvSettings and GetCCDSpecs before each exposure: 36 ms for nothing",
        vendor=no_unchanged_settings,
        ours=no_unchanged_settings,
    ),
    "polling": Difference(
        "how often state and temperature are asked is the program's choice; the vendor's asks each "
        "temperature two or three times, and the state once more when the image is ready",
        vendor=only("4200|4700"),
        ours=only("4200|4700"),
    ),
    "GetTemperatureEx": Difference(
        "as with the vendor it is for the board's temperature alone, which the recorded driver does not show",
        ours=only("5b00", "^(?!connect)"),
    ),
    "cooler on": Difference(
        "one SetTemperature switches on and tells the set point; the vendor's first one has the old set point",
        vendor=only("5100|4604ff00fc18", "^cooler on"),
    ),
    "abort": Difference(
        "AbortExposure carries two bytes of no meaning: the vendor's are left-overs of his buffer",
        vendor=with_bytes("4402....", "44020000"),
    ),
    "manual shutter off": Difference(
        "both ask for the modes and close the shutter (20); the vendor ends there, and we then write the modes "
        "without that order, which the camera keeps in their place and would obey again with the next mode",
        ours=manual_mode_left,
    ),
}


@pytest.mark.parametrize("base", BASES)
def test_our_packets_are_the_vendors(base: str) -> None:
    vendor, ours = vendor_session(base), our_session(base)
    for difference in DIFFERENCES.values():
        vendor, ours = difference.vendor(vendor), difference.ours(ours)
    for step in OPERATIONS:
        assert [x for s, x in ours if s == step] == [x for s, x in vendor if s == step], step
    assert ours == vendor
    assert len(ours) > 50


@pytest.mark.parametrize("name", DIFFERENCES)
def test_no_difference_is_listed_in_vain(name: str) -> None:
    effects = set()
    for base in BASES:
        vendor, ours = vendor_session(base), our_session(base)
        for other, difference in DIFFERENCES.items():
            edited = difference.vendor(vendor), difference.ours(ours)
            if other == name:
                effects.add(edited != (vendor, ours))
            vendor, ours = edited
    assert True in effects


@pytest.mark.parametrize("base", BASES)
def test_the_comparison_can_fail(base: str) -> None:
    ours = [(step, packet) for step, packet in our_session(base) if packet != "5300"]
    vendor = vendor_session(base)
    for difference in DIFFERENCES.values():
        vendor, ours = difference.vendor(vendor), difference.ours(ours)
    assert ours != vendor


@pytest.mark.parametrize("base", BASES)
def test_only_known_places_of_the_eeprom_are_read(base: str) -> None:
    strings = (Address.FIRMWARE_REVISION, Address.HARDWARE_REVISION, Address.MANUFACTURING_DATE)
    known = {start + offset for start in strings for offset in range(8)}
    known |= {
        *(Address.FAMILY, Address.SENSOR_TYPE, Address.COLOUR_MASK, Address.FILTER_WHEEL, Address.SHUTTER),
        *(Address.SENSOR_CLASS, Address.MICROLENS),
    }
    # Of the feature bytes, all that the vendor reads of an EEPROM that is programmed, and no other one.
    features = {int(x[4:], 16) for _, x in vendor_session("683") if x.startswith("60")} - {
        start + offset for start in strings for offset in range(8)
    }
    assert known - features == {start + offset for start in strings for offset in range(8)}
    assert features <= known
    for connection in ("connect", "connect again"):
        read = [int(x[4:], 16) for s, x in our_session(base) if s == connection and x.startswith("60")]
        assert sorted(read) == sorted(known)


def test_every_recorded_operation_is_done() -> None:
    for base in BASES:
        assert {step["step"] for step in recorded(base)} == set(OPERATIONS)


# --- the chip ---

BAUD_RATE = 0x03
LATENCY = 0x09
CHIP_DIFFERENCES = {
    BAUD_RATE: "the vendor's FTDI library always sets a baud rate; a FIFO has none",
    LATENCY: "1 ms instead of 16: a short answer waits that long in the chip, and most answers are short",
}


@pytest.mark.parametrize("base", BASES)
def test_with_the_vendors_timing_only_the_baud_rate_differs(base: str) -> None:
    vendor = [tuple(request) for request in recorded(base)[0]["control"]]
    with usb_bench(f"{base}wsg") as b:
        ftdi.Channel(ftdi.ports(b.backend)[0], VENDOR).close()
        ours = b.backend.requests
    assert ours == [request for request in vendor if request[1] != BAUD_RATE]


@pytest.mark.parametrize("base", BASES)
def test_the_chip_is_set_up_as_by_the_vendor(base: str) -> None:
    vendor = [tuple(request) for request in recorded(base)[0]["control"]]
    with usb_bench(f"{base}wsg") as b:
        (port,) = ftdi.ports(b.backend)
        channel = ftdi.Channel(port, FAST)  # whose latency is the other difference
        ours = list(b.backend.requests)
        channel.close()
        assert b.backend.requests == ours  # closing only releases
    assert (0x40, LATENCY, 16, 1) in vendor
    assert (0x40, LATENCY, 1, 1) in ours
    assert not [request for request in ours if request[1] == BAUD_RATE]

    def compared(requests: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Without the baud rate, and with any latency."""
        kept = [request for request in requests if request[1] != BAUD_RATE]
        return [(*r[:2], 0, r[3]) if r[1] == LATENCY else r for r in kept]

    assert compared(list(ours)) == compared(vendor)
    assert set(CHIP_DIFFERENCES) == {BAUD_RATE, LATENCY}
