# SPDX-License-Identifier: LGPL-2.1-or-later
"""The long run:  python -m tests.soak [--exposures N] [--seed N]"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

from tests.soak import Soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--exposures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    say = functools.partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="qsi-soak-") as folder:
        report = Soak(Path(folder), options.exposures, options.seed, say).run()
    print("\n".join(report.lines()))
    report.check()
    print("none lost, nothing piled up")


if __name__ == "__main__":
    main()
