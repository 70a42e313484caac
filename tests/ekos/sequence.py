# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ekos' capture jobs, and the sequence files from which it loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

NO_FILTER = "--"


@dataclass(frozen=True)
class Job:
    """So many frames of a kind ('Light', 'Dark', 'Bias', 'Flat').

    `frame` is (x, y, width, height) in unbinned pixels. Temperature and filter None: as they are.
    """

    kind: str = "Light"
    exposure: float = 0.2  # s
    count: int = 1
    binning: int = 1
    frame: tuple[int, int, int, int] | None = None
    filter: str | None = None
    temperature: float | None = None  # degC


def write_sequence(path: Path, job: Job, pictures: Path, whole: tuple[int, int, int, int]) -> None:
    """A sequence file with one job, in the least form that Ekos accepts; `whole` is the full frame."""
    x, y, width, height = job.frame or whole
    cooling = (
        "" if job.temperature is None else f"<Temperature force='true'>{job.temperature:g}</Temperature>"
    )
    path.write_text(f"""\
<?xml version="1.0" encoding="UTF-8"?>
<SequenceQueue version='2.4'>
<GuideDeviation enabled='false'>2</GuideDeviation>
<GuideStartDeviation enabled='false'>2</GuideStartDeviation>
<Autofocus enabled='false'>0</Autofocus>
<RefocusOnTemperatureDelta enabled='false'>1</RefocusOnTemperatureDelta>
<RefocusEveryN enabled='false'>60</RefocusEveryN>
<RefocusOnMeridianFlip enabled='false'/>
<Job>
<Exposure>{job.exposure:g}</Exposure>
<Format>Mono</Format>
<Encoding>FITS</Encoding>
<Binning><X>{job.binning}</X><Y>{job.binning}</Y></Binning>
<Frame><X>{x}</X><Y>{y}</Y><W>{width}</W><H>{height}</H></Frame>
{cooling}
<Filter>{escape(job.filter or NO_FILTER)}</Filter>
<Type>{job.kind}</Type>
<Prefix>
<RawPrefix>ekos</RawPrefix>
<FilterEnabled>0</FilterEnabled><ExpEnabled>0</ExpEnabled><TimeStampEnabled>0</TimeStampEnabled>
</Prefix>
<Count>{job.count}</Count>
<Delay>0</Delay>
<FITSDirectory>{escape(str(pictures))}</FITSDirectory>
<UploadMode>0</UploadMode>
<Properties></Properties>
<Calibration>
<FlatSource><Type>Manual</Type></FlatSource>
<FlatDuration dark='false'><Type>Manual</Type></FlatDuration>
<PreMountPark>False</PreMountPark>
<PreDomePark>False</PreDomePark>
</Calibration>
</Job>
</SequenceQueue>
""")
