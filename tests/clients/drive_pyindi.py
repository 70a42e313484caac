# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drives properties with pyindi-client, the C++ client library: PORT DEVICE, a plan on standard input.

The plan is a list of [vector, values, states that end it]; the answer, on standard output, is a list of
[vector, state, bytes of a picture that came], and the values in the end by vector.
"""

import json
import os
import sys
import threading
import time
from collections import Counter

import PyIndi

PATIENCE = 30.0
STATES = {PyIndi.IPS_IDLE: "Idle", PyIndi.IPS_OK: "Ok", PyIndi.IPS_BUSY: "Busy", PyIndi.IPS_ALERT: "Alert"}
port, device_name = int(sys.argv[1]), sys.argv[2]


class Client(PyIndi.BaseClient):
    # An exception in a callback ends the process: they only take notes.
    def __init__(self):
        super().__init__()
        self.updates = Counter()
        self.defined = set()
        self.pictures = 0
        self.changed = threading.Condition()

    def newProperty(self, prop):  # noqa: N802 - the library's name
        with self.changed:
            if prop.getDeviceName() == device_name:
                self.defined.add(prop.getName())
            self.changed.notify_all()

    def removeProperty(self, prop):  # noqa: N802
        with self.changed:
            if prop.getDeviceName() == device_name:
                self.defined.discard(prop.getName())

    def updateProperty(self, prop):  # noqa: N802
        with self.changed:
            if prop.getDeviceName() == device_name:
                self.updates[prop.getName()] += 1
                if prop.getType() == PyIndi.INDI_BLOB:
                    self.pictures += sum(blob.getSize() for blob in PyIndi.PropertyBlob(prop))
            self.changed.notify_all()

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while not condition():
                if time.monotonic() > deadline:
                    print("timed out:", what, file=sys.stderr, flush=True)
                    os._exit(1)
                self.changed.wait(0.1)


def typed(device, name):
    """The vector, and how the value of one of its elements is read and written."""
    kind = device.getProperty(name).getType()
    if kind == PyIndi.INDI_NUMBER:
        return device.getNumber(name), lambda e: e.getValue(), lambda e, v: e.setValue(float(v))
    if kind == PyIndi.INDI_TEXT:
        return device.getText(name), lambda e: e.getText(), lambda e, v: e.setText(v)
    assert kind == PyIndi.INDI_SWITCH
    return (
        device.getSwitch(name),
        lambda e: "On" if e.getState() == PyIndi.ISS_ON else "Off",
        lambda e, v: e.setState(PyIndi.ISS_ON if v == "On" else PyIndi.ISS_OFF),
    )


client = Client()
client.setServer("localhost", port)
client.watchDevice(device_name)
assert client.connectServer()
client.setBLOBMode(PyIndi.B_ALSO, device_name, None)
answers = []
for name, wanted, final in json.load(sys.stdin):
    client.until(lambda name=name: name in client.defined, f"{name} defined")
    device = client.getDevice(device_name)
    vector, read, write = typed(device, name)
    if "On" in wanted.values() and vector.getRule() != PyIndi.ISR_NOFMANY:
        vector.reset()
    for element in vector:
        if element.getName() in wanted:
            write(element, wanted[element.getName()])
    before, client.pictures = client.updates[name], 0
    client.sendNewProperty(vector)
    client.until(
        lambda: client.updates[name] > before and STATES[vector.getState()] in final,  # noqa: B023
        f"{name}: {wanted}, {STATES[vector.getState()]}",
    )
    if name == "CCD_EXPOSURE":
        client.until(lambda: client.pictures, "the picture")
    answers.append([name, STATES[vector.getState()], client.pictures])


def values(name):
    vector, read, _ = typed(client.getDevice(device_name), name)
    return {element.getName(): read(element) for element in vector}


still_there = {name: values(name) for name, *_ in answers if client.getDevice(device_name).getProperty(name)}
print(json.dumps([answers, still_there]), flush=True)
# Without the library's destructors: they abort the process now and then, when its thread still runs.
os._exit(0)
