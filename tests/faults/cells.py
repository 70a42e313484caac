# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fault matrix: every fault of the simulated camera in every phase of its use.

Here is what is done in each phase and how each fault is brought about in it; cells that say nothing about the
driver are left out, with the reason. `run` does one cell and says how it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.faults.rig import FRAME, PATIENCE, Rig, descriptors, ended
from usbproto.simulator import faults_firmware, faults_usb  # noqa: F401  (they register themselves)
from usbproto.simulator.faults import FAULTS

SET_POINT = 15.0  # degC: soon reached
QUIET = 1  # the fan's
FILTER = "Hydrogen"
KEPT_FRAMES = 2  # whose memory is used again
AWAY = 120.0  # s within which a camera that is well again is used again: power-up, and the longest back-off


@dataclass(frozen=True)
class Phase:
    """One thing that a user does. `event` is when the fault strikes: None at once, before it is begun.

    `vector` ends in a final state; a message about a failure has one of `words`. `command` is the one whose
    answer is tampered with; None: the next one.
    """

    name: str
    vector: str
    words: tuple[str, ...]
    event: str | None = None
    command: str | None = None
    begin: Callable[[Rig], None] = field(default=lambda rig: None)


def _expose(seconds: float) -> Callable[[Rig], None]:
    return lambda rig: rig.client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=seconds)


def _disconnect(rig: Rig) -> None:
    rig.client.new("Switch", "CONNECTION", DISCONNECT="On")


# A fault may show only in a later phase of the exposure.
EXPOSING = ("(flushing)", "(exposing)", "(reading out)", "(downloading)")
PHASES = (
    Phase(
        "connect",
        "CONNECTION",
        ("",),
        begin=lambda rig: rig.client.new("Switch", "CONNECTION", CONNECT="On"),
    ),
    Phase("expose", "CCD_EXPOSURE", EXPOSING, "exposure_start", begin=_expose(3)),
    Phase("read out", "CCD_EXPOSURE", EXPOSING, "exposure_end", begin=_expose(0.5)),
    Phase(
        "transfer",
        "CCD_EXPOSURE",
        EXPOSING,
        "transfer",
        "TransferImage",
        begin=_expose(0.5),
    ),
    Phase(
        "cool",
        "CCD_TEMPERATURE",
        ("",),
        begin=lambda rig: rig.client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=SET_POINT - 1),
    ),
    Phase(
        "filter move",
        "FILTER_SLOT",
        ("filter", "Filter"),
        "filter",
        begin=lambda rig: rig.client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3),
    ),
    Phase(
        "guide",
        "TELESCOPE_TIMED_GUIDE_WE",
        ("guide", "Relay"),
        "relay",
        begin=lambda rig: rig.client.new(
            "Number", "TELESCOPE_TIMED_GUIDE_WE", TIMED_GUIDE_W=1500, TIMED_GUIDE_E=0
        ),
    ),
    Phase("disconnect", "CONNECTION", ("",), begin=_disconnect),
)
NAMES = tuple(phase.name for phase in PHASES)

IMAGE = ("transfer",)
OPENING = ("connect",)
LOADER = "the driver never starts the camera's loader"
# fault -> (the phases in which it can strike, why not in the others)
ONLY: dict[str, tuple[tuple[str, ...], str]] = {
    "wrong-burst": ((), "the driver has no use for the link test"),
    "short-image": (IMAGE, "there is no image"),
    "long-image": (IMAGE, "there is no image"),
    "image-pause": (IMAGE, "there is no image"),
    "lost-image": (("expose", "read out", "transfer"), "there is no image"),
    "short-overscan": (IMAGE, "there is no image"),
    "overscan-level": (IMAGE, "there is no image"),
    "stuck": (("expose", "read out"), "nothing is exposed or read out"),
    "wheel-jam": (("filter move",), "the wheel stands still"),
    "wheel-drags": (("filter move",), "the wheel stands still"),
    "shutter-fail": (("expose", "read out"), "the shutter stands still"),
    "stuck-relay": (("guide",), "no relay is closed"),
    "no-loader": ((), LOADER),
    "like-hardware": ((), LOADER),
    "flash-wear": ((), LOADER),
    "blank-eeprom": (OPENING, "the EEPROM is read at connect only"),
    "refuse-control": (OPENING, "the chip is set up at connect only"),
    "deny-open": (OPENING, "the camera is open"),
    "no-strings": (OPENING, "the camera is open"),
    "short-serial": (OPENING, "the camera is open"),
}
# What is in the way of the user's own cure in the simulated camera, or must come before the event.
EARLY = {  # fault -> event at which it strikes, because at the phase's own it would come too late
    "short-image": "idle",
    "long-image": "idle",
    "image-pause": "idle",
    "short-overscan": "idle",
    "overscan-level": "idle",
    "wheel-jam": None,
    "wheel-drags": None,
    "stuck-relay": None,
    "shutter-fail": None,
    "lost-image": None,
}
ARGUMENTS = {("stuck", "expose"): "exposing", ("stuck", "read out"): "reading", ("drop", "transfer"): "100"}
ANSWERS = frozenset(
    {
        "silence",
        "wrong-echo",
        "wrong-length",
        "short-answer",
        "long-answer",
        "device-error",
        "duplicate-answer",
        "late-answer",
        "garbage-before",
    }
)
# A wrong byte among the pixels: the protocol has no checksum, so nobody can tell.
UNDETECTABLE = frozenset({("corrupt", "transfer"), ("overscan-level", "transfer")})


@dataclass(frozen=True)
class Cell:
    fault: str
    phase: Phase

    @property
    def reason(self) -> str | None:
        """Why it says nothing about the driver; None when it does."""
        phases, why = ONLY.get(self.fault, (NAMES, ""))
        return None if self.phase.name in phases else why

    @property
    def text(self) -> str:
        """The fault as the simulated camera understands it."""
        phase = self.phase
        event, arguments, delay = phase.event, ARGUMENTS.get((self.fault, phase.name), ""), ""
        if self.fault in EARLY:
            event = EARLY[self.fault]
        elif self.fault == "stuck":
            event = "expose"
        elif self.fault in ANSWERS and phase.command is not None:
            event, arguments = "idle", f"command={phase.command}"
        elif event is not None and event != "filter":
            delay = "+0.3"
        where = f"@{event}{delay}" if event is not None else ""
        return f"{self.fault}{where}{':' if arguments else ''}{arguments}"


def cells() -> list[Cell]:
    return [Cell(fault, phase) for fault in FAULTS for phase in PHASES]


def run(cell: Cell, directory: Path) -> str:
    """How the cell ended, in a few words. Raises `AssertionError` where a promise was broken."""
    before, (held, open_files) = set(threading.enumerate()), descriptors()
    rig = Rig(directory)
    try:
        outcome = _run(cell, rig)
    finally:
        rig.close()
    assert not rig.relay(), "a relay was left closed"
    left = ended(before)
    assert not left, f"threads are left: {left}"
    frames, others = descriptors()
    assert others == open_files, "descriptors are left open"
    assert frames <= held + KEPT_FRAMES, "frames are left in memory"
    return outcome


def _run(cell: Cell, rig: Rig) -> str:
    client, phase = rig.client, cell.phase
    if phase.name != "connect":
        prepare(rig)
    if phase.name == "disconnect":
        client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=30)
        client.wait(lambda: rig.count("exposure_start"), "the shutter opens")
    client.forget()
    frames = len(client.frames)
    rig.camera.faults.arm(cell.text)
    phase.begin(rig)
    state = client.settled(phase.vector, f"{phase.vector} ends the {phase.name}")
    if phase.name == "disconnect":
        client.settled("CCD_EXPOSURE")
    outcome = _judge(cell, rig, state, frames)
    connected = _healed(cell, rig)
    client.wait(lambda: not client.busy(), f"nothing is busy; {client.busy()} are")
    if phase.name in ("connect", "disconnect"):
        client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    _next_exposure(rig)
    if phase.name != "connect":
        _check_settings(rig, phase)
    return outcome + ("" if connected else "; connect again")


def prepare(rig: Rig) -> None:
    """A camera that is connected, cools, and has settings that are not the camera's own."""
    client = rig.client
    assert rig.connect() == "Ok", client.last_words()
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    rig.choose("Fan", "Quiet")
    client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_2=FILTER)
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=SET_POINT)
    client.wait(lambda: client.state("CCD_COOLER") == "Ok", "the cooler is on")


def _judge(cell: Cell, rig: Rig, state: str, frames: int) -> str:
    """What the client was told, and whether that is true and enough."""
    client, phase = rig.client, cell.phase
    wanted = 1 if phase.vector == "CCD_EXPOSURE" and state == "Ok" else 0
    new = client.frames[frames:]
    assert len(new) == wanted, f"{len(new)} frames came with state {state}"
    if new and (cell.fault, phase.name) not in UNDETECTABLE:
        np.testing.assert_array_equal(new[0][1], rig.picture(), "a wrong frame was sent as a good one")
    if state != "Alert":
        return "goes on"
    messages = client.said(phase.vector)
    assert messages, f"{phase.vector} is Alert without a message"
    assert any(word in message for word in phase.words for message in messages), messages
    return "told"


def _healed(cell: Cell, rig: Rig) -> bool:
    """The cause is over. True when the driver is connected, or gets so by itself."""
    client = rig.client
    rig.cure()
    rig.timeline_pause(10)  # a loss that was not noticed yet shows itself now
    if cell.phase.name in ("connect", "disconnect") and client.value("CONNECTION", "CONNECT") == "Off":
        by_itself = False
    else:
        by_itself = True
        client.wait(
            lambda: client.state("CONNECTION") == "Ok" and client.value("CONNECTION", "CONNECT") == "On",
            "the camera is used again",
            AWAY,
        )
    if not by_itself:
        for _ in range(3):  # it may still be starting
            if rig.connect() == "Ok":
                break
        assert client.state("CONNECTION") == "Ok", client.last_words()
    return by_itself or cell.phase.name == "disconnect"


def _check_settings(rig: Rig, phase: Phase) -> None:
    """What the user had set holds."""
    client = rig.client
    assert client.value("FILTER_NAME", "FILTER_SLOT_NAME_2") == FILTER
    assert client.value("Fan", "Quiet") == "On"
    assert int(rig.camera.firmware.settings.current.fan) == QUIET, "the fan's setting was lost"
    if phase.name == "disconnect":
        return  # the cooler is not told anything at connect
    cooler = rig.camera.hardware.cooler
    assert cooler.on, "the cooler was left off"
    assert cooler.set_point in (SET_POINT, SET_POINT - 1), "the set point was lost"


def _next_exposure(rig: Rig) -> None:
    client = rig.client
    frames = len(client.frames)
    assert rig.expose() == "Ok", client.last_words()
    assert len(client.frames) == frames + 1
    np.testing.assert_array_equal(client.frames[-1][1], rig.picture())


__all__ = ["FAULTS", "NAMES", "PATIENCE", "PHASES", "Cell", "cells", "prepare", "run"]
