# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wheel and sdist: what is in them, and a picture by each Python that they are installed in.

Needs a package index, for the build tools and the dependencies.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.udevrules import rules
from indi_qsi.version import VERSION
from tests.support.indi import eventually
from tests.support.rig import IndiClient, Server

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = ("3.11", "3.12", "3.13")
INSTALL_TIME = 600.0  # s: astropy and numpy from an index
ENVIRON = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(*command: object, cwd: Path | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIME,
        cwd=cwd,
        env=ENVIRON,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@functools.cache
def interpreters() -> dict[str, Path]:
    """The supported Pythons of this machine, by version: the running one, those on the path, pyenv's."""
    candidates = [Path(sys.base_prefix) / "bin" / "python3"]
    candidates += [Path(path) for version in SUPPORTED if (path := shutil.which(f"python{version}"))]
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3"))
    found: dict[str, Path] = {}
    for path in candidates:
        try:
            version = run(path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])").strip()
        except (AssertionError, OSError):
            continue  # pyenv's shims of versions that are not chosen
        if version in SUPPORTED:
            found.setdefault(version, path)
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is made of it, from a clean copy of the files as they lie here."""
    work = tmp_path_factory.mktemp("build")
    copy = work / "project"
    listed = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (source := ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    run(sys.executable, "-m", "venv", work / "venv")
    python = work / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "build")
    run(python, "-m", "build", "--outdir", work / "dist", copy)
    (sdist,) = (work / "dist").glob("*.tar.gz")
    (wheel,) = (work / "dist").glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


def test_the_wheel_has_the_code_and_what_launchers_and_man_look_for(built: dict[str, Path]) -> None:
    assert built["wheel"].name == f"indi_qsi-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    data = f"indi_qsi-{VERSION}.data/data/share"
    assert sorted(name for name in names if name.startswith(data)) == [
        f"{data}/indi/indi_qsi.xml",
        *(f"{data}/man/man1/{page.name}" for page in sorted((ROOT / "man").glob("*.1"))),
    ]
    packages = {name.split("/")[0] for name in names}
    rooms = {"indi_qsi": ROOT, "usbproto": ROOT, "qsi_tools": ROOT / "tools"}
    assert packages == {*rooms, f"indi_qsi-{VERSION}.data", f"indi_qsi-{VERSION}.dist-info"}
    code = {name for name in names if name.endswith(".py")}
    assert code == {
        str(path.relative_to(above)) for room, above in rooms.items() for path in (above / room).rglob("*.py")
    }
    assert {f"{room}/py.typed" for room in rooms} <= set(names)


def test_the_sdist_has_what_a_packager_needs(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        *("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "data/indi_qsi.xml", "debian/control"),
        *("systemd/indi-qsi.service", "udev/70-qsi.rules", "man/indi_qsi_ccd.1", "docs/architecture.md"),
        *("tests/packaging/test_wheel.py", "tools/build-deb"),
    } <= names
    assert not [
        name for name in names if "__pycache__" in name or name.startswith((".git/", "dist/", "build/"))
    ]


@pytest.fixture(params=SUPPORTED)
def environment(request: pytest.FixtureRequest, tmp_path: Path, built: dict[str, Path]) -> Iterator[Path]:
    """The `bin` of a new environment with the wheel and nothing that it does not ask for."""
    if request.param not in interpreters():
        pytest.skip(f"there is no Python {request.param} here")
    run(interpreters()[request.param], "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:", built["wheel"])
    yield programs
    shutil.rmtree(tmp_path / "venv")


def test_an_installed_wheel_takes_a_picture(environment: Path, tmp_path: Path) -> None:
    assert run(environment / "indi-qsi", "--version") == f"indi-qsi {VERSION}\n"
    assert run(environment / "indi-qsi", "setup-udev", "--print") == rules()
    assert "683wsg" in run(environment / "qsi-sim", "--list-models").split()
    assert (environment.parent / "share" / "indi" / "indi_qsi.xml").is_file()
    # Launchers know a driver by the name of its process, which "env" would hide.
    first = (environment / "indi_qsi_ccd").read_text().splitlines()[0]
    assert first == f"#!{environment}/python" or first.startswith(f"#!{environment}/python3"), first
    command = [environment / "indi-qsi", "serve", "--model", "683wsg", "--connect", "--listen", "127.0.0.1:0"]
    server = Server(tmp_path, [str(part) for part in command], {"PYTHONUNBUFFERED": "1"})
    try:
        listens = eventually(lambda: re.search(r"127\.0\.0\.1:(\d+)", server.log), "it is ready")
        assert listens is not None
        with IndiClient(f"127.0.0.1:{listens[1]}") as client:
            client.connect_camera()
            client.expose(0.1)
            header, data = client.picture()
        assert header["EXPTIME"] == 0.1
        assert data.shape == (2504, 3326)
    finally:
        server.close()
    assert server.process.returncode == 0, server.log


def test_the_sdist_installs(built: dict[str, Path], tmp_path: Path) -> None:
    python = next(iter(interpreters().values()))
    run(python, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", "--no-deps", built["sdist"])
    assert run(programs / "indi-qsi", "--version") == f"indi-qsi {VERSION}\n"
