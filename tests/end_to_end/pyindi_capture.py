# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exposure with pyindi-client, the C++ client library: PORT FILE."""

import os
import sys
import threading
import time

import PyIndi

DEVICE = "QSI CCD"
PATIENCE = 20.0


class Client(PyIndi.BaseClient):
    # An exception in a callback ends the process: they only take notes.
    def __init__(self):
        super().__init__()
        self.picture = None
        self.arrived = threading.Event()

    def updateProperty(self, prop):  # noqa: N802 - the library's name
        if prop.getType() == PyIndi.INDI_BLOB:
            for blob in PyIndi.PropertyBlob(prop):
                self.picture = bytes(blob.getblobdata())
                self.arrived.set()


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            print("timed out:", what, file=sys.stderr)
            os._exit(1)
        time.sleep(0.02)


client = Client()
client.setServer("localhost", int(sys.argv[1]))
client.watchDevice(DEVICE)
assert client.connectServer()
device = client.getDevice(DEVICE)
until(lambda: client.getDevice(DEVICE).isValid(), "device")
device = client.getDevice(DEVICE)
until(lambda: device.getSwitch("CONNECTION").isValid(), "CONNECTION")
client.connectDevice(DEVICE)
until(lambda: device.isConnected() and device.getBLOB("CCD1").isValid(), "connected")
until(lambda: device.getNumber("CCD_EXPOSURE").isValid(), "CCD_EXPOSURE")
client.setBLOBMode(PyIndi.B_ALSO, DEVICE, None)
exposure = device.getNumber("CCD_EXPOSURE")
exposure[0].setValue(0.5)
client.sendNewProperty(exposure)
until(client.arrived.is_set, "picture")
with open(sys.argv[2], "wb") as file:
    file.write(client.picture)
# Without the library's destructors: they abort the process now and then, when its thread still runs.
os._exit(0)
