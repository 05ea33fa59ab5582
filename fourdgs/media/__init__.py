"""Camera paths as MP4: rendered, encoded while the next pictures render, and described by a manifest beside them.

    fd.render_path(run, fd.paths.recipe("spiral"), "spiral.mp4")
    fd.render_path([run_a, run_b], "orbit", "side_by_side.mp4", audio="narration.wav")

or ``python -m fourdgs.media RUN --path spiral --frames 500 --size 800 --out spiral.mp4``.
"""

from __future__ import annotations

from .columns import GAP, hstack, label_strip
from .film import framing, manifest_path, render_path

__all__ = ["GAP", "framing", "hstack", "label_strip", "manifest_path", "render_path"]
