# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking a camera over: it answers, and does nothing any more that another program left (section 3.1, 8)."""

from __future__ import annotations

from usbproto import models
from usbproto import packets as p
from usbproto.deadline import Deadline
from usbproto.errors import Disconnected, LinkError, TimedOut
from usbproto.link import Link

POWERED_UP = models.POWER_UP_TIME + 1.0  # s after which an Init that was lost in a power-up is sent again
# s that a camera may be busy or in its error state at connect, or busy after an abort, before more is done
# about it.
SETTLE_LIMIT = 15.0
SETTLE_INTERVAL = 0.1  # s between questions meanwhile
INITIALISING = "initialising"

IDLE_STATES = frozenset({p.CameraState.IDLE, p.CameraState.FILTER_MOVING})
# States at connect that may pass by themselves, in words.
PASSING_STATES = {p.CameraState.ERROR: "in its error state", p.CameraState.FLUSHING: "busy"}

# What to do with a camera that is silent as it is opened, or does not end what it says it is doing. It hangs,
# or its loader runs instead of its firmware. How to tell the two apart by asking is not known of real cameras
# (section 7), so nothing is tried on them: both are said.
NOT_TAKEN_OVER = (
    "Unplug it, power the camera off and on, and connect again; if a firmware update was interrupted, "
    "finish it: qsi-firmware recover, or QSI's own Updater"
)


def take_over(link: Link) -> bool:
    """Initialises the camera and ends what it is doing; whether it may be busy with that for a while.

    Raises a `TimedOut` that says `NOT_TAKEN_OVER`, and what else `Link.exchange` raises.
    """
    try:
        initialise(link)
        state = _settled(link)
        if state == p.CameraState.WAITING_FOR_TRIGGER:
            # All that a waiting camera may be told is to wait no longer (6.0).
            trigger_off(link)
        elif state not in IDLE_STATES:
            # A program that was ended, or a cable that was pulled, left an exposure running.
            link.exchange(p.ABORT_EXPOSURE, p.Abort(), phase="ending what it was doing")
            return True
    except TimedOut as error:
        raise TimedOut(error.phase, error.seconds, NOT_TAKEN_OVER) from error
    return False


def initialise(link: Link) -> None:
    """Sends Init with the vendor's patience, 15 s three times, and once before for as long as a power-up.

    A camera that is powering up never answers what it was sent meanwhile.
    """
    patience = "it may be powering up"
    try:
        link.exchange(p.INIT, p.Empty(), seconds=POWERED_UP, phase=INITIALISING, slow=patience)
    except Disconnected:
        raise
    except LinkError:
        link.exchange(p.INIT, p.Empty(), phase=INITIALISING, slow="Init")


def trigger_off(link: Link) -> None:
    """Leaves every trigger mode."""
    link.exchange(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF))


def _settled(link: Link) -> p.CameraState:
    """The state, after waiting for one that may pass by itself."""
    session = link.session
    state = link.exchange(p.GET_DEVICE_STATE, p.Empty()).state
    if state not in PASSING_STATES:
        return state
    words = PASSING_STATES[state]
    session.progress(f"The camera is {words}: waiting up to {SETTLE_LIMIT:g} s for it to be ready")
    limit = Deadline(SETTLE_LIMIT)
    while state in PASSING_STATES and not limit.passed:
        session.stop.pause(SETTLE_INTERVAL)
        state = link.exchange(p.GET_DEVICE_STATE, p.Empty()).state
    if state in PASSING_STATES:
        session.odd("state at connect", f"The camera is still {PASSING_STATES[state]}: ending that")
    return state
