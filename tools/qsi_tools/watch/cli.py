# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program `qsi-watch`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from indi_qsi.version import VERSION
from qsi_tools import exits
from qsi_tools.arguments import add_server, number
from qsi_tools.extras import Missing as MissingLibrary
from qsi_tools.extras import need
from qsi_tools.indi.client import ClientError, Interrupted
from qsi_tools.output import let_go
from qsi_tools.watch.log import BadLog, Log, read
from qsi_tools.watch.views import Lines, Screen, View
from qsi_tools.watch.watcher import Watcher

DEFAULT_INTERVAL = 5.0  # s
DEFAULT_PATIENCE = 10.0  # minutes; a Raspberry Pi that was rebooted is back within two


def main(arguments: Sequence[str] | None = None) -> int:
    """`qsi-watch`: see `qsi-watch --help`. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.plot is not None and options.csv is None:
        parser.error("--plot draws a log: say by --csv which")
    try:
        if options.plot is not None:
            return _plot(options.csv, options.plot)
        return _watch(options)
    except ClientError as error:
        if isinstance(error, Interrupted):
            return exits.INTERRUPTED
        status, text = exits.code(error), str(error)
    except (BadLog, MissingLibrary, ValueError) as error:
        status, text = exits.FAILED, str(error)
    except BrokenPipeError:  # whoever read the lines has seen enough
        let_go()
        return exits.DONE
    except OSError as error:
        status, text = exits.FAILED, f"{error.filename or 'the log'}: {error.strerror or error}"
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    print(f"qsi-watch: {text}", file=sys.stderr)
    return status


def _watch(options: argparse.Namespace) -> int:
    stop = threading.Event()
    log = Log(options.csv) if options.csv is not None else None
    view: View | None = None
    try:
        with exits.stop_on_signals(stop):
            view = _view(options)
            watcher = Watcher(options.server, options.device, view, log, stop)
            if options.once:
                watcher.once()
            else:
                watcher.run(options.interval, options.duration, options.patience * 60)
    finally:
        if view is not None:
            view.close()
        if log is not None:
            log.close()
    return exits.DONE


def _view(options: argparse.Namespace) -> View:
    if options.once or options.plain or options.json or not sys.stdout.isatty():
        return Lines(options.interval, options.json)
    try:
        need("rich")
    except MissingLibrary as missing:
        print(f"qsi-watch: no screen, plain lines: {missing}", file=sys.stderr)
        return Lines(options.interval, False)
    return Screen(options.server)


def _plot(log: Path, picture: Path) -> int:
    need("matplotlib")
    from qsi_tools.watch.plot import plot

    data = plot(read(log))
    # A picture of a log can always be made again, so a new one takes the place of the old one, but whole.
    with NamedTemporaryFile(dir=picture.parent, prefix=".qsi-watch-", delete=False) as file:
        try:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(picture)
        except BaseException:
            Path(file.name).unlink()
            raise
    print(picture)
    return exits.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsi-watch",
        description="Shows the cameras of an INDI server, here or elsewhere in the network, while they "
        "work: temperature, cooling power, exposure, filter, guide pulses, messages. It asks the cameras for "
        "nothing and changes nothing. In a terminal it fills the screen; elsewhere it prints lines. Ctrl-C "
        "ends it.",
        epilog=exits.EPILOG,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"qsi-watch {VERSION}")
    add_server(parser)
    add(
        "--device",
        action="append",
        default=[],
        metavar="NAME",
        help="watch this camera; may be repeated (default: all)",
    )
    add("--csv", type=Path, metavar="FILE", help="log to this file as well, behind what is in it")
    add("--plot", type=Path, metavar="FILE.png", help="draw the log of --csv, and end; needs no server")
    add(
        "--interval",
        type=number(0.1, 3600),
        default=DEFAULT_INTERVAL,
        metavar="SECONDS",
        help=f"between lines of the log and lines printed (default {DEFAULT_INTERVAL:g})",
    )
    add("--duration", type=number(0, 1e7), metavar="SECONDS", help="end after so long (default: never)")
    add(
        "--patience",
        type=number(0, 1e5),
        default=DEFAULT_PATIENCE,
        metavar="MINUTES",
        help=f"how long to wait for a server that has gone (default {DEFAULT_PATIENCE:g}; 0: not at all)",
    )
    add("--once", action="store_true", help="print the cameras as they are now, and end")
    add("--plain", action="store_true", help="print lines in a terminal, too")
    add("--json", action="store_true", help="print each line as a JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
