"""Make pictures of different origin go together: merge captures, cut a clip out of its backdrop, match its colors.

Each gives a new Capture with pictures in memory; the files are not touched. `write_transforms` writes one out.
"""

from __future__ import annotations

from ..capture import merge
from .backdrop import Backdrop, estimate_backdrop
from .colors import ColorMatch, color_match, fit_colors, match_colors
from .matte import matte, matte_method

__all__ = [
    "Backdrop",
    "ColorMatch",
    "color_match",
    "estimate_backdrop",
    "fit_colors",
    "match_colors",
    "matte",
    "matte_method",
    "merge",
]
