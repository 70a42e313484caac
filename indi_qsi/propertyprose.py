# SPDX-License-Identifier: LGPL-2.1-or-later
"""What docs/properties.md says of each property beyond what the vectors say of themselves.

One entry a property. The generator refuses to work while one is missing or too many; a test runs the
examples.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prose:
    """`text` is Markdown. `example` is what stands behind 'DEVICE.VECTOR.' in the indi_setprop example.

    The lines of `before` are commands that the example needs first, with `{device}` in them. `when` is the
    condition under which the property is there, where it is not simply that a camera is connected. `kept`
    says where its values are kept besides the config file.
    """

    text: str
    example: str | None = None
    before: tuple[str, ...] = ()
    when: str | None = None
    kept: str | None = None


# How a setting of the camera is remembered.
BY_ROLE = "for this camera and role (see `CCD_ROLE`); it holds at the next connect"
BY_CAMERA = "for this camera, by its serial number; it holds at the next connect"
CLIENT = 'indi_setprop "{device}.UPLOAD_MODE.UPLOAD_BOTH=On"'

PROSE: dict[str, Prose] = {
    # --- before a camera is connected ---
    "CONNECTION": Prose(
        "Opens the camera or lets it go. Busy while that goes on; CONNECT turns On only when the camera "
        "can be used, and all properties of the camera are defined right after that. When it fails the "
        "state is Alert and the message says what to do. Disconnecting ends an exposure that is running; "
        "what becomes of the cooler is chosen by `COOLER_AT_DISCONNECT`.",
        "CONNECT=On",
    ),
    "DRIVER_INFO": Prose(
        "What kind of device this is, as a sum: 2 camera, 4 guide port, 16 filter wheel. Until a camera "
        "was connected it is 22, because guiding programs read it once only.",
    ),
    "DEBUG": Prose(
        "Shows the driver's own log to clients, and defines the three properties that choose what of it. "
        "What other cameras of the same process say is not in it.",
        "ENABLE=On",
    ),
    "DEBUG_LEVEL": Prose(
        "What of the log goes to clients. `DBG_DEBUG` adds each exchange with the camera: the command, the "
        "time it took, how it ended, and the bytes of both packets. A question that gets the same answer "
        "again and again is told every 10 s.",
        "DBG_DEBUG=On",
        when="while `DEBUG` is enabled",
    ),
    "LOGGING_LEVEL": Prose(
        "What of the log goes to the file. `LOG_DEBUG` adds each exchange with the camera, as above.",
        "LOG_DEBUG=On",
        when="while `DEBUG` is enabled",
    ),
    "LOG_OUTPUT": Prose(
        "Where the log goes. The file is in `~/.indi/logs`, in a folder for each day. What the driver writes "
        "to standard error is not changed by this.",
        "FILE_DEBUG=On",
        when="while `DEBUG` is enabled",
    ),
    "SIMULATION": Prose(
        "Puts a simulated camera in the place of the real one. Refused while a camera is connected.",
        "ENABLE=On",
        before=(
            'indi_setprop "{device}.CONNECTION.DISCONNECT=On"',
            "indi_eval -t 20 -w '\"{device}.CONNECTION._STATE\"==0'",
        ),
    ),
    "CONFIG_PROCESS": Prose(
        "The config file, `~/.indi/<device>_config.xml`: load it, save it, load the first one there ever "
        "was (Default), delete it (Purge). All four switches are Off again when it is done. Loading asks "
        "for nothing that is so already: it moves no filter wheel without need, and starts no exposure.",
        "CONFIG_SAVE=On",
    ),
    "LINK_TIMING": Prose(
        "How fast, and how carefully, the camera is talked to. `TIMING_FAST` is the usual one. "
        "`TIMING_VENDOR` is as slow as the vendor's library: choose it when the USB link makes errors. After "
        "three link errors within five minutes the driver changes to it by itself, until the next connect. A "
        "change waits for the end of an exposure. `INDI_QSI_TIMING=Vendor` chooses it for all cameras of a "
        "driver.",
        "TIMING_VENDOR=On",
        kept=BY_CAMERA,
    ),
    "POLLING_PERIOD": Prose(
        "How often temperatures are read and told. Values above 2000 are taken as 2000: clients that wait "
        "for a temperature expect news.",
        "PERIOD_MS=1000",
    ),
    "ACTIVE_DEVICES": Prose(
        "The other devices at the telescope, for the headers of pictures: mount, rotator, focuser, a "
        "filter wheel that is not the camera's, sky quality meter. Empty means none. Works under "
        "indiserver only, which passes on what they say.",
        "ACTIVE_TELESCOPE=Telescope Simulator",
    ),
    "GUIDER_DEVICE": Prose(
        "Adds a second device for the guide port alone, for programs that take a guider only if it is no "
        "camera: an imaging camera's guide port for PHD2. See [howto-phd2.md](howto-phd2.md).",
        "DISABLE=On",
    ),
    # --- exposures ---
    "CCD_EXPOSURE": Prose(
        "Asks for an exposure. Busy with the whole duration at once, then with the remaining seconds "
        "about once a second, 0 while the picture is read; then the picture is sent in `CCD1`, and then "
        "this is Ok with 0. Alert: it failed, and no picture comes. A request during an exposure ends "
        "that one and begins anew. A bias is as short as possible whatever is asked for.",
        "CCD_EXPOSURE_VALUE=0.5",
    ),
    "CCD_ABORT_EXPOSURE": Prose(
        "Ends the exposure without a picture; `CCD_EXPOSURE` becomes Idle. Only ever answers to a request.",
        "ABORT=On",
    ),
    "CCD_FAST_TOGGLE": Prose(
        "Takes a series of `CCD_FAST_COUNT` exposures for one request: the next one begins as soon as the "
        "pixels of the one before are in memory.",
        "INDI_DISABLED=On",
    ),
    "CCD_FAST_COUNT": Prose("How many exposures of a fast series are still to come.", "FRAMES=3"),
    "EXPOSURE_PHASE": Prose(
        "What the exposure is doing: Idle, Flushing, Waiting for trigger, Exposing, Reading out, Downloading."
    ),
    "DOWNLOAD_PROGRESS": Prose("How much of the picture has come over the USB."),
    "CCD_FRAME": Prose(
        "The part of the sensor to read, in pixels of the sensor, whatever the binning is. The picture "
        "has WIDTH / HOR_BIN by HEIGHT / VER_BIN pixels, rounded down.",
        "X;Y;WIDTH;HEIGHT=100;200;640;480",
    ),
    "CCD_FRAME_RESET": Prose("Sets the frame to the whole sensor and the binning to 1x1.", "RESET=On"),
    "CCD_BINNING": Prose(
        "How many pixels make one, each way. May come before or after `CCD_FRAME`. Which combinations the "
        "camera can do depends on the model: most need both alike, and the refusal says so.",
        "HOR_BIN;VER_BIN=2;2",
    ),
    "CCD_FRAME_TYPE": Prose(
        "Light and Flat open the shutter; Dark and Bias keep it closed. It is Light after each connect.",
        "FRAME_LIGHT=On",
    ),
    "CCD_INFO": Prose("The sensor: pixels, their size, bits of each value."),
    "CCD1": Prose(
        "The picture, as `.fits` (or `.fits.fz`, `.bin`: see `CCD_COMPRESSION`, `CCD_TRANSFER_FORMAT`). "
        "Clients must ask for it by `enableBLOB`; `indi_getprop` does when it is asked for this property, "
        "and waits for the next picture. See [howto-scripts.md](howto-scripts.md)."
    ),
    "PIXEL_MASK": Prose(
        "Bad pixels, which are replaced by the zero level in every picture: x,y x,y ... of the unbinned "
        "sensor, from 0, or a file on the driver's computer with an x and a y a line. Both together are the "
        "mask.",
        "PIXELS=12,34 2000,17",
        kept=BY_CAMERA,
    ),
    "CCD_COMPRESSION": Prose(
        "Sends FITS pictures compressed without loss (`.fits.fz`), which guiding programs cannot read; so "
        "it is Disabled after each connect until a config file or a client says otherwise.",
        "INDI_DISABLED=On",
    ),
    "CCD_CAPTURE_FORMAT": Prose(
        "What the sensor gives: Mono, or RAW 16 on colour models. There is nothing else to choose.",
        "INDI_MONO=On",
    ),
    "CCD_TRANSFER_FORMAT": Prose(
        "As what pictures are sent and saved: FITS, or Native: the bare pixels, 16 bits each, "
        "little-endian, row by row from the top.",
        "FORMAT_FITS=On",
    ),
    "UPLOAD_MODE": Prose(
        "Where pictures go: to the clients, into files on the driver's computer, or both. It is Client "
        "after each connect until a config file or a client says otherwise.",
        "UPLOAD_BOTH=On",
    ),
    "UPLOAD_SETTINGS": Prose(
        "The directory for files and how they are called. `_HOME_` at the beginning of the directory "
        "stands for the home of the driver's user. In the prefix, XXX becomes a running number and "
        "ISO8601 the local time. A file that exists is never overwritten.",
        "UPLOAD_PREFIX=M31_XXX",
    ),
    "CCD_FILE_PATH": Prose(
        "The last file that was written, told each time.",
        before=(CLIENT,),
        when="while `UPLOAD_MODE` is Local or Both",
    ),
    # --- temperatures ---
    "CCD_TEMPERATURE": Prose(
        "Shows what is measured, at least every two seconds, changed or not. A request is the set point: "
        "it switches the cooler on. Busy until the CCD is within `RAMP_THRESHOLD` of it, then Ok; Idle "
        "while the cooler is off.",
        "CCD_TEMPERATURE_VALUE=-5",
    ),
    "CCD_TEMP_RAMP": Prose(
        "How fast the set point may move, 0: at once; and how near is near enough for `CCD_TEMPERATURE` "
        "to be Ok.",
        "RAMP_SLOPE;RAMP_THRESHOLD=0;0.2",
    ),
    "CCD_COOLER": Prose(
        "On cools to the last set point. Off lets the camera warm the CCD up at its own safe rate (Busy, "
        "still On) and switches off at ambient temperature; a second Off switches off at once.",
        "COOLER_ON=On",
    ),
    "CCD_COOLER_POWER": Prose("How hard the cooler works."),
    "COOLER_AT_DISCONNECT": Prose(
        "What becomes of the cooler when the camera is disconnected.", "AT_DISCONNECT_KEEP=On"
    ),
    "CAMERA_TEMPERATURES": Prose("Heat sink and electronics. A sensor that the model lacks shows 0, Idle."),
    # --- the camera ---
    "CAMERA_INFO": Prose("What the camera says it is."),
    "CAMERA_ALARMS": Prose(
        "What the camera complains about. The first four end by themselves, the last two when the camera "
        "is powered off and on."
    ),
    # --- headers ---
    "FITS_HEADER": Prose(
        "Adds a keyword to every header from now on. A name without a value takes it back, a comment "
        "alone adds a COMMENT, the name INDI_CLEAR takes everything back. What the driver measures cannot "
        "be overridden. Kept while the driver runs.",
        "KEYWORD_NAME;KEYWORD_VALUE;KEYWORD_COMMENT=OBJECT;M 31;what I look at",
    ),
    "SCOPE_INFO": Prose(
        "The telescope, for headers; 0 is unknown.",
        "FOCAL_LENGTH;APERTURE=700;120",
    ),
    "WCS_CONTROL": Prose(
        "Writes world coordinates into headers, once `CCD_ROTATION` was set and `ACTIVE_DEVICES` names a "
        "mount that says where it points.",
        "WCS_ENABLE=On",
    ),
    "CCD_ROTATION": Prose(
        "The position angle of the camera, degrees.",
        "CCD_ROTATION_VALUE=90",
        before=('indi_setprop "{device}.WCS_CONTROL.WCS_ENABLE=On"',),
        when="while `WCS_CONTROL` is enabled",
    ),
    "CCD_CFA": Prose(
        "The colour mask, for headers: which colour is where in the square of four pixels. Empty until it "
        "is set: no table tells it for sure.",
        "CFA_OFFSET_X;CFA_OFFSET_Y;CFA_TYPE=0;0;RGGB",
        when="colour models",
    ),
    # --- guide port ---
    "TELESCOPE_TIMED_GUIDE_NS": Prose(
        "A guide pulse: Busy at once; Idle, once, when the relay has opened again; Alert when it could "
        "not be done. A new pulse takes the place of the one before, 0 ends it. The camera closes relays "
        "of one axis at a time, so pulses of both axes that are asked for together take turns. A pulse "
        "that cannot be sent within a second, because a picture is being transferred, is dropped with "
        "Alert.",
        "TIMED_GUIDE_N;TIMED_GUIDE_S=100;0",
        when="models with a guide port",
    ),
    "TELESCOPE_TIMED_GUIDE_WE": Prose(
        "The same for the other axis.",
        "TIMED_GUIDE_W;TIMED_GUIDE_E=0;100",
        when="models with a guide port",
    ),
    # --- the camera's settings ---
    "CCD_ROLE": Prose(
        "What the camera is used for. The settings of this tab are kept for each role apart, so that a "
        "camera can guide at night with other settings than it takes pictures.",
        "ROLE_MAIN=On",
        kept=BY_CAMERA,
    ),
    "Fan": Prose("The fan.", "Quiet=On", kept=BY_ROLE),
    "Gain": Prose(
        "The camera's amplifier: High has less noise, Low holds more light. Auto is High without binning "
        "and Low with it, where the pixels hold more than the converter counts.",
        "High=On",
        when="models with a choice",
        kept=BY_ROLE,
    ),
    "AntiBlooming": Prose(
        "Drains light from full pixels before it spills into their neighbours.",
        "Normal=On",
        when="models with interline sensors",
        kept=BY_ROLE,
    ),
    "READOUT_QUALITY": Prose(
        "Fast reads pictures in a fraction of the time, with more noise.",
        "QUALITY_HIGH=On",
        when="600 Series",
        kept=BY_ROLE,
    ),
    "CCD_FLUSH": Prose(
        "How thoroughly the sensor is emptied before each exposure.", "FLUSH_NORMAL=On", kept=BY_ROLE
    ),
    "SHUTTER_PRIORITY": Prose(
        "Whether the mechanical or the electronic shutter times exposures.",
        "PRIORITY_MECHANICAL=On",
        when="models that have both",
        kept=BY_ROLE,
    ),
    "STATUS_LED": Prose("The camera's light.", "INDI_DISABLED=On", kept=BY_ROLE),
    "BEEPER": Prose("The camera's sounds.", "INDI_DISABLED=On", kept=BY_ROLE),
    "AUTO_ZERO": Prose(
        "Brings each picture to the same zero level, by its overscan pixels.", "INDI_ENABLED=On", kept=BY_ROLE
    ),
    "CCD_SHUTTER": Prose(
        "Moves the shutter by hand. Automatic, so that exposures move it, after each connect.",
        "SHUTTER_AUTO=On",
        when="models with a mechanical shutter",
    ),
    "SHUTTER_OUTPUT": Prose(
        "The north output of the guide port follows the shutter and cannot guide. Disabled after each "
        "connect.",
        "INDI_DISABLED=On",
        when="models with a guide port",
    ),
    "HOST_TIMED": Prose(
        "Exposures without a flush before them, timed by the computer. Disabled after each connect.",
        "INDI_DISABLED=On",
        when="models with interline sensors",
    ),
    "HIGH_SPEED_READOUT": Prose(
        "Takes pictures by high speed readout. Disabled after each connect.",
        "INDI_DISABLED=On",
        when="600 Series with interline sensors",
    ),
    "EXTERNAL_TRIGGER": Prose(
        "Exposures begin when a signal comes at the camera's trigger input. Off after each connect.",
        "TRIGGER_OFF=On",
        when="600 Series",
    ),
    # --- the filter wheel ---
    "FILTER_SLOT": Prose(
        "The filter in the light path, from 1. Busy with the old number while the wheel moves. Refused "
        "during an exposure.",
        "FILTER_SLOT_VALUE=2",
        when="models with a filter wheel",
    ),
    "FILTER_NAME": Prose(
        "What the filters are called.",
        "FILTER_SLOT_NAME_1=Ha",
        when="models with a filter wheel",
        kept=BY_CAMERA,
    ),
    "FILTER_FOCUS_OFFSET": Prose(
        "How far the focus moves with each filter, for programs that read it; the driver moves no focuser.",
        "FILTER_OFFSET_1=120",
        when="models with a filter wheel",
        kept=BY_CAMERA,
    ),
    "FILTER_TRIM": Prose(
        "A correction of the wheel's stop at each filter.",
        "FILTER_TRIM_1=0",
        when="models with a filter wheel",
        kept=BY_CAMERA,
    ),
}
