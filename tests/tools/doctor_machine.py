# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine laid out in a folder: sysfs, /dev, /run, /proc and /etc as a Raspberry Pi with a camera has them.

Names, contents and line ends are those of a Linux 6.1 kernel: files end with a line break, serial numbers may
carry the NULs of the descriptor, interfaces are folders beside their device, drivers are links.
"""

from __future__ import annotations

from pathlib import Path

from indi_qsi.udevrules import FILE_NAME, rules

RULES = f"usr/lib/udev/rules.d/{FILE_NAME}"


class Machine:
    """`root` is given to the doctor in place of /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.devices = root / "sys/bus/usb/devices"
        self.device("usb1", idVendor="1d6b", idProduct="0002", product="xHCI Host Controller", speed="480",
                    bmAttributes="e0", busnum="1", devnum="1")  # fmt: skip
        (root / "proc").mkdir()

    def write(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def device(self, name: str, **attributes: str) -> Path:
        folder = self.devices / name
        (folder / "power").mkdir(parents=True)
        for attribute, value in attributes.items():
            (folder / attribute).write_text(value + "\n")
        return folder

    def hub(self, name: str, attributes: str = "e0", speed: str = "480") -> None:
        self.device(name, idVendor="2109", idProduct="3431", product="USB2.0 Hub", speed=speed,
                    bmAttributes=attributes, busnum="1", devnum="2")  # fmt: skip
        self.bind(f"{name}:1.0", "hub")

    def camera(
        self,
        name: str = "1-1.3",
        number: int = 4,
        product: str = "eb49",
        serial: str = "00602123",
        **more: str,
    ) -> Path:
        """Its folder; the node is a file that this user may open."""
        attributes = {"speed": "480", "authorized": "1", "bmAttributes": "80"} | more
        folder = self.device(name, idVendor="0403", idProduct=product, serial=serial, busnum="1",
                             devnum=str(number), dev=f"189:{number - 1}", **attributes)  # fmt: skip
        (folder / "power" / "control").write_text("on\n")
        (self.devices / f"{name}:1.0").mkdir()
        self.node(number)
        self.write(
            f"run/udev/data/c189:{number - 1}",
            f"S:qsi/{serial}\nI:2718281\nE:ID_MM_DEVICE_IGNORE=1\nE:MTP_NO_PROBE=1\nG:uaccess\nQ:uaccess\nV:1\n",
        )
        return folder

    def node(self, number: int) -> Path:
        return self.write(f"dev/bus/usb/001/{number:03}", "")

    def bind(self, interface: str, driver: str) -> None:
        """Has the kernel's driver take an interface."""
        target = self.root / "sys/bus/usb/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (self.devices / interface).mkdir(exist_ok=True)
        (self.devices / interface / "driver").symlink_to(target)

    def process(self, pid: int, name: str, *holds: Path) -> None:
        self.write(f"proc/{pid}/comm", f"{name}\n")
        (self.root / f"proc/{pid}/fd").mkdir()
        for number, target in enumerate((Path("/dev/null"), *holds)):
            (self.root / f"proc/{pid}/fd/{number}").symlink_to(target)

    def install_rules(self) -> None:
        self.write(RULES, rules())

    def pi(self, throttled: str | None = None, alarm: str | None = None) -> None:
        self.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
        if throttled is not None:
            self.write("sys/devices/platform/soc/soc:firmware/get_throttled", f"{throttled}\n")
        if alarm is not None:
            self.write("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
            self.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", f"{alarm}\n")
