# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs one target for some time:  python -m tests.fuzz [NAME] [--minutes N]

With atheris (pip install atheris), which looks for inputs that reach new code; without it by plain mutation.
What it has learned is in build/fuzz/NAME and is gone on from next time. An input that breaks something is
written to tests/data/fuzz/NAME: mend the fault, and keep the input.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests import fuzz

LEARNED = Path(__file__).parents[2] / "build" / "fuzz"
OURS = ["usbproto", "indi_qsi", "qsi_tools"]
ONE_INPUT_LIMIT = 10  # s; a usual one takes a millisecond
MEMORY_LIMIT = 1024  # MB of the whole process, astropy and the fuzzer's own tables included
REPORT = 30.0  # s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", nargs="?", choices=fuzz.names(), help="default: lists the targets")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random numbers; 0 takes another each time"
    )
    parser.add_argument("--plain", action="store_true", help="without atheris")
    options = parser.parse_args()
    if options.name is None:
        print("\n".join(fuzz.names()))
        return 0
    logging.disable(logging.CRITICAL)  # each refusal is logged; here there are millions
    seconds = round(options.minutes * 60)
    try:
        if not options.plain:
            return _with_atheris(options.name, seconds, options.seed)
    except ImportError:
        print("atheris is not installed: plain mutation", flush=True)
    return _plainly(options.name, seconds, options.seed)


def _with_atheris(name: str, seconds: int, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=OURS):
        target = fuzz.target(name)
    learned = LEARNED / name
    learned.mkdir(parents=True, exist_ok=True)
    found = fuzz.KEPT / name
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.SEEDS):
        (learned / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={fuzz.MAX_INPUT}",
        f"-timeout={ONE_INPUT_LIMIT}",
        f"-rss_limit_mb={MEMORY_LIMIT}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    if seed:
        options.append(f"-seed={seed}")
    atheris.Setup([sys.argv[0], *options, str(learned), str(found)], target.one_input)
    atheris.Fuzz()
    return 0  # not reached: the fuzzer ends the process


def _plainly(name: str, seconds: int, seed: int) -> int:
    target = fuzz.target(name)
    chance = random.Random(seed or None)
    pool = [*target.SEEDS, *(path.read_bytes() for path in fuzz.kept(name))] or [b""]
    end, said, count = time.monotonic() + seconds, time.monotonic(), 0
    while (now := time.monotonic()) < end:
        data = mutated(chance, pool)
        try:
            target.one_input(data)
        except Exception:
            traceback.print_exc()
            path = fuzz.KEPT / name / f"crash-{count}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"finding: {path}")
            return 1
        spent = time.monotonic() - now
        assert spent < ONE_INPUT_LIMIT, f"{data!r} took {spent:.1f} s"
        count += 1
        if now - said > REPORT:
            said = now
            print(f"{count} inputs", flush=True)
    print(f"{name}: {count} inputs, no finding")
    return 0


def mutated(chance: random.Random, pool: Sequence[bytes]) -> bytes:
    """One of the pool with some changes, each where chance wants it."""
    data = bytearray(chance.choice(pool))
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 1:
                del data[at : at + chance.randrange(1, 33)]
            case 2 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 3:
                other = chance.choice(pool)
                start = chance.randrange(len(other) + 1)
                data[at:at] = other[start : start + chance.randrange(1, 65)]
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 33)] * chance.randrange(1, 40)
    return bytes(data[: fuzz.MAX_INPUT])


if __name__ == "__main__":
    sys.exit(main())
