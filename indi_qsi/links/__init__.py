# SPDX-License-Identifier: LGPL-2.1-or-later
"""Links to peers: the server that started the driver, and clients that come by themselves.

Each link has one reader thread and one writer thread. The writer is the only one that touches the
output, so messages are never mixed; nobody who posts to a link ever waits for its peer.
"""
