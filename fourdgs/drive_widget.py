"""Driving an avatar by hand in JupyterLab: sliders for its face, its head and the camera, and a picture that follows.

In a cell tagged ``interactive`` (reports leave those out; `fourdgs.talking.expressions` gives them pictures instead)::

    from fourdgs.drive_widget import drive_panel

    drive_panel(run, track="take3.csv")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .capture import Capture
from .drive import DriveTrack
from .drive.names import HEAD, is_action, is_angle, plain_name
from .errors import InputError
from .live import Stage, View, picture
from .model import Model
from .motion import Static
from .rig.base import Rig
from .runs import Run
from .talking import as_learned, avatar, performed, posed, swing
from .widgets import _Screen, ui

HEAD_DEG = 30.0
"""How far a slider turns the head or an eye, either way."""

FPS = 25
"""Values a second of a track that is played."""

MOST = 24
"""Sliders of a group."""


@dataclass(frozen=True)
class Handle:
    """A slider: the controls that it moves upwards, and those that it moves downwards."""

    words: str
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


def _pair(words: str, plus: str, minus: str = "") -> Handle:
    both = [tuple(name + side for side in ("Left", "Right")) if name else () for name in (plus, minus)]
    return Handle(words, *both)


GROUPS: dict[str, tuple[Handle, ...]] = {
    "jaw and mouth": (
        Handle("jaw open", ("jawOpen",)),
        Handle("jaw right - left", ("jawLeft",), ("jawRight",)),
        Handle("lips shut", ("mouthClose",)),
        Handle("funnel", ("mouthFunnel",)),
        Handle("pucker", ("mouthPucker",)),
        _pair("frown - smile", "mouthSmile", "mouthFrown"),
        _pair("stretch", "mouthStretch"),
        _pair("press", "mouthPress"),
        _pair("upper lip up", "mouthUpperUp"),
        _pair("lower lip down", "mouthLowerDown"),
        Handle("lips rolled in", ("mouthRollLower", "mouthRollUpper")),
        Handle("cheeks puffed", ("cheekPuff",)),
    ),
    "eyes": (
        _pair("lids shut", "eyeBlink"),
        _pair("squint - wide", "eyeWide", "eyeSquint"),
        Handle("look right - left", ("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
        _pair("look down - up", "eyeLookUp", "eyeLookDown"),
    ),
    "brows": (
        Handle("inner up", ("browInnerUp",)),
        _pair("outer up", "browOuterUp"),
        _pair("down", "browDown"),
    ),
    "head": (
        Handle("yaw, °", ("headYaw",)),
        Handle("pitch, °", ("headPitch",)),
        Handle("roll, °", ("headRoll",)),
    ),
}
"""The main actions of ARKit and the head's angles; both sides of the face at once."""


class Asked(NamedTuple):
    """What the picture is to show."""

    drive: tuple[float, ...]
    view: View


def drive_panel(run: Run | Model | str | Path, **options: Any) -> DrivePanel:
    """A `DrivePanel`, which has the arguments."""
    return DrivePanel(run, **options)


class DrivePanel(_Screen):
    """An avatar, live: a slider an action, in groups, and two for the camera; drag the picture to turn it.

    While anything moves the picture is drawn at ``1 / coarse`` of its size, and once it rests at full size.

    Attributes: ``handles`` (sliders by their words; set their ``value`` from code), ``azimuth``, ``elevation``,
    ``play`` (with a track), ``drive`` (the rig's values [A] now).

    Args:
        run: a run of the motion ``rig``, its folder or its model.
        controls: names of the rig's controls, one slider each, in place of the main ones (`GROUPS` and what the rig
            has beside ARKit's names, the first 24).
        track: a track, its file or a sound file, to play.
        capture: the training frames: the picture is no sharper than these were (see `fourdgs.talking.talk`).
        size: the side of the picture, pixels. coarse: the divisor of it while something moves; 1 for none.

    Raises:
        InputError: no rigged avatar, a control that the rig has not, or a size or a divisor that cannot be.
    """

    def __init__(
        self,
        run: Run | Model | str | Path,
        *,
        controls: Sequence[str] | None = None,
        track: DriveTrack | str | Path | None = None,
        capture: Capture | None = None,
        size: int = 384,
        coarse: int = 2,
    ):
        for name, value, least in (("size", size, 8), ("coarse", coarse, 1)):
            if not value >= least:
                raise InputError(f"is {value}, must be at least {least}", field=name)
        self.model, who = avatar(run)
        self.rig: Rig = self.model.motion.rig
        groups = _groups(self.rig) if controls is None else {"controls": tuple(_single(self.rig, controls))}
        self._rows = None if track is None else _rows(self.rig, track)
        path = swing(self.model, size=round(size / coarse) * coarse)
        self.model = as_learned(self.model, who, capture, path)
        home = View(None, 0.0, path.elevation_deg[0], path.radius[0])
        self.scene = Stage(path.target, path.up, path.fov_x_deg, path.width, path.height, coarse, home)
        super().__init__(self.scene.width, "drag to turn", "fourdgs-drive")
        self._neutral = tuple(self.rig.neutral.tolist())
        self._drive, self._quiet, self._held = list(self._neutral), False, home
        self._posed: tuple[tuple[float, ...], Model] | None = None
        self._random = np.random.default_rng(0)
        self._column = {name: column for column, name in enumerate(self.rig.controls)}
        self._build(groups)
        self._show(self._answer(self.asked, True), True)

    # --- what is there ---

    def _build(self, groups: dict[str, tuple[Handle, ...]]) -> None:
        wide = ui.Layout(width="300px")
        self.handles: dict[str, ui.FloatSlider] = {}
        self._of: dict[str, Handle] = {}
        boxes = []
        for handles in groups.values():
            for handle in handles:
                low, high, start = self._range(handle)
                slider = ui.FloatSlider(
                    start, min=low, max=high, step=(high - low) / 200, description=handle.words, readout_format=".2f",
                    style={"description_width": "110px"}, layout=wide,
                )  # fmt: skip
                slider.observe(self._moved, "value")
                self.handles[handle.words], self._of[handle.words] = slider, handle
            boxes.append(ui.VBox([self.handles[handle.words] for handle in handles]))
        self.groups = ui.Accordion(boxes, titles=tuple(groups), selected_index=0 if boxes else None)
        self.azimuth = ui.FloatSlider(0, min=-180, max=180, step=0.5, description="azimuth, °", layout=wide)
        self.elevation = ui.FloatSlider(
            self.scene.home.elevation_deg, min=-80, max=80, step=0.5, description="elevation, °", layout=wide
        )
        for slider in (self.azimuth, self.elevation):
            slider.observe(self._turned, "value")
        self.back = ui.Button(description="reset", icon="home")
        self.chance = ui.Button(description="random", icon="random")
        self.back.on_click(lambda _: self.reset())
        self.chance.on_click(lambda _: self.random_expression())
        self.play = None
        if self._rows is not None:
            self.play = ui.Play(min=0, max=len(self._rows) - 1, interval=round(1000 / FPS), show_repeat=True)
            self.play.observe(self._played, "value")
            self.play.observe(self._stopped, "playing")
        around = [self.azimuth, self.elevation, ui.HBox([self.back, self.chance])]
        column = ui.VBox([self.groups, *around, *([] if self.play is None else [self.play]), self.status])
        self.children = [ui.HBox([self.stage, column], layout=ui.Layout(flex_flow="row wrap"))]

    def _range(self, handle: Handle) -> tuple[float, float, float]:
        """From, to and the start of a slider: as far as actions and angles go, or what the model's track used."""
        column = self._column[(*handle.plus, *handle.minus)[0]]
        name, start = self.rig.controls[column], self._neutral[column]
        if is_angle(name):
            return -HEAD_DEG, HEAD_DEG, start
        if is_action(name):
            return (-1.0 if handle.minus else 0.0), 1.0, 0.0
        used = self.model.motion.track_values[:, column]
        low, high = (float(used.min()), float(used.max())) if len(used) else (0.0, 1.0)
        return min(0.0, start, low), max(1.0, start, high), start

    @property
    def drive(self) -> dict[str, float]:
        """The rig's values now, by control."""
        return dict(zip(self.rig.controls, self._drive, strict=True))

    @property
    def asked(self) -> Asked:
        """What the picture shows, or is to show next."""
        view = View(None, float(self.azimuth.value), float(self.elevation.value), self.scene.home.radius)
        return Asked(tuple(self._drive), view)

    # --- what moves it ---

    def pose(self, values: Mapping[str, float] | None = None, *, rest: bool = True) -> None:
        """Take values of the rig's controls, the others neutral; the sliders follow. Raises InputError: unknown."""
        self._drive = self.rig.drive(values or {}).tolist()
        self._follow()
        self.newest.ask(self.asked, rest=rest)

    def reset(self) -> None:
        """The neutral face, seen from the front."""
        self._quiet = True  # one request, not one a slider
        try:
            self.azimuth.value, self.elevation.value = self.scene.home.azimuth_deg, self.scene.home.elevation_deg
        finally:
            self._quiet = False
        self.pose()

    def random_expression(self) -> dict[str, float]:
        """A face drawn by chance, about a third of its sliders moved: the values that it took."""
        values: dict[str, float] = {}
        for words, handle in self._of.items():
            slider = self.handles[words]
            # Angles of the whole range are seldom seen in a face that looks at one.
            reach = 0.5 if is_angle((*handle.plus, *handle.minus)[0]) else 0.9
            if self._random.random() < 0.35:
                values |= _values(handle, self._random.uniform(reach * slider.min, reach * slider.max))
        self.pose(values)
        return values

    def _moved(self, change: Any) -> None:
        if self._quiet:
            return
        for name, value in _values(self._of[change["owner"].description], change["new"]).items():
            if name in self._column:
                self._drive[self._column[name]] = value
        self.newest.ask(self.asked)

    def _turned(self, _: Any) -> None:
        if not self._quiet:
            self.newest.ask(self.asked)

    def _played(self, change: Any) -> None:
        self._drive = self._rows[int(change["new"])].tolist()
        self.newest.ask(self.asked)

    def _stopped(self, change: Any) -> None:
        # While it plays the sliders stand: two dozen messages a picture would be in its way.
        if not change["new"]:
            self._follow()

    def _follow(self) -> None:
        """Set the sliders to the values, asking for no picture."""
        self._quiet = True
        try:
            for words, handle in self._of.items():
                up, down = (
                    [self._drive[self._column[name]] for name in names if name in self._column]
                    for names in (handle.plus, handle.minus)
                )
                slider = self.handles[words]
                value = max(up, key=abs, default=0.0) - max(down, default=0.0)
                slider.value = min(max(value, slider.min), slider.max)
        finally:
            self._quiet = False

    def _drag(self, start: tuple[float, float], at: tuple[float, float], first: bool, done: bool) -> None:
        if first:
            self._held = self.asked.view
        # As in `Viewer`: across the picture is half a turn, and the scene follows the pointer.
        azimuth = self._held.azimuth_deg - 180 * (at[0] - start[0])
        elevation = self._held.elevation_deg + 180 * (at[1] - start[1])
        self._quiet = True
        try:
            self.azimuth.value = (azimuth + 180) % 360 - 180
            self.elevation.value = min(max(elevation, self.elevation.min), self.elevation.max)
        finally:
            self._quiet = False
        self.newest.ask(self.asked, rest=done)

    # --- the picture ---

    @torch.no_grad()
    def _draw(self, request: Asked, fine: bool) -> tuple[np.ndarray, str]:
        if self._posed is None or self._posed[0] != request.drive:  # the camera alone poses nothing anew
            drive = torch.tensor(request.drive, dtype=self.rig.rest.dtype, device=self.rig.rest.device)
            still = Model(posed(self.model, drive), Static(), self.model.background)
            self._posed = request.drive, still
        pixels = picture(self._posed[1], self.scene.camera(request.view, fine))
        return pixels, f"{pixels.shape[1]} x {pixels.shape[0]} pixels" + ("" if fine else ", while it moves")


def _values(handle: Handle, value: float) -> dict[str, float]:
    """The controls of a slider at a value."""
    if not handle.minus:
        return dict.fromkeys(handle.plus, float(value))
    up, down = max(float(value), 0.0), max(-float(value), 0.0)
    return dict.fromkeys(handle.plus, up) | dict.fromkeys(handle.minus, down)


def _groups(rig: Rig) -> dict[str, tuple[Handle, ...]]:
    """`GROUPS` as far as the rig goes, and its controls of other names."""
    there = set(rig.controls)

    def kept(handle: Handle) -> Handle:
        sides = ([name for name in names if name in there] for names in (handle.plus, handle.minus))
        return Handle(handle.words, *map(tuple, sides))

    groups = {name: tuple(map(kept, handles)) for name, handles in GROUPS.items()}
    groups = {name: tuple(h for h in handles if h.plus or h.minus) for name, handles in groups.items()}
    taken = {handle.words for handles in groups.values() for handle in handles}
    others = [name for name in rig.controls if not is_action(name) and name not in HEAD][:MOST]
    groups["others"] = tuple(Handle(f"rig: {name}" if name in taken else name, (name,)) for name in others)
    return {name: handles for name, handles in groups.items() if handles}


def _single(rig: Rig, controls: Sequence[str]) -> list[Handle]:
    rig.drive(dict.fromkeys(controls, 0.0))  # says which one is unknown
    named = [name if name in rig.controls else plain_name(name) for name in controls]
    return [Handle(name, (name,)) for name in dict.fromkeys(named)]


def _rows(rig: Rig, track: DriveTrack | str | Path) -> np.ndarray:
    """[frames, A] a track's values for the rig, `FPS` a second."""
    found, _ = performed(track, fps=FPS)
    return found.to(rig.controls).resampled(FPS).values
