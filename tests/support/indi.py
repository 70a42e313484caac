# SPDX-License-Identifier: LGPL-2.1-or-later
"""Helpers for whatever speaks INDI: patience, a link that records, a raw client."""

from __future__ import annotations

import array
import base64
import os
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from indi_qsi.properties import Hub
from indi_qsi.properties.ports import BlobItem
from indi_qsi.wire.messages import BlobPolicy, Problem
from indi_qsi.wire.parser import Parser

ROOT = Path(__file__).resolve().parents[2]

# Seconds a test waits for something that must happen. Far more than it takes, because the machine
# may be busy; a test that passes never waits that long.
PATIENCE = 20.0

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str = "", timeout: float = PATIENCE) -> T:
    """Waits until the condition is true, and returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.01)


def elements(data: bytes | str) -> list[ET.Element]:
    """A sequence of INDI messages as trees."""
    text = data.decode() if isinstance(data, bytes) else data
    return list(ET.fromstring(f"<all>{text}</all>"))


def values(element: ET.Element) -> dict[str, str]:
    return {child.attrib["name"]: (child.text or "").strip() for child in element}


class RecordingLink:
    """A link that wants everything and keeps what it gets."""

    def __init__(self, can_snoop: bool = True) -> None:
        self.name = "test"
        self.can_snoop = can_snoop
        self.data = b""
        self.blobs: list[BlobItem] = []
        self.pongs: list[str] = []
        self.policies: list[tuple[str, str | None, BlobPolicy]] = []

    def watch(self, device: str | None, name: str | None) -> None: ...

    def wants(self, device: str, name: str | None) -> bool:
        return True

    def wants_blob(self, device: str, name: str) -> bool:
        return True

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None:
        self.policies.append((device, name, policy))

    def post(self, data: bytes) -> None:
        self.data += data

    def make_room(self, size: int) -> None:
        pass

    def post_blob(self, item: BlobItem) -> None:
        self.blobs.append(item)

    def pong(self, uid: str) -> None:
        self.pongs.append(uid)

    def take(self) -> list[ET.Element]:
        """The messages since the last call."""
        data, self.data = self.data, b""
        return elements(data)


def request(hub: Hub, link: Any, data: str | bytes) -> None:
    """Brings bytes to the hub as a link would."""
    for event in Parser().feed(data.encode() if isinstance(data, str) else data):
        assert not isinstance(event, Problem), event
        hub.dispatch(link, event)


class Client:
    """A raw INDI client on TCP ('host:port') or a unix socket ('/path', '@name').

    Reads in a thread of its own while `reading` is set. Attached BLOBs are taken from the memory
    that came with them, inline ones are decoded.
    """

    def __init__(self, address: str, *, reading: bool = True) -> None:
        if address.startswith("@") or "/" in address:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect("\0" + address[1:] if address.startswith("@") else address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.messages: list[ET.Element] = []
        self.blobs: list[bytes] = []
        self.raw = b""
        self.closed = threading.Event()
        self.reading = threading.Event()
        self._descriptors: list[int] = []
        if reading:
            self.reading.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def wait_for(self, tag: str, **attributes: str) -> ET.Element:
        """The first message with this tag and these attributes, already there or yet to come."""

        def found() -> list[ET.Element]:
            return [
                element
                for element in list(self.messages)
                if element.tag == tag and attributes.items() <= element.attrib.items()
            ]

        return eventually(found, f"{tag} {attributes} among {[m.tag for m in self.messages][-9:]}")[0]

    def clear(self) -> None:
        self.messages.clear()

    def close(self) -> None:
        self.reading.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.socket.close()
        for fd in self._descriptors:
            os.close(fd)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        pull = ET.XMLPullParser(["start", "end"])
        pull.feed("<all>")
        depth = 0
        unix = self.socket.family == socket.AF_UNIX
        while True:
            self.reading.wait()
            try:
                data = self._receive() if unix else self.socket.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            self.raw = (self.raw + data)[-4096:]
            pull.feed(data)
            for event, element in pull.read_events():
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 1:
                    self._take(element)
        self.closed.set()

    def _receive(self) -> bytes:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(64))
        for _, kind, rights in ancillary:
            assert kind == socket.SCM_RIGHTS
            self._descriptors += array.array("i", rights)
        return data

    def _take(self, element: ET.Element) -> None:
        if element.tag == "pingRequest":
            with suppress(OSError):  # who asked may have ended meanwhile
                self.send(f"<pingReply uid='{element.attrib['uid']}'/>")
        for blob in element.iter("oneBLOB"):
            if blob.get("attached") == "true":
                fd = self._descriptors.pop(0)
                # indiserver rounds up the memory it makes itself; ours has the exact size.
                size = int(blob.attrib["size"])
                assert size <= os.fstat(fd).st_size
                self.blobs.append(os.pread(fd, size, 0))
                os.close(fd)
            elif blob.text and blob.text.strip():
                # No line breaks inside, which libindi would count as data.
                assert "\n" not in blob.text.strip() and "enclen" not in blob.attrib
                self.blobs.append(base64.b64decode(blob.text))
                assert len(self.blobs[-1]) == int(blob.attrib["size"])
            blob.text = None
        self.messages.append(element)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
