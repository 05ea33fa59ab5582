"""What the widgets put into the page: a glass over a picture and a chart, whose event handlers write into a text field.

ipywidgets gives no mouse events, and a widget of one's own needs an extension in every front end. Its HTML widget,
though, keeps event handlers in attributes, and its text field sends what is written into it to the kernel. The two
must lie in one box of the class ``fourdgs-stage``, the text field with the class ``fourdgs-wire``.
"""

from __future__ import annotations

import contextlib
import html
import math
from typing import Any

import numpy as np
import pandas as pd

_STYLE = """<style>
.fourdgs-stage { position: relative; overflow: hidden; }
.fourdgs-stage > .fourdgs-glass { position: absolute; inset: 0; margin: 0; width: auto; height: auto; }
.fourdgs-stage > .fourdgs-glass .widget-html-content > div { position: absolute; inset: 0; touch-action: none; }
.fourdgs-chart [data-row] { cursor: pointer; }
</style>"""
_SEND = """
let wire = this.closest('.fourdgs-stage').querySelector('.fourdgs-wire input');
wire.value = words.join(' ');
wire.dispatchEvent(new Event('input', {bubbles: true}));"""
# Where and when the pointer went down comes with every message: messages that the kernel is too slow for are merged,
# and what only the first one said would be lost.
_DRAG = (
    """
let box = this.getBoundingClientRect(), kind = event.type;
let at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
if (kind == 'pointerdown' && event.button == 0) {
  this.setPointerCapture(event.pointerId); this.from = [Date.now(), ...at]; event.preventDefault();
}
if (!this.from) return;
let words = [...this.from, ...at, kind == 'pointerup' || kind == 'pointercancel' ? 1 : 0];
if (words[5]) this.from = null;"""
    + _SEND
)
_CLICK = (
    """
let dot = event.target.closest('[data-row]');
if (!dot) return;
let words = [Date.now(), dot.dataset.row];"""
    + _SEND
)


def glass(hint: str) -> str:
    """A transparent pane over a picture, as HTML for a widget of the class ``fourdgs-glass``.

    While the pointer is held down on it, the text field holds six numbers: when (an id of the gesture) and where the
    pointer went down, where it is (x and y as shares of the pane's width and height), and whether it was let go.
    """
    kinds = ("pointerdown", "pointermove", "pointerup", "pointercancel")
    events = "".join(f' on{kind}="{html.escape(_DRAG)}"' for kind in kinds)
    return f'{_STYLE}<div style="cursor: grab" title="{html.escape(hint)}"{events}></div>'


def chart(table: pd.DataFrame, chosen: int) -> str:
    """An SVG of the PSNR of every frame, a colour a source, in the order of the table; the chosen one has a ring.

    A click on a frame puts two numbers into the text field: when, and the frame's row in the table.
    """
    from .plots import colors_for

    values = table["psnr_db"].to_numpy(float)
    low, high = math.floor(values.min()), math.ceil(values.max())
    high = max(high, low + 1)
    colors, sources = colors_for(table["source"].astype(str)), table["source"].astype(str).to_numpy()
    order = np.argsort([list(colors).index(name) for name in sources], kind="stable")
    step = 690 / len(values)
    ink = 'style="fill: var(--jp-ui-font-color1, #333); font: 12px sans-serif"'
    parts = []
    for level in range(low, high + 1, max(1, round((high - low) / 4))):
        y = 150 - 130 * (level - low) / (high - low)
        parts.append(f'<path d="M50 {y:.1f}H740" stroke="#8886"/><text x="44" y="{y + 4:.1f}" text-anchor="end" {ink}>'
                     f"{level}</text>")  # fmt: skip
    for position, row in enumerate(order.tolist()):
        x, y = 50 + step * (position + 0.5), 150 - 130 * (values[row] - low) / (high - low)
        title = f"<title>{html.escape(label(table.iloc[row]))}: {values[row]:.1f} dB</title>"
        ring = ' stroke="#D55E00" stroke-width="3" r="7"' if row == chosen else ' r="4"'
        parts.append(f'<g data-row="{row}">{title}<rect x="{x - step / 2:.1f}" y="10" width="{step:.1f}" height="150" '
                     f'fill="transparent"/><circle cx="{x:.1f}" cy="{y:.1f}" fill="{colors[sources[row]]}"{ring}/>'
                     "</g>")  # fmt: skip
    parts.append(f'<text transform="translate(12 85) rotate(-90)" text-anchor="middle" {ink}>PSNR, dB</text>')
    for name, color in colors.items():
        mine = np.flatnonzero(sources[order] == name)
        x = 50 + step * (mine.mean() + 0.5)
        parts.append(f'<text x="{x:.1f}" y="178" text-anchor="middle" {ink}><tspan fill="{color}">● </tspan>'
                     f"{html.escape(name)}</text>")  # fmt: skip
    return (f'{_STYLE}<svg class="fourdgs-chart" viewBox="0 0 750 185" width="100%" role="img" onclick="'
            f'{html.escape(_CLICK)}" aria-label="PSNR of every frame, dB">{"".join(parts)}</svg>')  # fmt: skip


def numbers(text: str, count: int) -> list[float] | None:
    """The finite numbers in a message from the page; None where it is not what was sent."""
    with contextlib.suppress(ValueError):
        found = [float(word) for word in text.split()]
        if len(found) == count and all(map(math.isfinite, found)):
            return found
    return None


def label(row: Any) -> str:
    """A frame in words."""
    time = "" if not math.isfinite(row.time) else f", time {row.time:.2f}"
    return f"{row.frame} ({row.camera}{time})"
