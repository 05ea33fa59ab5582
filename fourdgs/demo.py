"""The main job: make the capture, train the rows of the story, write the report. ``python -m fourdgs.demo``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import story, verdict
from .config import TrainConfig
from .data.load import load_capture
from .errors import command_line
from .files import write_json
from .hypothesis import register
from .report import NotebookFailed, build_report
from .report.markdown import check_flavor
from .report.words import words_of
from .workspace import place, root


def demo(
    capture: str | Path = "data/alpha",
    rows: Sequence[str] = tuple(story.STORY),
    *,
    base: TrainConfig = story.DEMO,
    slug: str = "demo",
    seeds: int = 1,
    scale: float = 1.0,
    title: str = "Was that the ceiling of 4DGS?",
    lang: str = "en",
    flavor: str = "plain",
    scene_frames: int = 12,
) -> Path:
    """Everything from nothing: capture, training, comparison, report.

    The test that the report decides is registered beside the runs before the first of them starts.

    Args:
        capture: a folder with transforms; ``data/alpha`` is made when it is missing.
        rows: the rows to train, see `story.ROWS`.
        base: the settings that the rows start from.
        slug: the report is written to ``reports/<slug>``.
        seeds: runs of each row.
        scale: shrinks the pictures; 0.25 makes 512x384 into 128x96.
        lang: of the report's headings, "en" or "ru".
        flavor: what its Markdown is for, see `build_report`.
        scene_frames: times of its 3D view, which takes 1 to 2 MB; 0 leaves it out.

    Returns:
        The path of the report's ``index.html``.
    """
    words_of(lang)
    check_flavor(flavor)
    begun = time.perf_counter()
    folder = story.ensure_capture(capture)
    out = place("runs") / slug
    made = time.perf_counter() - begun
    loaded = load_capture(folder, scale=scale)
    known = loaded.frames["source"].unique()
    ready = time.perf_counter()
    print(f"capture {folder}: {len(loaded)} frames, sources {', '.join(known)}, {loaded.cameras.width} pixels wide")
    register(verdict.expectation(loaded), out)
    runs = story.train_rows(folder, rows, base, out, seeds=seeds, scale=scale)
    trained = time.perf_counter() - ready
    print(f"trained {len(rows) * seeds} runs in {trained:.0f} s, in {out}")
    common = {
        "capture": str(capture), "rows": list(rows), "iterations": base.iterations, "gaussians": base.gaussians,
        "seeds": seeds, "scale": scale, "out": f"runs/{slug}",
    }  # fmt: skip
    # The notebook's own choice of sources is the mixture of the story, which only alpha has.
    dataset = {"capture": str(capture), "scale": scale} | ({} if folder == place("data/alpha") else {"sources": []})
    shown = "v2" if "v2" in rows else rows[-1]
    single = {key: value for key, value in common.items() if key not in ("rows", "seeds")} | {"row": shown}
    notebooks = root() / "notebooks"
    page = build_report(
        [
            (notebooks / "01_dataset.ipynb", dataset),
            (notebooks / "02_train.ipynb", single),
            (notebooks / "03_compare.ipynb", common),
            (
                notebooks / "04_report.ipynb",
                common | {"capture_seconds": _making_seconds(out, made), "scene_frames": scene_frames},
            ),
        ],
        out=place("reports") / slug,
        title=title,
        lang=lang,
        flavor=flavor,
        info={"capture": {"name": loaded.name, "digest": loaded.digest()}, "base": base.to_dict()},
        runs=runs,
    )
    print(f"the report is {page} after {time.perf_counter() - begun:.0f} s")
    return page


def _making_seconds(out: Path, seconds: float) -> float:
    """What making the capture took, kept beside the runs: a report that is built again says the same."""
    note = out / "capture_seconds.json"
    if seconds > 1 or not note.is_file():
        write_json(note, round(seconds, 1))
    return float(json.loads(note.read_text(encoding="utf-8")))


@command_line
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; its result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fourdgs.demo", description=demo.__doc__.splitlines()[0])
    parser.add_argument("--capture", default="data/alpha", help="folder with transforms*.json; data/alpha is made")
    parser.add_argument("--rows", default=None, help=f"comma-separated, of: {', '.join(story.ROWS)}")
    parser.add_argument("--slug", default="demo", help="name of the report")
    parser.add_argument("--title", default="Was that the ceiling of 4DGS?")
    parser.add_argument("--iterations", type=int, default=story.DEMO.iterations)
    parser.add_argument("--gaussians", type=int, default=story.DEMO.gaussians)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--lang", default="en", help="of the report's headings: en or ru")
    parser.add_argument("--flavor", default="plain", help="of its Markdown: plain, hugo, jekyll or quarto")
    parser.add_argument("--scene-frames", type=int, default=12, help="times of the 3D view; 0 leaves it out")
    options = parser.parse_args(arguments)
    rows = options.rows.split(",") if options.rows else story.STORY
    try:
        demo(
            options.capture,
            rows,
            base=story.base_config(options.iterations, options.gaussians),
            slug=options.slug,
            seeds=options.seeds,
            scale=options.scale,
            title=options.title,
            lang=options.lang,
            flavor=options.flavor,
            scene_frames=options.scene_frames,
        )
    except NotebookFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
