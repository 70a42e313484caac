# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two of everything: servers on one port, and a look at the bus while the camera is ours already."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.indi import PATIENCE, eventually
from tests.support.rig import PROGRAMS, IndiClient, Sim, stand_alone


def test_two_servers_on_one_port(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        command = [str(PROGRAMS / "indi-qsi"), "serve", "--listen", server.address]
        late = subprocess.run(
            command, env=server.environ, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        assert late.returncode == 1
        assert server.address in late.stderr and "Traceback" not in late.stderr
        with IndiClient(server.address) as client:  # the first one does not mind
            client.connect_camera()
            client.expose(0.1)
            client.picture()


def test_our_own_camera_is_not_in_use_by_another_program(tmp_path: Path) -> None:
    """It is opened before the first look at the bus."""
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            eventually(lambda: "there is a camera 00683001" in server.log, "the bus is looked at")
            assert "in use by another program" not in server.log
