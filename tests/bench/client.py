# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that costs next to nothing and notes when things come; frames are counted, not decoded."""

from __future__ import annotations

import array
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

PATIENCE = 60.0  # s
DEVICE = "QSI CCD"
_END = b"</setBLOBVector>"
_BEGIN = b"<setBLOBVector"
_ATTACHED = re.compile(rb"attached=['\"]true['\"]")
_PING = re.compile(r"<pingRequest uid=['\"]([^'\"]*)['\"]")
_TAIL = 8 * 1024  # of a frame as text is kept this much, to find its end
_HEAD = 8192  # bytes of a frame that are kept: some header


@dataclass(frozen=True)
class Blob:
    """A frame that has come completely (Unix time), and the beginning of its file."""

    at: float
    head: bytes


class Seen(NamedTuple):
    """Something that came: when (Unix time), where it ends in all text so far, and what."""

    at: float
    end: int
    text: str


class Client:
    """Unix socket ('/path', '@abstract') or TCP (port). All times are Unix times, as in the simulator's events."""

    def __init__(self, address: str | int, *, blobs: str = "Never", ask: bool = True) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect("\0" + address[1:] if address.startswith("@") else address)
        else:
            self.socket = socket.create_connection(("127.0.0.1", address))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.blobs: list[Blob] = []
        self._text = ""
        self._times: list[tuple[int, float]] = []  # characters so far, when
        self._descriptors: list[int] = []
        self._changed = threading.Condition()
        self.reading = threading.Event()
        self.reading.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if ask:
            self.send("<getProperties version='1.7'/>")
        if blobs != "Never":
            self.send(f"<enableBLOB device='{DEVICE}'>{blobs}</enableBLOB>")

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def new(self, kind: str, vector: str, **values: object) -> None:
        elements = "".join(f"<one{kind} name='{name}'>{value}</one{kind}>" for name, value in values.items())
        self.send(f"<new{kind}Vector device='{DEVICE}' name='{vector}'>{elements}</new{kind}Vector>")

    @property
    def position(self) -> int:
        """Where the text ends that has come so far."""
        return len(self._text)

    def wait(self, pattern: str, after: int = 0, timeout: float = PATIENCE) -> Seen:
        """The first that matches, behind the position `after`; already there or yet to come."""
        compiled = re.compile(pattern, re.DOTALL)
        deadline = time.monotonic() + timeout
        with self._changed:
            while (match := compiled.search(self._text, after)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(f"{pattern} did not come; the end is {self._text[-2000:]}")
            end = match.end()
            return Seen(next(at for length, at in self._times if length >= end), end, match.group())

    def wait_state(self, vector: str, state: str, after: int = 0) -> Seen:
        """An update of a vector with this state, or one of 'Idle|Alert'."""
        named = rf"(?=[^>]*name=['\"]{vector}['\"])"
        return self.wait(rf"<set\w+Vector {named}[^>]*state=['\"]({state})['\"]", after)

    def wait_blob(self, number: int) -> Blob:
        """The so-many-th frame."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.blobs) >= number, PATIENCE):
                raise TimeoutError(f"frame {number} did not come; the end is {self._text[-2000:]}")
            return self.blobs[number - 1]

    def forget(self) -> None:
        """Drops the text that has come: it is searched from its beginning."""
        with self._changed:
            self._text, self._times = "", []

    def close(self) -> None:
        self.reading.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the reader ---

    def _receive(self) -> bytes:
        if self.socket.family != socket.AF_UNIX:
            return self.socket.recv(1 << 18)
        data, ancillary, _, _ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(64))
        for _, _, rights in ancillary:
            self._descriptors += array.array("i", rights)
        return data

    def _read(self) -> None:
        frame = b""  # of a frame that is coming: its beginning, then only its end
        inside = False
        head = b""
        while True:
            self.reading.wait()
            try:
                data = self._receive()
            except OSError:
                data = b""
            if not data:
                return
            now = time.time()
            while data:
                if not inside:
                    begin = data.find(_BEGIN)
                    if begin < 0:
                        self._note(data, now)
                        break
                    self._note(data[:begin], now)
                    inside, frame, head, data = True, b"", b"", data[begin:]
                frame = (frame[-_TAIL:] if len(frame) > _TAIL else frame) + data
                if len(head) < _HEAD:
                    head += data[:_HEAD]
                end = frame.find(_END)
                if end < 0:
                    break
                data = frame[end + len(_END) :]
                inside = False
                self._frame(head, now)

    def _note(self, data: bytes, now: float) -> None:
        if not data:
            return
        text = data.decode("latin-1")
        for uid in _PING.findall(text):
            self.send(f"<pingReply uid='{uid}'/>")
        with self._changed:
            self._text += text
            self._times.append((len(self._text), now))
            self._changed.notify_all()

    def _frame(self, head: bytes, now: float) -> None:
        if _ATTACHED.search(head[:1000]):
            fd = self._descriptors.pop(0)
            content = os.pread(fd, 5760, 0)
            os.close(fd)
        else:
            content = head
        with self._changed:
            self.blobs.append(Blob(now, content))
            self._changed.notify_all()
