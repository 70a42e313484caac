# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user would click in KStars before the first night: its settings, and a profile for one camera."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

# Of mode Remote. For a local one KStars starts indiserver itself, and before that it ends every other indiserver of
# this machine (pkill) unless somebody says no: also those of other tests.
PROFILE = "tests"
NONE = "--"  # KStars' word for "no such device"
MODULES = 7  # of Ekos, which each remember an optical train
TELESCOPE = "Sample Primary 700@F/5.8"  # comes with KStars
MAX_TEMPERATURE_DIFFERENCE = 0.5  # K; nearer than this to the wanted temperature, Ekos starts to expose

# The dialogs that would wait for somebody are switched off: the wizard and the tip of the day at the start,
# the question whether this camera has a shutter before its first dark, a minute to cover the telescope before
# a flat. Loading the configuration at connect is on, as it is by default.
SETTINGS = """\
[GUI]
RunStartupWizard=false

[TipOfDay]
RunOnStart=false

[indi]
showINDIMessages=false
messageNotificationINDI=false
useTimeUpdate=false
useGeographicUpdate=false

[Ekos]
AutoStartEkosLive=false
neverLoadConfig=false
loadConfigOnConnection=true
autoLoadSerialAssistant=false

[DarkLibrary]
shutterfulCCDs={device}

[Capture]
CaptureDirectory={pictures}
AlwaysResetSequenceWhenStarting=true
ManualCoverTimeout=1
MaxTemperatureDiff={difference}

[FITSViewer]
useFITSViewer={viewer}
AutoHFR=false
AutoWCS=false
"""

NO_WALLET = """\
[Wallet]
Enabled=false
First Use=false
"""


def write_settings(config: Path, device: str, pictures: Path, viewer: bool = False) -> None:
    text = SETTINGS.format(
        device=device,
        pictures=pictures,
        difference=MAX_TEMPERATURE_DIFFERENCE,
        viewer=str(viewer).lower(),
    )
    (config / "kstarsrc").write_text(text)
    (config / "kwalletrc").write_text(NO_WALLET)


def database(data: Path) -> Path:
    """Where KStars keeps profiles; it makes the file at its first start."""
    return data / "kstars" / "userdb.sqlite"


def write_profile(file: Path, port: int, device: str) -> None:
    """A remote profile named `PROFILE` whose camera and filter wheel is this device."""
    with closing(sqlite3.connect(file)) as connection, connection:
        profile = _insert(
            connection,
            "profile",
            name=PROFILE,
            host="localhost",
            port=port,
            autoconnect=1,
            guidertype=0,
            indihub=0,
            portselector=0,
        )
        _insert(connection, "driver", label=device, role="CCD", profile=profile)
        others = dict.fromkeys(("mount", "dustcap", "lightbox", "rotator", "focuser", "guider"), NONE)
        train = _insert(
            connection,
            "opticaltrains",
            profile=profile,
            name="Primary",
            scope=TELESCOPE,
            reducer=1.0,
            camera=device,
            filterwheel=device,
            **others,
        )
        # Without these the modules have no camera.
        trains = json.dumps({str(module): train for module in range(MODULES)})
        _insert(connection, "profilesettings", profile=profile, settings=trains)
        _insert(connection, "opticaltrainsettings", opticaltrain=train, settings="{}")


def _insert(connection: sqlite3.Connection, table: str, **values: str | float | None) -> int:
    columns, marks = ",".join(values), ",".join("?" * len(values))
    cursor = connection.execute(f"insert into {table}({columns}) values({marks})", list(values.values()))
    assert cursor.lastrowid is not None
    return cursor.lastrowid
