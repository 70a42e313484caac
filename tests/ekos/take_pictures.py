# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takes the pictures of docs/howto-ekos.md anew, from the project's folder:

apt-get install kstars dbus libglib2.0-bin xvfb imagemagick xdotool breeze-icon-theme
.venv/bin/python -m tests.ekos.take_pictures docs/pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.ekos.desktop import SERVICE, Desktop, wait_until
from tests.ekos.ekos import JOB_LIMIT, Ekos
from tests.ekos.observatory import Camera
from tests.ekos.sequence import Job
from tests.support.rig import DEVICE, under_indiserver

MODEL = "683wsg"
COLOURS = 96  # are enough for windows and grey stars, and make small files
CAPTURE_TAB = (270, 33)  # where the module's tab is in Ekos' window
AWAY = ("1900", "1600")  # for the mouse pointer
DRAWN = 5.0  # s in which a window surely is drawn; nothing tells

STARS = Job(exposure=20, frame=(1100, 900, 900, 600), temperature=-10)
SERIES = Job(exposure=8, count=3)


class Photographer:
    """Of windows on a desktop without a window manager."""

    def __init__(self, desktop: Desktop, folder: Path) -> None:
        self._desktop = desktop
        self._folder = folder

    def run(self, *command: str) -> str:
        result = subprocess.run(
            command, env=self._desktop.environ, capture_output=True, text=True, check=True
        )
        return result.stdout

    def open(self, action: str) -> None:
        """By an action of KStars' menus."""
        command = ["gdbus", "call", "--session", "-d", SERVICE, "-o", "/kstars/MainWindow_1", "-m"]
        self.run(*command, "org.kde.KMainWindow.activateAction", action)

    def window(self, title: str, x: int, y: int, width: int, height: int) -> str:
        """Brings a window to the front, in this place."""

        def find() -> list[str]:
            search = ["xdotool", "search", "--onlyvisible", "--name", title]
            found = subprocess.run(search, env=self._desktop.environ, capture_output=True, text=True)
            return found.stdout.split()

        window = wait_until(find, f"there is a window {title}", JOB_LIMIT)[0]
        self.run("xdotool", "windowsize", "--sync", window, str(width), str(height))
        self.run("xdotool", "windowmove", window, str(x), str(y), "windowraise", window)
        return window

    def click(self, window: str, at: tuple[int, int]) -> None:
        self.run("xdotool", "mousemove", "--window", window, str(at[0]), str(at[1]), "click", "1")

    def take(self, window: str, name: str) -> None:
        self.run("xdotool", "mousemove", *AWAY, "sleep", str(DRAWN))
        options = ["+dither", "-colors", str(COLOURS), "-strip"]
        self.run("import", "-window", window, *options, f"PNG8:{self._folder / name}")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        desk = home / "desktop"
        desk.mkdir()
        with (
            Camera(home, MODEL) as camera,
            under_indiserver(home, camera.environ) as server,
            Desktop(desk, screen=True) as desktop,
        ):
            ekos = Ekos(desktop, server.port, DEVICE, viewer=True)
            ekos.start()
            _take_all(ekos, camera, Photographer(desktop, folder))


def _take_all(ekos: Ekos, camera: Camera, photographer: Photographer) -> None:
    # Each window has its own place, because the viewer comes to the front with every frame.
    photographer.open("show_ekos")
    modules = photographer.window("^Ekos", 0, 0, 1060, 800)
    photographer.open("indi_cpl")
    panel = photographer.window("INDI Control Panel", 0, 800, 1000, 760)

    ekos.begin(STARS)
    ekos.wait(lambda: ekos.switch("CCD_COOLER", "COOLER_ON") == "On", "the cooler is on", JOB_LIMIT)
    camera.cool_down()
    ekos.wait(lambda: ekos.state("CCD_EXPOSURE") == "Busy", "the exposure runs", JOB_LIMIT)
    photographer.take(panel, "ekos-control-panel.png")
    ekos.wait_complete(STARS)
    photographer.take(photographer.window("FITS Viewer", 1060, 0, 960, 780), "ekos-fits-viewer.png")

    photographer.click(modules, CAPTURE_TAB)
    folder = ekos.begin(SERIES)
    ekos.wait(lambda: ekos.files(folder), "the first frame is written", JOB_LIMIT)
    photographer.take(modules, "ekos-capture.png")
    ekos.wait_complete(SERIES)


if __name__ == "__main__":
    main()
