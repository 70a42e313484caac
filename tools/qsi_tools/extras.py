# SPDX-License-Identifier: LGPL-2.1-or-later
"""Libraries that only some of the tools' work needs: what is missing, and how to get it."""

from __future__ import annotations

from importlib import import_module

PIP = "pip install 'indi-qsi[tools]'"
# Module -> Debian's package.
PACKAGES = {
    "rich": "python3-rich",
    "PIL": "python3-pil",
    "photutils": "python3-photutils",
    "scipy": "python3-scipy",
    "matplotlib": "python3-matplotlib",
}


class Missing(Exception):
    """Libraries are not installed; the text says which, and how to install them."""


def need(*modules: str) -> None:
    """Raises `Missing` unless all of these can be imported."""
    missing = [module for module in modules if not _there(module)]
    if missing:
        packages = " ".join(PACKAGES[module] for module in missing)
        raise Missing(f"{' and '.join(missing)} not installed: apt install {packages}, or {PIP}")


def _there(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
