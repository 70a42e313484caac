# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-replay import`: what another program and a camera said to each other, from a capture of the USB."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from usbproto.captures import importing
from usbproto.captures.container import CaptureError

UNDERSTOOD, PARTLY, UNUSABLE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status; `arguments` are those behind "import"."""
    options = _parser().parse_args(arguments)
    try:
        imported = importing.read(options.capture, device=options.device, mask=options.mask)
        whole = imported.write(options.output) if options.output is not None else True
    except FileExistsError:
        return _fail(f"{options.output} exists already; choose another name")
    except CaptureError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or options.capture}: {error.strerror or error}")
    facts = imported.as_dict()
    _print(json.dumps(facts, indent=2) if options.json else "\n".join(_text(facts)))
    if not whole:
        print(f"qsi-replay: {options.output} has reached the size limit and ends early", file=sys.stderr)
    return UNDERSTOOD if imported.complete and imported.findings.understood and whole else PARTLY


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str) -> int:
    print(f"qsi-replay: {text}", file=sys.stderr)
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsi-replay import",
        description="Reads a capture (pcap or pcapng) that usbmon or USBPcap made while a program used a QSI "
        "camera. Lists what the driver knows and what it does not.",
        epilog="Exit status: 0 everything is as the driver knows it, 1 something is not (see the list) or "
        "the capture is incomplete, 2 the capture cannot be used.",
    )
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="the capture; it may be packed by gzip")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the exchanges as a recording"
    )
    parser.add_argument(
        "--device", metavar="BUS.ADDRESS", help="the camera, if the capture has several devices"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--no-mask", dest="mask", action="store_false", help="do not replace digits of serial numbers"
    )
    return parser


def _text(facts: dict[str, Any]) -> Iterator[str]:
    """The result for a reader; each line is shorter than a terminal is wide, except bytes."""
    camera, capture = facts["camera"], facts["capture"]
    serial = f", serial {camera['serial']}" if camera["serial"] else ""
    yield f"camera: {camera['series']} Series (0403:{camera['product']}){serial}"
    yield f"  at {', '.join(camera['devices'])}, found by {camera['found_by']}; " + (
        f"packets of {camera['packet']} bytes, by {camera['packet_by']}"
    )
    yield f"capture: {capture['format']}, {capture['packets']} packets, {capture['seconds']} s"
    yield from _losses(capture, camera)
    yield from _commands(facts["commands"])
    yield from _unknown(facts["unknown_commands"])
    yield from _chip(facts["chip_requests"])
    if facts["latency_timer_ms"]:
        yield f"latency timer: {', '.join(str(value) for value in facts['latency_timer_ms'])} ms"
    for failure in facts["failed_transfers"]:
        yield f"failed transfers: {failure['error']} at {failure['endpoint']}, {failure['count']} times"


def _losses(capture: dict[str, Any], camera: dict[str, Any]) -> Iterator[str]:
    if capture["damage"]:
        yield f"  incomplete: {capture['damage']}"
    for count, what in (
        (capture["cut"], "transfers from the camera are cut: their last bytes were not captured"),
        (capture["unreadable"], "packets are too short to be read"),
        (capture["without_begin"], "transfers began before the capture, or their beginnings are lost"),
        (capture["without_end"], "transfers did not end in the capture"),
        (capture["of_other_links"], "packets are not of a USB"),
        (camera["transfers_of_other_endpoints"], "transfers use endpoints that a camera does not have"),
    ):
        if count:
            yield f"  {count} {what}"


def _commands(commands: list[dict[str, Any]]) -> Iterator[str]:
    if not commands:
        return
    yield "commands (lengths of answers in payload bytes):"
    yield f"  {'code':4} {'name':20} {'count':>6} {'length':>8} {'layout':>6} {'data':>17} {'slowest':>10}"
    for facts in commands:
        layout = "-" if facts["layout"] is None else str(facts["layout"])
        slowest = "-" if facts["slowest_ms"] is None else f"{facts['slowest_ms']} ms"
        yield (
            f"  {facts['code']:4} {facts['name']:20} {facts['count']:6} {_range(facts['lengths']):>8} "
            f"{layout:>6} {_range(facts['data']):>17} {slowest:>10}"
        )
    for facts in commands:
        for odd in facts["odd"]:
            yield f"{facts['name']}: {odd['what']}, {odd['count']} times: {', '.join(odd['examples'])}"
        for code, count in facts["device_errors"].items():
            yield f"{facts['name']}: device error {code}, {count} times"
        if facts["unanswered"]:
            yield f"{facts['name']}: not answered, {facts['unanswered']} times"


def _unknown(unknown: list[dict[str, Any]]) -> Iterator[str]:
    for facts in unknown:
        name = f" {facts['name']}" if facts["name"] else ""
        reason = "changes the camera for good" if facts["changes_for_good"] else "not as the driver knows it"
        yield f"unknown command {facts['code']}{name} ({reason}), {facts['count']} times"
        for example in facts["examples"]:
            answer = (
                f"{example['answer']} ({example['answer_size']} bytes)" if example["answer"] else "nothing"
            )
            yield f"  {example['data']} ({example['size']} bytes) -> {answer}"


def _chip(requests: list[dict[str, Any]]) -> Iterator[str]:
    for facts in requests:
        values = ", ".join(f"{value}/{index}" for value, index in facts["values"])
        failed = f", {facts['failed']} failed" if facts["failed"] else ""
        warning = " (changes the chip for good)" if facts["changes_for_good"] else ""
        name = facts["name"] or f"unknown request {facts['type']} {facts['request']}"
        yield f"USB chip: {name}{warning}, {facts['count']} times{failed}: {values}"


def _range(limits: list[float] | None) -> str:
    if limits is None:
        return "-"
    least, most = limits
    return f"{least:g}" if least == most else f"{least:.0f}..{most:.0f}"
