# SPDX-License-Identifier: LGPL-2.1-or-later
"""The push parser: bytes in any portions -> messages and problems.

INDI is a sequence of small XML documents without any frame around them. The parser cuts the stream
after each '>' and gives whole pieces only to expat, one expat parser a message. So the result
cannot depend on how the stream was cut on its way, nothing is scanned twice when it comes byte by
byte, and the end of a message is always the end of a piece.

Whatever cannot be accepted (over a limit, unknown, not XML) becomes one `Problem`; the parser then
looks for the next tag that starts an INDI message, from just behind the start of the refused one.
No INDI message is ever inside another, so the next good message is found whatever came before it.
"""

from __future__ import annotations

import re
from pyexpat import ExpatError

from indi_qsi.wire import limits
from indi_qsi.wire.document import ROOT_NAMES, Document, Refused
from indi_qsi.wire.messages import Message, Problem, Severity

_ROOT_TAG = re.compile(b"<(?:" + "|".join(ROOT_NAMES).encode() + rb")(?=[\s/>])")

# '<' + the longest root name: what must be kept to recognise a tag that comes in two parts.
_ROOT_TAG_LENGTH = 1 + max(map(len, ROOT_NAMES))

# Comments, CDATA sections, DTDs and processing instructions: no INDI program sends them, an
# attacker may, and each can swallow messages up to its far end.
_MARKUP = re.compile(rb"<[!?]")

# Some clients write an XML declaration before every message.
_DECLARATION = re.compile(rb"<\?xml[^<>]*>")

# White space is usual between messages; a byte order mark is harmless.
_BLANKS = b" \t\r\n\xef\xbb\xbf"


class Parser:
    """Reads one stream. `feed` never raises for input and keeps less than 100 kB."""

    def __init__(self) -> None:
        self._data = bytearray()  # starts with the message being read
        self._document: Document | None = None
        self._fed = 0  # how much of _data the document has had
        self._looked = 0  # how much of _data is known to hold no '>' after _fed
        self._lost = False  # looking for the next root tag

    def feed(self, data: bytes) -> list[Message | Problem]:
        """Takes the next bytes; returns what they complete, in their order."""
        self._data += data
        events: list[Message | Problem] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Message | Problem]) -> bool:
        """One step forward; False when more bytes are needed."""
        try:
            if self._document is not None:
                return self._read_on(self._document, events)
            return self._find_root() if self._lost else self._find_tag()
        except Refused as refused:
            target = self._document.target if self._document is not None else None
            events.append(Problem(refused.reason, refused.severity, target))
            self._drop()
            return True

    def _drop(self) -> None:
        """Gives up the message being read; what follows its first byte may still be good."""
        self._forget(1 if self._document is not None else 0)
        self._lost = True

    def _forget(self, length: int) -> None:
        if self._document is not None:
            self._document.close()
            self._document = None
        del self._data[:length]
        self._fed = self._looked = 0

    def _find_root(self) -> bool:
        match = _ROOT_TAG.search(self._data)
        if match is None:
            self._forget(max(0, len(self._data) - _ROOT_TAG_LENGTH))
            return False
        self._forget(match.start())
        self._lost = False
        return True

    def _find_tag(self) -> bool:
        data = self._data
        start = data.find(b"<")
        before = data[: start if start >= 0 else len(data)]
        if before.strip(_BLANKS):
            raise Refused("text between messages", Severity.BROKEN)
        self._forget(len(before))
        if len(data) < 2:
            return False
        if data[1] == ord("?"):
            return self._skip_declaration()
        self._document = Document("utf-8")
        return True

    def _skip_declaration(self) -> bool:
        length = self._data.find(b">") + 1
        if length == 0 and len(self._data) <= limits.MAX_ATTRIBUTE:
            return False
        declaration = bytes(self._data[:length])
        if not _DECLARATION.fullmatch(declaration) or length > limits.MAX_ATTRIBUTE:
            self._forget(1)
            raise Refused("a processing instruction", Severity.BROKEN)
        self._forget(length)
        return True

    def _read_on(self, document: Document, events: list[Message | Problem]) -> bool:
        data = self._data
        end = data.find(b">", max(self._fed, self._looked)) + 1
        if end == 0:
            self._looked = len(data)
            document.check_run(len(data) - self._fed)
            return False
        piece = bytes(data[self._fed : end])
        document.check_run(len(piece))
        if end > limits.MAX_MESSAGE:
            raise Refused(f"a message of more than {limits.MAX_MESSAGE} bytes")
        if _MARKUP.search(piece):
            raise Refused("a comment, CDATA section, DTD or instruction", Severity.BROKEN)
        self._fed = end
        try:
            document.feed(piece)
        except ExpatError as error:
            document = self._retry(document, error)
        if document.done:
            message = document.message()
            if message is not None:
                events.append(message)
            self._forget(end)
        return True

    def _retry(self, failed: Document, error: ExpatError) -> Document:
        """Reads a message that is not valid UTF-8 as Latin-1: old clients pass bytes through."""
        seen = bytes(self._data[: self._fed])
        try:
            seen.decode("utf-8")
        except UnicodeDecodeError:
            failed.close()
            self._document = Document("iso-8859-1")
            try:
                self._document.feed(seen)
            except ExpatError as again:
                error = again
            else:
                return self._document
        # The reason of expat without its line and column, which mean nothing in a stream.
        reason = str(error).partition(":")[0]
        raise Refused(f"broken XML: {reason}", Severity.BROKEN)
