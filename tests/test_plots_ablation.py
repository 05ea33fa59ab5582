from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fourdgs import plots
from fourdgs.ablation import gains
from fourdgs.errors import InputError


def gained(sources=("still", "talking"), losses=(0.0, 2.0, -1.0, -20.0)) -> pd.DataFrame:
    rows = [
        (f"t{k}", f"a remedy of some length, number {k}", seed, source, 30 + loss + 0.1 * seed * k)
        for k, loss in enumerate(losses) for seed in range(3) for source in sources
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["trial", "label", "seed", "source", "psnr_db"])
    return pd.concat([gains(table, "t0", source).assign(source=source) for source in sources])


def grid() -> pd.DataFrame:
    c, t = (axis.ravel() for axis in np.meshgrid([6, 8, 12, 16, 24], [4, 8, 15, 30, 60]))
    return pd.DataFrame({"cameras": c, "times": t, "psnr_db": 25 + np.log2(c) + 0.5 * np.log2(t)})


def levels(*values: float) -> dict:
    cameras = np.geomspace(4, 40, 300)
    return {value: (cameras, 2 ** (2 * (value - 25 - np.log2(cameras)))) for value in values}


FIGURES = {
    "two panels": lambda: plots.gains({"ladder": gained(), "clip": gained()}, least_db=-5),
    "one source": lambda: plots.gains(gained(["still"]).drop(columns="source")),
    "one row": lambda: plots.gains(gained(losses=(0.0,))),
    "law": lambda: plots.grid_law(grid(), levels(28, 29, 30, 31, 32)),
    "near levels": lambda: plots.grid_law(grid(), levels(*np.arange(27, 34, 0.25), 30)),
    "steep levels": lambda: plots.grid_law(grid(), {k: v[::-1] for k, v in levels(*np.arange(26, 36, 0.2)).items()}),
    "cells alone": lambda: plots.grid_law(grid()),
    "one cell": lambda: plots.grid_law(grid().iloc[:1], levels(30)),
}


def texts(fig: Figure) -> list[Text]:
    """Every text that is drawn, without the numbers of unseen ticks."""
    fig.draw_without_rendering()
    return [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]


def words(fig: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in texts(fig)]


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_figure(name):
    with plots.style():
        fig = FIGURES[name]()
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(fig)]
    limits = fig.bbox
    ticks = {label for axis in fig.axes for label in (*axis.get_xticklabels(), *axis.get_yticklabels())}
    seen = [(t.get_text(), t.get_window_extent()) for t in texts(fig) if t not in ticks]
    for words_, box in seen:
        inside = box.x0 >= limits.x0 - 2 and box.x1 <= limits.x1 + 2 and box.y0 >= limits.y0 - 2
        assert inside and box.y1 <= limits.y1 + 2, words_
    for index, (a, box) in enumerate(seen):
        for b, other in seen[:index]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or down <= 1, f"{a!r} over {b!r}"
    assert len(boxes) >= len(seen) > 0


def test_gains_print_every_gain_and_mean_and_cut_what_is_beyond():
    table = gained()
    found = words(plots.gains(table, least_db=-5))
    for row in table[table["trial"] != "t0"].itertuples():
        gain = f"{row.gain_db:+.2f}" if row.gain_db > -5 else f"{row.gain_db:.1f}"
        assert gain.replace("-", "\N{MINUS SIGN}") in found and f"{row.mean_db:.1f}" in found
    assert found.count("reference") == 2 and {"still", "talking"} <= set(found)
    low, _ = plots.gains(table, least_db=-5).axes[0].get_xlim()
    whole, _ = plots.gains(table).axes[0].get_xlim()
    assert -8 < low < -5 and whole < -19


def test_the_law_prints_every_cell_and_the_threshold_is_the_thickest_level():
    fig = plots.grid_law(grid(), levels(29, 30, 31, 60), threshold=30)
    found = words(fig)
    assert all(f"{value:.1f}" in found for value in grid()["psnr_db"])
    assert {"30 dB", "31"} <= set(found)
    above = words(plots.grid_law(grid(), levels(30, 60), threshold=60))
    assert "60 dB" not in above  # it does not come by
    lines = fig.axes[0].get_lines()
    widths = sorted(line.get_linewidth() for line in lines)
    assert len(lines) == 3 and widths[-1] > 2 * widths[-2]


def test_tables_that_cannot_be_drawn_are_refused():
    for table in (gained().drop(columns="gain_db"), gained().iloc[:0]):
        with pytest.raises(InputError):
            plots.gains(table)
    for table in (grid().drop(columns="times"), grid().iloc[:0]):
        with pytest.raises(InputError):
            plots.grid_law(table)
