# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a device node says: whether the device is there, and whether a large read is one transfer."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

import pytest

from usbproto import usbfs

BUS, ADDRESS = 3, 17


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Device nodes of one bus with one device."""
    made = tmp_path / "nodes"
    (made / "003").mkdir(parents=True)
    (made / "003" / "017").write_bytes(b"")
    return made


def sysfs(folder: Path, driver: str | None) -> Path:
    """A bus that hangs on a controller with this driver, linked as a kernel links it."""
    controller = folder / "devices" / "pci0000:00" / "0000:00:14.0"
    (controller / "usb3").mkdir(parents=True)
    if driver is not None:
        target = folder / "bus" / "pci" / "drivers" / driver
        target.mkdir(parents=True)
        (controller / "driver").symlink_to(target)
    buses = folder / "bus" / "usb" / "devices"
    buses.mkdir(parents=True)
    (buses / "usb3").symlink_to(controller / "usb3")
    return buses


# --- whether it is there ---


def test_a_device_is_there_as_long_as_its_node_is(nodes: Path) -> None:
    assert usbfs.node(BUS, ADDRESS, nodes) == nodes / "003" / "017"
    assert not usbfs.is_gone(BUS, ADDRESS, nodes)
    assert usbfs.is_gone(BUS, ADDRESS + 1, nodes)
    (nodes / "003" / "017").unlink()
    assert usbfs.is_gone(BUS, ADDRESS, nodes)


def test_a_system_without_nodes_says_nothing(tmp_path: Path, nodes: Path) -> None:
    assert not usbfs.is_gone(BUS, ADDRESS, tmp_path / "nothing")
    assert not usbfs.is_gone(BUS + 1, ADDRESS, nodes)


# --- whether a large read is one transfer ---


def answering(patch: pytest.MonkeyPatch, capabilities: int | OSError) -> list[Path]:
    """A kernel that answers this to each node."""
    opened: list[Path] = []
    really_open = os.open

    def open_node(path: Path, flags: int) -> int:
        opened.append(path)
        return really_open(path, flags)

    def ioctl(fd: int, request: int, answer: bytearray) -> int:
        assert request == usbfs.GET_CAPABILITIES
        if isinstance(capabilities, OSError):
            raise capabilities
        answer[:] = capabilities.to_bytes(4, sys.byteorder)
        return 0

    patch.setattr(os, "open", open_node)
    patch.setattr(fcntl, "ioctl", ioctl)
    return opened


@pytest.mark.parametrize("driver", ["xhci_hcd", "dwc2", None])
@pytest.mark.parametrize(
    ("capabilities", "large"),
    [(0x08, True), (0x1FD, True), (0x00, False), (0xF7, False), (0xFFFFFFFF, True), (0xFFFFFFF7, False)],
)
def test_a_kernel_that_answers_is_believed(
    capabilities: int, large: bool, driver: str | None, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its controller is called."""
    opened = answering(monkeypatch, capabilities)
    buses = sysfs(nodes.parent, driver)
    assert usbfs.takes_large_reads(BUS, ADDRESS, nodes, buses) == large
    assert opened == [nodes / "003" / "017"]


@pytest.mark.parametrize(
    ("driver", "large"),
    [
        ("xhci_hcd", True),
        ("xhci-hcd", True),
        ("ehci-pci", True),
        ("ehci-platform", True),
        ("dwc2", False),
        ("dwc_otg", False),
        ("ohci-pci", False),
        ("uhci_hcd", False),
        ("vhci_hcd", False),
        ("musb-hdrc", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL, errno.ENODEV])
def test_a_kernel_that_does_not_answer_leaves_the_controllers_name(
    driver: str | None, large: bool, number: int, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, OSError(number, os.strerror(number)))
    assert usbfs.takes_large_reads(BUS, ADDRESS, nodes, sysfs(nodes.parent, driver)) == large


@pytest.mark.parametrize(("driver", "large"), [("xhci_hcd", True), ("dwc2", False)])
def test_a_node_that_may_not_be_opened_leaves_the_controllers_name(
    driver: str, large: bool, nodes: Path
) -> None:
    """Without any pretence: there is no such node."""
    assert usbfs.takes_large_reads(BUS, ADDRESS + 1, nodes, sysfs(nodes.parent, driver)) == large


def test_a_file_that_is_no_node_says_nothing(nodes: Path) -> None:
    """The real question, to a real kernel."""
    assert not usbfs.takes_large_reads(BUS, ADDRESS, nodes, sysfs(nodes.parent, None))


def test_where_nothing_is_known_reads_stay_small(tmp_path: Path, nodes: Path) -> None:
    assert not usbfs.takes_large_reads(BUS, ADDRESS, tmp_path / "no", tmp_path / "nothing")
    assert not usbfs.takes_large_reads(BUS + 1, ADDRESS, nodes, sysfs(nodes.parent, "xhci_hcd"))


def test_no_descriptor_is_left_open(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buses = sysfs(nodes.parent, "xhci_hcd")
    for answer in (0x08, OSError(errno.ENOTTY, "no")):
        with monkeypatch.context() as patch:
            answering(patch, answer)
            before = os.listdir("/proc/self/fd")  # noqa: PTH208  # names are all that is wanted
            usbfs.takes_large_reads(BUS, ADDRESS, nodes, buses)
            assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
