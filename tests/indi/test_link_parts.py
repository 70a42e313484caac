# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of links, each for itself: frames, the queue, flow control, interest, output."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.links import frame as frame_module
from indi_qsi.links import link as link_module
from indi_qsi.links.flow import DrainFlow, PingFlow
from indi_qsi.links.frame import Frame
from indi_qsi.links.interest import MAX_ENTRIES, Interest
from indi_qsi.links.outbox import MAX_CONTROL_BYTES, MAX_FRAME_BYTES, MAX_FRAMES_WAITING, Outbox
from indi_qsi.links.output import FileOutput, SocketOutput, Stalled
from indi_qsi.links.pace import BURST, LONGEST, SHARE, Pace, Paces
from indi_qsi.properties.ports import BlobItem
from indi_qsi.wire.messages import BlobPolicy, State
from tests.support.indi import PATIENCE, eventually


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# Frames.


@pytest.mark.parametrize("memfd", [True, False])
def test_a_frame_lives_as_long_as_its_holders(memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create")
    before = descriptors()
    frame = Frame(5, ".fits", "test")
    frame.buffer[:] = b"12345"
    frame.seal()
    assert os.fstat(frame.fileno()).st_size == 5
    assert os.pread(frame.fileno(), 9, 0) == b"12345"
    assert frame.hold() is frame
    frame.release()
    assert frame.buffer.tobytes() == b"12345"
    frame.release()
    assert descriptors() == before
    for action in (frame.hold, frame.release, frame.fileno, frame.seal):
        with pytest.raises(ValueError, match="released"):
            action()


def test_a_sealed_frame_keeps_its_size_and_can_still_be_mapped() -> None:
    with Frame(5, ".fits") as frame:
        frame.seal()
        for size in (4, 6):
            with pytest.raises(PermissionError):
                os.ftruncate(frame.fileno(), size)


def test_a_frame_that_somebody_still_looks_at_is_freed_later() -> None:
    before = descriptors()
    frame = Frame(5, ".fits")
    view = frame.buffer[1:3]
    frame.release()
    view[:] = b"ab"
    view.release()
    del frame, view
    assert descriptors() == before


def used_frame(size: int = 5) -> Frame:
    frame = Frame(size, ".fits", used=True)
    frame.buffer[:] = b"x" * size
    return frame


def is_used(frame: Frame) -> bool:
    return any(frame.buffer)


@pytest.fixture
def no_spare() -> Iterator[None]:
    frame_module.spare.drop()
    yield
    frame_module.spare.drop()


@pytest.mark.usefixtures("no_spare")
def test_memory_is_used_again_only_when_all_who_got_it_have_let_it_go() -> None:
    before = descriptors()
    frame = used_frame()
    theirs = os.dup(frame.share())  # as it arrives at the other end of a socket
    frame.release()
    with Frame(5, ".fits", used=True) as frame:
        assert not is_used(frame), "they have a descriptor"
    frame = used_frame()
    theirs_too = os.dup(frame.share())
    with mmap.mmap(theirs_too, 5, prot=mmap.PROT_READ) as mapped:
        os.close(theirs_too)
        frame.release()
        with Frame(5, ".fits", used=True) as other:
            other.buffer[:] = b"other"
        assert mapped[:] == b"xxxxx", "they have a mapping"
    used_frame().release()
    assert os.pread(theirs, 9, 0) == b"xxxxx"
    os.close(theirs)
    with Frame(5, ".fits", used=True) as frame:
        assert is_used(frame)
    frame_module.spare.drop()
    assert descriptors() == before


@pytest.mark.usefixtures("no_spare")
def test_memory_in_flight_to_a_reader_is_not_used_again() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = used_frame()
        SocketOutput(ours).write(b"frame", frame.share())
        frame.release()
        with Frame(5, ".fits", used=True) as other:
            assert not is_used(other)


@pytest.mark.usefixtures("no_spare")
def test_memory_of_another_size_or_still_looked_at_is_not_used_again() -> None:
    used_frame(6).release()
    with Frame(5, ".fits", used=True) as frame:
        assert not is_used(frame)
    frame = used_frame()
    view = frame.buffer[1:3]
    frame.release()
    with Frame(5, ".fits", used=True) as frame:
        assert not is_used(frame)
    assert view == b"xx"
    view.release()


@pytest.mark.usefixtures("no_spare")
def test_fresh_memory_is_zero_even_if_there_is_a_spare() -> None:
    used_frame().release()
    with Frame(5, ".fits") as frame:
        assert frame.buffer == bytes(5)


@pytest.mark.usefixtures("no_spare")
def test_without_sight_of_the_readers_memory_is_never_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, flags: int) -> int:
        raise FileNotFoundError("no /proc")

    monkeypatch.setattr("indi_qsi.links.sharedmemory._opened_again", refuse)
    frame = used_frame()
    theirs = os.dup(frame.share())
    frame.release()
    with Frame(5, ".fits", used=True) as other:
        assert not is_used(other)
    os.close(theirs)


def test_what_readers_get_cannot_be_written_to() -> None:
    with Frame(5, ".fits") as frame, pytest.raises(OSError, match="Bad file descriptor"):
        os.write(frame.share(), b"x")


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_frame_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Frame(size, ".fits")


def test_frames_without_memory_leave_nothing_behind() -> None:
    before = descriptors()
    with pytest.raises((OSError, ValueError, OverflowError)):
        Frame(1 << 62, ".fits")
    assert descriptors() == before


# The queue.


def item(frame: Frame) -> BlobItem:
    return BlobItem("D", "N", "E", frame, State.OK, 0.0)


def test_the_queue_keeps_the_order_and_joins_messages() -> None:
    box = Outbox()
    frame = Frame(1, "")
    box.post(b"a")
    box.post(b"b")
    box.post_blob(item(frame))
    box.post(b"c")
    assert box.take() == b"ab"
    assert box.take() == item(frame)
    assert box.take() == b"c"
    frame.release()


def test_the_newest_frames_win() -> None:
    box = Outbox()
    frames = [Frame(n + 1, "") for n in range(MAX_FRAMES_WAITING + 1)]
    skipped = []
    for frame in frames:
        skipped.append(box.make_room(frame.size))
        box.post_blob(item(frame))
    assert skipped == [*[[]] * MAX_FRAMES_WAITING, [("D", "N")]]
    with pytest.raises(ValueError, match="released"):
        frames[0].hold()
    for frame in frames[1:]:
        taken = box.take()
        assert isinstance(taken, BlobItem)
        assert taken.frame is frame
        frame.release()


def test_large_frames_make_room_before_the_next_one_is_made() -> None:
    box = Outbox()
    old, new = Frame(MAX_FRAME_BYTES // 2 + 1, ""), Frame(MAX_FRAME_BYTES // 2 + 1, "")
    assert box.make_room(old.size) == []
    box.post_blob(item(old))
    assert box.make_room(new.size) == [("D", "N")]
    with pytest.raises(ValueError, match="released"):
        old.hold()
    box.post_blob(item(new))
    assert box.take() == item(new)
    new.release()


def test_messages_may_wait_up_to_the_limit() -> None:
    box = Outbox()
    assert box.post(b"x" * (MAX_CONTROL_BYTES - 1))
    assert box.post(b"y")
    assert not box.post(b"z")
    box.take()
    assert box.post(b"z" * (MAX_CONTROL_BYTES - 1))


def test_what_finds_nothing_before_it_is_offered_at_once_and_the_rest_of_it_waits() -> None:
    box = Outbox()
    offered: list[bytes] = []

    def offer(data: bytes) -> int:
        offered.append(data)
        return 3

    assert box.post(b"abc", offer)
    assert box.post(b"defg", offer)
    assert offered == [b"abc", b"defg"]
    assert box.post(b"hij", offer), "something waits: not even a part of this may overtake it"
    assert box.take() == b"ghij"
    assert box.post(b"klm", offer), "the writer is at it, and this may not come in between"
    assert offered == [b"abc", b"defg"]
    assert box.take() == b"klm"
    box.close()
    assert box.post(b"nop", offer)
    assert offered == [b"abc", b"defg"], "nothing is sent behind the end"


def test_nothing_is_offered_behind_a_frame_that_waits() -> None:
    box = Outbox()
    frame = Frame(1, "")
    box.post_blob(item(frame))
    assert box.post(b"a", lambda data: pytest.fail("overtaken"))
    assert box.take() == item(frame)
    assert box.take() == b"a"
    frame.release()


def test_an_offer_to_a_peer_that_does_not_read_or_has_gone_sends_what_it_can_and_never_waits() -> None:
    ours, theirs = socket.socketpair()
    output = SocketOutput(ours)
    sent = 0
    while count := output.offer(b"x" * 10_000):
        sent += count
    received = 0
    while received < sent:
        received += len(theirs.recv(1 << 20))
    assert output.offer(b"y") == 1
    theirs.close()
    output.stop()
    assert output.offer(b"z") == 0
    ours.close()


def test_closing_wakes_the_writer_and_frees_the_frames() -> None:
    box = Outbox()
    taken: list[object] = [0]
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(PATIENCE)
    assert taken == [0, None]
    frame = Frame(1, "")
    box.post_blob(item(frame))
    with pytest.raises(ValueError, match="released"):
        frame.hold()
    box.post(b"x")
    assert box.take() is None


def test_flush_waits_until_the_last_message_has_been_sent() -> None:
    box = Outbox()
    box.post(b"x")
    assert not box.flush(0)
    assert box.take() == b"x"
    assert not box.flush(0)
    thread = threading.Thread(target=box.take)
    thread.start()
    assert box.flush(PATIENCE)
    box.close()
    thread.join(PATIENCE)


# Flow control.


def test_a_ping_is_waited_for() -> None:
    flow = PingFlow(timeout=PATIENCE)
    flow.before_frame()
    assert b'uid="SetBLOB/1"' in flow.after_frame()
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (flow.before_frame(), passed.set()))
    thread.start()
    flow.pong("something else")
    assert not passed.wait(0.05)
    flow.pong("SetBLOB/1")
    assert passed.wait(PATIENCE)
    thread.join(PATIENCE)
    assert b'uid="SetBLOB/2"' in flow.after_frame()


def test_a_server_that_does_not_know_pings_is_waited_for_once() -> None:
    flow = PingFlow(timeout=0.05)
    waits = []
    for _ in range(4):
        start = time.monotonic()
        flow.before_frame()
        waits.append(time.monotonic() - start > 0.04)
        flow.after_frame()
    assert waits == [False, True, False, False]
    flow.pong("SetBLOB/3")  # late, but now we know that it answers
    start = time.monotonic()
    flow.before_frame()
    assert time.monotonic() - start > 0.04


def test_stopping_ends_the_wait_for_a_ping() -> None:
    flow = PingFlow(timeout=PATIENCE)
    flow.after_frame()
    threading.Timer(0.02, flow.stop).start()
    start = time.monotonic()
    flow.before_frame()
    assert time.monotonic() - start < PATIENCE / 2


def test_a_unix_client_is_waited_for_until_it_has_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        flow = DrainFlow(ours, timeout=0.05)
        flow.before_frame()
        ours.sendall(b"x" * 100)
        with pytest.raises(Stalled):
            flow.before_frame()
        theirs.recv(1000)
        flow.before_frame()


# Interest.


def test_interest_in_vectors() -> None:
    interest = Interest()
    assert not interest.wants("D", "N")
    interest.watch("D", "N")
    assert interest.wants("D", "N")
    assert interest.wants("D", None)
    assert not interest.wants("D", "M")
    assert not interest.wants("E", None)
    interest.watch("D", None)
    assert interest.wants("D", "M")
    interest.watch(None, None)
    assert interest.wants("E", "X")


def test_interest_in_frames() -> None:
    interest = Interest()
    interest.watch(None, None)
    assert not interest.wants_blob("D", "N")
    interest.set_policy("D", "N", BlobPolicy.ALSO)
    assert interest.wants_blob("D", "N")
    assert not interest.wants_blob("D", "M")
    interest.set_policy("D", None, BlobPolicy.ONLY)
    assert interest.wants_blob("D", "M")
    assert not interest.wants("D", "N")
    assert interest.wants("E", "N")
    interest.set_policy("D", "N", BlobPolicy.NEVER)
    assert not interest.wants_blob("D", "N")
    interest.set_policy("D", None, BlobPolicy.ALSO)
    assert interest.wants_blob("D", "N")
    assert interest.wants("D", "N")


def test_a_server_wants_everything() -> None:
    interest = Interest(everything=True)
    assert interest.wants("D", "N")
    assert interest.wants_blob("D", "N")


def test_invented_names_do_not_pile_up() -> None:
    interest = Interest()
    for number in range(2 * MAX_ENTRIES):
        interest.watch("D", str(number))
        interest.set_policy("D", str(number), BlobPolicy.ALSO)
    assert not interest.wants("D", str(MAX_ENTRIES))
    assert not interest.wants_blob("D", str(MAX_ENTRIES))


# Output.


def test_a_peer_that_reads_nothing_stalls_the_output() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(Stalled):
        SocketOutput(ours, stall_timeout=0.01).write(b"x" * 10_000_000)


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_stopping_ends_a_write(kind: str) -> None:
    if kind == "socket":
        ours, theirs = socket.socketpair()
        output, closers = SocketOutput(ours, stall_timeout=None), [ours.close, theirs.close]
    else:
        reading, writing = os.pipe()
        output = FileOutput(writing)  # type: ignore[assignment]
        closers = [lambda: os.close(reading), lambda: os.close(writing)]
    failed = threading.Event()

    def write() -> None:
        with pytest.raises(BrokenPipeError):
            output.write(b"x" * 10_000_000)
        failed.set()

    thread = threading.Thread(target=write)
    thread.start()
    output.stop()
    assert failed.wait(PATIENCE)
    thread.join(PATIENCE)
    for close in closers:
        close()


def test_a_descriptor_goes_once_although_the_write_comes_in_parts() -> None:
    ours, theirs = socket.socketpair()
    data = b"x" * 2_000_000
    with ours, theirs, Frame(1, "") as frame:
        thread = threading.Thread(target=lambda: SocketOutput(ours).write(data, frame.fileno()))
        thread.start()
        got, rights = 0, []
        while got < len(data):
            piece, fds, _, _ = socket.recv_fds(theirs, 65536, 16)
            if fds:
                assert got == 0
            got += len(piece)
            rights += fds
        thread.join(PATIENCE)
    assert len(rights) == 1
    os.close(rights[0])


@pytest.mark.parametrize("size", [1, 2, 3, 48 * 1024, 48 * 1024 + 1, 200_000])
def test_both_encoders_are_right_piece_by_piece(size: int) -> None:
    import base64

    data = memoryview(os.urandom(size))
    step = link_module.BASE64_PIECE
    for encode in (link_module.base64_encoder(), link_module._standard_encode):
        pieces = [encode(data[at : at + step]) for at in range(0, size, step)]
        assert base64.b64decode(b"".join(pieces), validate=True) == data


def test_eventually_is_no_endless_loop() -> None:
    with pytest.raises(AssertionError, match="never"):
        eventually(lambda: False, "never", timeout=0.01)


def test_a_client_that_costs_much_is_slowed_down_and_an_ordinary_one_is_not() -> None:
    pace = Pace(Paces())
    assert [pace.pause(BURST / 20) for _ in range(10)] == [0.0] * 10
    greedy = Pace(Paces())
    greedy.pause(BURST)
    assert 0.9 < greedy.pause(0.05) * SHARE / 0.05 <= 1.1  # its part, and no more
    assert greedy.pause(100.0) == LONGEST


def test_greedy_clients_share_one_part_of_the_processor() -> None:
    paces = Paces()
    clients = [Pace(paces) for _ in range(5)]
    for client in clients:
        client.pause(BURST + 0.01)
    alone, among_five = Pace(Paces()), clients[-1]
    alone.pause(BURST + 0.01)
    assert among_five.pause(0.0) > 4 * alone.pause(0.0)
    for client in clients[:-1]:
        client.close()
    assert among_five.pause(0.0) < 1.5 * alone.pause(0.0)
