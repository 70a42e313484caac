# SPDX-License-Identifier: LGPL-2.1-or-later
"""The config file: libindi's place and format, and what happens to bad ones."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from indi_qsi.properties import (
    Device,
    Hub,
    NumberElement,
    NumberVector,
    Permission,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
)
from indi_qsi.properties import config as config_module
from indi_qsi.properties.config import MAX_BROKEN, MAX_FILE, Config, ConfigError
from indi_qsi.wire.messages import Kind, NewVector
from tests.support.indi import RecordingLink
from tests.support.saving import PATIENCE

ONE = NewVector(Kind.NUMBER, "QSI CCD", "N", (("A", "1.5"), ("B", "2.0")))
TWO = NewVector(Kind.TEXT, "QSI CCD", "T", (("A", "Hα <&> 'x'"),))

# As libindi writes it.
FOREIGN = """<INDIDriver>
<newSwitchVector device='QSI CCD' name='UPLOAD_MODE'>
  <oneSwitch name='UPLOAD_CLIENT'>
      On
  </oneSwitch>
  <oneSwitch name='UPLOAD_LOCAL'>
      Off
  </oneSwitch>
</newSwitchVector>
<newNumberVector device='QSI CCD' name='POLLING_PERIOD'>
  <oneNumber name='PERIOD_MS'>
      1000
  </oneNumber>
</newNumberVector>
</INDIDriver>
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config("QSI CCD", {"HOME": str(tmp_path)})


def test_places(tmp_path: Path, config: Config) -> None:
    assert config.path == tmp_path / ".indi" / "QSI CCD_config.xml"
    given = tmp_path / "elsewhere.xml"
    assert Config("QSI CCD", {"HOME": "/", "INDICONFIG": str(given)}).path == given
    assert Config("../../etc/x", {"HOME": str(tmp_path)}).path.parent == tmp_path / ".indi"


def test_save_and_load(config: Config) -> None:
    assert config.load() == []
    config.save([ONE, TWO])
    assert config.load() == [ONE, TWO]
    assert [path.name for path in config.path.parent.iterdir() if "tmp" in path.name] == []


def test_a_file_of_the_c_library_is_read(config: Config) -> None:
    config.path.parent.mkdir()
    config.path.write_text(FOREIGN)
    mode, polling = config.load()
    assert mode.values == (("UPLOAD_CLIENT", "On"), ("UPLOAD_LOCAL", "Off"))
    assert polling == NewVector(Kind.NUMBER, "QSI CCD", "POLLING_PERIOD", (("PERIOD_MS", "1000"),))


@pytest.mark.parametrize("empty", ["<INDIDriver/>", "<INDIDriver>\n</INDIDriver>\n"])
def test_an_empty_file_is_no_broken_file(config: Config, empty: str) -> None:
    config.path.parent.mkdir()
    config.path.write_text("<?xml version='1.0'?>\n" + empty)
    assert config.load() == []
    assert config.path.exists()


def test_update_replaces_or_appends(config: Config) -> None:
    config.save([ONE])
    changed = NewVector(Kind.NUMBER, "QSI CCD", "N", (("A", "9.0"), ("B", "2.0")))
    config.update([changed, TWO])
    assert config.load() == [changed, TWO]


def test_the_default_is_the_first_config_there_was(config: Config) -> None:
    assert config.load_default() == []
    config.save([ONE])
    config.save([TWO])
    assert config.load() == [TWO]
    assert config.load_default() == [ONE]
    config.purge()
    assert config.load() == []
    assert config.load_default() == [ONE]
    with pytest.raises(ConfigError, match="cannot delete"):
        config.purge()


def test_loading_makes_the_default_too(config: Config) -> None:
    config.path.parent.mkdir()
    config.path.write_text(FOREIGN)
    config.load()
    assert config.default_path.read_text() == FOREIGN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        FOREIGN[:300].encode(),
        FOREIGN.replace("</oneNumber>", "").encode(),
        FOREIGN.replace("1000", "<!ENTITY x>").encode(),
        b"x" * (MAX_FILE + 1),
    ],
)
def test_a_broken_file_is_set_aside(config: Config, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    config.path.parent.mkdir()
    config.path.write_bytes(data)
    assert config.load() == []
    assert not config.path.exists()
    aside = config.path.with_name(config.path.name + ".broken-1")
    assert aside.read_bytes() == data
    assert aside.name in caplog.text
    config.save([ONE])
    assert config.load() == [ONE]


def test_what_a_later_version_wrote_is_loaded_as_far_as_it_is_known(config: Config) -> None:
    later = FOREIGN.replace("newSwitchVector", "newLaterVector")
    config.path.parent.mkdir()
    config.path.write_text(later)
    loaded = config.load()
    assert [request.name for request in loaded] == ["POLLING_PERIOD"]
    config.save(loaded)
    beside = config.path.with_name(config.path.name + ".later")
    assert beside.read_text() == later
    config.path.write_text(later + " ")
    config.load()
    assert beside.read_text() == later  # the first one stays


@pytest.mark.parametrize("size", [MAX_FILE - 1, MAX_FILE, MAX_FILE + 1])
def test_the_largest_file(config: Config, size: int) -> None:
    config.path.parent.mkdir()
    config.path.write_text(FOREIGN.ljust(size))
    assert bool(config.load()) == (size <= MAX_FILE)


def test_broken_files_do_not_pile_up(config: Config) -> None:
    config.path.parent.mkdir()
    for number in range(MAX_BROKEN + 3):
        config.path.write_text(f"broken {number}")
        config.load()
    kept = sorted(path.read_text() for path in config.path.parent.glob("*.broken-*"))
    assert len(kept) == MAX_BROKEN
    assert f"broken {MAX_BROKEN + 2}" in kept


def test_a_crash_while_saving_leaves_the_old_file(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.save([ONE])

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_module.os, "fsync", fail)
    with pytest.raises(ConfigError, match="No space left"):
        config.save([TWO])
    monkeypatch.undo()
    assert config.load() == [ONE]
    assert [path.name for path in config.path.parent.iterdir() if path.name.endswith("tmp")] == []


def test_a_file_of_root_is_left_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.save([ONE])
    if config.path.stat().st_uid != 0:
        pytest.skip("needs a file of root")
    monkeypatch.setattr(config_module.os, "geteuid", lambda: 1000)
    for action in (config.load, config.purge, lambda: config.save([TWO])):
        with pytest.raises(ConfigError, match="sudo chown 1000"):
            action()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".indi").write_text("a file")
    config = Config("QSI CCD", {"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="cannot save"):
        config.save([ONE])


# --- several programs, and what is not a file ---

UPDATES = """
import sys
from indi_qsi.properties.config import Config
from indi_qsi.wire.messages import Kind, NewVector
config = Config("QSI CCD")
for number in range(80):
    name = f"{sys.argv[1]}_{number}"
    config.update([NewVector(Kind.NUMBER, "QSI CCD", name, (("A", "1"),))])
    assert name in [request.name for request in config.load()]
"""


def test_two_processes_that_update_at_once_lose_nothing(tmp_path: Path) -> None:
    """One has a link to the file of the other."""
    path, link = tmp_path / "config.xml", tmp_path / "link.xml"
    link.symlink_to(path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPDATES, name],
            env={**os.environ, "INDICONFIG": str(given)},
            stderr=subprocess.PIPE,
        )
        for name, given in (("ONE", path), ("TWO", link))
    ]
    for process in processes:
        assert process.communicate(timeout=PATIENCE) == (None, b"")
        assert process.returncode == 0
    saved = {request.name for request in Config("QSI CCD", {"INDICONFIG": str(path)}).load()}
    assert saved == {f"{name}_{number}" for name in ("ONE", "TWO") for number in range(80)}
    names = {"config.xml", "config.xml.default", ".config.xml.lock", "link.xml", "link.xml.default"}
    assert {other.name for other in tmp_path.iterdir()} == names


def test_devices_of_one_process_lose_nothing(config: Config, tmp_path: Path) -> None:
    def work(name: str) -> None:
        own = Config("QSI CCD", {"HOME": str(tmp_path)})
        for number in range(20):
            own.update([NewVector(Kind.NUMBER, name, f"N{number}", (("A", "1"),))])

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(config.load()) == 60


def test_nobody_waits_for_ever_for_a_hung_one(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config.save([ONE])
    monkeypatch.setattr(config_module, "LOCK_LIMIT", 0.02)
    monkeypatch.setattr(config_module, "LOAD_LIMIT", 0.02)
    with config.path.with_name(f".{config.path.name}.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for action in (config.purge, lambda: config.save([TWO]), lambda: config.update([TWO])):
            with pytest.raises(ConfigError, match="another program has locked"):
                action()
        assert config.load() == [ONE]
        config.default_path.unlink()
        assert config.load() == [ONE]  # only its copy is missing
        assert "cannot keep a copy" in caplog.text and not config.default_path.exists()
        config.path.write_text("broken")
        assert config.load() == []
        assert "is broken" in caplog.text and "cannot be renamed" in caplog.text
        assert config.path.read_text() == "broken"
    config.update([TWO])
    assert config.load() == [TWO]
    assert config.path.with_name(config.path.name + ".broken-1").read_text() == "broken"


def test_a_file_that_was_saved_meanwhile_is_not_set_aside(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.save([ONE])
    good = config.path.read_bytes()
    config.path.write_text("broken")
    original = config_module.locked

    def locked(path: Path, limit: float) -> Any:
        path.write_bytes(good)  # by a driver that had the lock before
        return original(path, limit)

    monkeypatch.setattr(config_module, "locked", locked)
    assert config.load() == [ONE]
    assert not list(config.path.parent.glob("*broken*"))


def test_a_broken_file_that_cannot_be_renamed_stays(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config.path.parent.mkdir()
    config.path.write_text("broken")

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    assert config.load() == []
    assert "is broken" in caplog.text and "cannot be renamed" in caplog.text
    with pytest.raises(ConfigError, match=r"cannot save .* not permitted"):
        config.update([ONE])
    assert config.path.read_text() == "broken"


def test_a_disk_that_cannot_be_written_is_read(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config.path.parent.mkdir()
    config.path.write_text(FOREIGN.replace("newSwitchVector", "newLaterVector"))
    original = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert [request.name for request in config.load()] == ["POLLING_PERIOD"]
    assert "cannot keep a copy" in caplog.text
    with pytest.raises(ConfigError, match=r"cannot save .* Read-only file system"):
        config.update([ONE])


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device"])
@pytest.mark.parametrize("chosen", [True, False])
def test_what_is_not_a_file_is_left_alone(tmp_path: Path, kind: str, chosen: bool) -> None:
    path = tmp_path / ".indi" / "QSI CCD_config.xml"
    path.parent.mkdir()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    mode = path.lstat().st_mode
    config = Config("QSI CCD", {"INDICONFIG" if chosen else "HOME": str(path if chosen else tmp_path)})
    assert config.path == path
    remedy = "set INDICONFIG to the path of a file, or unset it" if chosen else "move it away"
    for action in (config.load, config.purge, lambda: config.save([ONE]), lambda: config.update([ONE])):
        with pytest.raises(ConfigError, match=f"is a {kind}, not a regular file; {remedy}"):
            action()
    assert list(path.parent.iterdir()) == [path] and path.lstat().st_mode == mode
    assert config.load_default() == []


def test_a_device_file_is_never_replaced() -> None:
    config = Config("QSI CCD", {"INDICONFIG": "/dev/null"})
    for action in (config.load, config.purge, lambda: config.save([ONE]), lambda: config.update([ONE])):
        with pytest.raises(ConfigError, match="/dev/null is a device"):
            action()
    assert config.path.is_char_device()
    assert not list(Path("/dev").glob(".*"))


def test_a_default_that_is_not_a_file_is_left_alone(config: Config) -> None:
    config.path.parent.mkdir()
    os.mkfifo(config.default_path)
    config.save([ONE])
    assert config.load() == [ONE]
    with pytest.raises(ConfigError, match="is a FIFO, not a regular file; move it away"):
        config.load_default()
    assert config.default_path.is_fifo()


def test_vectors_come_back_as_if_a_client_had_asked(config: Config) -> None:
    hub = Hub()
    device = Device("QSI CCD", hub)
    number = NumberVector("N", "", "", [NumberElement("A", "", 1, "%g", 0, 9)], permission=Permission.RW)
    text = TextVector("T", "", "", [TextElement("A", "", "x")], permission=Permission.RW)
    switches = [SwitchElement("A", "", True), SwitchElement("B", "")]
    switch = SwitchVector("S", "", "", switches, permission=Permission.RW)
    device.add(number, text, switch)
    hub.add_device(device)
    hub.attach(RecordingLink())
    number.set({"A": 0.1 + 0.2})
    text.set({"A": "Luminance & more"})
    switch.select("B")
    saved = [vector.values for vector in device.vectors.values()]
    config.save(vector.as_request("QSI CCD") for vector in device.vectors.values())
    number.set({"A": 0.0})
    text.set({"A": ""})
    switch.select("A")
    for request in config.load():
        hub.dispatch(None, request)
    assert [vector.values for vector in device.vectors.values()] == saved
    assert os.access(config.path, os.R_OK)
