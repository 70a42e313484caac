# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guard for the tests: threads that must not wait use no USB and no disk, and never sleep.

These must not wait:

- the thread of a link while it is in `Hub.dispatch` or `Hub.refuse`,
- the threads that are clocks: their names end with "clock",
- any thread while it holds the lock of the property model.

`install` watches the Python process that it is called in, by an audit hook and by wrappers for what has no audit
event. The product has no hooks for it. A violation is kept with its stack:

- In the process of the tests, the fixture in tests/conftest.py fails the test.
- A driver process that was started with `environ()` loads this module by guarded/sitecustomize.py, and appends its
  violations to a file, which the same fixture reads, and `close` of the helpers that start drivers.

The benchmarks do not call `install`, and so measure without it.

The module uses the standard library only, and little of it, because every driver process of the tests loads it.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

# Names the file to which a driver process appends its violations.
VARIABLE = "QSI_GUARD_FILE"
_FOLDER = Path(__file__).with_name("guarded")

# What is allowed, by a function in the stack, and why.
ALLOWED: Mapping[str, str] = {
    # Only after a fault of the driver's own, and each source file once. To log tracebacks in another thread would
    # lose the one that matters when the process ends by it.
    "linecache:updatecache": "a traceback is logged",
    "linecache:checkcache": "a traceback is logged",
    # Hypothesis looks at the source files of what a test calls.
    "hypothesis.internal.scrutineer:should_trace_file": "a test is traced",
    # Python waits until the new thread runs. It waits for no device.
    "threading:Thread.start": "a thread starts",
}

# Audit events (https://docs.python.org/3/library/audit_events.html) of what may wait.
EVENTS = frozenset(
    {
        *("import", "open", "time.sleep", "fcntl.flock", "fcntl.lockf", "subprocess.Popen", "ctypes.dlopen"),
        *("os.chflags", "os.chmod", "os.chown", "os.exec", "os.fork", "os.forkpty", "os.getxattr", "os.link"),
        *("os.listdir", "os.listxattr", "os.lockf", "os.mkdir", "os.posix_spawn", "os.remove"),
        *("os.removexattr", "os.rename", "os.rmdir", "os.scandir", "os.setxattr", "os.spawn", "os.symlink"),
        *("os.system", "os.truncate", "os.utime", "socket.connect", "socket.getaddrinfo"),
        *("socket.gethostbyaddr", "socket.gethostbyname", "socket.getnameinfo"),
    }
)
# Functions of `os` that may wait and have no audit event.
_SILENT = ("stat", "lstat", "access", "readlink", "statvfs", "fsync", "fdatasync", "sync")
# What PyUSB does with a device.
_DEVICE = ("read", "write", "ctrl_transfer", "reset", "set_configuration", "get_active_configuration")
_DEVICE_UTIL = ("claim_interface", "release_interface", "dispose_resources", "get_string")

MOST = 50  # violations that are kept until `take`. Each is kept once.
DEPTH = 30  # frames of a stack that are shown
_IMPORT = "<frozen importlib"  # begins the names of the files of Python's import system
_MARKED = "_marked"  # ends the names of the functions below that mark a section


class _Thread(threading.local):
    """Of one thread: the sections in which it must not wait, innermost last, and whether it is not watched now."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, object]] = []
        self.off = False


class _Process:
    """Of this process. `lock` is the property model's, `descriptor` where a driver process appends its violations."""

    installed = False
    lock: Any = None
    descriptor: int | None = None
    violations: list[str] = []  # noqa: RUF012  # there is one instance, which is this class
    reported: set[object] = set()  # noqa: RUF012
    report: Path | None = None  # of the driver processes that this process starts
    read = 0  # bytes of it


_thread = _Thread()


def install(descriptor: int | None = None) -> None:
    """Watches this process from now on. An audit hook cannot be removed."""
    if _Process.installed:
        return
    _Process.installed = True
    _Process.descriptor = descriptor
    _wrap_standard_library()
    sys.meta_path.insert(0, _Finder)
    for name, wrap in _WRAPPERS.items():
        if (module := sys.modules.get(name)) is not None:
            wrap(module)
    sys.addaudithook(_hook)


def install_in_driver() -> None:
    """For guarded/sitecustomize.py."""
    if path := os.environ.get(VARIABLE):
        # Opened once, because a violation must not cause the next one.
        install(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))


def environ(given: Mapping[str, str]) -> dict[str, str]:
    """`given`, with what makes a Python program that is started with it a guarded one; grandchildren too."""
    result = dict(given)
    if not _Process.installed:
        return result
    if _Process.report is None:
        import atexit
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="qsi-guard-")
        atexit.register(folder.cleanup)
        _Process.report = Path(folder.name) / "violations"
        _Process.report.touch()
    paths = [str(_FOLDER), *filter(None, [result.get("PYTHONPATH")])]
    return result | {VARIABLE: str(_Process.report), "PYTHONPATH": os.pathsep.join(paths)}


def take() -> list[str]:
    """The violations since the last call, of this process and of the driver processes that it started."""
    found, _Process.violations = _Process.violations, []
    _Process.reported.clear()
    if _Process.report is not None:
        with _Process.report.open("rb") as file:
            file.seek(_Process.read)
            text = file.read()
        _Process.read += len(text)
        found += [part for part in text.decode("utf-8", "replace").split("\0") if part]
    return found


def check() -> None:
    """Raises AssertionError when there are violations."""
    if found := take():
        raise AssertionError("\n\n".join(["a thread that must not wait did something that can wait", *found]))


@contextmanager
def unwatched() -> Iterator[None]:
    """For tests that wait on purpose where the driver must not."""
    before, _thread.off = _thread.off, True
    try:
        yield
    finally:
        _thread.off = before


# --- what is marked ---


@contextmanager
def section(kind: str, subject: object = "") -> Iterator[None]:
    """This thread must not wait. `kind` "clock": it may wait for conditions."""
    _thread.sections.append((kind, subject))
    try:
        yield
    finally:
        _thread.sections.pop()


def _must_not_wait() -> bool:
    lock = _Process.lock
    return bool(_thread.sections) or (lock is not None and lock._is_owned())


def _section_name() -> str:
    if not _thread.sections:
        return "with the lock of the property model"
    kind, subject = _thread.sections[-1]
    if isinstance(subject, str):
        return f"in {kind} {subject}".rstrip()
    device, name = getattr(subject, "device", ""), getattr(subject, "name", "")
    return f"in {kind} of {type(subject).__name__} {device}.{name}"


# --- what is seen ---


def _hook(
    event: str,
    arguments: tuple[Any, ...],
    # Bound here, because names of a module may be gone when Python ends.
    events: frozenset[str] = EVENTS,
    thread: _Thread = _thread,
    process: type[_Process] = _Process,
) -> None:
    # For every audit event of every thread: most of them end here.
    if event not in events:
        return
    if thread.sections or (process.lock is not None and process.lock._is_owned()):
        _saw(event, arguments)


def _saw(event: str, arguments: tuple[Any, ...]) -> None:
    """A thread that must not wait did something."""
    if _thread.off or _harmless(event, arguments):
        return
    _thread.off = True
    try:
        _judge(event, arguments)
    finally:
        _thread.off = False


def _harmless(event: str, arguments: tuple[Any, ...]) -> bool:
    """What does not wait for a device after all."""
    first = arguments[0] if arguments else None
    if event in ("open", "os.truncate", "os.stat", "os.statvfs"):
        # An integer is a descriptor: what it belongs to was opened before. Links of /proc lead to open files.
        return isinstance(first, int) or str(first).startswith("/proc/self/fd/")
    if event == "import":
        return first in sys.builtin_module_names
    if event == "time.sleep":
        return not first > 0
    if event in ("fcntl.flock", "fcntl.lockf"):
        import fcntl

        return bool(arguments[1] & (fcntl.LOCK_NB | fcntl.LOCK_UN))
    return False


def _judge(event: str, arguments: tuple[Any, ...]) -> None:
    stack = list(_frames())
    places = {_place(frame) for frame in stack}
    if not places.isdisjoint(ALLOWED):
        return
    if imports := [at for at, frame in enumerate(stack) if frame.f_code.co_filename.startswith(_IMPORT)]:
        # Python looks for the file of a module, opens it, and imports others: the outermost import counts.
        found = stack[imports[-1]].f_locals
        event, arguments = "import", (found.get("name") or found.get("from_name"),)
        stack = stack[imports[-1] + 1 :]
    elif event == "import":
        arguments = arguments[:1]
    key = (event, arguments) if event == "import" else (event, _section_name(), *_lines(stack))
    if key in _Process.reported or len(_Process.reported) >= MOST:
        return
    _Process.reported.add(key)
    text = _text(event, arguments, stack)
    if _Process.descriptor is None:
        _Process.violations.append(text)
    else:
        os.write(_Process.descriptor, text.encode() + b"\0")


def _lines(stack: list[FrameType]) -> Iterator[object]:
    return ((frame.f_code, frame.f_lineno) for frame in stack)


def _frames() -> Iterator[FrameType]:
    """The stack without the guard's part of it, innermost frame first, as far out as a section goes."""
    sections = len(_thread.sections)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        elif frame.f_code.co_name.endswith(_MARKED):
            sections -= 1
            if sections == 0:
                return
        frame = frame.f_back


def _place(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"


def _text(event: str, arguments: tuple[Any, ...], stack: list[FrameType]) -> str:
    shown = ", ".join(repr(argument)[:200] for argument in arguments)
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in stack[:DEPTH]).format()
    places = " < ".join(_place(frame) for frame in stack[:6])
    return (
        f"thread '{threading.current_thread().name}' {_section_name()}: {event}({shown})\n"
        f"  {places}\n" + "".join(reversed(lines))
    )


# --- what has no audit event, and what is marked ---


def _watch(owner: Any, name: str, event: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Reports calls of a function, `when` its arguments mean that it may wait."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(*arguments: Any, **options: Any) -> Any:
        if _must_not_wait() and when(*arguments, **options):
            _saw(event, arguments)
        return original(*arguments, **options)

    setattr(owner, name, watched)
    # Other modules look here for what a function of `os` can do.
    for abilities in (
        os.supports_dir_fd,
        os.supports_effective_ids,
        os.supports_fd,
        os.supports_follow_symlinks,
    ):
        if original in abilities:
            abilities.add(watched)


def _waits(condition: object, timeout: float | None = None) -> bool:
    """Whether `Condition.wait` is more than a look. A clock waits for its conditions."""
    return (timeout is None or timeout > 0) and not (
        _thread.sections and all(kind == "clock" for kind, _ in _thread.sections)
    )


def _on_disk(handler: logging.FileHandler, record: logging.LogRecord) -> bool:
    """pytest has a log file, too, which leads nowhere."""
    return handler.baseFilename != os.devnull


def _wrap_standard_library() -> None:
    for name in _SILENT:
        _watch(os, name, f"os.{name}")
    if sys.version_info < (3, 13):
        _watch(time, "sleep", "time.sleep")
    # A write to a file that is open has no audit event, and the driver's log is the one that all threads write.
    _watch(logging.FileHandler, "emit", "logging.FileHandler.emit", _on_disk)
    _watch(threading.Condition, "wait", "threading.Condition.wait", _waits)
    _watch(threading.Thread, "join", "threading.Thread.join")
    run = threading.Thread.run

    @functools.wraps(run)
    def run_marked(thread: threading.Thread) -> None:
        if thread.name.endswith("clock"):
            with section("clock", thread.name):
                run(thread)
        else:
            run(thread)

    threading.Thread.run = run_marked  # type: ignore[method-assign]


def _wrap_hub(module: ModuleType) -> None:
    dispatch, refuse = module.Hub.dispatch, module.Hub.refuse

    @functools.wraps(dispatch)
    def dispatch_marked(hub: object, link: object, message: object) -> None:
        if link is None:  # the driver asks itself, in a thread that may wait
            dispatch(hub, link, message)
            return
        with section("dispatch", message):
            dispatch(hub, link, message)

    @functools.wraps(refuse)
    def refuse_marked(hub: object, *arguments: Any) -> None:
        with section("refuse"):
            refuse(hub, *arguments)

    module.Hub.dispatch, module.Hub.refuse = dispatch_marked, refuse_marked


def _note_lock(module: ModuleType) -> None:
    _Process.lock = module.MODEL_LOCK


def _wrap_usb(module: ModuleType) -> None:
    _watch(module, "find", "usb.core.find")
    for name in _DEVICE:
        _watch(module.Device, name, f"usb.core.Device.{name}")


def _wrap_usb_util(module: ModuleType) -> None:
    for name in _DEVICE_UTIL:
        _watch(module, name, f"usb.util.{name}")


_WRAPPERS: Mapping[str, Callable[[ModuleType], None]] = {
    "indi_qsi.properties.hub": _wrap_hub,
    "indi_qsi.properties.vectors": _note_lock,
    "usb.core": _wrap_usb,
    "usb.util": _wrap_usb_util,
}


class _Finder:
    """Wraps modules when they are imported."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """For Python's import system."""
        wrap = _WRAPPERS.get(name)
        if wrap is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not _Finder)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                wrap(module)

            spec.loader.exec_module = execute_and_wrap
        return spec
