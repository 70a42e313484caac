# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program `qsi-snap`."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indi_qsi.version import VERSION
from qsi_tools import exits
from qsi_tools.arguments import add_server, checked, number, whole
from qsi_tools.extras import Missing as MissingLibrary
from qsi_tools.indi.client import Client, ClientError
from qsi_tools.indi.model import Blob
from qsi_tools.output import let_go, tell
from qsi_tools.snap import files
from qsi_tools.snap.display import Display, make_display
from qsi_tools.snap.request import FRAME_TYPES, Request, parse_binning, parse_frame, parse_setting
from qsi_tools.snap.session import Session

MAX_COUNT = 100_000
STARS_IN = ("light",)  # frame types that are looked at for stars


def main(arguments: Sequence[str] | None = None) -> int:
    """`qsi-snap`: see `qsi-snap --help`. Returns the exit status."""
    options = _parser().parse_args(arguments)
    request = _request(options)
    result: dict[str, Any] = {"ok": False, "exit": exits.FAILED, "error": None, "pictures": []}
    stop = threading.Event()
    try:
        with exits.stop_on_signals(stop), make_display(options.quiet) as display:
            _run(options, request, stop, display, result)
        result["exit"] = exits.DONE
    except ClientError as error:
        result["exit"], result["error"] = exits.code(error), str(error)
    except OSError as error:
        result["error"] = f"the picture could not be saved: {error}"
    except KeyboardInterrupt:
        result["exit"], result["error"] = exits.INTERRUPTED, "interrupted twice: the camera was left as it is"
    result["ok"] = result["exit"] == exits.DONE
    if result["error"]:
        tell(f"qsi-snap: {result['error']}", sys.stderr)
    if options.json:
        tell(json.dumps(result))
    let_go()
    return int(result["exit"])


def _run(
    options: argparse.Namespace,
    request: Request,
    stop: threading.Event,
    display: Display,
    result: dict[str, Any],
) -> None:
    with Client(options.server, stop) as client:
        session = Session(client, display, options.device)
        result["device"] = session.device
        session.connect()
        session.set_up(request)
        session.cool(request)
        with session.as_files_to_us():
            for number in range(1, request.count + 1):
                blob = session.expose(request, number)
                display.show("saving")
                picture = _keep(blob, options, _facts(session, request), display)
                result["pictures"].append(picture)
                if not options.json:
                    display.result(_describe(picture))


def _facts(session: Session, request: Request) -> dict[str, str]:
    """What names of files are made of."""
    now = datetime.now(UTC)
    across, down = (session.number("CCD_BINNING", name) or 1 for name in ("HOR_BIN", "VER_BIN"))
    temperature = session.number("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE")
    return {
        "device": session.device,
        "type": request.frame_type,
        "filter": session.filter or "none",
        "seconds": f"{request.seconds:g}",
        "binning": f"{across:.0f}x{down:.0f}",
        "temperature": f"{round(temperature)}" if temperature is not None else "none",
        "date": f"{now:%Y-%m-%d}",
        "time": f"{now:%H%M%S}",
    }


def _keep(blob: Blob, options: argparse.Namespace, facts: dict[str, str], display: Display) -> dict[str, Any]:
    """Saves a picture first, then looks at it: nothing of that can cost it any more. Raises OSError."""
    pattern = files.without_extension(options.output)
    path = files.save(blob.data, pattern, facts, blob.format or ".fits")
    picture: dict[str, Any] = {"file": str(path), "preview": None, "bytes": len(blob.data)}
    if not blob.format.startswith(".fit"):
        display.say(f"  {path.name}: not measured, because it is no FITS file but {blob.format or 'unnamed'}")
        return picture
    from qsi_tools.snap.measure import measure, open_picture

    display.show("measuring")
    try:
        pixels, header = open_picture(blob.data)
        measurement = measure(pixels, header, facts["type"] in STARS_IN and not options.no_stars)
    except Exception as error:  # whatever large libraries make of odd data: the series goes on
        display.say(f"  {path.name}: saved as it came, but it cannot be measured: {error}")
        return picture
    picture |= asdict(measurement)
    if measurement.missing:
        display.say(f"  no stars and no FWHM: {measurement.missing}")
    if not options.no_preview:
        from qsi_tools.snap.preview import preview

        try:
            shown = preview(pixels, header, measurement)
            # Beside the picture and of its name; the pattern's braces have done their work.
            stem = str(path).removesuffix(blob.format)
            picture["preview"] = str(files.save(shown, stem, {}, ".png"))
        except MissingLibrary as missing:
            display.say(f"  no preview: {missing}")
    return picture


def _describe(picture: dict[str, Any]) -> str:
    parts = [f"{picture['file']}"]
    if "median" in picture:
        parts.append(f"{picture['width']}x{picture['height']}")
        parts.append(f"median {picture['median']:.0f} ADU, noise {picture['noise']:.1f} ADU")
    if picture.get("stars") is not None:
        parts.append(f"{picture['stars']} stars")
    if picture.get("fwhm") is not None:
        arcsec = f' ({picture["fwhm_arcsec"]:.1f}")' if picture.get("fwhm_arcsec") is not None else ""
        parts.append(f"FWHM {picture['fwhm']:.1f} px{arcsec}")
    return "  ".join(parts)


# --- what the user wants ---


def _request(options: argparse.Namespace) -> Request:
    return Request(
        seconds=0.0 if options.type == "bias" else options.seconds,
        count=options.count,
        frame_type=options.type,
        binning=options.bin,
        frame=options.frame if options.frame != "full" else None,
        full_frame=options.frame == "full",
        filter=options.filter,
        filter_device=options.filter_device,
        temperature=options.temperature,
        tolerance=options.tolerance,
        cooling_limit=options.cooling_limit * 60 if options.cooling_limit is not None else None,
        settings=tuple(options.set),
    )


def _frame(text: str) -> object:
    return "full" if text == "full" else parse_frame(text)


def _pattern(text: str) -> str:
    pattern = str(Path(text).expanduser())
    files.check_pattern(text)
    return pattern


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsi-snap",
        description="Takes pictures with the camera of an INDI server, here or elsewhere in the network, "
        "saves them without ever overwriting a file, and says how good they are: background, noise, stars, "
        "FWHM. Progress goes to standard error, results to standard output. Ctrl-C aborts the exposure in "
        "the camera.",
        epilog=f"names: {', '.join('{' + name + '}' for name in files.FIELDS)}. " + exits.EPILOG,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"qsi-snap {VERSION}")
    add(
        "seconds",
        type=number(0, 86_400),
        nargs="?",
        default=1.0,
        help="exposure (default 1); a bias has none",
    )
    add_server(parser)
    add(
        "--device",
        metavar="NAME",
        help="the camera (default: the only one, or of several 'QSI CCD')",
    )
    add(
        "--count",
        type=whole(1, MAX_COUNT),
        default=1,
        metavar="N",
        help="so many pictures (default 1)",
    )
    add("--type", choices=sorted(FRAME_TYPES), default="light", help="of the pictures (default light)")
    add(
        "--bin",
        type=checked(parse_binning),
        metavar="N",
        help="binning: 2, or 1x2 for columns x rows (default: as it is)",
    )
    add(
        "--frame",
        type=checked(_frame),
        metavar="X,Y,W,H",
        help="part of the sensor in its own pixels, or 'full' (default: as it is)",
    )
    add("--filter", metavar="NAME", help="name or number of the filter (default: as it is)")
    add("--filter-device", metavar="NAME", help="the filter wheel, if it is not the camera's own")
    add(
        "--temperature",
        type=number(-100, 50),
        metavar="CELSIUS",
        help="cool to this first; the cooler stays on afterwards",
    )
    add(
        "--tolerance",
        type=number(0.05, 20),
        default=0.5,
        metavar="K",
        help="near enough to the temperature (default 0.5)",
    )
    add(
        "--cooling-limit",
        type=number(0.01, 600),
        metavar="MINUTES",
        help="give up cooling after this (default: 5 minutes and half a minute for each degree)",
    )
    add(
        "--set",
        type=checked(parse_setting),
        action="append",
        default=[],
        metavar="VECTOR.ELEMENT=VALUE",
        help="any other setting, such as Gain.High=On; may be repeated",
    )
    add(
        "--output",
        "-o",
        type=checked(_pattern),
        default=files.DEFAULT_PATTERN,
        metavar="NAME",
        help=f"where to save, with names in braces (default '{files.DEFAULT_PATTERN}')",
    )
    add("--no-preview", action="store_true", help="write no PNG")
    add("--no-stars", action="store_true", help="look for no stars")
    add("--json", action="store_true", help="print one JSON object at the end instead of lines")
    add("--quiet", action="store_true", help="show no progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
