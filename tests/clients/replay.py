# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replays a recorded client session: each message at its turn, which is after the answer its client waits for.

What the clients wait for is not in the recordings; it is what they are known to do:

- all of them go on from getProperties when the definitions are there, and from CONNECT when CCD1 and
  CCD_EXPOSURE are defined; but Ekos sends CONFIG_PROCESS at once, while the camera is being connected;
- Ekos opens a connection for each BLOB when it is defined;
- binning, frame, formats, frame type and exposure go out in one burst;
- the next burst, and a guide pulse, wait for the picture and for CCD_EXPOSURE to leave Busy;
- after a guide pulse, PHD2 waits without a limit for an update of that vector which is not Busy;
- a temperature is waited for until it is within 1 K; the first update is not looked at.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.clients.bench import GUIDE, Witness, number
from tests.clients.sessions import Sent
from tests.support.indi import eventually, values
from tests.support.rig import opened

# Sent before the camera is there.
EARLY = ("CONNECTION", "CONFIG_PROCESS")
# The first messages of a burst or of a step that waits for what was asked before.
TURNS = ("CCD_BINNING", "CCD_FRAME", "CCD_CAPTURE_FORMAT", "CCD_EXPOSURE", *GUIDE)
TEMPERATURE_REACHED = 1.0  # K


@dataclass
class Pending:
    """A request whose answer is waited for before the client goes on."""

    sent: Sent
    client: Witness
    mark: int
    at: float  # monotonic


@dataclass
class Replay:
    """`address` of a server with our driver, `ekos` which way the client opens connections."""

    session: list[Sent]
    address: str
    ekos: bool = False
    clients: dict[str, Witness] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    answered: int = 0
    pictures: int = 0

    def run(self) -> None:
        try:
            for sent in self.session:
                if sent.element is None:
                    self._settle()
                    continue
                client = self._wait_for_turn(sent)
                mark, at = client.mark, time.monotonic()
                client.send(sent.text + "\n")
                if sent.tag.startswith("new"):
                    self.pending.append(Pending(sent, client, mark, at))
            self._settle()
            self._check_totals()
        finally:
            for client in self.clients.values():
                client.close()

    # --- turns ---

    def _wait_for_turn(self, sent: Sent) -> Witness:
        if sent.connection not in self.clients:
            if self.ekos and self.clients:
                eventually(lambda: self.clients["C1"].after(0, "CCD1", "def"), "CCD1 is defined")
            self.clients[sent.connection] = Witness(self.address)
            return self.clients[sent.connection]
        client = self.clients[sent.connection]
        if sent.device is not None:
            self._defined(client, "DRIVER_INFO", sent.device)
        if (
            sent.device is not None
            and sent.vector
            and sent.tag.startswith("new")
            and sent.vector not in EARLY
        ):
            self._defined(client, sent.vector, sent.device)
            if sent.vector in TURNS and not self._in_burst():
                self._settle()
        return client

    @staticmethod
    def _defined(client: Witness, vector: str, device: str) -> None:
        eventually(lambda: client.after(0, vector, "def", device), f"{vector} of {device} is defined")

    def _in_burst(self) -> bool:
        """Whether the last message was part of the same step, so that no answer was waited for."""
        last = self.pending[-1].sent.vector if self.pending else None
        return last not in (None, "CCD_EXPOSURE", "CCD_TEMPERATURE", *GUIDE)

    def _settle(self) -> None:
        """Waits for all answers and looks at them."""
        for position, pending in enumerate(self.pending):
            if pending.sent.vector == "CCD_EXPOSURE":
                self._check_picture(pending, self.pending[:position])
            else:
                CHECKS.get(pending.sent.vector or "", _simple)(pending)
            self.answered += 1
        self.pending.clear()

    # --- exposures ---

    def _check_picture(self, pending: Pending, burst: list[Pending]) -> None:
        """Busy, picture, Ok, in this order and each once; what was asked before it was answered before."""
        client, mark = pending.client, pending.mark
        done = client.answer(mark, "CCD_EXPOSURE")
        assert done.get("state") == "Ok", ET.tostring(done)
        updates = client.after(mark, "CCD_EXPOSURE")
        assert [m.get("state") for m in updates] == ["Busy"] * (len(updates) - 1) + ["Ok"]
        assert number(updates[0]) == float(pending.sent.values["CCD_EXPOSURE_VALUE"])
        assert number(done) == 0
        for before in burst:
            if before.client is client and before.sent.vector not in ("CCD_TEMPERATURE", *GUIDE):
                order = client.after(before.mark)
                answers = [m for m in order if m.get("name") == before.sent.vector]
                assert answers and order.index(answers[0]) < order.index(updates[0]), before.sent.text
        self.pictures += 1
        receivers = eventually(
            lambda: [c for c in self.clients.values() if len(c.blobs) == self.pictures], "a picture comes"
        )
        for receiver in receivers:
            (blob,) = receiver.after(0, "CCD1", "setBLOB")[self.pictures - 1 :]
            assert blob[0].attrib["name"] == "CCD1" and blob[0].attrib["format"] == ".fits"
            assert int(blob[0].attrib["size"]) == len(receiver.blobs[-1])
            if receiver is client:
                assert client.after(mark).index(blob) < client.after(mark).index(done)
        # Clients copy as many pixels as they asked for.
        frame, binning = client.latest("CCD_FRAME"), client.latest("CCD_BINNING")
        height = int(float(frame["HEIGHT"]) // float(binning["VER_BIN"]))
        width = int(float(frame["WIDTH"]) // float(binning["HOR_BIN"]))
        assert opened(receivers[0].blobs[-1])[1].shape == (height, width)

    def _check_totals(self) -> None:
        """Nothing came that was not asked for."""
        for client in self.clients.values():
            assert len(client.blobs) in (0, self.pictures)
            ends = [m.get("state") for m in client.after(0, "CCD_EXPOSURE") if m.get("state") != "Busy"]
            assert ends in ([], ["Ok"] * self.pictures)
            for device in {sent.device for sent in self.session if sent.device}:
                for vector in GUIDE:
                    asked = sum((sent.device, sent.vector) == (device, vector) for sent in self.session)
                    states = [m.get("state") for m in client.after(0, vector, device=device)]
                    assert states in ([], ["Busy", "Idle"] * asked), (device, vector)
            assert not client.after(0, "CCD_ABORT_EXPOSURE")
            assert not client.after(0, tag="delProperty")
            assert not [m for m in client.after(0) if m.get("state") == "Alert"]


# --- what each request waits for ---


def _simple(pending: Pending) -> None:
    """Ok, with the values that were asked for."""
    answer = pending.client.answer(pending.mark, pending.sent.vector or "")
    assert answer.get("state") == "Ok", ET.tostring(answer)
    now = values(answer)
    for name, text in pending.sent.values.items():
        same = now[name] == text if text in ("On", "Off") else float(now[name]) == float(text)
        assert same, (pending.sent.text, now)


def _connected(pending: Pending) -> None:
    """CONNECT is Off until the camera is there; then Ok, then all definitions."""
    answer = pending.client.answer(pending.mark, "CONNECTION")
    assert (answer.get("state"), values(answer)["CONNECT"]) == ("Ok", "On")
    for update in pending.client.after(pending.mark, "CONNECTION"):
        assert (values(update)["CONNECT"] == "On") == (update.get("state") == "Ok")


def _config(pending: Pending) -> None:
    answer = pending.client.answer(pending.mark, "CONFIG_PROCESS")
    assert answer.get("state") == "Ok"
    assert set(values(answer).values()) == {"Off"}


def _pulse(pending: Pending) -> None:
    """Busy at once, then one update that is not, not before the pulse is over."""
    client, vector, device = pending.client, pending.sent.vector or "", pending.sent.device or ""
    seconds = max(float(value) for value in pending.sent.values.values()) / 1000
    done = client.answer(pending.mark, vector, device=device)
    updates = client.after(pending.mark, vector, device=device)
    assert [m.get("state") for m in updates] == ["Busy", "Idle"]
    assert client.when(done) - pending.at >= seconds - 0.02  # two units of the camera's timer


def _temperature(pending: Pending) -> None:
    """An update at once, and more of them until it is there."""
    client, mark = pending.client, pending.mark
    target = number(pending.sent.element) if pending.sent.element is not None else 0.0
    first = client.answer(mark, "CCD_TEMPERATURE", "Busy", "Ok")
    eventually(
        lambda: any(
            abs(number(m) - target) <= TEMPERATURE_REACHED
            for m in client.after(mark, "CCD_TEMPERATURE")
            if m is not first
        ),
        f"the CCD gets to {target} C",
        timeout=60.0,
    )


CHECKS: dict[str, Callable[[Pending], None]] = {
    "CONNECTION": _connected,
    "CONFIG_PROCESS": _config,
    "CCD_TEMPERATURE": _temperature,
    **dict.fromkeys(GUIDE, _pulse),
}
