# SPDX-License-Identifier: LGPL-2.1-or-later
"""An update that is cut at every single step: what the tool says is true, and `recover` brings the camera back.

In time that stands still; the same through real USB parts is in `test_firmware_usb`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qsi_tools.firmware.errors import Exit
from qsi_tools.firmware.image import Target
from qsi_tools.firmware.journal import Standing

from tests.tools.firmware_bench import NEW, Bench, Killed, claim_is_true
from usbproto.errors import Disconnected

CAMERAS = [("583wsg", Target.FIRMWARE), ("683wsg", Target.FIRMWARE), ("690i", Target.CORE)]


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, request.param)
    made.back_up()
    made.sent.clear()
    yield made
    made.close()


def steps(model: str, target: Target, folder: Path) -> int:
    """How many commands of the loader a whole update has."""
    made, count = Bench(folder, model), 0

    def note(where: str) -> None:
        nonlocal count
        count += where == "before"

    made.back_up()
    made.cut = note
    assert made.update(target) == Exit.DONE
    made.close()
    return count


def unplug(bench: Bench) -> None:
    bench.attached = False


def lose_power(bench: Bench) -> None:
    bench.power_off()


def die(bench: Bench) -> None:
    raise Killed


def tamper(change: Callable[[bytes], bytes]) -> Callable[[Bench], None]:
    """The answer to this one command is another."""

    def arm(bench: Bench) -> None:
        def once(reply: Any) -> None:
            reply.packet = change(reply.packet)
            bench.camera.firmware.tampering.remove(once)

        bench.camera.firmware.tampering.append(once)

    return arm


# Name -> at which moment of a command, and what happens.
CUTS: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "unplugged before": ("before", unplug),
    "unplugged behind": ("behind", unplug),
    "power lost before": ("before", lose_power),
    "power lost behind": ("behind", lose_power),
    "killed before": ("before", die),
    "killed behind": ("behind", die),
    "silence": ("before", tamper(lambda packet: b"")),
    "wrong code": ("before", tamper(lambda packet: b"\x7f" + packet[1:])),
    "damaged answer": ("before", tamper(lambda packet: packet[:-2] + bytes((packet[-2] ^ 4, packet[-1])))),
    "cut answer": ("before", tamper(lambda packet: packet[:-1])),
    "error": ("before", tamper(lambda packet: packet[:-1] + b"\x90")),
}


def cut_at(bench: Bench, step: int, when: str, action: Callable[[Bench], None]) -> Callable[[str], None]:
    count = 0

    def cut(where: str) -> None:
        nonlocal count
        count += where == "before"
        if count == step and where == when:
            bench.cut = lambda where: None
            action(bench)

    return cut


@pytest.mark.parametrize(("bench", "target"), CAMERAS, indirect=["bench"])
@pytest.mark.parametrize("cut", CUTS)
def test_cut_at_every_step(bench: Bench, target: Target, cut: str, tmp_path: Path) -> None:
    when, action = CUTS[cut]
    regions = bench.camera.hardware.flash.regions
    original = {place: (bytes(region.data), region.version) for place, region in regions.items()}
    count = steps(bench.camera.model.name, target, tmp_path / "whole")
    assert count >= 12
    ends = set()
    for step in range(1, count + 1):
        for place, (data, version) in original.items():
            regions[place].data[:], regions[place].version = data, version
        bench.camera.firmware.loader.write_mark()
        ends.add(one_cut(bench, target, step, when, action))
    # It was cut early and late enough to make a difference.
    assert {Exit.FAILED, Exit.INCOMPLETE} <= ends or ends == {"killed"}


def one_cut(
    bench: Bench, target: Target, step: int, when: str, action: Callable[[Bench], None]
) -> Exit | str:
    region = bench.region(target)
    old, old_version = bytes(region.data[:2048]), region.version
    bench.cut = cut_at(bench, step, when, action)
    status: Exit | str
    try:
        status = Exit(bench.update(target))
    except Killed:
        status = "killed"
    if status is Exit.DONE:  # a question is asked again, and an answer that nobody reads can be anything
        assert region.version == NEW[target]
        bench.mend()
        return status
    entry = bench.entry()
    assert entry is not None and entry.open
    assert claim_is_true(bench, target, old), (step, entry)
    if status != "killed":
        assert entry.standing.value in bench.err
        assert (status is Exit.FAILED) == (entry.standing is Standing.OLD)
    damaged = region.version is None
    bench.mend()
    assert bench.run("info") == Exit.DONE
    assert entry.standing.value in bench.out and "qsi-firmware recover" in bench.out
    assert bench.update(target) == Exit.REFUSED
    assert bench.recover() == Exit.DONE, bench.err
    assert region.version in ([NEW[target]] if damaged else [old_version, NEW[target]])
    wanted = bench.new_image(target) if region.version == NEW[target] else old
    assert bytes(region.data).startswith(wanted)
    assert bench.works()
    after = bench.entry()
    assert after is not None and not after.open
    return status


@pytest.mark.parametrize("bench", ["683wsg"], indirect=True)
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_recovery_that_is_cut_can_be_repeated(bench: Bench, when: str) -> None:
    def cut_writing() -> None:
        bench.cut = cut_at(bench, 5, "behind", lose_power)

    cut_writing()
    assert bench.update() == Exit.INCOMPLETE
    for step in range(1, 13):
        bench.mend()
        bench.cut = cut_at(bench, step, when, lose_power)
        assert bench.recover() != Exit.DONE, step
        entry = bench.entry()
        assert entry is not None and claim_is_true(bench, Target.FIRMWARE, b""), step
        if bench.region(Target.FIRMWARE).version is not None:
            break
    bench.mend()
    assert bench.recover() == Exit.DONE
    assert bench.region(Target.FIRMWARE).version == NEW[Target.FIRMWARE]
    assert bench.works()


@pytest.mark.parametrize("bench", ["683wsg"], indirect=True)
def test_a_camera_that_lost_the_cable_is_gone(bench: Bench) -> None:
    """The rig can cut: without it, the tests above would show nothing."""
    bench.attached = False
    with pytest.raises(Disconnected):
        bench.check_cable()
    assert bench.run("info") == Exit.NO_ACCESS
