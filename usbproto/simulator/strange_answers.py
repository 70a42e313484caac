# SPDX-License-Identifier: LGPL-2.1-or-later
"""Strange answers: longer than the layout, refused, missing; probes and features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from usbproto import packets as p
from usbproto.packets import HEADER_BYTES, MAX_PACKET, Command, Payload
from usbproto.simulator.answers import NOT_ON_THIS_MODEL, Answer, refusal
from usbproto.simulator.nature import Reply
from usbproto.simulator.strange import Trait, strange

SURPLUS = 0xA5  # a byte that is neither a plausible field nor a device error of the notes
WRONG_ECHO = 0x7F  # the code of no command
LATE = 1.5  # s; the vendor waits 1 s for a probe

Wanted = Callable[[Command[Any, Any], Payload], bool]

# --- longer answers ---


@strange(
    "longer-answers",
    "each answer has COUNT more payload bytes of VALUE, counted in N (default 1,0xA5); command=",
)
def _longer_answers(trait: Trait) -> None:
    arguments = trait.arguments
    more = bytes((arguments.byte(SURPLUS, 1),)) * arguments.count(1, low=1, high=MAX_PACKET)
    codes = arguments.codes

    def lengthen(reply: Reply) -> None:
        if (codes and reply.command.code not in codes) or not reply.packet:
            return
        end = HEADER_BYTES + reply.packet[1]
        room = MAX_PACKET - end
        payload = reply.packet[HEADER_BYTES:end] + more[:room]
        head = bytes((reply.packet[0], len(payload)))
        reply.packet = head + payload + reply.packet[end:]

    trait.tamper(lengthen)


@strange("surplus-bytes", "COUNT (default 1) uncounted bytes follow each answer that has no data; command=")
def _surplus_bytes(trait: Trait) -> None:
    surplus = bytes((SURPLUS,)) * trait.arguments.count(1, low=1, high=MAX_PACKET)
    codes = trait.arguments.codes

    def append(reply: Reply) -> None:
        if reply.packet and not reply.data and (not codes or reply.command.code in codes):
            reply.packet += surplus

    trait.tamper(append)


# --- refused and missing ones ---


def _is(*commands: Command[Any, Any]) -> Wanted:
    codes = {command.code for command in commands}
    return lambda command, request: command.code in codes


def _register_refusal(name: str, description: str, wanted: Wanted) -> None:
    @strange(name, f"{description} with device error CODE (default 0x80)")
    def refuse(trait: Trait) -> None:
        answer = refusal(trait.arguments.byte(NOT_ON_THIS_MODEL))
        trait.instead(lambda command, request: answer if wanted(command, request) else None)


def _register_silence(name: str, description: str, wanted: Wanted) -> None:
    @strange(name, description)
    def mute(trait: Trait) -> None:
        def silence(reply: Reply) -> None:
            if reply.request is not None and wanted(reply.command, reply.request):
                reply.mute()

        trait.tamper(silence)


def _trigger_off(command: Command[Any, Any], request: Payload) -> bool:
    return isinstance(request, p.Trigger) and request.mode == p.TriggerMode.OFF


_register_silence("eeprom-silent", "GetEEPROM is not answered", _is(p.GET_EEPROM))
_register_refusal("eeprom-refused", "GetEEPROM is refused", _is(p.GET_EEPROM))
_register_silence("can-abort-silent", "CanAbortExposure is not answered", _is(p.CAN_ABORT_EXPOSURE))
_register_silence("shutter-state-silent", "GetShutterState is not answered", _is(p.GET_SHUTTER_STATE))
_register_refusal("set-point-refused", "GetSetPoint is refused", _is(p.GET_SET_POINT))
_register_refusal("pcb-refused", "GetTemperatureEx is refused", _is(p.GET_TEMPERATURE_EX))
_register_refusal(
    "alt-mode-refused", "SetAltMode1 and GetAltMode1 are refused", _is(p.SET_ALT_MODE, p.GET_ALT_MODE)
)
_register_refusal("trigger-off-refused", "switching the external trigger off is refused", _trigger_off)


# --- probes ---


def _probe(command: Command[Any, Any], request: Payload) -> bool:
    """Whether the host asks if the camera knows a command (wire protocol, section 3.3)."""
    if isinstance(request, p.StartExposureEx):
        return command is p.START_EXPOSURE_EX and request.probe
    if isinstance(request, p.Trim):
        return request.trim == 0
    return command in (p.GET_FEATURES, p.GET_TEMPERATURE_EX)


def _probes(trait: Trait) -> Wanted:
    """The probes that are meant.

    From now on every model answers them; one that does not know the command refuses it.
    """
    codes, known = trait.arguments.codes, trait.camera.firmware.commands.handlers

    def wanted(command: Command[Any, Any], request: Payload) -> bool:
        return _probe(command, request) and (not codes or command.code in codes)

    def answer(command: Command[Any, Any], request: Payload) -> Answer | None:
        unknown = wanted(command, request) and command.code not in known
        return refusal(NOT_ON_THIS_MODEL) if unknown else None

    trait.instead(answer)
    return wanted


@strange(
    "probe-late",
    "probes are answered SECONDS late (default 1.5), also where the command is unknown; command=",
)
def _probe_late(trait: Trait) -> None:
    seconds, wanted = trait.arguments.seconds(LATE), _probes(trait)

    def wait(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        late = seconds if wanted(command, request) else 0.0
        return replace(answer, seconds=answer.seconds + late)

    trait.change(wait)


@strange("probe-error", "probes are answered with device error CODE (default 0x80) on every model; command=")
def _probe_error(trait: Trait) -> None:
    answer, wanted = refusal(trait.arguments.byte(NOT_ON_THIS_MODEL)), _probes(trait)

    def refuse(command: Command[Any, Any], request: Payload, given: Answer) -> Answer:
        return replace(answer, seconds=given.seconds) if wanted(command, request) else given

    trait.change(refuse)


@strange(
    "probe-echo", "probes are answered with the command code CODE (default 0x7F) on every model; command="
)
def _probe_echo(trait: Trait) -> None:
    code, wanted = trait.arguments.byte(WRONG_ECHO), _probes(trait)

    def change(reply: Reply) -> None:
        if reply.packet and reply.request is not None and wanted(reply.command, reply.request):
            reply.packet = bytes((code,)) + reply.packet[1:]

    trait.tamper(change)


# --- features ---


def _register_features(
    name: str, description: str, change: Callable[[tuple[int, ...], Answer], Answer]
) -> None:
    """`change` gets the flags and the answer with them."""

    @strange(name, description)
    def features(trait: Trait) -> None:
        def changed(command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
            given = answer.payload
            return change(given.flags, answer) if isinstance(given, p.Features) else answer

        trait.change(changed)


def _outside(flags: tuple[int, ...], answer: Answer) -> Answer:
    if not flags:
        return answer
    status = bytes((answer.error,))
    return replace(answer, payload=p.Features(flags[:-1]), error=flags[-1], data=(status,))


def _only(*flags: int) -> Callable[[tuple[int, ...], Answer], Answer]:
    return lambda _, answer: replace(answer, payload=p.Features(flags))


_register_features(
    "features-extra-byte",
    "one uncounted byte follows the answer to GetFeatures, whatever the firmware",
    lambda flags, answer: replace(answer, data=(bytes((SURPLUS,)),)),
)
_register_features(
    "features-status-outside",
    "the N bytes of GetFeatures are features only, and the status follows uncounted",
    _outside,
)
_register_features("features-none", "GetFeatures is answered 5C 02 00 00", _only(0))
_register_features("features-short", "GetFeatures is answered with N = 1", _only())
_register_features("features-ff", "GetFeatures is answered with N = 2 and a first byte of FF", _only(0xFF))
