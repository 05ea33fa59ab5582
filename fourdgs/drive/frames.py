"""What drives each frame of a capture: columns ``drive.<control>`` of its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.fields import Fields, inside, short
from ..errors import InputError
from .names import plain_name
from .readers import load_track

PREFIX = "drive."

MAX_CONTROLS = 1024
"""Of one capture: ARKit has 52, FLAME's expressions and joints come to some 115."""


def drive_table(frames: pd.DataFrame) -> pd.DataFrame | None:
    """What drives the frames of a capture's table: [frames x controls], float64, named without the prefix.

    A row of NaN is a frame that says nothing. One that says something has 0, that is neutral, where it says nothing
    about a control (as after a merge of captures with other controls). None where no frame says anything.

    Values may be anything that a rig is driven by: ARKit's weights, angles in degrees, or the coefficients of a face
    model under names of their own. A set of pictures in which every one has a view and an expression of its own, as
    CAP4D and its like generate them, is a capture whose frames have no ``time`` each, and as ``drive`` that sample's
    coefficients (say ``flame.expr000`` ... and ``flame.jaw0`` ...), for a rig with these controls. CAP4D leaves them in
    ``flame/00000.npz`` for ``images/00000.png``; their FLAME is no part of this library, so that its coefficients must
    be written into the frames by whoever has the model.
    """
    columns = [name for name in frames.columns if isinstance(name, str) and name.startswith(PREFIX)]
    if not columns:
        return None
    table = frames[columns].astype(np.float64)
    table.columns = [name.removeprefix(PREFIX) for name in columns]
    silent = table.isna().all(axis=1)
    if silent.all():
        return None
    return table.fillna(0.0).mask(silent)


def with_drive(
    frames: pd.DataFrame, drive: Sequence[Mapping[str, Any] | None], file: str | Path | None = None
) -> pd.DataFrame:
    """A copy of a capture's table with these values, one mapping a frame (None = says nothing), and no others.

    Args:
        file: what errors name.

    Raises:
        InputError: a value that is no finite number, too many controls, or not as many mappings as frames.
    """
    if len(drive) != len(frames):
        raise InputError(f"has {len(drive)} rows for {len(frames)} frames", file=file, field="drive")
    names = list(dict.fromkeys(name for row in drive if row is not None for name in row))
    if len(names) > MAX_CONTROLS:
        message = f"has {len(names):,} controls, at most {MAX_CONTROLS:,} are taken"
        raise InputError(message, file=file, field="drive", remedy="name a rig's controls only")
    values = np.full((len(frames), len(names)), np.nan)
    for index, row in enumerate(drive):
        if row is not None:
            values[index] = [row.get(name, 0.0) for name in names]
            if not np.isfinite(values[index]).all():
                name = names[int(np.argmin(np.isfinite(values[index])))]
                raise InputError(f"{name} is {row[name]}, must be finite", file=file, field=f"drive of row {index}")
    rest = frames[[name for name in frames.columns if not str(name).startswith(PREFIX)]]
    return pd.concat([rest, pd.DataFrame(values, rest.index, [PREFIX + name for name in names])], axis=1)


# --- in files ---


def frame_drive(fields: Fields) -> dict[str, float] | None:
    """The ``drive`` of a frame in a file; None where it has none. Raises InputError: it is no object of numbers."""
    value = fields.frame.get("drive")
    if value is None:
        return None
    remedy = 'write an object of numbers, such as {"jawOpen": 0.4}'
    if not isinstance(value, dict):
        raise fields.fail("drive", f"is {short(value)}, must be an object", remedy)
    result: dict[str, float] = {}
    for given, number in value.items():
        name = plain_name(given)
        if not name:
            raise fields.fail("drive", f"has the name {short(given)}", remedy)
        if name in result:
            raise fields.fail("drive", f"names {short(name)} more than once", "leave one of them")
        key = f"drive.{given}" if len(given) < 80 else "drive"
        checked = fields.check_number(key, number)
        if checked is None:
            raise fields.fail(key, "is null, must be a number", "leave it out where it is neutral")
        result[name] = checked
    return result


def drive_by_track(fields: Fields, root: Path, rows: Sequence[Any]) -> None:
    """Give rows with a time and no ``drive`` of their own the values of the file's ``drive_file``, if it names one."""
    given = fields.text("drive_file", fields.get("drive_file"))
    if given is None:
        return
    path = inside(fields, "drive_file", given, root, "track")
    track = load_track(path)
    span = fields.get("drive_span_s")
    start, end = (
        (track.times_s[0], track.times_s[-1]) if span is None else fields.numbers("drive_span_s", span, ((2,),))
    )
    if end < start or (span is not None and end == start):
        raise fields.fail("drive_span_s", f"is {short(span)}, must be two rising numbers", "give seconds of the track")
    if span is not None and (start < track.times_s[0] - 1e-6 or end > track.times_s[-1] + 1e-6):
        message = f"is {short(span)}, but the track {path} goes from {track.times_s[0]:g} to {track.times_s[-1]:g} s"
        raise fields.fail("drive_span_s", message, "give seconds of the track")
    timed = [row for row in rows if row.drive is None and not math.isnan(row.time)]
    if timed:
        values = track.at([start + (end - start) * row.time for row in timed]).astype(np.float64)
        for row, line in zip(timed, values.tolist(), strict=True):
            row.drive = dict(zip(track.controls, line, strict=True))
