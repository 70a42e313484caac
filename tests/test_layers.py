# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arrows between the rooms of docs/architecture.md go only downwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Prefix of a module -> what it may import, of our own packages and of those that are watched.
WATCHED = ("usbproto", "indi_qsi", "qsi_tools", "usb", "astropy", "numpy", "systemd")
ALLOWED: dict[str, tuple[str, ...]] = {
    "usbproto.errors": (),
    "usbproto.deadline": ("usbproto.errors",),
    "usbproto.timing": (),
    "usbproto.usbfs": (),
    "usbproto.models": (),
    "usbproto.packets": ("usbproto.errors",),
    "usbproto.frames": ("usbproto.errors", "usbproto.models", "numpy"),
    "usbproto.ftdi": (
        *("usbproto.errors", "usbproto.models", "usbproto.deadline", "usbproto.usbfs", "usbproto.timing"),
        *("numpy", "usb"),
    ),
    "usbproto.exchanges": ("usbproto.packets",),
    "usbproto.session": ("usbproto.deadline", "usbproto.flight", "usbproto.timing"),
    "usbproto.link": (
        *("usbproto.errors", "usbproto.exchanges", "usbproto.packets", "usbproto.deadline"),
        *("usbproto.session", "usbproto.timing"),
    ),
    "usbproto.stream": ("usbproto.packets",),
    "usbproto.recording": ("usbproto.models", "usbproto.packets"),
    "usbproto.recording_usb": ("usbproto.recording", "usbproto.models", "usbproto.stream", "usb"),
    "usbproto.captures": (
        *("usbproto.captures", "usbproto.recording", "usbproto.stream"),
        *("usbproto.models", "usbproto.packets"),
    ),
    "usbproto.hiding": ("usbproto.recording", "usbproto.models", "usbproto.packets"),
    "usbproto.flight": ("usbproto.hiding",),
    "usbproto.flightfiles": ("usbproto.flight", "usbproto.recording", "usbproto.deadline"),
    "usbproto.showing": ("usbproto.flight", "usbproto.recording", "usbproto.packets", "usbproto.errors"),
    "usbproto.simulator": ("usbproto", "usb", "numpy"),
    "usbproto": ("usbproto", "numpy"),
    "indi_qsi.wire": ("indi_qsi.wire",),
    "indi_qsi.storage": (),
    "indi_qsi.properties": ("indi_qsi.properties", "indi_qsi.wire", "indi_qsi.storage"),
    "indi_qsi.links": ("indi_qsi.links", "indi_qsi.properties", "indi_qsi.wire"),
    "indi_qsi.fits": ("usbproto.frames", "numpy", "astropy"),
    "indi_qsi.bus": ("usbproto",),
    "indi_qsi.service": ("indi_qsi", "systemd"),
    "indi_qsi.journal": ("indi_qsi", "systemd"),
    "indi_qsi": ("indi_qsi", "usbproto", "astropy"),
    "qsi_tools": ("qsi_tools", "usbproto", "indi_qsi.wire", "indi_qsi.version", "astropy", "numpy"),
    # The doctor looks where the driver looks (bus), and for the rules that were installed (udevrules).
    "qsi_tools.doctor": (
        *("qsi_tools.doctor", "usbproto", "indi_qsi.wire", "indi_qsi.version"),
        *("indi_qsi.bus", "indi_qsi.udevrules", "qsi_tools.indi", "qsi_tools.output"),
    ),
    "qsi_tools.firmware": (
        *("qsi_tools.firmware", "qsi_tools.output", "usbproto"),
        *("indi_qsi.version", "indi_qsi.bus"),
    ),
}
# Where the packages that are installed lie.
PACKAGES = {"usbproto": ROOT, "indi_qsi": ROOT, "qsi_tools": ROOT / "tools"}
# Only the choice of the USB may make a simulated camera; a replay asks it how far it has come.
MAY_SIMULATE = ("usbproto.simulator", "indi_qsi.bus", "indi_qsi.replay")


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[str]:
    """The full names of everything that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_go_downwards(module: str, path: Path) -> None:
    room = max((room for room in ALLOWED if under(module, room)), key=len)
    for name in imports(path):
        if name.split(".")[0] not in WATCHED:
            continue
        assert any(under(name, allowed) for allowed in ALLOWED[room]), f"{module} imports {name}"
        if under(name, "usbproto.simulator"):
            assert any(under(module, user) for user in MAY_SIMULATE), f"{module} imports {name}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    culprit = tmp_path / "culprit.py"
    culprit.write_text("def f():\n    from indi_qsi.device import device\n")
    assert list(imports(culprit)) == ["indi_qsi.device.device"]
    assert not any(under("indi_qsi.device.device", allowed) for allowed in ALLOWED["usbproto"])
