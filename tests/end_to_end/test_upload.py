# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where pictures go and as what, as clients see it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from astropy.io import fits

from indi_qsi.device import compression
from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, PROGRAMS, IndiClient, Server, Sim, opened, stand_alone

needs_fpack = pytest.mark.skipif(
    shutil.which(compression.PROGRAM) is None, reason="fpack (Debian's libcfitsio-bin) is not installed"
)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim")) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        yield server


@pytest.fixture
def client(sim: Sim, server: Server) -> Iterator[IndiClient]:
    with connected(sim, server) as client:
        yield client


@contextmanager
def connected(sim: Sim, server: Server) -> Iterator[IndiClient]:
    """A client of the connected camera, with a small frame; disconnects in the end."""
    with IndiClient(server.address) as client:
        client.connect_camera()
        client.wait_for("defSwitchVector", name="CCD_TRANSFER_FORMAT")
        client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=320, HEIGHT=200)
        client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")
        sim.happened.clear()
        yield client
        client.clear()
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")


def choose(
    client: IndiClient, mode: str, folder: Path | str | None = None, prefix: str = "IMAGE_XXX"
) -> None:
    client.clear()
    client.new("Switch", "UPLOAD_MODE", **{mode: "On"})
    client.wait_for("setSwitchVector", name="UPLOAD_MODE", state="Ok")
    if folder is not None:
        client.new("Text", "UPLOAD_SETTINGS", UPLOAD_DIR=folder, UPLOAD_PREFIX=prefix)
        client.wait_for("setTextVector", name="UPLOAD_SETTINGS", state="Ok")


def take(client: IndiClient, end: str = "Ok") -> list[Element]:
    """Takes a picture; the updates of what matters here, in their order."""
    client.clear()
    client.blobs.clear()
    client.expose(0.05)
    client.wait_for("setNumberVector", name="CCD_EXPOSURE", state=end)
    return [
        m
        for m in list(client.messages)
        if m.get("name") in ("CCD_FILE_PATH", "CCD1")
        or (m.get("name") == "CCD_EXPOSURE" and m.get("state") != "Busy")
    ]


def names(updates: list[Element]) -> list[str | None]:
    return [m.get("name") for m in updates]


def path_of(updates: list[Element]) -> Path:
    (told,) = [m for m in updates if m.get("name") == "CCD_FILE_PATH"]
    assert told.get("state") == "Ok"
    return Path(values(told)["FILE_PATH"])


def pixels_of(path: Path) -> np.ndarray:
    return opened(path.read_bytes())[1]


def shape_of(client: IndiClient, tag: str, name: str) -> tuple[object, ...]:
    """What a definition says."""
    m = client.wait_for(tag, name=name)
    a = m.attrib
    return (
        a["label"],
        a["group"],
        a["perm"],
        a.get("rule"),
        float(a["timeout"]),
        [(child.attrib["name"], child.attrib["label"], (child.text or "").strip()) for child in m],
    )


def test_definitions(client: IndiClient, server: Server) -> None:
    one = "OneOfMany"
    assert shape_of(client, "defSwitchVector", "UPLOAD_MODE") == (
        *("Upload", "Options", "rw", one, 0),
        [
            ("UPLOAD_CLIENT", "Client", "On"),
            ("UPLOAD_LOCAL", "Local", "Off"),
            ("UPLOAD_BOTH", "Both", "Off"),
        ],
    )
    assert shape_of(client, "defTextVector", "UPLOAD_SETTINGS") == (
        *("Upload Settings", "Options", "rw", None, 60),
        [("UPLOAD_DIR", "Dir", str(server.home)), ("UPLOAD_PREFIX", "Prefix", "IMAGE_XXX")],
    )
    assert shape_of(client, "defSwitchVector", "CCD_COMPRESSION") == (
        *("Compression", "Image Settings", "rw", one, 60),
        [("INDI_ENABLED", "Enabled", "Off"), ("INDI_DISABLED", "Disabled", "On")],
    )
    assert shape_of(client, "defSwitchVector", "CCD_TRANSFER_FORMAT") == (
        *("Encode", "Image Settings", "rw", one, 60),
        [("FORMAT_FITS", "FITS", "On"), ("FORMAT_NATIVE", "Native", "Off")],
    )
    assert shape_of(client, "defSwitchVector", "CCD_CAPTURE_FORMAT") == (
        *("Format", "Image Settings", "rw", one, 60),
        [("INDI_MONO", "Mono", "On")],
    )
    assert not [m for m in client.messages if m.get("name") == "CCD_FILE_PATH"]
    choose(client, "UPLOAD_BOTH")
    assert shape_of(client, "defTextVector", "CCD_FILE_PATH") == (
        *("Filename", "Image Info", "ro", None, 60),
        [("FILE_PATH", "Path", "")],
    )


def test_a_colour_camera_has_raw_pixels(tmp_path: Path) -> None:
    with Sim(tmp_path, "583cwsg") as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            form = client.wait_for("defSwitchVector", name="CCD_CAPTURE_FORMAT")
            assert [(c.get("name"), c.get("label")) for c in form] == [("INDI_RAW", "RAW 16")]


def test_client(client: IndiClient, sim: Sim, server: Server) -> None:
    updates = take(client)
    assert names(updates) == ["CCD1", "CCD_EXPOSURE"]
    np.testing.assert_array_equal(client.picture()[1], sim.picture())
    assert not list(server.home.glob("**/*.fits"))


def test_local(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    choose(client, "UPLOAD_LOCAL", folder)
    for number in (1, 2):
        updates = take(client)
        assert names(updates) == ["CCD_FILE_PATH", "CCD_EXPOSURE"]
        assert path_of(updates) == folder / f"IMAGE_{number:03d}.fits"
        np.testing.assert_array_equal(pixels_of(path_of(updates)), sim.picture())
    assert not client.blobs
    # A client that fetches and deletes its files is told the same path again.
    path_of(updates).unlink()
    assert path_of(take(client)) == path_of(updates)
    # And back: pictures come again.
    choose(client, "UPLOAD_CLIENT")
    client.wait_for("delProperty", name="CCD_FILE_PATH")
    assert names(take(client)) == ["CCD1", "CCD_EXPOSURE"]


def test_both(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    choose(client, "UPLOAD_BOTH", tmp_path / "both", "M 31 Hα_XXX")
    updates = take(client)
    assert names(updates) == ["CCD_FILE_PATH", "CCD1", "CCD_EXPOSURE"]
    path = path_of(updates)
    assert path.name == "M 31 Hα_001.fits"
    assert path.read_bytes() == client.blobs[0]
    np.testing.assert_array_equal(pixels_of(path), sim.picture())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_home_and_time(client: IndiClient, server: Server) -> None:
    choose(client, "UPLOAD_LOCAL", "_HOME_/pictures", "L_ISO8601_XXX")
    path = path_of(take(client))
    assert path.parent == server.home / "pictures"
    assert re.fullmatch(r"L_20\d\d-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}_001\.fits", path.name)
    choose(client, "UPLOAD_LOCAL", "", "home_XXX")
    assert path_of(take(client)) == server.home / "home_001.fits"


def test_a_file_that_is_there_is_kept(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "M31.fits").write_text("precious")
    choose(client, "UPLOAD_LOCAL", tmp_path, "M31")
    updates = take(client)
    path = path_of(updates)
    assert path.name == "M31_001.fits"
    assert "M31.fits was there already" in updates[0].attrib["message"]
    np.testing.assert_array_equal(pixels_of(path), sim.picture())
    assert (tmp_path / "M31.fits").read_text() == "precious"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"UPLOAD_DIR": "pictures"}, "must begin with /"),
        ({"UPLOAD_DIR": "../../etc"}, "must begin with /"),
        ({"UPLOAD_DIR": "/tmp/../etc"}, "'..'"),
        ({"UPLOAD_DIR": "_HOME_/../.ssh"}, "'..'"),
        ({"UPLOAD_DIR": "~/pictures"}, "_HOME_"),
        ({"UPLOAD_DIR": "/tmp/\x7f"}, "control characters"),
        ({"UPLOAD_DIR": "/" + "x" * 2000}, "at most 1024"),
        ({"UPLOAD_PREFIX": ""}, "empty"),
        ({"UPLOAD_PREFIX": "../../etc/cron.d/x"}, "'/'"),
        ({"UPLOAD_PREFIX": "/etc/x"}, "'/'"),
        ({"UPLOAD_PREFIX": ".."}, "begin with '.'"),
        ({"UPLOAD_PREFIX": "x" * 250}, "too long"),
        ({"UPLOAD_DIR": "/tmp", "UPLOAD_PREFIX": "a/b"}, "'/'"),
    ],
)
def test_bad_settings_change_nothing(
    client: IndiClient, tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    choose(client, "UPLOAD_LOCAL", tmp_path)
    client.clear()
    client.new("Text", "UPLOAD_SETTINGS", **settings)
    refusal = client.wait_for("setTextVector", name="UPLOAD_SETTINGS", state="Alert")
    assert reason in refusal.attrib["message"]
    assert values(refusal) == {"UPLOAD_DIR": str(tmp_path), "UPLOAD_PREFIX": "IMAGE_XXX"}
    assert path_of(take(client)).parent == tmp_path


def test_a_bad_directory_is_told_before_the_exposure(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    choose(client, "UPLOAD_LOCAL", tmp_path / "file" / "below")
    (refusal,) = take(client, "Alert")
    assert "not a directory" in refusal.attrib["message"]
    assert "UPLOAD_DIR" in refusal.attrib["message"]
    assert sim.count("expose") == 0
    choose(client, "UPLOAD_LOCAL", tmp_path)
    assert path_of(take(client)).exists()


def disk(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"cannot mount: {result.stderr.strip()}")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Room for one small picture."""
    folder.mkdir()
    disk(folder, "size=200k")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@root_only
@pytest.mark.parametrize("mode", ["UPLOAD_LOCAL", "UPLOAD_BOTH"])
def test_a_full_disk_loses_no_picture(client: IndiClient, sim: Sim, tmp_path: Path, mode: str) -> None:
    with small_disk(tmp_path / "disk") as folder:
        choose(client, mode, folder)
        saved = path_of(take(client))
        updates = take(client, "Alert")
        assert names(updates) == ["CCD1", "CCD_EXPOSURE"]
        message = updates[-1].attrib["message"]
        assert "the disk is full" in message
        assert "Free some space" in message and "sent to the clients" in message
        np.testing.assert_array_equal(client.picture()[1], sim.picture())
        assert [entry.name for entry in folder.iterdir()] == [saved.name]
        saved.unlink()
        assert path_of(take(client)) == saved


@root_only
def test_a_disk_that_turns_read_only(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        choose(client, "UPLOAD_LOCAL", folder)
        client.blobs.clear()
        client.expose(1)
        eventually(lambda: sim.count("exposure_start"), "the shutter opens")
        disk(folder, "remount,ro")
        failed = client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Alert")
        assert "read-only" in failed.attrib["message"]
        np.testing.assert_array_equal(client.picture()[1], sim.picture())
        exposures = sim.count("expose")
        (refusal,) = take(client, "Alert")  # from now on it is known before
        assert "read-only" in refusal.attrib["message"]
        assert sim.count("expose") == exposures


@needs_fpack
def test_compressed(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    choose(client, "UPLOAD_BOTH", tmp_path)
    client.new("Switch", "CCD_COMPRESSION", INDI_ENABLED="On")
    client.wait_for("setSwitchVector", name="CCD_COMPRESSION", state="Ok")
    updates = take(client)
    assert names(updates) == ["CCD_FILE_PATH", "CCD1", "CCD_EXPOSURE"]
    (blob,) = updates[1]
    assert blob.get("format") == ".fits.fz"
    assert int(blob.attrib["size"]) == len(client.blobs[0])
    with fits.open(BytesIO(client.blobs[0])) as file:
        np.testing.assert_array_equal(file[1].data, sim.picture())
        assert file[1].header["EXPTIME"] == 0.05
    np.testing.assert_array_equal(pixels_of(path_of(updates)), sim.picture())  # a plain file
    assert path_of(updates).suffix == ".fits"


def test_compression_without_its_program(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, {**sim.environ, "PATH": str(PROGRAMS)}) as server:
        with connected(sim, server) as client:
            client.new("Switch", "CCD_COMPRESSION", INDI_ENABLED="On")
            refusal = client.wait_for("setSwitchVector", name="CCD_COMPRESSION", state="Alert")
            assert "libcfitsio-bin" in refusal.attrib["message"]
            assert values(refusal) == {"INDI_ENABLED": "Off", "INDI_DISABLED": "On"}
            (blob,) = take(client)[0]
            assert blob.get("format") == ".fits"


@contextmanager
def with_fake_fpack(folder: Path, text: str) -> Iterator[tuple[Sim, IndiClient]]:
    fake = folder / "fpack"
    fake.write_text(f"#!/bin/sh\n{text}\n")
    fake.chmod(0o755)
    path = f"{folder}:{PROGRAMS}:{os.environ['PATH']}"
    with Sim(folder) as sim, stand_alone(folder, {**sim.environ, "PATH": path}) as server:
        with connected(sim, server) as client:
            client.new("Switch", "CCD_COMPRESSION", INDI_ENABLED="On")
            client.wait_for("setSwitchVector", name="CCD_COMPRESSION", state="Ok")
            yield sim, client


def test_a_picture_that_cannot_be_compressed_is_sent_as_it_is(tmp_path: Path) -> None:
    with with_fake_fpack(tmp_path, "exit 1") as (sim, client):
        updates = take(client)
        (blob,) = updates[0]
        assert blob.get("format") == ".fits"
        np.testing.assert_array_equal(client.picture()[1], sim.picture())
        warned = client.wait_for("setSwitchVector", name="CCD_COMPRESSION")
        assert "status 1" in warned.attrib["message"] and "uncompressed" in warned.attrib["message"]


def test_abort_while_a_picture_is_compressed(tmp_path: Path) -> None:
    """The camera thread does not wait for the frame thread, and what was aborted leaves nothing behind."""
    started, go = tmp_path / "started", tmp_path / "go"
    wait = f"touch {started}; while [ ! -e {go} ]; do sleep 0.02; done; exit 1"
    folder = tmp_path / "pictures"
    with with_fake_fpack(tmp_path, wait) as (_, client):
        choose(client, "UPLOAD_BOTH", folder)
        client.expose(0.05)
        eventually(started.exists, "fpack runs")
        assert len(list(folder.glob("*.fits"))) == 1
        client.clear()
        client.wait_for("setNumberVector", name="CCD_TEMPERATURE")  # the camera is talked to meanwhile
        client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
        client.wait_for("setNumberVector", name="CCD_EXPOSURE", state="Idle")
        go.touch()
        eventually(lambda: not list(folder.iterdir()), "the file goes")
        assert not client.blobs
        assert not client.states("CCD_FILE_PATH")
        updates = take(client)
        assert names(updates) == ["CCD_FILE_PATH", "CCD1", "CCD_EXPOSURE"]


def test_native(client: IndiClient, sim: Sim, tmp_path: Path) -> None:
    choose(client, "UPLOAD_BOTH", tmp_path)
    client.new("Switch", "CCD_TRANSFER_FORMAT", FORMAT_NATIVE="On")
    client.wait_for("setSwitchVector", name="CCD_TRANSFER_FORMAT", state="Ok")
    updates = take(client)
    (blob,) = updates[1]
    assert blob.get("format") == ".bin"
    assert int(blob.attrib["size"]) == len(client.blobs[0]) == 320 * 200 * 2
    np.testing.assert_array_equal(np.frombuffer(client.blobs[0], "<u2").reshape(200, 320), sim.picture())
    assert path_of(updates).name == "IMAGE_001.bin"
    assert path_of(updates).read_bytes() == client.blobs[0]


@needs_fpack
def test_each_connect_begins_as_guiding_programs_need_it(client: IndiClient, tmp_path: Path) -> None:
    choose(client, "UPLOAD_LOCAL", tmp_path, "kept_XXX")
    client.new("Switch", "CCD_COMPRESSION", INDI_ENABLED="On")
    client.new("Switch", "CCD_TRANSFER_FORMAT", FORMAT_NATIVE="On")
    client.wait_for("setSwitchVector", name="CCD_TRANSFER_FORMAT", state="Ok")
    client.clear()
    client.new("Switch", "CONNECTION", DISCONNECT="On")
    client.wait_for("delProperty", name="CCD_FILE_PATH")
    client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")
    client.clear()
    client.connect_camera()
    for name, element in (
        ("UPLOAD_MODE", "UPLOAD_CLIENT"),
        ("CCD_COMPRESSION", "INDI_DISABLED"),
        ("CCD_TRANSFER_FORMAT", "FORMAT_FITS"),
    ):
        assert values(client.wait_for("defSwitchVector", name=name))[element] == "On"
    settings = client.wait_for("defTextVector", name="UPLOAD_SETTINGS")
    assert values(settings) == {"UPLOAD_DIR": str(tmp_path), "UPLOAD_PREFIX": "kept_XXX"}
    assert not [m for m in client.messages if m.get("name") == "CCD_FILE_PATH"]


@needs_fpack
def test_the_config_file_brings_it_all_back(client: IndiClient, server: Server, tmp_path: Path) -> None:
    def on(vector: str, element: str) -> None:
        client.clear()
        client.new("Switch", vector, **{element: "On"})
        client.wait_for("setSwitchVector", name=vector, state="Ok")

    def process(action: str) -> None:
        on("CONFIG_PROCESS", action)

    chosen = {
        "UPLOAD_MODE": "UPLOAD_BOTH",
        "CCD_COMPRESSION": "INDI_ENABLED",
        "CCD_TRANSFER_FORMAT": "FORMAT_NATIVE",
        "CCD_CAPTURE_FORMAT": "INDI_MONO",
    }
    choose(client, "UPLOAD_BOTH", tmp_path, "saved_XXX")
    for vector, element in chosen.items():
        on(vector, element)
    process("CONFIG_SAVE")
    text = next(server.home.glob(".indi/*_config.xml")).read_text()
    assert "CCD_FILE_PATH" not in text
    for vector in (*chosen, "UPLOAD_SETTINGS"):
        assert f"name='{vector}'" in text or f'name="{vector}"' in text

    choose(client, "UPLOAD_CLIENT", "/", "other")
    on("CCD_COMPRESSION", "INDI_DISABLED")
    on("CCD_TRANSFER_FORMAT", "FORMAT_FITS")
    process("CONFIG_LOAD")
    client.clear()
    client.send(f"<getProperties version='1.7' device='{DEVICE}'/>")
    for vector, element in chosen.items():
        defined = client.wait_for("defSwitchVector", name=vector)
        assert values(defined)[element] == "On", vector
        assert defined.get("state") == "Ok"
    settings = values(client.wait_for("defTextVector", name="UPLOAD_SETTINGS"))
    assert settings == {"UPLOAD_DIR": str(tmp_path), "UPLOAD_PREFIX": "saved_XXX"}
    client.wait_for("defTextVector", name="CCD_FILE_PATH")
    process("CONFIG_PURGE")
