# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was seen, before anybody judges it. Plain values: a test writes them down, `--json` prints them.

None means that it is not known, or does not exist on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub between the camera and the computer. `self_powered` by its own descriptor."""

    path: str
    product: str
    speed: float | None
    self_powered: bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """The camera's file in /dev/bus/usb."""

    path: str
    mode: int
    group: str
    accessible: bool  # to the user who runs this, by mode, group or access list


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera on the USB. `speed` in Mbit/s; `driver` is what the kernel has bound to its first interface.

    `properties` are those that udev gave it. Over USB/IP only series, serial and location are known, and the
    `problem` of asking for them, whose kind `trouble` is the name of the error.
    """

    series: str
    serial: str | None
    location: str
    path: str = ""
    speed: float | None = None
    driver: str | None = None
    control: str | None = None
    authorized: bool | None = None
    node: Node | None = None
    hubs: tuple[Hub, ...] = ()
    properties: dict[str, str] | None = None
    problem: str = ""
    trouble: str = ""

    @property
    def name(self) -> str:
        return f"QSI {self.series} Series {self.serial or f'at USB {self.location}'}"


# Programs, by the names of their files and processes.
DRIVER, TOOL, INDISERVER, LAUNCHERS = "indi_qsi_ccd", "indi-qsi", "indiserver", ("kstars", "indi-web")
DRIVERS = (DRIVER, TOOL)  # ours that hold cameras


@dataclass(frozen=True, slots=True)
class Process:
    """`holds` are the USB device files that it has open; None where this user may not look."""

    pid: int
    name: str
    user: str
    holds: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usb:
    """`choice` as in INDI_QSI_USB; `readable` False where there is no USB to look at."""

    choice: str = "libusb"
    readable: bool = True
    cameras: tuple[Camera, ...] = ()
    processes: tuple[Process, ...] = ()
    problem: str = ""

    @property
    def drivers(self) -> tuple[Process, ...]:
        """Our drivers that run, under whatever server."""
        return tuple(process for process in self.processes if process.name in DRIVERS)


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A udev rule that has to do with the cameras, or that hides one by its name."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class User:
    """`in_session`: the groups of this process; `in_database`: those of the next login."""

    name: str
    root: bool
    in_session: bool
    in_database: bool


@dataclass(frozen=True, slots=True)
class Program:
    """`paths` in the order of PATH, `beside` where it lies beside the doctor, if it does.

    `compiled` when the first one is machine code; `version` if it tells one.
    """

    name: str
    paths: tuple[str, ...] = ()
    beside: str = ""
    compiled: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class DriverFile:
    """A driver file for launchers. `drivers` are the executables that it names, None when it is no XML."""

    path: str
    is_link: bool
    drivers: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Service:
    """The unit indi-qsi, by `systemctl show`."""

    load: str
    active: str
    sub: str = ""
    enabled: str = ""
    restarts: int = 0
    result: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """Where pictures go. Bytes, and bytes/s; `speed` None when nothing was written."""

    path: str
    exists: bool
    writable: bool
    free: int | None = None
    speed: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Flights:
    """Files of flight recorders in a folder. `age` of the newest in s; its `reason` None if not readable."""

    path: str
    count: int = 0
    newest: str = ""
    kind: str = ""
    reason: str | None = None
    age: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Power:
    """Of a Raspberry Pi: `throttled` is the word of flags, `low_now` what the kernel's sensor says."""

    board: str
    throttled: int | None = None
    low_now: bool | None = None


@dataclass(frozen=True, slots=True)
class System:
    """The machine."""

    user: User
    rules: tuple[RuleFile, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)  # installed Debian packages -> version
    programs: dict[str, Program] = field(default_factory=dict)
    driver_files: tuple[DriverFile, ...] = ()
    service: Service | None = None
    folder: Folder | None = None
    flights: tuple[Flights, ...] = ()
    synchronised: bool | None = None
    power: Power | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """An INDI device of our driver: vector -> state, and vector -> element -> text."""

    name: str
    states: dict[str, str]
    values: dict[str, dict[str, str]]

    @property
    def connected(self) -> bool:
        return self.values.get("CONNECTION", {}).get("CONNECT") == "On"


@dataclass(frozen=True, slots=True)
class Server:
    """An INDI server. `others` are devices that are not ours; `asked` when the user named the address.

    `local`: known to run on this machine. `problem`: why it is not reachable, or ended while it was asked.
    """

    address: str
    reachable: bool
    local: bool = True
    asked: bool = False
    devices: tuple[Device, ...] = ()
    others: tuple[str, ...] = ()
    problem: str = ""

    @property
    def connected(self) -> bool:
        """Whether any of its devices of ours has its camera."""
        return any(device.connected for device in self.devices)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a free camera said of itself. `problem` when it could not be opened."""

    camera: str
    state: int | None = None
    cooler: int | None = None
    ccd: float | None = None
    power: float | None = None
    model: str = ""
    base_type: str = ""
    series: str = ""
    firmware: str = ""
    serial: str = ""
    link_tested: bool = False
    errors: tuple[int, ...] = ()
    link_errors: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `examined` is empty when no camera was free, or none was to be opened."""

    usb: Usb
    system: System
    server: Server | None = None
    examined: tuple[Examined, ...] = ()

    @property
    def served(self) -> bool:
        """Whether the INDI server has a camera: then it matters little what this user may do."""
        return self.server is not None and self.server.connected
