# SPDX-License-Identifier: LGPL-2.1-or-later
"""Eight clients as bad as clients get, and a ninth that takes fifty frames at full speed: all are right."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from indi_qsi.links.server import MAX_LINKS
from tests.support.indi import PATIENCE, eventually
from tests.support.rig import DEVICE, PROGRAMS, IndiClient, Process, Server, Sim, opened, stand_alone
from tests.support.workbench import Observer

FRAMES = 50
SPEED = 20.0  # of the camera, so that it is the driver that has to be quick
WIDTH, HEIGHT = 640, 400
ALL = b"<getProperties version='1.7'/><enableBLOB device='QSI CCD'>Also</enableBLOB>"
# Bytes. Each link may keep 4 MB of messages, a frame that waits and one that is sent; the rest is what the
# driver itself needs for its own pictures.
MOST_MEMORY = 120 << 20

Behaviour = Callable[[socket.socket, threading.Event], None]


class Misbehaving:
    """A client in a thread; when it is thrown out, it comes again."""

    def __init__(self, server: Server, behave: Behaviour) -> None:
        self._server = server
        self._behave = behave
        self.came = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=behave.__name__)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port)) as sock:
                sock.settimeout(0.2)  # so that it notices its end; nothing else is waited for
                self.came += 1
                self._behave(sock, self._ended)
            self._ended.wait(0.02)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def repeat(sock: socket.socket, ended: threading.Event, data: bytes) -> None:
    """Sends it again and again, until it is thrown out."""
    while not ended.is_set():
        with suppress(TimeoutError):
            sock.sendall(data)


def never_reads(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(ALL)
    ended.wait()


def sends_garbage(sock: socket.socket, ended: threading.Event) -> None:
    chance = random.Random(1)
    while not ended.is_set():
        sock.sendall(chance.randbytes(5000))


def reads_slowly(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(ALL)
    while not ended.wait(0.05):
        with suppress(TimeoutError):
            sock.recv(4096)


def half_closes(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(ALL)
    sock.shutdown(socket.SHUT_WR)
    ended.wait(0.5)


def speaks_byte_by_byte(sock: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        for byte in b"<getProperties version='1.7' device='QSI CCD' name='CCD_INFO'/>":
            sock.sendall(bytes((byte,)))
            if ended.wait(0.005):
                return


def dies_in_the_middle(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(ALL + b"<newNumberVector device='QSI CCD' name='CCD_EXPOSURE'><oneNumber name='CCD_EXP")
    ended.wait()


def sends_bombs(sock: socket.socket, ended: threading.Event) -> None:
    doctype = b"<!DOCTYPE a [" + b"".join(
        b"<!ENTITY e%d '%s'>" % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 9)
    )
    repeat(sock, ended, doctype + b"]><newTextVector device='&e8;' name='N'/>" + b"<a " + b"b" * 70_000)


def asks_and_never_listens(sock: socket.socket, ended: threading.Event) -> None:
    repeat(sock, ended, ALL * 50 + b"<newSwitchVector device='QSI CCD' name='NONE'/>" * 50)


EIGHT: tuple[Behaviour, ...] = (
    never_reads,
    sends_garbage,
    reads_slowly,
    half_closes,
    speaks_byte_by_byte,
    dies_in_the_middle,
    sends_bombs,
    asks_and_never_listens,
)


class WatchedSim(Sim):
    """Notes the digest of each picture as it leaves the camera."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.digests: list[str] = []
        super().__init__(*arguments, **options)

    def _note(self, name: str, facts: Mapping[str, Any]) -> None:
        super()._note(name, facts)
        if name == "transfer":
            self.digests.append(hashlib.sha256(self.picture().tobytes()).hexdigest())


@contextmanager
def surrounded(server: Server) -> Iterator[list[Misbehaving]]:
    with ExitStack() as stack:
        clients = []
        for behave in EIGHT:
            clients.append(Misbehaving(server, behave))
            stack.callback(clients[-1].close)
        yield clients


def memory(server: Server, what: str) -> int:
    """Bytes: VmRSS is used now, VmHWM was used at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))


def test_eight_bad_clients_and_a_good_one(tmp_path: Path) -> None:
    with WatchedSim(tmp_path, readout=0.02, speed=SPEED) as sim, stand_alone(tmp_path, sim.environ) as server:
        with Observer(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=WIDTH, HEIGHT=HEIGHT)
            client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")
            client.expose(0.03)  # what is loaded for the first picture is not theirs
            client.picture()
            client.blobs.clear()
            sim.digests.clear()
            before = memory(server, "VmRSS")
            with surrounded(server) as clients:
                eventually(lambda: all(bad.came for bad in clients), "all are there")
                client.new("Switch", "CCD_FAST_TOGGLE", INDI_ENABLED="On")
                client.new("Number", "CCD_FAST_COUNT", FRAMES=FRAMES)
                client.expose(0.03)
                eventually(lambda: len(client.blobs) == FRAMES, f"{FRAMES} frames", 3 * PATIENCE)
            taken = [hashlib.sha256(opened(data)[1].tobytes()).hexdigest() for data in client.blobs]
            assert taken == sim.digests
            assert not client.closed.is_set()
            grown = memory(server, "VmHWM") - before
            assert grown < MOST_MEMORY, f"{grown / 2**20:.0f} MB"
            # Those that broke the rules were thrown out and came again.
            again = {bad._behave for bad in clients if bad.came > 1}
            assert {sends_garbage, sends_bombs, half_closes} <= again
            assert len(server.log) < 1_000_000
        assert "Traceback" not in server.log


def test_when_all_places_are_taken_the_ones_inside_go_on(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server, ExitStack() as stack:
        client = stack.enter_context(Observer(server.address))
        client.connect_camera()
        client.small_frame()
        for _ in range(MAX_LINKS - 1):
            stack.enter_context(IndiClient(server.address, reading=False)).send(ALL)
        with IndiClient(server.address) as surplus:
            assert surplus.closed.wait(PATIENCE)
        client.expose(0.05)
        client.picture()


def outside_address() -> str | None:
    """This computer's own address on a network, None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


@pytest.mark.skipif(outside_address() is None, reason="this computer is on no network")
def test_the_network_only_when_asked_for(tmp_path: Path) -> None:
    outside = outside_address()
    environ = {"INDI_QSI_USB": "sim"}
    with stand_alone(tmp_path, environ) as server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((outside, server.port), timeout=PATIENCE)
        assert "reach" not in server.log


def test_who_opens_it_is_told_what_that_means(tmp_path: Path) -> None:
    command = [str(PROGRAMS / "indi-qsi"), "serve", "--listen", "0.0.0.0:0"]
    server = Process(tmp_path, command, {"INDI_QSI_USB": "sim", "PYTHONUNBUFFERED": "1"})
    try:
        eventually(lambda: "Whoever reaches" in server.log, "the warning")
        assert DEVICE in server.log
    finally:
        server.close()
