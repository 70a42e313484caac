# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client wants to hear of: what it asked for by getProperties and enableBLOB."""

from __future__ import annotations

from indi_qsi.wire.messages import BlobPolicy

# Entries kept for a client. A real one has a handful; without a bound, invented names would pile up.
MAX_ENTRIES = 256


class Interest:
    """Nothing at first. `everything` is for a server, which sorts out its clients' wishes itself.

    Not guarded against threads: the hub calls it under its lock.
    """

    def __init__(self, everything: bool = False) -> None:
        self._everything = everything
        self._watched: set[tuple[str | None, str | None]] = set()
        self._policies: dict[tuple[str, str | None], BlobPolicy] = {}

    def watch(self, device: str | None, name: str | None) -> None:
        """getProperties for a device (None: all) and a vector (None: all)."""
        if len(self._watched) < MAX_ENTRIES:
            self._watched.add((device, name))

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None:
        """enableBLOB. For a whole device it replaces what was said about its vectors."""
        if name is None:
            old = self._policies
            self._policies = {key: value for key, value in old.items() if key[0] != device}
        if (device, name) in self._policies or len(self._policies) < MAX_ENTRIES:
            self._policies[device, name] = policy

    def wants(self, device: str, name: str | None) -> bool:
        """Whether a message about a vector, or (None) about a device, is of interest."""
        if self._everything:
            return True
        if self._policies.get((device, None)) is BlobPolicy.ONLY:
            return False
        return any(
            watched in (None, device) and (name is None or vector in (None, name))
            for watched, vector in self._watched
        )

    def wants_blob(self, device: str, name: str) -> bool:
        """Whether a frame is of interest."""
        if self._everything:
            return True
        of_device = self._policies.get((device, None), BlobPolicy.NEVER)
        return self._policies.get((device, name), of_device) is not BlobPolicy.NEVER
