# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our own server, with raw clients on TCP and on unix sockets."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from indi_qsi.links import server as server_module
from indi_qsi.links.frame import Frame
from indi_qsi.links.outbox import MAX_CONTROL_BYTES, MAX_FRAMES_WAITING
from indi_qsi.links.server import MAX_LINKS, ListenError, Server
from indi_qsi.properties import (
    BlobElement,
    BlobVector,
    Device,
    Hub,
    NumberElement,
    NumberVector,
    Permission,
    State,
    TextElement,
    TextVector,
)
from tests.indi.layer_driver import pattern
from tests.support.indi import PATIENCE, Client, eventually, values

SIZE = 3_000_001
ALL = "<getProperties version='1.7'/>"
ALSO = "<enableBLOB device='D'>Also</enableBLOB>"


class World:
    def __init__(self, directory: Path) -> None:
        self.hub = Hub()
        self.device = Device("D", self.hub)
        elements = [NumberElement("X", "x", 1, "%g", 0, 1e9)]
        self.number = NumberVector("NUM", "", "Main", elements, permission=Permission.RW)
        self.text = TextVector("TXT", "", "Main", [TextElement("A", "a")], permission=Permission.RO)
        self.blob = BlobVector("BL", "", "Main", [BlobElement("B", "b")])
        self.device.add(self.number, self.text, self.blob)
        self.hub.add_device(self.device)
        self.path = directory / "qsi.sock"
        self.before = memories()  # of other tests in this process
        self.server = Server(self.hub, ["127.0.0.1:0", str(self.path), f"@{directory}"])
        self.tcp, self.unix, self.abstract = self.server.addresses

    def send_frame(self, seed: int, size: int = SIZE) -> None:
        with Frame(size, ".fits") as frame:
            frame.buffer[:] = pattern(size, seed)
            frame.seal()
            self.blob.send("B", frame)
        self.number.set({"X": float(seed)}, state=State.OK)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.server.close()
    assert not [thread.name for thread in threading.enumerate() if " of " in thread.name]
    assert memories() <= world.before


def memories() -> set[int]:
    """The inodes of the frames that are alive in this process."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself has gone by now
            if "memfd" in str(fd.readlink()):
                found.add(fd.stat().st_ino)
    return found


@pytest.mark.parametrize("which", ["tcp", "unix", "abstract"])
def test_a_client_sees_asks_and_gets_frames(world: World, which: str) -> None:
    with Client(getattr(world, which)) as client:
        client.send(ALL + ALSO)
        client.wait_for("defBLOBVector", device="D", name="BL")
        client.send(
            "<newNumberVector device='D' name='NUM'><oneNumber name='X'>4</oneNumber></newNumberVector>"
        )
        assert values(client.wait_for("setNumberVector", name="NUM", state="Ok")) == {"X": "4.0"}
        client.clear()
        for seed in (1, 2):
            world.send_frame(seed)
            eventually(lambda n=seed: len(client.blobs) == n, "a frame")
            assert client.blobs[-1] == pattern(SIZE, seed)
        eventually(lambda: len(client.messages) == 4, "frames and their ends")
        assert [m.attrib["name"] for m in client.messages] == ["BL", "NUM", "BL", "NUM"]
        client.send("<pingRequest uid='x'/>")
        client.wait_for("pingReply", uid="x")


@pytest.mark.parametrize("size", [1, 2, 3, 48 * 1024 - 1, 48 * 1024, 48 * 1024 + 1])
def test_frames_of_odd_sizes(world: World, size: int) -> None:
    with Client(world.tcp) as tcp, Client(world.unix) as unix:
        for client in (tcp, unix):
            client.send(ALL + ALSO)
            client.wait_for("defBLOBVector")
        world.send_frame(3, size)
        for client in (tcp, unix):
            eventually(lambda c=client: c.blobs == [pattern(size, 3)], "the frame")


def test_a_client_gets_only_what_it_asked_for(world: World) -> None:
    with Client(world.tcp) as nosy, Client(world.tcp) as modest, Client(world.tcp) as mute:
        modest.send("<getProperties version='1.7' device='D' name='TXT'/>")
        nosy.send(ALL)
        nosy.wait_for("defBLOBVector")
        modest.wait_for("defTextVector")
        world.number.set({"X": 5.0})
        world.text.set({"A": "end"})
        world.send_frame(1, 10)
        world.text.set({"A": "very end"})
        for client in (nosy, modest):
            eventually(
                lambda c=client: (
                    [values(m) for m in c.messages if m.get("name") == "TXT"][-1] == {"A": "very end"}
                )
            )
        assert [m.tag for m in modest.messages] == ["defTextVector", "setTextVector", "setTextVector"]
        assert nosy.blobs == []
        assert mute.messages == []


def test_only_means_nothing_but_frames(world: World) -> None:
    with Client(world.tcp) as client:
        client.send(ALL)
        client.wait_for("defBLOBVector")
        client.send("<enableBLOB device='D'>Only</enableBLOB><pingRequest uid='1'/>")
        client.wait_for("pingReply")
        client.clear()
        world.text.set({"A": "x"})
        world.device.message("hello")
        world.send_frame(1)
        world.send_frame(2)
        eventually(lambda: len(client.blobs) == 2, "frames")
        assert {m.tag for m in client.messages} == {"setBLOBVector"}


def test_frames_for_one_property_only(world: World) -> None:
    with Client(world.tcp) as client:
        client.send("<enableBLOB device='D' name='OTHER'>Also</enableBLOB><pingRequest uid='1'/>")
        client.wait_for("pingReply", uid="1")
        world.send_frame(1, 10)
        client.send("<enableBLOB device='D' name='BL'>Also</enableBLOB><pingRequest uid='2'/>")
        client.wait_for("pingReply", uid="2")
        world.send_frame(2, 10)
        eventually(lambda: client.blobs, "a frame")
        assert client.blobs == [pattern(10, 2)]


def test_requests_of_one_client_reach_the_others_as_updates_only(world: World) -> None:
    with Client(world.tcp) as one, Client(world.unix) as other:
        for client in (one, other):
            client.send(ALL)
            client.wait_for("defBLOBVector")
            client.clear()
        one.send("<newNumberVector device='D' name='NUM'><oneNumber name='X'>6</oneNumber></newNumberVector>")
        for client in (one, other):
            client.wait_for("setNumberVector")
            assert [m.tag for m in client.messages] == ["setNumberVector"]


@pytest.mark.parametrize("which", ["tcp", "unix"])
def test_a_slow_client_misses_frames_and_harms_nobody(world: World, which: str) -> None:
    with Client(getattr(world, which)) as slow, Client(world.tcp) as quick:
        for client in (slow, quick):
            client.send(ALL + ALSO)
            client.wait_for("defBLOBVector")
        slow.reading.clear()
        slow.send("<pingRequest uid='1'/>")  # its reader takes this one answer, then pauses
        slow.wait_for("pingReply")
        last = MAX_FRAMES_WAITING + 4
        for seed in range(1, last + 1):
            start = time.monotonic()
            world.send_frame(seed)
            assert time.monotonic() - start < 1.0
            eventually(
                lambda n=seed: quick.blobs and quick.blobs[-1] == pattern(SIZE, n), "a frame for the quick"
            )
        assert len(memories() - world.before) <= MAX_FRAMES_WAITING + 1
        slow.reading.set()
        eventually(lambda: slow.blobs and slow.blobs[-1] == pattern(SIZE, last), "the newest frame")
        assert len(slow.blobs) < last

        def told() -> int:
            return sum("skipped" in m.get("message", "") for m in list(slow.messages))

        # The last word about it comes behind the newest frame.
        eventually(lambda: told() == last - len(slow.blobs), "every skipped frame is told")
        assert len(quick.blobs) == last


def test_a_client_that_reads_nothing_is_dropped(world: World) -> None:
    with Client(world.tcp) as dead, Client(world.tcp) as quick:
        for client in (dead, quick):
            client.send(ALL)
            client.wait_for("defBLOBVector")
        dead.reading.clear()
        long = "x" * 1000
        posted = 0
        while len(world.server.links) == 2:
            # In portions that the quick one can follow.
            for _ in range(100):
                world.text.set({"A": long})
                posted += 1
            count = posted
            eventually(lambda n=count: len(quick.messages) >= n, "the quick one keeps up")
            assert posted * 1000 < 10 * MAX_CONTROL_BYTES
        assert not quick.closed.is_set()


def test_a_client_that_stalls_in_a_frame_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(world.tcp) as dead:
        dead.send(ALL + ALSO)
        dead.wait_for("defBLOBVector")
        (link,) = world.server.links
        monkeypatch.setattr(link._output, "_stall_timeout", 0.1)
        dead.reading.clear()
        dead.send("<pingRequest uid='1'/>")
        dead.wait_for("pingReply")
        world.send_frame(1, 20_000_000)
        eventually(lambda: world.server.links == (), "the client is dropped")
        assert "nothing read" in link.reason


def test_broken_xml_ends_the_link_and_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Client(world.tcp) as bad, Client(world.tcp) as good:
        good.send(ALL)
        good.wait_for("defBLOBVector")
        bad.send("<newNumberVector device='D' <<<>")
        assert bad.closed.wait(PATIENCE)
        world.number.set({"X": 7.0})
        good.wait_for("setNumberVector")
    eventually(lambda: "left: broken XML" in caplog.text, "the log tells")


def test_refused_but_well_formed_input_does_not_end_the_link(world: World) -> None:
    with Client(world.tcp) as client:
        client.send(
            "<something/><newBLOBVector device='D' name='BL'><oneBLOB name='B'>QUJD</oneBLOB></newBLOBVector>"
        )
        client.send(
            f"<newTextVector device='D' name='TXT'><oneText name='A'>{'x' * 9999}</oneText></newTextVector>"
        )
        client.send(ALL)
        client.wait_for("defBLOBVector")


def test_garbage_does_not_flood_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with Client(world.tcp) as client:
        for _ in range(200):
            client.send("<newBLOBVector/>")
        client.send(ALL)
        client.wait_for("defBLOBVector")
    assert len(caplog.records) < 20


def test_too_many_links_are_refused(world: World) -> None:
    clients = [Client(world.tcp) for _ in range(MAX_LINKS)]
    eventually(lambda: len(world.server.links) == MAX_LINKS, "all links")
    with Client(world.tcp) as surplus:
        assert surplus.closed.wait(PATIENCE)
    clients.pop().close()
    eventually(lambda: len(world.server.links) == MAX_LINKS - 1, "one has gone")
    with Client(world.tcp) as late:
        late.send(ALL)
        late.wait_for("defBLOBVector")
    for client in clients:
        client.close()


def test_clients_that_come_and_go_leave_nothing(world: World) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        with Client(world.tcp) as client:
            client.send(ALL + ALSO)
            client.wait_for("defBLOBVector")
            world.send_frame(1, 100_000)
    eventually(lambda: world.server.links == (), "all have gone")
    assert world.hub.links == ()
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, "descriptors are closed")


def test_what_a_client_sets_before_it_leaves_is_set(world: World) -> None:
    """As the command-line programs do: they ask, set, and go without reading what else they are told."""
    host, _, port = world.tcp.rpartition(":")
    for number in range(2, 5):
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            wish = f"<newNumberVector device='D' name='NUM'><oneNumber name='X'>{number}</oneNumber></newNumberVector>"
            client.sendall((ALL * 1000 + wish).encode())
        eventually(lambda n=number: world.number["X"] == n, f"X is {number}", timeout=PATIENCE)  # type: ignore[misc]


def test_closing_sends_what_waits_and_ends_in_time(world: World) -> None:
    with Client(world.tcp) as client, Client(world.unix, reading=False) as dead:
        for c in (client, dead):
            c.send(ALL + ALSO)
        client.wait_for("defBLOBVector")
        eventually(lambda: len(world.server.links) == 2, "both")
        for seed in range(3):
            world.send_frame(seed, 10_000_000)
        start = time.monotonic()
        world.hub.remove_device(world.device)
        world.server.close(timeout=3.0)
        assert time.monotonic() - start < 5.0
        client.wait_for("delProperty", device="D")
        assert client.closed.wait(PATIENCE)
    assert not world.path.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(world.tcp.rpartition(":")[2])))


@pytest.mark.parametrize("which", ["tcp", "unix", "abstract"])
def test_a_taken_address_is_explained(world: World, which: str) -> None:
    with pytest.raises(ListenError, match="stop it or take another address"):
        Server(Hub(), [getattr(world, which)])


@pytest.mark.parametrize("address", ["", "7624", "host:", ":7624", "host:x", "host:70000"])
def test_an_address_that_makes_no_sense_is_explained(address: str) -> None:
    with pytest.raises(ListenError, match="is no address"):
        Server(Hub(), [address])


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = Server(Hub(), [str(path)])
    assert server.addresses == (str(path),)
    assert path.stat().st_mode & 0o777 == 0o660
    server.close()


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError):
        Server(Hub(), [str(path)])
    assert path.read_text() == "precious"


def test_version_6_addresses(tmp_path: Path) -> None:
    try:
        server = Server(Hub(), ["[::1]:0"])
    except ListenError:
        pytest.skip("no IPv6 here")
    assert server.addresses[0].startswith("[::1]:")
    server.close()
    server.close()


def test_keepalive_is_on(world: World) -> None:
    with Client(world.tcp):
        eventually(lambda: world.server.links, "the link")
        sock = world.server.links[0]._socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for option, value in server_module._KEEPALIVE:
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == value
