# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of local files, and that writing one can neither lose nor overwrite anything."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indi_qsi.device.files import (
    INDEX_DIGITS,
    MAX_DIRECTORY,
    MAX_NAME,
    TEMPORARY,
    SaveError,
    _place,
    _reserve_and_replace,
    check_prefix,
    highest,
    names,
    prepare,
    resolve,
    save,
)
from tests.support.indi import PATIENCE, ROOT, eventually
from usbproto.errors import BadArgument

NIGHT = datetime(2026, 3, 29, 1, 59, 59, 999_900)
STAMP = "2026-03-29T01-59-59.999"
DATA = memoryview(b"picture" * 1000)
NOBODY = 65534  # Debian's user without any rights
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk and be another user")


def first(prefix: str, present: list[str], suffix: str = ".fits") -> str:
    return next(names(prefix, NIGHT, suffix, present))


# --- directories ---


@pytest.mark.parametrize(
    ("directory", "path"),
    [
        ("/data", "/data"),
        ("/data//night 1/", "/data/night 1"),
        ("_HOME_", "/home/me"),
        ("_HOME_/Größe/Hα", "/home/me/Größe/Hα"),
        ("/data/_HOME_", "/data/_HOME_"),
        ("/data/..hidden", "/data/..hidden"),
        ("/", "/"),
    ],
)
def test_directories(directory: str, path: str) -> None:
    assert resolve(directory, "/home/me") == Path(path)


@pytest.mark.parametrize(
    ("directory", "reason"),
    [
        ("", "begin with /"),
        ("data", "begin with /"),
        ("./data", "begin with /"),
        ("~/data", "_HOME_"),
        ("_HOME_x/data", "begin with /"),
        ("../../etc", "begin with /"),
        ("/data/../etc", "'..'"),
        ("/..", "'..'"),
        ("_HOME_/../other", "'..'"),
        ("/data/../", "'..'"),
        ("/da\0ta", "control characters"),
        ("/da\nta", "control characters"),
        ("/da\x1bta", "control characters"),
        ("/da\u2028ta", "control characters"),
        ("/da\ud800ta", "control characters"),
        ("/" + "x" * 5000, "too long"),
        ("/" + "ä" * 2000, "too long"),
    ],
)
def test_directories_that_are_refused(directory: str, reason: str) -> None:
    with pytest.raises(BadArgument, match=reason):
        resolve(directory, "/home/me")


def test_the_longest_directory_and_the_longest_prefix() -> None:
    for length in (MAX_DIRECTORY - 1, MAX_DIRECTORY):
        assert resolve("/" + "d" * (length - 1), "/home/user")
    with pytest.raises(BadArgument, match="too long"):
        resolve("/" + "d" * MAX_DIRECTORY, "/home/user")
    room = MAX_NAME - len(f"{10**INDEX_DIGITS}.fits")
    for length in (room - 1, room):
        check_prefix("x" * length + "XXX")
    with pytest.raises(BadArgument, match="1 bytes too long"):
        check_prefix("x" * (room + 1) + "XXX")


@pytest.mark.parametrize("home", ["", "relative"])
def test_without_a_home_its_mark_is_refused(home: str) -> None:
    with pytest.raises(BadArgument, match="begin with /"):
        resolve("_HOME_/data", home)
    assert resolve("/data", home) == Path("/data")


@given(st.text())
def test_a_directory_is_refused_or_stays_below_itself(text: str) -> None:
    try:
        path = resolve(text, "/home/me")
    except BadArgument:
        return
    assert path.is_absolute() and ".." not in path.parts and "\0" not in str(path)
    assert os.path.normpath(path) == str(path).replace("//", "/", 1)


# --- names ---


@pytest.mark.parametrize(
    ("prefix", "present", "name"),
    [
        ("IMAGE_XXX", [], "IMAGE_001.fits"),
        ("IMAGE_XXX", ["IMAGE_007.fits", "IMAGE_002.fits"], "IMAGE_008.fits"),
        ("IMAGE_XXX", ["IMAGE_999.fits"], "IMAGE_1000.fits"),
        ("IMAGE_XXX", ["IMAGE_1000.fits", "IMAGE_999.fits"], "IMAGE_1001.fits"),
        ("IMAGE_XXX", ["IMAGE_004.bin", "IMAGE_003.fits.fz"], "IMAGE_005.fits"),
        ("IMAGE_XXX", ["MY_IMAGE_009.fits", "IMAGE_009", "IMAGE_X.fits", "IMAGE_9x.fits"], "IMAGE_001.fits"),
        ("IMAGE_XXX", ["IMAGE_20260329235959.fits"], "IMAGE_001.fits"),  # a date, not a number
        ("M31_(L)+XXX", ["M31_(L)+004.fits"], "M31_(L)+005.fits"),
        ("XXX", ["004.fits"], "005.fits"),
        ("XXX_L_XXX", ["004_L_004.fits", "009_L_008.fits"], "005_L_005.fits"),
        ("IMAGE_ISO8601", [], f"IMAGE_{STAMP}.fits"),
        ("IMAGE_ISO8601", [f"IMAGE_{STAMP}_003.fits"], f"IMAGE_{STAMP}.fits"),
        ("L_ISO8601_XXX", ["L_2025-12-31T23-59-59.000_041.fits"], f"L_{STAMP}_042.fits"),
        ("IMAGE", [], "IMAGE.fits"),
    ],
)
def test_names(prefix: str, present: list[str], name: str) -> None:
    assert first(prefix, present) == name


def test_a_name_without_a_number_gets_one_when_it_is_taken() -> None:
    assert list(islice(names("IMAGE", NIGHT, ".fits", []), 3)) == [
        "IMAGE.fits",
        "IMAGE_001.fits",
        "IMAGE_002.fits",
    ]
    assert list(islice(names("IMAGE", NIGHT, ".fits", ["IMAGE_006.fits"]), 2))[1] == "IMAGE_007.fits"
    stamped = list(islice(names("ISO8601", NIGHT, ".bin", []), 2))
    assert stamped == [f"{STAMP}.bin", f"{STAMP}_001.bin"]


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a/b", "'/'"),
        ("../x", "'/'"),
        ("/etc/passwd", "'/'"),
        ("..", r"'\.'"),
        (".hidden_XXX", r"'\.'"),
        ("a\0b", "control characters"),
        ("a\tb", "control characters"),
        ("x" * 300, "bytes too long"),
        ("ä" * 125, "bytes too long"),
        ("ISO8601" * 12, "bytes too long"),
    ],
)
def test_prefixes_that_are_refused(prefix: str, reason: str) -> None:
    with pytest.raises(BadArgument, match=reason):
        check_prefix(prefix)


PIECES = st.sampled_from(["XXX", "X", "ISO8601", "_", "1", "0", "IMAGE", "Hα", ".", "(", "\\d", "[a-z]"])
PREFIXES = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=200))


@given(PREFIXES, st.sampled_from([".fits", ".bin"]))
@example("XXX1", ".fits")
@example("XXXISO8601", ".fits")
@example("1XXXXXX", ".fits")
def test_every_allowed_prefix_makes_new_and_usable_names(prefix: str, suffix: str) -> None:
    try:
        check_prefix(prefix, suffix)
    except BadArgument:
        return
    present: list[str] = []
    for number in range(1, 12):
        tried = list(islice(names(prefix, NIGHT, suffix, present), 3))
        name = next(name for name in tried if name not in present)
        assert name.endswith(suffix) and "/" not in name and not name.startswith(".")
        assert len(os.fsencode(name)) <= MAX_NAME
        present.append(name)
        if "XXX" in prefix:
            assert name == tried[0]  # a number that is free at the first try
            assert highest(prefix, present) == number


# --- files ---


def test_a_picture_is_saved_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    saved = save(folder, "IMAGE_XXX", NIGHT, ".fits", DATA)
    assert saved.path == folder / "IMAGE_001.fits"
    assert saved.taken is None
    assert saved.path.read_bytes() == DATA
    assert [entry.name for entry in folder.iterdir()] == ["IMAGE_001.fits"]
    mask = os.umask(0)
    os.umask(mask)
    assert saved.path.stat().st_mode & 0o777 == 0o666 & ~mask  # others may read it
    assert saved.path.stat().st_nlink == 1


@pytest.mark.parametrize("make", ["file", "directory", "dangling", "link to a file"])
def test_whatever_has_the_name_already_is_kept(tmp_path: Path, make: str) -> None:
    there, precious = tmp_path / "IMAGE.fits", tmp_path / "precious"
    precious.write_text("precious")
    match make:
        case "file":
            there.write_text("precious")
        case "directory":
            there.mkdir()
        case "dangling":
            there.symlink_to(tmp_path / "elsewhere")
        case _:
            there.symlink_to(precious)
    for number in (1, 2):
        saved = save(tmp_path, "IMAGE", NIGHT, ".fits", DATA)
        assert saved.path.name == f"IMAGE_{number:03d}.fits"
        assert saved.taken == "IMAGE.fits"
        assert saved.path.read_bytes() == DATA
    assert precious.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()
    if make == "file":
        assert there.read_text() == "precious"


def test_a_number_that_is_free_again_is_used_again(tmp_path: Path) -> None:
    """A client may fetch and delete each file; it then sees the same path again and again."""
    paths = set()
    for _ in range(3):
        saved = save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", DATA)
        paths.add(saved.path)
        saved.path.unlink()
    assert len(paths) == 1


WRITER = """
    import sys
    from datetime import datetime
    from pathlib import Path
    from indi_qsi.device.files import save
    folder, prefix, text, count, size = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(count)):
        save(Path(folder), prefix, datetime(2026, 1, 1), ".fits", memoryview(text.encode() * int(size)))
"""


def writer(
    folder: Path, prefix: str, text: str, count: int, size: int = 1, user: int | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), prefix, text, str(count), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        user=user,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        pytest.skip(f"no process of that kind: {process.communicate()[1]}")
    return process


@pytest.mark.parametrize("prefix", ["IMAGE_XXX", "IMAGE"])
def test_two_programs_that_write_at_once_lose_nothing(tmp_path: Path, prefix: str) -> None:
    count = 100
    processes = [writer(tmp_path, prefix, text, count, 1000) for text in "ab"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=2 * PATIENCE)[1] == ""
    files = sorted(tmp_path.iterdir())
    contents = [file.read_bytes() for file in files]
    assert contents.count(b"a" * 1000) == contents.count(b"b" * 1000) == count
    assert len(files) == 2 * count
    numbers = [int(match[0]) for file in files if (match := re.search(r"\d+", file.name))]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))  # without gaps


@pytest.mark.parametrize("place", [_place, _reserve_and_replace], ids=["link", "no links"])
def test_of_two_that_want_one_name_one_gets_it(
    tmp_path: Path, place: Callable[[int, str, str], bool]
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    barrier = threading.Barrier(2)

    def want(text: str, number: int, results: dict[str, bool]) -> None:
        (tmp_path / text).write_text(text)
        barrier.wait()
        results[text] = place(folder, text, f"wanted-{number}")

    for number in range(50):
        results: dict[str, bool] = {}
        threads = [threading.Thread(target=want, args=(text, number, results)) for text in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [text for text, won in results.items() if won]
        assert (tmp_path / f"wanted-{number}").read_text() == winner
    os.close(folder)


def test_a_killed_program_leaves_whole_files_only(tmp_path: Path) -> None:
    size = 4_000_000
    for text in "abc":
        process = writer(tmp_path, "IMAGE_XXX", text, 1000, size)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        eventually(lambda text=text: _count(tmp_path, text) >= 2, "it writes")  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for file in tmp_path.glob("*.fits"):
        assert file.stat().st_size == size
        assert len(set(file.read_bytes())) == 1


def _count(folder: Path, text: str) -> int:
    return sum(file.read_bytes()[:1] == text.encode() for file in folder.glob("*.fits"))


# --- disks and rights ---


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@root_only
def test_a_full_disk(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64k") as folder:
        save(folder, "IMAGE_XXX", NIGHT, ".fits", DATA)
        with pytest.raises(SaveError, match="the disk is full") as caught:
            save(folder, "IMAGE_XXX", NIGHT, ".fits", memoryview(bytes(1 << 20)))
        assert "Free some space" in caught.value.explain()
        assert [entry.name for entry in folder.iterdir()] == ["IMAGE_001.fits"]
        # What was written of it is gone again, so there is room for a smaller one.
        assert save(folder, "IMAGE_XXX", NIGHT, ".fits", DATA).path.name == "IMAGE_002.fits"


@root_only
def test_a_read_only_disk(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "ro") as folder:
        for attempt in (folder, folder / "new"):
            with pytest.raises(SaveError, match="read-only") as caught:
                prepare(attempt)
            assert "writable" in caught.value.remedy


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
    process = writer(folder, "IMAGE_XXX", "a", 1, user=user)
    _, complaint = process.communicate("\n", timeout=PATIENCE)
    assert "the driver's user may not write there" in complaint
    assert not list(folder.iterdir())


def test_a_file_too_large_for_the_process(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SaveError, match="larger than this process may write"):
            save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", memoryview(bytes(1 << 20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_in_the_way_of_the_directory(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(SaveError, match="not a directory"):
        prepare(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "precious"


def test_links_in_a_circle_and_long_names(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SaveError, match=r"circle|not a directory"):
        prepare(tmp_path / "loop")
    with pytest.raises(SaveError, match="so long a name"):
        prepare(tmp_path / ("x" * 300))


def test_messages_have_room_in_indi() -> None:
    from indi_qsi.device.files import _PROBLEMS

    for number in _PROBLEMS:
        error = SaveError(Path("/" + "x" * 1000), OSError(number, "x"))
        assert len(f"[ERROR] {error.explain()}. The picture was sent to the clients") <= 255, error


# --- what a crash leaves ---


def left_over(folder: Path, content: bytes, size: int, name: str = "0a") -> Path:
    path = folder / TEMPORARY.format(name, size, ".fits")
    path.write_bytes(content)
    os.utime(path, (0, 0))
    return path


def test_a_whole_picture_that_a_crash_left_gets_a_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = left_over(tmp_path, b"precious", 8)
    part = left_over(tmp_path, b"prec", 8, "0b")
    other = tmp_path / ".somebody-elses.part"
    other.write_bytes(b"")
    save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", DATA)
    assert not whole.exists() and not part.exists() and other.exists()
    assert (tmp_path / "RESCUED_001.fits").read_bytes() == b"precious"
    assert (tmp_path / "IMAGE_001.fits").read_bytes() == DATA
    assert "is now RESCUED_001.fits" in caplog.text and "a part of a picture was deleted" in caplog.text


def test_what_somebody_writes_just_now_is_left_alone(tmp_path: Path) -> None:
    path = left_over(tmp_path, b"prec", 8)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", DATA)
        assert path.exists()
    os.utime(path)  # made this moment, and perhaps not locked yet
    save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", DATA)
    assert path.exists()
    os.utime(path, (0, 0))
    save(tmp_path, "IMAGE_XXX", NIGHT, ".fits", DATA)
    assert not path.exists()
