# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other programs, asked with a time limit."""

from __future__ import annotations

import os
import subprocess

# They answer in a tenth of a second; a machine that swaps takes longer, one that hangs is not waited for.
TIME_LIMIT = 5.0  # s


def ask(*command: str, seconds: float = TIME_LIMIT) -> str | None:
    """What it prints, both streams; None when it is missing, fails to start or takes too long.

    The exit status is not looked at: some of these tell usage and version with a failure.
    """
    environ = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            timeout=seconds,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode("utf-8", "replace")


def assignments(text: str) -> dict[str, str]:
    """KEY=VALUE lines, as many programs print them."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}
