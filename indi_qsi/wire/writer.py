# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages as bytes, ready to be sent. Each function returns one whole message, a BLOB excepted.

Names and texts are escaped; control characters, which XML cannot carry and which would garble a
log, become blanks. Every message ends with a line break, for readers of logs only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from indi_qsi.wire.limits import MAX_OUTGOING_MESSAGE
from indi_qsi.wire.messages import BlobPolicy, Kind, State

VERSION = "1.7"

# One element: name, text, and further attributes (label, format, ...) in their order.
Item = tuple[str, str, tuple[tuple[str, str], ...]]

_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "'": "&apos;",
        **{chr(code): " " for code in (*range(0x20), 0x7F, 0xFFFE, 0xFFFF)},
    }
)

_stamp: tuple[int, str] = (-1, "")


def timestamp() -> str:
    """The present time as INDI writes it: UTC, whole seconds, no zone."""
    global _stamp
    now = int(time.time())
    second, text = _stamp
    if second != now:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        # One assignment of one tuple: another thread sees the old pair or the new one.
        _stamp = (now, text)
    return text


def escape(text: str) -> str:
    """Text that is safe inside an element and inside an attribute."""
    return text.translate(_ESCAPES)


def _attributes(*pairs: tuple[str, str | None]) -> str:
    return "".join(f' {key}="{escape(text)}"' for key, text in pairs if text is not None)


def _encode(text: str) -> bytes:
    # A lone surrogate (an undecodable file name, say) must not cost us the message.
    return text.encode("utf-8", "replace")


def _cut(message: str | None) -> str | None:
    if message is None or len(message) <= MAX_OUTGOING_MESSAGE:
        return message
    return message[: MAX_OUTGOING_MESSAGE - 3] + "..."


def _vector(tag: str, attributes: str, member: str, items: Iterable[Item]) -> bytes:
    lines = [f"<{tag}{attributes}>\n"]
    for name, text, more in items:
        lines.append(f"<{member}{_attributes(('name', name), *more)}>{escape(text)}</{member}>\n")
    lines.append(f"</{tag}>\n")
    return _encode("".join(lines))


def define_vector(
    kind: Kind,
    device: str,
    name: str,
    items: Iterable[Item],
    *,
    label: str,
    group: str,
    state: State,
    permission: str | None = None,
    timeout: float | None = None,
    rule: str | None = None,
    message: str | None = None,
) -> bytes:
    """defXxxVector. Lights have neither permission nor timeout; only switches have a rule."""
    attributes = _attributes(
        ("device", device),
        ("name", name),
        ("label", label),
        ("group", group),
        ("state", state.value),
        ("perm", permission),
        ("rule", rule),
        ("timeout", None if timeout is None else f"{timeout:g}"),
        ("timestamp", timestamp()),
        ("message", _cut(message)),
    )
    return _vector(f"def{kind.value}Vector", attributes, f"def{kind.value}", items)


def _set_attributes(device: str, name: str, state: State, timeout: float | None, message: str | None) -> str:
    return _attributes(
        ("device", device),
        ("name", name),
        ("state", state.value),
        ("timeout", None if timeout is None else f"{timeout:g}"),
        ("timestamp", timestamp()),
        ("message", _cut(message)),
    )


def set_vector(
    kind: Kind,
    device: str,
    name: str,
    items: Iterable[Item],
    *,
    state: State,
    timeout: float | None = None,
    message: str | None = None,
) -> bytes:
    """setXxxVector. A BLOB vector without items only tells its state."""
    attributes = _set_attributes(device, name, state, timeout, message)
    return _vector(f"set{kind.value}Vector", attributes, f"one{kind.value}", items)


def blob_header(
    device: str,
    name: str,
    element: str,
    size: int,
    format: str,
    *,
    attached: bool,
    state: State,
    timeout: float | None = None,
    message: str | None = None,
) -> bytes:
    """The part of a setBLOBVector before the content; `BLOB_TRAILER` is the part after it.

    Inline, the content is base64 in one unbroken run: libindi counts line breaks as data, and
    takes an `enclen` as a promise about them. Attached, there is no content, and a file descriptor
    of `size` bytes goes with the first byte of the header.
    """
    blob = _attributes(
        ("name", element),
        ("size", str(size)),
        ("format", format),
        ("len", str(size) if attached else None),
        ("attached", "true" if attached else None),
    )
    attributes = _set_attributes(device, name, state, timeout, message)
    return _encode(f"<setBLOBVector{attributes}>\n<oneBLOB{blob}>")


BLOB_TRAILER = b"</oneBLOB>\n</setBLOBVector>\n"


def delete_property(device: str, name: str | None = None, message: str | None = None) -> bytes:
    """delProperty for one vector, or for the whole device when `name` is None."""
    attributes = _attributes(
        ("device", device),
        ("name", name),
        ("timestamp", timestamp()),
        ("message", _cut(message)),
    )
    return _encode(f"<delProperty{attributes}/>\n")


def message(device: str | None, text: str) -> bytes:
    """A message to the user, of a device or of the driver as a whole."""
    attributes = _attributes(("device", device), ("timestamp", timestamp()), ("message", _cut(text)))
    return _encode(f"<message{attributes}/>\n")


def get_properties(device: str | None = None, name: str | None = None) -> bytes:
    """getProperties: from a driver to its server, the request to snoop on another device."""
    attributes = _attributes(("version", VERSION), ("device", device), ("name", name))
    return _encode(f"<getProperties{attributes}/>\n")


def enable_blob(device: str, name: str | None, policy: BlobPolicy) -> bytes:
    """enableBLOB, as a client sends it."""
    attributes = _attributes(("device", device), ("name", name))
    return _encode(f"<enableBLOB{attributes}>{policy.value}</enableBLOB>\n")


def new_vector(kind: Kind, device: str, name: str, values: Iterable[tuple[str, str]]) -> bytes:
    """newXxxVector, as a client sends it; config files consist of these."""
    attributes = _attributes(("device", device), ("name", name))
    items = ((element, text, ()) for element, text in values)
    return _vector(f"new{kind.value}Vector", attributes, f"one{kind.value}", items)


def ping_request(uid: str) -> bytes:
    """pingRequest: the peer replies when it has read everything before it."""
    return _encode(f"<pingRequest{_attributes(('uid', uid))}/>\n")


def ping_reply(uid: str) -> bytes:
    """pingReply, the answer to a pingRequest with this uid."""
    return _encode(f"<pingReply{_attributes(('uid', uid))}/>\n")
