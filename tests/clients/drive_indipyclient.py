# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drives properties with indipyclient, a client in pure Python: PORT DEVICE, a plan on standard input.

The plan is a list of [vector, values, states that end it]; the answer, on standard output, is a list of
[vector, state, bytes of a picture that came], and the values in the end by vector.
"""

import asyncio
import json
import sys
from collections import Counter
from functools import partial

from indipyclient import IPyClient

PATIENCE = 30.0


class Client(IPyClient):
    def __init__(self, port, device):
        super().__init__(indihost="localhost", indiport=port)
        self.device = device
        self.updates = Counter()
        self.pictures = 0
        self.changed = asyncio.Condition()

    async def rxevent(self, event):
        async with self.changed:
            if event.devicename == self.device and event.eventtype.startswith("Set"):
                self.updates[event.vectorname] += 1
                if event.eventtype == "SetBLOB":
                    self.pictures += sum(len(blob) for blob in event.values())
            self.changed.notify_all()

    async def until(self, condition, what):
        try:
            async with asyncio.timeout(PATIENCE), self.changed:
                await self.changed.wait_for(condition)
        except TimeoutError:
            sys.exit(f"timed out: {what}")

    def _answered(self, name, before, final):
        return self.updates[name] > before and self[self.device][name].state in final

    async def drive(self, plan):
        answers = []
        for name, wanted, final in plan:
            await self.until(lambda name=name: name in self.get(self.device, {}), f"{name} defined")
            vector = self[self.device][name]
            if name == "CCD_EXPOSURE":
                await self.send_enableBLOB("Also", self.device)
            before, self.pictures = self.updates[name], 0
            await self.send_newVector(self.device, name, members=wanted)
            await self.until(partial(self._answered, name, before, final), f"{name}: {wanted}")
            if name == "CCD_EXPOSURE":
                await self.until(lambda: self.pictures, "the picture")
            answers.append([name, vector.state, self.pictures])
        values = {name: dict(vector) for name, vector in self[self.device].items() if vector.enable}
        values.pop("CCD1", None)
        self.shutdown()
        return answers, values


async def main():
    plan = json.load(sys.stdin)
    client = Client(int(sys.argv[1]), sys.argv[2])
    running = asyncio.create_task(client.asyncrun())
    print(json.dumps(await client.drive(plan)))
    await running


asyncio.run(main())
