"""Looking at runs in JupyterLab: turn a scene and scrub its time, wipe between two runs, pick frames by their PSNR.

The only importer of ipywidgets. In a notebook, in a cell tagged ``interactive`` (reports leave those out)::

    from fourdgs import widgets

    widgets.Viewer(run, capture)
    widgets.Wipe("truth", run, capture)
    widgets.Picker(run, capture)

Each is one picture whose bytes are replaced in place, so that nothing flickers, drawn by one thread in which the newest
request wins (`fourdgs.live.Newest`), so that the kernel stays free. The mouse on a picture or a chart works through a
few event handlers inside ipywidgets' own HTML widget, which write into a hidden text field: no further package and no
extension. Where a front end does not run them, the sliders and the list do all that the mouse does.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from . import wire
from .capture import Capture
from .errors import InputError, MissingDependency
from .live import Newest, Stage, View, eight_bits, encoded, picture
from .metrics import psnr_db
from .model import Model
from .runs import Run

try:
    import ipywidgets as ui
except ImportError as error:
    raise MissingDependency("looking at runs needs ipywidgets: pip install 'fourdgs-lab[notebook]'") from error

TRUTH = "truth"
"""Stands for the capture's own pictures where `Wipe` takes a run."""


class _Screen(ui.VBox):
    """A picture that is replaced in place, a line of words under it, and the thread that makes both."""

    newest: Newest | None = None  # a widget whose making failed is closed, too

    def __init__(self, width: int, hint: str, name: str):
        super().__init__()
        self._gesture = 0.0
        wide = {"width": f"{width}px", "max_width": "100%"}
        self.image = ui.Image(format="png", layout=ui.Layout(height="auto", margin="0", **wide))
        self.status = ui.HTML(layout=ui.Layout(max_width="100%"))
        self.text = ui.Text(layout=ui.Layout(display="none")).add_class("fourdgs-wire")
        # What the mouse can do is the hint; without one there is no glass to catch it.
        glass = [ui.HTML(wire.glass(hint)).add_class("fourdgs-glass")] if hint else []
        # Beside a higher neighbour it stays as high as the picture, which would else be stretched.
        layout = ui.Layout(flex="0 0 auto", align_self="flex-start", **wide)
        self.stage = ui.Box([self.image, *glass, self.text], layout=layout)
        self.stage.add_class("fourdgs-stage")
        self.text.observe(self._dragged, "value")
        self.newest = Newest(self._answer, self._show, self._fail, name=name)

    def settle(self, timeout_s: float = 30.0) -> bool:
        """Wait until the picture is the one last asked for, at full size; False if that took longer."""
        return self.newest.settle(timeout_s)

    def close(self) -> None:
        """End the thread and take the widget down."""
        if self.newest is not None:
            self.newest.close()
        for part in _parts(self):
            part.close()
        super().close()

    def _draw(self, request: Any, fine: bool) -> tuple[np.ndarray, str]:
        """The pixels uint8 [H, W, 3] of a request, and the words under them (HTML)."""
        raise NotImplementedError

    def _drag(self, start: tuple[float, float], at: tuple[float, float], first: bool, done: bool) -> None:
        """The pointer is held down: where that began and where it is, as shares of the picture's width and height."""

    def _dragged(self, change: Any) -> None:
        numbers = wire.numbers(change["new"], 6)
        if numbers is not None:
            gesture, *places, done = numbers
            first, self._gesture = gesture != self._gesture, gesture
            self._drag(tuple(places[:2]), tuple(places[2:]), first, bool(done))

    def _answer(self, request: Any, fine: bool) -> tuple[str, bytes, str]:
        pixels, words = self._draw(request, fine)
        return *encoded(pixels, fine), words

    def _show(self, answer: tuple[str, bytes, str], fine: bool) -> None:
        # One message for both, so that no picture is ever decoded under the other's format.
        with self.image.hold_sync():
            self.image.format, self.image.value = answer[:2]
        if self.status.value != answer[2]:
            self.status.value = answer[2]

    def _fail(self, error: Exception) -> None:
        self.status.value = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"


class Viewer(_Screen):
    """A scene, live: drag the picture or its sliders to turn the camera, scrub or play the time.

    While anything moves the picture is drawn at ``1 / coarse`` of its size, and once it rests at full size.

    Attributes: ``time`` (slider), ``canonical`` (box: no time), ``play``, ``azimuth``, ``elevation``, ``radius``
    (sliders; set their ``value`` to move the camera from code).

    Args:
        run: a run or a model.
        capture: turn about what its cameras look at, seen at first from its first one, through its lens; by default
            about the model's middle.
        size: the longer side of the picture, pixels.
        coarse: the divisor of the size while something moves; 1 for none.
        steps: places of the time slider.

    Raises:
        InputError: neither a run nor a model, or a size, a divisor or a number of steps that cannot be.
    """

    def __init__(
        self, run: Run | Model, capture: Capture | None = None, *, size: int = 384, coarse: int = 2, steps: int = 61
    ):
        for name, value, least in (("size", size, 8), ("coarse", coarse, 1), ("steps", steps, 2)):
            if not value >= least:
                raise InputError(f"is {value}, must be at least {least}", field=name)
        self.model = _model(run)
        self.scene = Stage.of(self.model, capture, size=size, coarse=coarse)
        super().__init__(self.scene.width, "drag to turn", "fourdgs-viewer")
        home, wide = self.scene.home, ui.Layout(width="330px")
        self._step = 1 / (steps - 1)
        self.time = ui.FloatSlider(0, min=0, max=1, step=self._step, description="time", readout_format=".2f")
        self.play = ui.Play(min=0, max=steps - 1, interval=80, repeat=True, show_repeat=False)
        self.canonical = ui.Checkbox(False, description="no time: the canonical scene", indent=False)
        self.azimuth = ui.FloatSlider(
            home.azimuth_deg, min=-180, max=180, step=0.1, description="azimuth, °", readout_format=".0f"
        )
        self.elevation = ui.FloatSlider(
            home.elevation_deg, min=-90, max=90, step=0.1, description="elevation, °", readout_format=".0f"
        )
        self.radius = ui.FloatLogSlider(
            home.radius, base=2, min=math.log2(home.radius) - 2, max=math.log2(home.radius) + 1, step=0.01,
            description="radius", readout_format=".2f",
        )  # fmt: skip
        back = ui.Button(description="back to the start", icon="home")
        back.on_click(lambda _: self.look(home))
        self._sliders = (self.time, self.canonical, self.azimuth, self.elevation, self.radius)
        for slider in self._sliders:
            slider.layout = wide
            slider.observe(self._moved, "value")
        self.play.observe(self._played, "value")
        moving = [self.time, self.play, self.canonical] if home.time is not None else []
        controls = ui.VBox([*moving, self.azimuth, self.elevation, self.radius, back, self.status])
        self.children = [ui.HBox([self.stage, controls], layout=ui.Layout(flex_flow="row wrap"))]
        self._quiet, self._held = False, home
        self._show(self._answer(self.view, True), True)

    @property
    def view(self) -> View:
        """Where the camera stands, and when."""
        time = None if self.scene.home.time is None or self.canonical.value else float(self.time.value)
        return View(time, *(float(s.value) for s in (self.azimuth, self.elevation, self.radius)))

    @property
    def camera(self) -> Any:
        """The one camera of the picture at full size, for `fourdgs.render`."""
        return self.scene.camera(self.view)

    def look(self, view: View, *, rest: bool = False) -> None:
        """Move everything at once. With ``rest``: at full size at once."""
        self._quiet = True  # one request, not one a slider
        try:
            self.canonical.value = view.time is None
            if view.time is not None:
                self.time.value = view.time
            self.azimuth.value = (view.azimuth_deg + 180) % 360 - 180
            self.elevation.value = min(max(view.elevation_deg, -90.0), 90.0)
            self.radius.value = view.radius
        finally:
            self._quiet = False
        self.newest.ask(self.view, rest=rest)

    def _moved(self, change: Any) -> None:
        # The play button goes on from where the slider was left.
        if change["owner"] is self.time:
            self.play.value = round(self.time.value / self._step)
        if not self._quiet:
            self.newest.ask(self.view)

    def _played(self, change: Any) -> None:
        if round(self.time.value / self._step) != change["new"]:
            self.time.value = min(change["new"] * self._step, 1.0)

    def _drag(self, start: tuple[float, float], at: tuple[float, float], first: bool, done: bool) -> None:
        if first:
            self._held = self.view
        # Across the picture is half a turn; the scene follows the pointer, so the camera goes the other way.
        azimuth = self._held.azimuth_deg - 180 * (at[0] - start[0])
        elevation = self._held.elevation_deg + 180 * (at[1] - start[1]) * self.scene.height / self.scene.width
        self.look(View(self.view.time, azimuth, elevation, self.view.radius), rest=done)

    def _draw(self, request: View, fine: bool) -> tuple[np.ndarray, str]:
        pixels = picture(self.model, self.scene.camera(request, fine))
        return pixels, f"{pixels.shape[1]} x {pixels.shape[0]} pixels" + ("" if fine else ", while it moves")


class Wipe(_Screen):
    """Two pictures of one held-out frame, one left and one right of a line that a slider, or the mouse, moves.

    Attributes: ``share`` (slider: how much of the width the left one has), ``frame`` (list).

    Args:
        left, right: runs, models, or ``"truth"``.
        capture: where the frames are; both sides are drawn from its cameras at its times.
        split: which frames; None means all.
        size: the longer side of the picture on the screen, CSS pixels.

    Raises:
        InputError: something else on a side, or no frame in the split.
    """

    def __init__(
        self, left: Run | Model | str, right: Run | Model | str, capture: Capture, *,
        split: str | Sequence[str] | None = "test", size: int = 384,
    ):  # fmt: skip
        self.sides = [side if isinstance(side, str) and side == TRUTH else _model(side) for side in (left, right)]
        self.names = [_name(side) for side in (left, right)]
        self.capture = capture.select(split=split)
        models = [side for side in self.sides if isinstance(side, Model)]
        self._background = models[0].background if models else (1.0, 1.0, 1.0)
        width, height = self.capture.cameras.sizes[0].tolist()
        super().__init__(round(size * width / max(width, height)), "drag the line", "fourdgs-wipe")
        wide = ui.Layout(width=self.stage.layout.width, max_width="100%")
        frames = [(wire.label(row), index) for index, row in enumerate(self.capture.frames.itertuples())]
        self.frame = ui.Dropdown(options=frames, value=0, description="frame", layout=wide)
        self.share = ui.FloatSlider(0.5, min=0, max=1, step=0.005, readout=False, layout=wide)
        self.status.layout = wide
        self.children = [self.frame, self.stage, self.share, self.status]
        self._pair = functools.lru_cache(maxsize=16)(self._both)
        self.frame.observe(lambda _: self.newest.ask(self._state), "value")
        self.share.observe(lambda _: self.newest.ask(self._state), "value")
        self._show(self._answer(self._state, True), True)

    @property
    def _state(self) -> tuple[int, float]:
        return self.frame.value, float(self.share.value)

    def _drag(self, start: tuple[float, float], at: tuple[float, float], first: bool, done: bool) -> None:
        self.share.value = min(max(at[0], 0.0), 1.0)
        if done:
            self.newest.ask(self._state, rest=True)

    def _both(self, index: int) -> tuple[list[np.ndarray], str]:
        camera = self.capture.cameras[index]
        truth = eight_bits(self.capture.image(index, self._background))
        pictures = [truth if isinstance(side, str) else picture(side, camera) for side in self.sides]
        words = [
            html.escape(name) + (f", {_psnr(pixels, truth)}" if isinstance(side, Model) else "")
            for name, side, pixels in zip(self.names, self.sides, pictures, strict=True)
        ]
        spread = "display: flex; justify-content: space-between"
        return pictures, f'<div style="{spread}"><span>◀ {words[0]}</span><span>{words[1]} ▶</span></div>'

    def _draw(self, request: tuple[int, float], fine: bool) -> tuple[np.ndarray, str]:
        index, share = request
        (left, right), words = self._pair(index)
        column = round(share * left.shape[1])
        pixels = np.concatenate([left[:, :column], right[:, column:]], axis=1)
        if 0 < column < left.shape[1]:
            pixels[:, column] = (213, 94, 0)  # vermilion: seen on light and on dark
        return pixels, words


class Picker(_Screen):
    """The frames that a run was measured on: click one in the chart of their PSNR, or take it from the list.

    It shows the truth, the run's picture, and where they differ. The chart is a plain SVG; the list, worst frame first,
    does the same for keyboards and for front ends that run no event handlers.

    Attributes: ``rows`` (the list; its value is the frame's row in ``table``), ``table`` (the measured frames).

    Args:
        run: an evaluated run.
        capture: where the true pictures are, at the size at which the run was evaluated.
        split: which frames; None means all that were measured.
        error_max: the error, averaged over the channels, that is drawn brightest: one scale for all frames.
        size: the longer side of each picture on the screen, CSS pixels.

    Raises:
        InputError: the run was not measured on any frame of the split that the capture has.
    """

    def __init__(
        self, run: Run, capture: Capture, *, split: str | None = "test", error_max: float = 0.25, size: int = 250
    ):
        self.model, self.error_max = _model(run), error_max
        table = run.metrics if isinstance(run, Run) else None
        if table is None or not len(table):
            raise InputError("has no measured frames", field=_name(run), remedy="fd.evaluate(run, capture)")
        known = {name: row for row, name in enumerate(capture.frames["frame"])}
        table = table[table["frame"].isin(known) & np.isfinite(table["psnr_db"])]
        table = table[table["split"] == split] if split is not None else table
        if not len(table):
            raise InputError(f"no frame of the split {split!r} is both measured and in {capture.name}", field=run.name)
        self.table, self.capture = table.reset_index(drop=True), capture
        self._places = [known[name] for name in self.table["frame"]]
        width, height = capture.cameras.sizes[self._places[0]].tolist()
        super().__init__(round(3 * size * width / max(width, height)), "", "fourdgs-picker")
        worst = self.table["psnr_db"].sort_values(kind="stable").index
        options = [(f"{self.table['psnr_db'][i]:.1f} dB  {wire.label(self.table.iloc[i])}", int(i)) for i in worst]
        wide = ui.Layout(width=self.stage.layout.width, max_width="100%")
        self.rows = ui.Select(options=options, value=options[0][1], rows=6, layout=wide)
        self.chart = ui.HTML(layout=wide)
        self.click = ui.Text(layout=ui.Layout(display="none")).add_class("fourdgs-wire")
        self.click.observe(self._clicked, "value")
        plot = ui.Box([self.chart, self.click], layout=wide)
        plot.add_class("fourdgs-stage")
        self.status.layout = wide
        self.children = [plot, self.rows, self.stage, self.status]
        self.rows.observe(self._chosen, "value")
        self._mark()
        self._show(self._answer(self.rows.value, True), True)

    def _clicked(self, change: Any) -> None:
        numbers = wire.numbers(change["new"], 2)
        if numbers is not None and 0 <= numbers[1] < len(self.table):
            self.rows.value = int(numbers[1])

    def _chosen(self, change: Any) -> None:
        self._mark()
        self.newest.ask(change["new"], rest=True)

    def _mark(self) -> None:
        self.chart.value = wire.chart(self.table, self.rows.value)

    def _draw(self, request: int, fine: bool) -> tuple[np.ndarray, str]:
        from matplotlib import colormaps

        row, place = self.table.iloc[request], self._places[request]
        truth = eight_bits(self.capture.image(place, self.model.background))
        drawn = picture(self.model, self.capture.cameras[place].with_times(float(row["time"])))
        error = np.abs(drawn.astype(np.float32) - truth).mean(-1) / 255
        heat = (colormaps["inferno"](np.clip(error / self.error_max, 0, 1))[..., :3] * 255).round().astype(np.uint8)
        words = (
            html.escape(wire.label(row)),
            f"render, {_psnr(drawn, truth)}",
            f"error, brightest: {self.error_max:g}",
        )
        cells = "".join(f'<span style="flex: 1 1 0; min-width: 0">{word}</span>' for word in words)
        return np.concatenate([truth, drawn, heat], axis=1), f'<div style="display: flex">{cells}</div>'


def _parts(widget: ui.Widget) -> list[ui.Widget]:
    """All that is inside a widget."""
    return [part for child in getattr(widget, "children", ()) for part in (child, *_parts(child))]


def _model(run: Any) -> Model:
    model = run.model if isinstance(run, Run) else run
    if not isinstance(model, Model):
        raise InputError(f"is a {type(run).__name__}", field="run", remedy="give a run (fd.load_run) or a model")
    return model


def _name(run: Any) -> str:
    return run.name if isinstance(run, Run) else run if isinstance(run, str) else type(run).__name__.lower()


def _psnr(pixels: np.ndarray, truth: np.ndarray) -> str:
    pair = (torch.as_tensor(one)[None].float() / 255 for one in (pixels, truth))
    return f"{float(psnr_db(*pair)):.1f} dB"
