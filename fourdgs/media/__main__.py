"""Render a camera path of one or more runs to an MP4: ``python -m fourdgs.media RUN --path spiral --out x.mp4``.

``--talk speech.wav`` (or a track) makes a run of the motion ``rig`` say it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from ..errors import InputError, command_line
from ..paths import FITS, PATHS, CameraPath, recipe
from .film import framing, manifest_path, render_path


@command_line
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fourdgs.media", description=__doc__.split(": ")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder or a .ply; several stand side by side")
    parser.add_argument("--path", help=f"{', '.join(PATHS)}, or a JSON file of CameraPath.save; by default spiral")
    parser.add_argument("--talk", metavar="FILE", help="a sound or a track (.csv, .json) that one run of a rig says")
    parser.add_argument("--frames", type=int, help="cameras of the path, before it is brought to a length")
    parser.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="width, or width and height")
    parser.add_argument("--out", required=True, help="the MP4")
    parser.add_argument("--fps", type=Fraction, default=Fraction(25))
    parser.add_argument("--audio", help="narration to bring the path to the length of, and to mux")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="bring the path to this length")
    parser.add_argument("--fit", choices=FITS, default="auto", help="how it is brought to a length")
    parser.add_argument("--times", help="along, loop, palindrome, none, or a number in [0, 1]")
    parser.add_argument("--easing", help="linear, smooth or smoother")
    parser.add_argument("--elevation", type=float, metavar="DEG", help="positive: from above")
    parser.add_argument("--fov", type=float, metavar="DEG", help="horizontal field of view")
    parser.add_argument("--capture", help="a capture's folder: look as its cameras do (with --talk also no sharper)")
    parser.add_argument("--background", type=float, nargs=3, metavar=("R", "G", "B"))
    parser.add_argument("--labels", nargs="+", help="over the columns")
    parser.add_argument("--again", action="store_true", help="render also what is there already")
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    out = _render(options) if options.talk is None else _talk(options)
    seconds = time.perf_counter() - begun
    about = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    size = f"{about['frames']} frames of {about['width']}x{about['height']}"
    print(f"{out}: {size}, {about['duration_s']:g} s; done in {seconds:.1f} s. The manifest is {manifest_path(out)}")
    return 0


def _render(options: argparse.Namespace) -> Path:
    return render_path(
        options.runs,
        _changed(_asked_path(options.path), options),
        options.out,
        options.fps,
        audio=options.audio,
        duration_s=options.duration,
        fit=options.fit,
        background=options.background,
        labels=options.labels,
        again=options.again,
    )


def _talk(options: argparse.Namespace) -> Path:
    from ..data.load import load_capture
    from ..talking import avatar, before, talk

    if len(options.runs) > 1:
        raise InputError(f"names {len(options.runs)}", field="RUN", remedy="give one run of the motion rig with --talk")
    for name in ("duration", "times", "labels"):
        if getattr(options, name) is not None:
            raise InputError("has no use with --talk", field=f"--{name}", remedy="leave it out")
    if options.path is not None and options.path.endswith(".json"):
        path = CameraPath.load(options.path)
    else:
        path = before(avatar(options.runs[0])[0], options.path, float(options.fps))
    return talk(
        options.runs[0],
        options.talk,
        options.out,
        _changed(path, options),
        fps=options.fps,
        audio=options.audio,
        fit=options.fit,
        capture=None if options.capture is None else load_capture(options.capture).select(split="train"),
        background=options.background,
        again=options.again,
    )


def _asked_path(name: str | None) -> CameraPath:
    return CameraPath.load(name) if name is not None and name.endswith(".json") else recipe(name or "spiral")


def _changed(path: CameraPath, options: argparse.Namespace) -> CameraPath:
    if options.capture is not None:
        from ..data.load import load_capture

        path = path.framed(**framing(load_capture(options.capture)))
    changes = {"frames": options.frames, "elevation_deg": options.elevation, "fov_x_deg": options.fov}
    changes |= {"easing": options.easing}
    if options.size is not None:
        if len(options.size) > 2:
            raise InputError(f"is {options.size}", field="--size", remedy="give a width, or a width and a height")
        changes |= {"width": options.size[0], "height": options.size[-1]}
    path = replace(path, **{key: value for key, value in changes.items() if value is not None})
    return path if options.times is None else replace(path, times=_asked_times(options.times))


def _asked_times(text: str) -> str | float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
