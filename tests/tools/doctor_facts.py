# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine on which everything is fine, as facts; tests change what is wrong with it."""

from __future__ import annotations

from qsi_tools.doctor.facts import (
    Camera,
    Device,
    DriverFile,
    Examined,
    Facts,
    Flights,
    Folder,
    Hub,
    Node,
    Power,
    Program,
    RuleFile,
    Server,
    Service,
    System,
    Usb,
    User,
)

from indi_qsi.udevrules import rules
from indi_qsi.version import VERSION
from usbproto.packets import CameraState, CoolerState

NODE = Node("/dev/bus/usb/001/004", 0o660, "plugdev", accessible=True)
HUB = Hub("1-1", "USB2.0 Hub", 480.0, self_powered=True)
CAMERA = Camera(
    series="600",
    serial="00602123",
    location="001:004",
    path="1-1.3",
    speed=480.0,
    driver=None,
    control="on",
    authorized=True,
    node=NODE,
    hubs=(HUB,),
    properties={"ID_MM_DEVICE_IGNORE": "1", "TAGS": "uaccess"},
)
OUR_RULES = RuleFile("/usr/lib/udev/rules.d/70-indi-qsi.rules", rules())
PROGRAMS = {
    "indi_qsi_ccd": Program("indi_qsi_ccd", ("/usr/bin/indi_qsi_ccd",), version=VERSION),
    "indi-qsi": Program("indi-qsi", ("/usr/bin/indi-qsi",), version=VERSION),
    "indiserver": Program("indiserver", ("/usr/bin/indiserver",), version="1.9.9"),
    "kstars": Program("kstars", ("/usr/bin/kstars",)),
    "indi-web": Program("indi-web"),
}
DRIVER_FILE = DriverFile("/usr/share/indi/indi_qsi.xml", False, ("indi_qsi_ccd",))
SERVICE = Service("loaded", "inactive", "dead", "disabled")
FOLDER = Folder("/home/pi", True, True, free=50_000_000_000, speed=30e6)
FLIGHTS = Flights(
    "/home/pi/.indi/qsi-flight",
    20,
    "/home/pi/.indi/qsi-flight/flight-20261130T214501.123Z-link-error.jsonl",
    "link-error",
    "The camera did not answer",
    3.5 * 3600,
)
PI = Power("Raspberry Pi 4 Model B Rev 1.4", throttled=0, low_now=False)
SYSTEM = System(
    user=User("pi", root=False, in_session=True, in_database=True),
    rules=(OUR_RULES,),
    packages={"indi-qsi-py": VERSION},
    programs=PROGRAMS,
    driver_files=(DRIVER_FILE,),
    service=SERVICE,
    folder=FOLDER,
    synchronised=True,
    power=PI,
)
EXAMINED = Examined(
    camera=CAMERA.name,
    state=CameraState.IDLE,
    cooler=CoolerState.OFF,
    ccd=18.2,
    power=0.0,
    model="683wsg",
    base_type="683",
    series="600",
    firmware="06.03.04",
    serial="00602123",
    link_tested=True,
)
DEVICE = Device(
    "QSI CCD",
    {"CONNECTION": "Ok", "CCD_TEMPERATURE": "Ok"},
    {
        "CONNECTION": {"CONNECT": "On", "DISCONNECT": "Off"},
        "CAMERA_INFO": {"MODEL": "683wsg", "SERIAL": "00602123", "FIRMWARE": "06.03.04"},
        "CAMERA_ALARMS": {"SUPPLY_LOW": "Ok", "SHUTTER": "Ok"},
        "CCD_TEMPERATURE": {"CCD_TEMPERATURE_VALUE": "-10"},
        "CCD_COOLER_POWER": {"CCD_COOLER_VALUE": "60"},
    },
)
SERVER = Server("127.0.0.1:7624", True, devices=(DEVICE,))
FREE = Facts(Usb(cameras=(CAMERA,)), SYSTEM, Server("127.0.0.1:7624", False, problem="refused"), (EXAMINED,))
