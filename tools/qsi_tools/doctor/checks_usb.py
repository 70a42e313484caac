# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera on the USB: is it there, may it be opened, who has it, and is its place a good one?"""

from __future__ import annotations

from collections.abc import Iterable

from indi_qsi.bus import LIBUSB
from indi_qsi.udevrules import FILE_NAME, GROUP
from qsi_tools.doctor.facts import DRIVERS, Camera, Facts, Process
from qsi_tools.doctor.findings import Finding, note, ok, problem, unknown, warning
from usbproto.errors import CameraInUse, NoCamera, NoPermission
from usbproto.models import SERIES_500

FULL_SPEED, HIGH_SPEED = 12, 480  # Mbit/s
MANY_HUBS = 3  # two are a dock and a hub at the telescope; each more is one more plug and supply
USBFS = "usbfs"  # what the kernel calls a program that has claimed an interface
APPLY = "sudo udevadm trigger --action=change --subsystem-match=usb, or plug the camera in again"


def seen(facts: Facts) -> Iterable[Finding]:
    usb = facts.usb
    if not usb.readable and not facts.served:
        yield unknown("camera", f"This system has no USB to look at ({usb.problem})")
        return
    if usb.problem:
        yield problem("camera", f"The cameras could not be listed: {usb.problem}", NoCamera.remedy)
    elif not usb.cameras and facts.served:
        # At the other computer, simulated, or over USB/IP.
        assert facts.server is not None
        yield note("camera", f"None on the USB here ({usb.choice}), but {facts.server.address} serves one")
    elif not usb.cameras and usb.choice.startswith("usbip:"):
        yield problem(
            "camera",
            f"No QSI camera at {usb.choice}",
            "Is the USB/IP server (qsi-sim, or another computer's usbipd) running, and is this its address?",
        )
    elif not usb.cameras:
        lights = "The green light flashes when the cable is not connected, and is off without power"
        yield problem("camera", f"No QSI camera on the USB ({usb.choice})", f"{NoCamera.remedy}. {lights}")
    for camera in usb.cameras:
        where = f"USB {camera.location}" + (f", port {camera.path}" if camera.path else "")
        if camera.authorized is False:
            yield problem(
                "camera",
                f"{camera.name} is blocked by this system ({where})",
                f"A tool such as USBGuard forbids it: allow the device {camera.path} there",
            )
        else:
            yield ok("camera", f"{camera.name}, {where}")
        if camera.serial is None and not camera.problem:
            yield warning(
                "camera",
                f"{camera.name} tells no serial number",
                "Its descriptor cannot be read: try another cable, then power the camera off and on",
            )


def permission(facts: Facts) -> Iterable[Finding]:
    user = facts.system.user
    for camera in facts.usb.cameras:
        node = camera.node
        if node is None:
            if facts.usb.choice == LIBUSB:
                yield problem(
                    "permission",
                    f"{camera.name} has no file in /dev/bus/usb",
                    "In a container, hand /dev/bus/usb in; otherwise start udev again (systemd-udevd)",
                )
            elif camera.trouble == NoPermission.__name__:
                yield problem("permission", camera.problem, "Let the USB/IP server export the camera")
        elif node.accessible:
            yield ok("permission", f"{user.name} may open {camera.name}")
        elif facts.served:
            yield note("permission", f"{user.name} may not open {camera.name}; the driver of the server does")
        elif node.group != GROUP:
            yield problem(
                "permission",
                f"{user.name} may not open {camera.name}: {node.path} is for the group {node.group} "
                f"(mode {node.mode:04o})",
                f"Install the udev rules, if they are missing (see 'udev rules'); then {APPLY}",
            )
        elif user.in_database:
            yield problem(
                "permission",
                f"{user.name} is in the group {GROUP}, but not in this session",
                "Log out and in again, or restart; a program such as KStars too",
            )
        else:
            yield problem(
                "permission",
                f"{user.name} may not open {camera.name}: {node.path} is for the group {GROUP}",
                f"sudo usermod -aG {GROUP} {user.name}, then log in again",
            )


def holder(facts: Facts) -> Iterable[Finding]:
    """Who has it: a program, or a driver of the kernel."""
    for camera in facts.usb.cameras:
        programs = [p for p in facts.usb.processes if camera.node and camera.node.path in (p.holds or ())]
        if camera.driver not in (None, USBFS):
            yield _kernel_driver(camera)
        elif programs:
            yield from (_program(camera, process) for process in programs)
            if camera.driver == USBFS and len(programs) > 1:
                yield problem(
                    "in use",
                    f"{len(programs)} programs have {camera.name} open at once",
                    "End all but one: they spoil each other's exposures",
                )
        elif camera.driver == USBFS and facts.usb.drivers:
            # Of the service's user, most likely: only root sees which files it has open.
            who = ", ".join(f"{p.name} (process {p.pid}, user {p.user})" for p in facts.usb.drivers)
            yield ok("in use", f"A program of another user has {camera.name}; running is {who}")
        elif camera.driver == USBFS:
            yield unknown(
                "in use",
                f"A program of another user has {camera.name}; this user may not see which",
                "sudo qsi-doctor --no-camera says which",
            )
        elif camera.trouble == CameraInUse.__name__:
            if facts.served:
                yield ok("in use", f"The driver of the INDI server has {camera.name}")
            else:
                yield warning("in use", camera.problem, "If it is a driver of yours, this is right")
        elif not camera.problem:
            yield ok("in use", f"Nobody has {camera.name}: a driver can take it")
        elif camera.trouble != NoPermission.__name__:
            yield problem("camera", camera.problem, "Plug the camera in again")


def _kernel_driver(camera: Camera) -> Finding:
    if camera.driver == "usbip-host":
        return problem(
            "in use",
            f"{camera.name} is exported to another computer (usbip)",
            f"Use it there, or take it back: sudo usbip unbind -b {camera.path}",
        )
    return warning(
        "in use",
        f"The kernel driver {camera.driver} has {camera.name}",
        "Our driver detaches it by itself. Better remove the rule or the line in /etc that binds it "
        "(look for new_id, eb48, eb49)",
    )


def _program(camera: Camera, process: Process) -> Finding:
    who = f"{process.name} (process {process.pid}, user {process.user})"
    if process.name in DRIVERS:
        return ok("in use", f"{who} has {camera.name}: a driver of QSI cameras")
    return warning(
        "in use",
        f"{who} has {camera.name}",
        f"If this is not what you want, end it: kill {process.pid}",
    )


def speed(facts: Facts) -> Iterable[Finding]:
    for camera in facts.usb.cameras:
        if camera.speed is None:
            continue
        if camera.speed < FULL_SPEED:
            yield problem(
                "speed",
                f"{camera.name} runs at {camera.speed:g} Mbit/s",
                "Something on the way is broken: try another cable, port and hub",
            )
        elif camera.series != SERIES_500.name and camera.speed < HIGH_SPEED:
            yield warning(
                "speed",
                f"{camera.name} runs at {camera.speed:g} Mbit/s, its kind does {HIGH_SPEED}: "
                "a picture takes many times as long",
                "A USB 1 hub or a long or bad cable is on the way: plug it in without them",
            )
        else:
            slow = ", all that its kind does" if camera.speed < HIGH_SPEED else ""
            yield ok("speed", f"{camera.name}: {camera.speed:g} Mbit/s{slow}")


def autosuspend(facts: Facts) -> Iterable[Finding]:
    for camera in facts.usb.cameras:
        if camera.control == "auto":
            yield warning(
                "power saving",
                f"The system may put {camera.name} to sleep (power/control is auto), which drops it at night",
                f"Our udev rules switch it off: install them, then {APPLY}",
            )
        elif camera.control:
            yield ok("power saving", f"The system never puts {camera.name} to sleep")


def hubs(facts: Facts) -> Iterable[Finding]:
    for camera in facts.usb.cameras:
        chain = " <- ".join(f"{hub.product} ({hub.path})" for hub in camera.hubs)
        starving = [hub for hub in camera.hubs if hub.self_powered is False]
        slow = [hub for hub in camera.hubs if hub.speed is not None and hub.speed < HIGH_SPEED]
        if len(camera.hubs) >= MANY_HUBS:
            yield warning(
                "hubs",
                f"{len(camera.hubs)} hubs are between {camera.name} and the computer: {chain}",
                "Plug it in nearer to the computer; each hub is one more thing that can reset",
            )
        elif starving:
            names = ", ".join(f"{hub.product} ({hub.path})" for hub in starving)
            yield warning(
                "hubs",
                f"A hub without a supply of its own is on the way: {names}",
                "Use a hub with its own supply: if its power sinks, the camera is lost",
            )
        elif slow and camera.series != SERIES_500.name:
            yield warning(
                "hubs",
                f"A slow hub is on the way: {slow[0].product} ({slow[0].path}, {slow[0].speed:g} Mbit/s)",
                "Use a USB 2 or USB 3 hub",
            )
        elif camera.path:
            where = f"behind {chain}" if chain else "at a port of the computer itself"
            yield ok("hubs", f"{camera.name} is {where}")


def modem_manager(facts: Facts) -> Iterable[Finding]:
    """It sends bytes to whatever might be a modem, unless a rule tells it to leave the device alone."""
    running = [process for process in facts.usb.processes if process.name == "ModemManager"]
    if not running:
        yield ok("ModemManager", "It does not run")
        return
    for camera in facts.usb.cameras:
        if camera.properties is None:
            continue
        if camera.properties.get("ID_MM_DEVICE_IGNORE") == "1":
            yield ok("ModemManager", f"It runs, and leaves {camera.name} alone")
        else:
            yield warning(
                "ModemManager",
                f"It runs, and may send bytes to {camera.name}",
                f"Install our udev rules ({FILE_NAME}), then {APPLY}; "
                "or, without a modem: sudo systemctl disable --now ModemManager",
            )
    if not facts.usb.cameras:
        yield note("ModemManager", "It runs; our udev rules keep it away from the cameras")
