# SPDX-License-Identifier: LGPL-2.1-or-later
"""The long run:  python -m tests.soak [--exposures N] [--sequences N] [--seed N]

First exposures with everything that can happen to them, then random sequences of requests of several clients.
"""

from __future__ import annotations

import argparse
import functools
import logging
import tempfile
from pathlib import Path

from tests.orders import bench
from tests.orders.__main__ import MODELS
from tests.soak import Soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--exposures", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=10_000, help="for each of two models")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    say = functools.partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="qsi-soak-") as folder:
        report = Soak(Path(folder), options.exposures, options.seed, say).run()
    print("\n".join(report.lines()))
    report.check()
    print("none lost, nothing piled up")
    logging.disable(logging.CRITICAL)
    for model in MODELS:
        seeds = range(options.seed, options.seed + options.sequences)
        failures = [failure for failure in bench.run(model, seeds) if failure is not None]
        print("\n".join(map(str, failures)))
        assert not failures, f"{len(failures)} of {len(seeds)} sequences failed with the {model}"
        print(f"{len(seeds)} sequences of requests were answered in their order by the {model}", flush=True)


if __name__ == "__main__":
    main()
