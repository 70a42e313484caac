# SPDX-License-Identifier: LGPL-2.1-or-later
"""The virtual machines' disks: made once, and kept outside the project for as long as their recipe stays."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RECIPE = Path(__file__).with_name("make-image")
MAKING = 1800.0  # s: a minute here; many more for a foreign architecture on a busy machine


@dataclass(frozen=True)
class Image:
    disk: Path
    kernel: Path
    initrd: Path


def image(architecture: str) -> Image:
    """The image by this recipe; makes it, as root or by sudo, when it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "indi-qsi-vm"
    recipe = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:16]
    folder = cache / f"{architecture}-{recipe}"
    if not folder.is_dir():
        for older in cache.glob(f"{architecture}-*"):
            shutil.rmtree(older)
        _make(architecture, folder)
    return Image(folder / "disk", folder / "kernel", folder / "initrd")


def _make(architecture: str, folder: Path) -> None:
    """Under another name until it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f"half-made-{folder.name}")
    shutil.rmtree(half, ignore_errors=True)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*as_root, str(RECIPE), architecture, str(half)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKING)
    if result.returncode != 0:
        sys.stderr.write(result.stdout + result.stderr)
        raise RuntimeError(f"{RECIPE.name} failed with status {result.returncode}; above is what it said")
    half.rename(folder)
