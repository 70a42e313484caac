# SPDX-License-Identifier: LGPL-2.1-or-later
"""One INDI message while it is being read: the tree's events in, a checked message out."""

from __future__ import annotations

from enum import Enum, auto
from pyexpat import ParserCreate

from indi_qsi.wire import limits
from indi_qsi.wire.messages import (
    BlobPolicy,
    DelProperty,
    EnableBlob,
    GetProperties,
    Kind,
    Message,
    NewVector,
    PingReply,
    PingRequest,
    Severity,
    SnoopedVector,
    State,
)


class Refused(Exception):
    """The message being read cannot be accepted."""

    def __init__(self, reason: str, severity: Severity = Severity.REFUSED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.severity = severity


class _Root(Enum):
    """What a root element is for."""

    GET_PROPERTIES = auto()
    NEW = auto()
    DEFINE = auto()
    SET = auto()
    DELETE = auto()
    ENABLE_BLOB = auto()
    PING_REQUEST = auto()
    PING_REPLY = auto()
    MESSAGE = auto()


# Root element -> its purpose, its kind, and the name of the elements inside it.
_ROOTS: dict[str, tuple[_Root, Kind | None, str | None]] = {
    "getProperties": (_Root.GET_PROPERTIES, None, None),
    "delProperty": (_Root.DELETE, None, None),
    "enableBLOB": (_Root.ENABLE_BLOB, None, None),
    "pingRequest": (_Root.PING_REQUEST, None, None),
    "pingReply": (_Root.PING_REPLY, None, None),
    "message": (_Root.MESSAGE, None, None),
}
for _kind in Kind:
    _word = _kind.value
    _ROOTS[f"def{_word}Vector"] = (_Root.DEFINE, _kind, f"def{_word}")
    _ROOTS[f"set{_word}Vector"] = (_Root.SET, _kind, f"one{_word}")
    if _kind is not Kind.LIGHT:
        _ROOTS[f"new{_word}Vector"] = (_Root.NEW, _kind, f"one{_word}")

ROOT_NAMES = tuple(_ROOTS)


class Document:
    """One expat parser for one message.

    `feed` takes bytes that end with '>'; afterwards `done` tells whether the root element has been
    closed, and `message()` gives the result. Raises `Refused`, or expat's own error.
    """

    def __init__(self, encoding: str) -> None:
        # Naming the encoding overrides a declaration; a new parser for each message keeps expat's
        # tables of names from growing with what a peer invents.
        expat = ParserCreate(encoding)
        if hasattr(expat, "SetReparseDeferralEnabled"):  # Python 3.11.9 and newer
            # Else a tag that comes in two parts might be reported only when much more has come.
            expat.SetReparseDeferralEnabled(False)
        expat.StartElementHandler = self._start
        expat.EndElementHandler = self._end
        expat.CharacterDataHandler = self._characters
        self._expat = expat
        self._depth = 0
        self._root: tuple[_Root, Kind | None, str | None] | None = None
        self._attributes: dict[str, str] = {}
        self._values: list[tuple[str, str]] = []
        self._element: str | None = None  # name of the element being read
        self._text: list[str] = []
        self._length = 0  # of what is in _text
        self._quiet = 0  # bytes since expat last found something
        self._found = False
        self.done = False

    def feed(self, piece: bytes) -> None:
        """Reads on. Raises `Refused` or `ExpatError`; then the document is of no more use."""
        self.check_run(len(piece))
        self._found = False
        self._expat.Parse(piece, False)
        self._quiet = 0 if self._found else self._quiet + len(piece)

    def check_run(self, waiting: int) -> None:
        """Raises `Refused` if `waiting` more bytes would make one tag or text too long."""
        if self._quiet + waiting > limits.MAX_RUN:
            raise Refused(f"a tag or text of more than {limits.MAX_RUN} bytes")

    def close(self) -> None:
        """Undoes the circle of references, so that no garbage collection is needed."""
        expat = self._expat
        expat.StartElementHandler = expat.EndElementHandler = expat.CharacterDataHandler = None

    @property
    def target(self) -> tuple[str, str] | None:
        """The device and vector of a client's request, once its root has been read."""
        device, name = self._attributes.get("device"), self._attributes.get("name")
        if self._root is None or self._root[0] is not _Root.NEW or not device or not name:
            return None
        return device, name

    # What expat finds.

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._found = True
        self._depth += 1
        if self._depth > limits.MAX_DEPTH:
            raise Refused(f"elements nested more than {limits.MAX_DEPTH} deep")
        _check_tag(tag, attributes)
        if self._depth == 1:
            self._open_root(tag, attributes)
        elif tag in _ROOTS:
            raise Refused(f"{tag} inside another message", Severity.BROKEN)
        elif self._depth == 2 and self._root is not None and tag == self._root[2]:
            self._open_member(tag, attributes)

    def _open_root(self, tag: str, attributes: dict[str, str]) -> None:
        root = _ROOTS.get(tag)
        if root is None:
            raise Refused(f"unknown element {tag!r}", Severity.NOTE)
        if root[:2] == (_Root.NEW, Kind.BLOB):
            raise Refused("BLOBs are not accepted")
        self._root = root
        self._attributes = attributes

    def _open_member(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._values) == limits.MAX_ELEMENTS:
            raise Refused(f"a vector of more than {limits.MAX_ELEMENTS} elements")
        name = attributes.get("name", "")
        _check_name(name, f"name of {tag}")
        self._element = name
        self._text, self._length = [], 0

    def _characters(self, text: str) -> None:
        self._found = True
        self._length += len(text)
        if self._length > limits.MAX_TEXT:
            raise Refused(f"a text of more than {limits.MAX_TEXT} characters")
        self._text.append(text)

    def _end(self, tag: str) -> None:
        self._found = True
        self._depth -= 1
        if self._depth == 1:
            if self._element is not None:
                self._values.append((self._element, "".join(self._text).strip()))
                self._element = None
            self._text, self._length = [], 0
        elif self._depth == 0:
            self.done = True

    # What comes of it.

    def message(self) -> Message | None:
        """The message; None for one that is of no interest. Raises `Refused`."""
        assert self.done and self._root is not None
        purpose, kind, _ = self._root
        match purpose:
            case _Root.NEW:
                assert kind is not None
                return NewVector(kind, self._name("device"), self._name("name"), self._pairs())
            case _Root.DEFINE | _Root.SET:
                assert kind is not None
                return SnoopedVector(
                    kind,
                    purpose is _Root.DEFINE,
                    self._name("device"),
                    self._name("name"),
                    self._state(),
                    self._pairs(),
                )
            case _Root.GET_PROPERTIES:
                device, name = self._optional("device"), self._optional("name")
                return GetProperties(device, name, self._attributes.get("version"))
            case _Root.DELETE:
                return DelProperty(self._name("device"), self._optional("name"))
            case _Root.ENABLE_BLOB:
                return EnableBlob(self._name("device"), self._optional("name"), self._policy())
            case _Root.PING_REQUEST:
                return PingRequest(self._attributes.get("uid", ""))
            case _Root.PING_REPLY:
                return PingReply(self._attributes.get("uid", ""))
            case _Root.MESSAGE:
                return None

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._values)

    def _name(self, key: str) -> str:
        name = self._attributes.get(key, "")
        _check_name(name, key)
        return name

    def _optional(self, key: str) -> str | None:
        # An empty name means the same as none to the C library.
        return self._name(key) if self._attributes.get(key) else None

    def _state(self) -> State | None:
        try:
            return State(self._attributes["state"])
        except (KeyError, ValueError):
            return None

    def _policy(self) -> BlobPolicy:
        try:
            return BlobPolicy("".join(self._text).strip())
        except ValueError:
            raise Refused("enableBLOB is neither Never, Also nor Only") from None


def _check_tag(tag: str, attributes: dict[str, str]) -> None:
    if len(tag) > limits.MAX_NAME:
        raise Refused(f"an element name of more than {limits.MAX_NAME} characters")
    if len(attributes) > limits.MAX_ATTRIBUTES:
        raise Refused(f"more than {limits.MAX_ATTRIBUTES} attributes")
    for key, value in attributes.items():
        if len(key) > limits.MAX_NAME:
            raise Refused(f"an attribute name of more than {limits.MAX_NAME} characters")
        if len(value) > limits.MAX_ATTRIBUTE:
            raise Refused(f"an attribute of more than {limits.MAX_ATTRIBUTE} characters")


def _check_name(name: str, what: str) -> None:
    if not name:
        raise Refused(f"{what} is missing")
    if len(name) > limits.MAX_NAME:
        raise Refused(f"{what} of more than {limits.MAX_NAME} characters")
    if not name.isprintable():
        raise Refused(f"control characters in {what}")
