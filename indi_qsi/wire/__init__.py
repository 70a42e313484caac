# SPDX-License-Identifier: LGPL-2.1-or-later
"""INDI on the wire, without any input or output: bytes <-> messages.

`parser` turns bytes into the messages of `messages`; `writer` makes bytes; `numbers` is the number
format of both; `limits` says how much of anything is accepted. Nothing here knows a camera.
"""
