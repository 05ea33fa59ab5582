"""Arrays and tables to matplotlib figures; nothing here touches a model.

Every function takes plain arrays (NumPy or torch) or pandas tables and returns a `Figure` that pyplot does not know
of, so nothing is drawn twice in a notebook and nothing has to be closed. A notebook ends a figure with::

    from fourdgs import plots

    fig = plots.curves(run.curve)
    plots.show(fig, "curves-v2", alt="Train PSNR climbs to 49 dB while held-out PSNR stays at 29 dB.",
               caption="Twenty thousand steps buy train PSNR only.")

Figures of a dataset: `contact_sheet`, `cameras`, `frusta`, `coverage`; of its diagnosis: `diagnosis`, `sources`,
`before_after`; of runs: `curves`, `gap_curves`, `comparison`, `psnr_per_frame`, `rig_plan`, `intervals`, `timeline`;
of a rig on a still mesh: `transfer_sheet`; of ablations and thinned grids: `gains`, `grid_law`.
Colours are those of Okabe and Ito, which stay apart for colour-blind readers; series also differ in marker or label.
The same source has the same colour in every figure (`colors_for`).
"""

from __future__ import annotations

from .ablation import gains, grid_law
from .compare import gap_curves, rig_plan
from .dataset import coverage, frusta
from .doctor import before_after, cameras, diagnosis, frustum_corners, sources
from .pictures import comparison, contact_sheet
from .results import curves, intervals, psnr_per_frame, timeline
from .style import PALETTE, colors_for, figures_into, show, style
from .transfer import transfer_sheet

__all__ = [
    "PALETTE",
    "before_after",
    "cameras",
    "colors_for",
    "comparison",
    "contact_sheet",
    "coverage",
    "curves",
    "diagnosis",
    "figures_into",
    "frusta",
    "frustum_corners",
    "gains",
    "gap_curves",
    "grid_law",
    "intervals",
    "psnr_per_frame",
    "rig_plan",
    "show",
    "sources",
    "style",
    "timeline",
    "transfer_sheet",
]
