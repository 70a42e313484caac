# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that change a camera for good never leave, whatever is called.

Every public callable of a camera, and of what hangs on it, is called on every model; one that is new must be
added to `ARGUMENTS`, or the test fails.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.bench import Bench, bench
from usbproto import packets as p
from usbproto.camera import Exposure
from usbproto.errors import QsiError
from usbproto.packets import HEADER_BYTES
from usbproto.relays import Direction
from usbproto.settings import GainChoice
from usbproto.simulator.bodies import list_models
from usbproto.timing import TIMINGS

ROOT = Path(__file__).parents[2]
FORBIDDEN = {0x21, 0x22, 0x61, 0x64}


def exposures(b: Bench) -> list[tuple[Any, ...]]:
    shapes = [b.window(), b.window(binning=2), b.window(8, 8, 100, 50)]
    return [(Exposure(seconds, g, light),) for g in shapes for seconds, light in ((0.1, True), (0.0, False))]


def buffers(b: Bench) -> list[tuple[Any, ...]]:
    """For the image that is ready, and for none."""
    geometry = b.window()
    b.camera.start_exposure(Exposure(0.1, geometry))
    b.time.advance(10.0)
    return [(memoryview(bytearray(geometry.bytes)),)] * 2


def hsr_exposures(b: Bench) -> list[tuple[Any, ...]]:
    return [(exposure, memoryview(bytearray(exposure.geometry.bytes))) for (exposure,) in exposures(b)]


def each(*values: Any) -> Callable[[Bench], list[tuple[Any, ...]]]:
    return lambda b: [(value,) for value in values]


def no_arguments(b: Bench) -> list[tuple[Any, ...]]:
    return [()]


SWITCH = each(True, False)

ARGUMENTS: dict[str, Callable[[Bench], list[tuple[Any, ...]]]] = {
    "Camera.abort_exposure": no_arguments,
    "Camera.apply_settings": lambda b: [(b.camera.settings,)],
    "Camera.check_exposure": each(0, 1.0, -1.0),
    "Camera.choose_gain": each(*GainChoice),
    "Camera.cool_to": each(-10.0, 0x21, 0x61, 200.0),
    "Camera.cooler_off": no_arguments,
    "Camera.default_gain": no_arguments,
    "Camera.initialise": no_arguments,
    "Camera.trust": no_arguments,
    "Camera.expose_hsr": hsr_exposures,
    "Camera.image_ready": no_arguments,
    "Camera.last_exposure_time": no_arguments,
    "Camera.read_image": buffers,
    "Camera.set_point": no_arguments,
    "Camera.settle_gain": lambda b: [(b.window(),), (b.window(binning=2),)],
    "Camera.set_trigger": each(*p.TriggerMode, p.TriggerMode.OFF),
    "Camera.shutter_state": no_arguments,
    "Camera.start_exposure": exposures,
    "Camera.state": no_arguments,
    "Camera.temperatures": no_arguments,
    "Camera.test_link": each(1, 0x21, 0x22, 0x61, 0x64, 124, 0),
    "Camera.optional": lambda b: [("the state", b.camera.state, None)],
    "Camera.use_timing": each(*TIMINGS.values()),
    "Camera.wait_for_idle": no_arguments,
    "Camera.warm_up": no_arguments,
    "FilterWheel.has_trims": no_arguments,
    "FilterWheel.move": lambda b: [(0,), (4,), (1, 5), (2, -0x61), (0x21,), (-1,), (1, 1 << 20)],
    "FilterWheel.moving": no_arguments,
    "FilterWheel.position": no_arguments,
    "Relays.done": no_arguments,
    "Relays.pulse": lambda b: [(d, s) for d in Direction for s in (0.33, 0.97, 50.0, 0.0, 99.0)],
    "Relays.stop": no_arguments,
    "AltModes.host_timed": SWITCH,
    "AltModes.manual_shutter": SWITCH,
    "AltModes.move_shutter": SWITCH,
    "AltModes.read": no_arguments,
    "AltModes.shutter_output": SWITCH,
    # They ask nothing of the camera.
    "Session.failed": lambda b: [("timeout", "silence")],
    "Session.link_error": each("noise"),
    "Session.odd": lambda b: [("key", "text")],
    "Array.check_binning": lambda b: [(1, 1), (0, 9)],
    "Array.fit": lambda b: [(0, 0, 8, 8), (0, 0, 0, 0)],
}
LAST = ("Camera.close",)


def parts(b: Bench) -> Iterator[Any]:
    """The camera, and every object of this package that hangs on it."""
    yield b.camera
    for name in dir(b.camera):
        if not name.startswith("_"):
            part = getattr(b.camera, name)
            ours = type(part).__module__.startswith("usbproto") and not inspect.isroutine(part)
            if ours and not isinstance(part, p.Payload):  # a value: it knows no camera
                yield part


def methods(part: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, _ in inspect.getmembers(type(part), inspect.isfunction):
        if not name.startswith("_"):
            yield f"{type(part).__name__}.{name}", getattr(part, name)


def callables(b: Bench) -> dict[str, Callable[..., Any]]:
    return {name: method for part in parts(b) for name, method in methods(part) if name not in LAST}


@pytest.mark.parametrize("model", list_models())
def test_nothing_sends_a_command_that_changes_a_camera_for_good(model: str) -> None:
    with bench(model) as b:
        for name, method in callables(b).items():
            for arguments in ARGUMENTS[name](b) if name in ARGUMENTS else []:
                # Refused by us or by the camera, the next call must work all the same.
                with contextlib.suppress(QsiError):
                    method(*arguments)
                b.time.advance(0.01)
            b.camera.abort_exposure()
        b.camera.close()
        sent = b.channel.sent
    assert len(sent) > 100
    for packet in sent:
        assert packet[0] not in FORBIDDEN
        assert packet[0] in p.COMMANDS
        # One packet and nothing behind it: what a camera would take for the next command.
        assert len(packet) == HEADER_BYTES + packet[1]


def test_every_public_callable_was_called() -> None:
    with bench("690wsg") as b:
        assert sorted(callables(b)) == sorted(ARGUMENTS), "say in ARGUMENTS how to call what is new"


# --- the source ---


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in ("usbproto", "indi_qsi"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not name.startswith("usbproto.simulator"):
                yield name, ast.parse(path.read_text())


def test_only_the_table_makes_commands() -> None:
    makers = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Command"
    }
    assert makers == {"usbproto.packets"}


def test_only_the_link_encodes_requests() -> None:
    users = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute | ast.alias)
        and "encode_request"
        in (getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", ""))
    }
    assert users == {"usbproto.link"}


def test_the_indi_layer_has_no_way_around_the_camera() -> None:
    """It may import values and the typed API, but neither the link nor the channel nor USB itself."""
    barred = ["usb", "usbproto.link", "usbproto.ftdi", "usbproto.packets.Command"]
    barred += ["usbproto.packets.encode_request", "usbproto.packets.COMMANDS"]
    for name, tree in sources():
        if not name.startswith("indi_qsi"):
            continue
        for node in ast.walk(tree):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            for what in imported:
                assert not any(what == bar or what.startswith(f"{bar}.") for bar in barred), (name, what)
        reached = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert "_link" not in reached or name.startswith("indi_qsi.links"), name
        assert "_channel" not in reached, name


def test_the_walk_would_see_a_forbidden_packet() -> None:
    with bench() as b:
        b.channel.write(bytes.fromhex("6400"))
        assert b.channel.sent[-1][0] in FORBIDDEN
        assert b.events("ignored")[-1]["code"] == 0x64
