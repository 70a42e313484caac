# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exposure with indipyclient, a client in pure Python: PORT FILE."""

import asyncio
import sys
from pathlib import Path

from indipyclient import IPyClient

DEVICE = "QSI CCD"
PATIENCE = 20.0


class Client(IPyClient):
    def __init__(self, port, file):
        super().__init__(indihost="localhost", indiport=port)
        self.file = file
        self.asked = False

    async def rxevent(self, event):
        if event.devicename != DEVICE:
            return
        device = self[DEVICE]
        if event.vectorname == "CONNECTION" and event.eventtype == "Define":
            await self.send_newVector(DEVICE, "CONNECTION", members={"CONNECT": "On", "DISCONNECT": "Off"})
        if not self.asked and {"CCD1", "CCD_EXPOSURE"} <= set(device) and event.vectorname == "CCD1":
            self.asked = True
            await self.send_enableBLOB("Also", DEVICE)
            await self.send_newVector(DEVICE, "CCD_EXPOSURE", members={"CCD_EXPOSURE_VALUE": 0.5})
        elif event.vectorname == "CCD1" and event.eventtype == "SetBLOB":
            Path(self.file).write_bytes(event["CCD1"])
            self.shutdown()


async def main():
    client = Client(int(sys.argv[1]), sys.argv[2])
    await asyncio.wait_for(client.asyncrun(), PATIENCE)


asyncio.run(main())
