# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-firmware`: looks at a camera's firmware, checks files, and writes where the camera's loader is known.

errors, ihex, archive, image     files; pure
listing                          what is in them, for the user; pure
facts, planning                  what is known of a camera, and what would be done; pure
dialects                         the languages of loaders: one file each
access, backups, journal         the camera and the disk
update, recovery                 the steps, in their order
screen, signals, commands, cli   the user
"""
