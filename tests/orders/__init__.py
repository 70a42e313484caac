# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random sequences of requests and faults, played against the whole driver, and judged by a sequential model.

`play` runs a sequence and records what was asked, told, and sent to the camera; `model` judges the record;
`sequences` makes and shrinks sequences; `bench` puts the three together.
"""
