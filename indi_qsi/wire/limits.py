# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much a peer may send. Each limit is a named constant with its reason.

The peer is not trusted: INDI has no authentication, and a server that listens on the network may be
reached by anybody on it. Lengths are in characters unless the name or the comment says bytes.
"""

# The C library keeps every name in 64 bytes; nothing longer can come from it.
MAX_NAME = 64

# The C library cuts messages at 255; no other attribute comes near that.
MAX_ATTRIBUTE = 256

# The busiest real tag (defNumber) has seven attributes.
MAX_ATTRIBUTES = 16

# Paths, filter names and header values are the longest texts a client sends.
MAX_TEXT = 4096

# INDI needs two levels; two more let an unknown extension be skipped instead of refused.
MAX_DEPTH = 4

# The largest real vector has a few dozen elements.
MAX_ELEMENTS = 256

# Bytes. A full vector of 256 numbers takes about 20 kB; anything larger is no request to a camera.
MAX_MESSAGE = 64 * 1024

# Bytes between two tags, markup included. Holds the longest text in any usual encoding, and bounds
# what the XML parser scans again when a tag arrives in pieces.
MAX_RUN = 16 * 1024

# The longest sensible number has about 25 characters; white space is not counted.
MAX_NUMBER = 64

# The C library cuts messages at 255, so a longer one would reach some clients without its end.
MAX_OUTGOING_MESSAGE = 255
