# SPDX-License-Identifier: LGPL-2.1-or-later
"""Strange behaviour: slow commands, states that a host does not expect, a readout easily disturbed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from usbproto import packets as p
from usbproto.packets import CameraState, Command, Payload
from usbproto.simulator.answers import NO_IMAGE, NOT_NOW, Answer, refusal
from usbproto.simulator.darkroom import wire
from usbproto.simulator.nature import Reply
from usbproto.simulator.strange import Trait, strange

SLOW_INIT = 12.0  # s; the vendor waits 15 s
CONNECT_TIME = 3.0  # s
LATE_BUSY = 0.03  # s
SLOW_ABORT = 1.0  # s
# What cannot disturb a readout. Drivers that use the vendor's library send nothing else between the end of an
# exposure and its download (wire protocol, section 8).
HARMLESS = frozenset(
    command.code for command in (p.GET_DEVICE_STATE, p.ACTIVATE_RELAY, p.ABORT_RELAYS, p.TRANSFER_IMAGE)
)
# What gives the image up: there is nothing to spoil any more.
REPLACING = frozenset(command.code for command in (p.START_EXPOSURE, p.HSR_EXPOSURE, p.ABORT_EXPOSURE))
SPOILT_SHIFT = 137  # pixels by which a spoilt image is out of place


def _starts(request: Payload) -> bool:
    """Whether this begins an exposure."""
    if isinstance(request, p.StartExposureEx):
        return not request.probe
    return isinstance(request, p.StartExposure)


# --- time ---


@strange("slow-init", "each Init takes SECONDS (default 12)")
def _slow_init(trait: Trait) -> None:
    seconds = trait.arguments.seconds(SLOW_INIT)

    def wait(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        return replace(answer, seconds=answer.seconds + seconds) if command is p.INIT else answer

    trait.change(wait)


@strange("wheel-answers-at-once", "SetFilterWheel is answered when the move begins, not when it is over")
def _wheel_answers_at_once(trait: Trait) -> None:
    parts = trait.camera.firmware.commands.parts
    parts.answers_moves_at_once = True
    trait.undo(lambda: setattr(parts, "answers_moves_at_once", False))


# --- states ---


def _not_idle(trait: Trait, state: CameraState, until: Callable[[], float]) -> None:
    """Until then (s of the timeline) a camera that is idle reports `state` and begins no exposure."""

    def report(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        given = answer.payload
        if isinstance(given, p.DeviceState) and given.state is CameraState.IDLE and trait.now < until():
            return replace(answer, payload=replace(given, state=state))
        return answer

    trait.change(report)
    trait.instead(lambda _, request: refusal(NOT_NOW) if _starts(request) and trait.now < until() else None)


@strange(
    "state-at-connect",
    "the state is STATE (error or flushing) for SECONDS (default flushing,3) after power-up and after the "
    "first Init of a connection",
)
def _state_at_connect(trait: Trait) -> None:
    word = trait.arguments.word("flushing").lower()
    states = {"error": CameraState.ERROR, "0": CameraState.ERROR}
    states |= {"flushing": CameraState.FLUSHING, "2": CameraState.FLUSHING}
    if word not in states:
        raise ValueError(f"{word!r} is neither error nor flushing")
    seconds = trait.arguments.seconds(CONNECT_TIME, 1)
    firmware, device = trait.camera.firmware, trait.camera.device
    claims, since = -1, -math.inf

    def note(reply: Reply) -> None:
        nonlocal claims, since
        if reply.command is p.INIT and device.claims != claims:
            claims, since = device.claims, trait.now

    trait.tamper(note)
    _not_idle(trait, states[word], lambda: max(since, firmware.listening_since) + seconds)


@strange("late-busy", "the state is idle for SECONDS (default 0.03) after StartExposure was answered")
def _late_busy(trait: Trait) -> None:
    seconds = trait.arguments.seconds(LATE_BUSY)
    imager = trait.camera.firmware.imager
    until = -math.inf

    def old_image(command: Command[Any, Any], request: Payload) -> Answer | None:
        """What a camera that says that it is idle does with TransferImage: the image before."""
        if command is not p.TRANSFER_IMAGE or trait.now >= until:
            return None
        frame = imager.frame
        if frame is None:
            return refusal(NO_IMAGE)
        trait.camera.events.emit("transfer", n=frame.number, bytes=frame.pixels.nbytes)
        return Answer(data=(frame.wire,))

    def report(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        nonlocal until
        given = answer.payload
        if _starts(request) and command is not p.HSR_EXPOSURE and not answer.refused:
            until = trait.now + seconds
        elif isinstance(given, p.DeviceState) and trait.now < until:
            return replace(answer, payload=replace(given, state=CameraState.IDLE))
        return answer

    trait.instead(old_image)
    trait.change(report)


@strange(
    "slow-abort", "the state is flushing for SECONDS (default 1) after an abort, and exposures are refused"
)
def _slow_abort(trait: Trait) -> None:
    seconds = trait.arguments.seconds(SLOW_ABORT)
    imager = trait.camera.firmware.imager
    until, busy = -math.inf, False

    def look(command: Command[Any, Any], request: Payload) -> None:
        nonlocal busy
        if command is p.ABORT_EXPOSURE:
            busy = imager.state not in (CameraState.IDLE, CameraState.ERROR)

    def note(reply: Reply) -> None:
        nonlocal until
        if reply.command is p.ABORT_EXPOSURE and busy:
            until = trait.now + seconds

    trait.instead(look)
    trait.tamper(note)
    _not_idle(trait, CameraState.FLUSHING, lambda: until)


# --- readout ---


@strange(
    "fragile-readout",
    "any command but GetDeviceState, ActivateRelay and AbortRelays between the end of an exposure and "
    "TransferImage spoils the image",
)
def _fragile_readout(trait: Trait) -> None:
    imager = trait.camera.firmware.imager
    spoilt = 0  # the number of the exposure

    def watch(command: Command[Any, Any], request: Payload) -> None:
        nonlocal spoilt
        there = imager.ready or imager.state is CameraState.READING
        disturbs = command.code not in HARMLESS | REPLACING and not _starts(request)
        if there and disturbs and spoilt != imager.number:
            spoilt = imager.number
            trait.camera.events.emit("spoilt", n=spoilt, command=command.name)

    def spoil(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        frame = imager.frame
        if command is p.TRANSFER_IMAGE and answer.data and frame is not None and frame.number == spoilt:
            return replace(answer, data=(wire(np.roll(frame.pixels, SPOILT_SHIFT)),))
        return answer

    trait.instead(watch)
    trait.change(spoil)
