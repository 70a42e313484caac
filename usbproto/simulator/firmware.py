# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulated camera's firmware: bytes in, one command at a time, bytes out.

It listens 6 s after power-up. A command that takes time (flush, shutter) keeps those behind it waiting in
their queue; what comes while pixels are on their way is lost. Commands that the model does not know, and
those that change a camera for good, are not answered, except by the right knock: that starts the loader.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usbproto import packets as p
from usbproto.models import POWER_UP_TIME
from usbproto.simulator.answers import Answer, Later
from usbproto.simulator.commands import SERVED_WHILE_WAITING, Commands
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.imager import Imager
from usbproto.simulator.inbox import FORBIDDEN, Inbox
from usbproto.simulator.loader import Loader
from usbproto.simulator.nature import Nature, Reply, Tamper
from usbproto.simulator.settings import SettingsMemory
from usbproto.simulator.timeline import Event

SHOWN_GARBAGE = 32  # bytes of garbage that an event shows


class Firmware:
    """`nature` is what is strange about it. `tampering` is what faults do to replies before they leave.

    `hung`: nothing is served until power-up. `listening_since`: the end of the last power-up, in seconds of
    the timeline, or -inf for a camera that was on before.
    """

    def __init__(
        self,
        fifo: Fifo,
        hardware: Hardware,
        *,
        readout: float | None = None,
        background: bool = False,
        starting: bool = False,
    ) -> None:
        self.hardware = hardware
        self.settings = SettingsMemory(hardware.model)
        self.imager = Imager(hardware, self.settings, readout=readout, background=background)
        self.commands = Commands(hardware, self.settings, self.imager)
        self.nature = Nature()
        self.tampering: list[Tamper] = []
        self.hung = False
        self.powered = True
        self.ready = True
        self.listening_since = -math.inf
        self._fifo = fifo
        self._log = hardware.log
        self._timeline = hardware.timeline
        self._inbox = Inbox()
        self._current: p.Command[Any, Any] | None = None
        self._life = 0  # counts power-ups: answers of an earlier one are not sent
        self._sending = False  # data followed the last answer
        self._power_up: Event | None = None
        self.loader = Loader(hardware, self._say_for_loader, self._restart)
        fifo.on_bytes = self._heard
        if starting:
            self.power_off()
            self.power_on()

    @property
    def last_frame(self) -> NDArray[np.uint16] | None:
        """The last picture as it goes over the wire: before the host's auto-zero."""
        frame = self.imager.frame
        return None if frame is None else frame.pixels

    @property
    def busy(self) -> bool:
        """A command is being executed, or pixels are on their way."""
        return self._current is not None or self.transferring

    @property
    def transferring(self) -> bool:
        self._sending = self._sending and len(self._fifo) > 0
        return self._sending

    def close(self) -> None:
        self.imager.close()

    # --- supply ---

    def power_off(self) -> None:
        if not self.powered:
            return
        self.powered = self.ready = self.hung = False
        self._life += 1
        self._current = None
        self._sending = False
        if self._power_up is not None:
            self._power_up.cancel()
        self._fifo.clear()
        self._stop()
        self.loader.power_off()
        self._log.emit("power", on=False)

    def _stop(self) -> None:
        """Everything that the firmware does comes to an end."""
        self._inbox.clear()
        self.imager.power_off()
        self.hardware.power_off()
        self.settings.reset()
        self.commands.power_off()

    def power_on(self) -> None:
        if self.powered:
            return
        self.powered = True
        self.hardware.cooler.look(self._timeline.now())
        self._log.emit("power", on=True)
        self._power_up = self._timeline.after(POWER_UP_TIME, self._listen)

    def _listen(self) -> None:
        self.ready = True
        self.listening_since = self._timeline.now()
        self._log.emit("ready")
        if not self.hardware.flash.whole:
            self.loader.enter()

    def _restart(self) -> None:
        self.power_off()
        self.power_on()

    # --- bytes in ---

    def _heard(self, data: bytes) -> None:
        if not self.ready or self.hung:
            self._ignore("not listening", data)
        elif self.loader.active:
            self.loader.heard(data)
        elif self.transferring:
            self._ignore("pixels are on their way", data)
        else:
            self._inbox.add(data, self._timeline.now())
            self._serve()

    def _ignore(self, why: str, data: bytes) -> None:
        code = {"code": data[0]} if data else {}
        self._log.emit("ignored", why=why, **code, bytes=data[:SHOWN_GARBAGE].hex())

    def _serve(self) -> None:
        """Commands from the queue until one takes time, or pixels leave."""
        while self._current is None and self.ready and not self.hung:
            packet = self._inbox.next()
            garbage = self._inbox.take_garbage()
            if garbage:
                self._ignore("not a packet", garbage)
            if packet is None:
                return
            if self.transferring:
                self._ignore("pixels are on their way", packet)
            else:
                self._begin(packet)

    def _begin(self, packet: bytes) -> None:
        code = packet[0]
        if self.loader.knocks(packet):
            self._stop()
            self.loader.enter()
            self.loader.answer_enter()
            return
        if code in FORBIDDEN:
            self._ignore(f"{FORBIDDEN[code]} is not obeyed", packet)
            return
        waiting = self.imager.state is p.CameraState.WAITING_FOR_TRIGGER
        if waiting and code not in SERVED_WHILE_WAITING:
            self._ignore("waiting for the trigger", packet)
            return
        command, request = p.decode_request(packet)
        strange = self.nature.answer_instead(command, request)
        handler = self.commands.handlers.get(code) if strange is None else lambda _: strange
        if handler is None:
            self._ignore("not a command of this model", packet)
            return
        self._current = command
        self._log.emit("command", code=code, command=command.name)
        result = handler(request)
        life = self._life

        def executed(answer: Answer) -> None:
            self._answer(command, request, answer, life)

        if isinstance(result, Later):
            result.then(executed)
        else:
            executed(result)

    # --- bytes out ---

    def _answer(self, command: p.Command[Any, Any], request: p.Payload, answer: Answer, life: int) -> None:
        if life != self._life:
            return
        answer = self.nature.changed(command, request, answer)
        if answer.seconds > 0:
            self._timeline.after(answer.seconds, lambda: self._finish(command, request, answer, life))
        else:
            self._finish(command, request, answer, life)

    def _finish(self, command: p.Command[Any, Any], request: p.Payload, answer: Answer, life: int) -> None:
        if life != self._life:
            return
        self._current = None
        if answer.refused:
            packet = p.encode_refusal(command, answer.error)
        else:
            packet = p.encode_answer(command, answer.payload, answer.error)
        reply = Reply(command, packet, list(answer.data), request=request)
        self.nature.tamper(reply)
        self._reply(reply, answer.error, life)
        self._serve()

    def _say_for_loader(self, command: p.Command[Any, Any], packet: bytes) -> None:
        self._reply(Reply(command, packet), packet[-1], self._life)

    def _reply(self, reply: Reply, error: int, life: int) -> None:
        for tamper in list(self.tampering):
            tamper(reply)
        self._log.emit("answer", code=reply.command.code, error=error, bytes=sum(map(len, reply.data)))
        if reply.delay > 0:
            self._timeline.after(reply.delay, lambda: self._send(reply, life))
        else:
            self._send(reply, life)

    def _send(self, reply: Reply, life: int) -> None:
        if life != self._life or not self.powered:
            return
        if reply.packet:
            self._fifo.push(reply.packet)
        self._sending = bool(reply.data) and reply.command.data_follows
        for data in reply.data:
            self._fifo.push(data)

    def say(self, data: bytes) -> None:
        """Bytes that nobody asked for."""
        self._fifo.push(data)
