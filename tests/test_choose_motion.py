from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture

from fourdgs import Cameras, Capture, merge
from fourdgs.choose_motion import FAR_DB, FEW_VIEWS, MANY_VIEWS, STILL_DB, Choice, choose_motion

SIZE = 24
NO_TIME = float("nan")


def grid(root, cameras: int, times: int, move: float = 0.5) -> Capture:
    """All cameras at all times."""
    rig = ball_cameras(cameras, SIZE)
    rows = torch.arange(cameras).repeat(times)
    moments = torch.linspace(0, 1, times).repeat_interleave(cameras)
    return ball_capture(root, rig[rows].with_times(moments), source="grid", move=move)


def clip(root, times: int = 9, move: float = 0.5) -> Capture:
    rows = torch.zeros(times, dtype=torch.int64)
    cameras = ball_cameras(1, SIZE)[rows].with_times(torch.linspace(0, 1, times))
    return ball_capture(root, cameras, source="clip", camera="front", move=move)


def chosen(capture: Capture) -> str:
    choice = choose_motion(capture)
    assert isinstance(choice, Choice)
    # One plain sentence.
    assert choice.reason[0].isupper() and choice.reason.endswith(".") and ". " not in choice.reason
    assert len(choice.reason) < 200
    return choice.name


def test_stills_do_not_move(tmp_path):
    stills = ball_capture(tmp_path, ball_cameras(6, SIZE, times=[NO_TIME] * 6))
    assert chosen(stills) == "static"
    assert "time" in choose_motion(stills).reason
    assert chosen(stills.with_times(0.5)) == "static"


def test_stills_with_made_up_times_do_not_move(tmp_path):
    """Ten views of an orbit, each at its own time k / 9."""
    orbit = ball_capture(tmp_path, ball_cameras(10, SIZE, times=np.linspace(0, 1, 10)), move=0)
    assert chosen(orbit) == "static"
    assert "37 degrees" in choose_motion(orbit).reason  # 36 of azimuth, and some of elevation


def test_a_camera_that_travels_slowly_is_a_video(tmp_path):
    angle = np.linspace(0, 0.4, 20)
    positions = np.stack([4 * np.sin(angle), 0 * angle, 4 * np.cos(angle)], -1)
    cameras = Cameras.look_at(
        positions, (0, 0, 0), fov_x_deg=30.0, width=SIZE, height=SIZE, times=np.linspace(0, 1, 20)
    )
    assert chosen(ball_capture(tmp_path, cameras)) == "basis"


def test_one_camera_with_and_without_stills(tmp_path):
    moving = clip(tmp_path / "clip")
    stills = ball_capture(tmp_path / "orbit", ball_cameras(6, SIZE, times=[NO_TIME] * 6), source="orbit")
    assert chosen(moving) == "basis"
    assert chosen(merge([moving, stills])) == "bones"


def test_a_scene_that_stands_still_is_static(tmp_path):
    still = clip(tmp_path, move=0)
    assert chosen(still) == "static"
    assert chosen(grid(tmp_path, 6, 4, move=0)) == "static"
    random = np.random.default_rng(0)
    noisy = {}
    for row in range(len(still)):
        rgb, alpha = still.picture(row)
        noisy[row] = (np.clip(rgb + random.normal(0, 1.5, rgb.shape), 0, 255).astype(np.uint8), alpha)
    assert chosen(still.with_pictures(noisy)) == "static"


def test_more_views_at_a_time_allow_more_freedom(tmp_path):
    names = [chosen(grid(tmp_path, cameras, 3, move=0.1)) for cameras in (1, FEW_VIEWS - 1, FEW_VIEWS, MANY_VIEWS)]
    assert names == ["basis", "basis", "deform", "deform"]
    assert chosen(grid(tmp_path, MANY_VIEWS, 3, move=2.5)) == "velocity"


def test_names_of_cameras_do_not_matter(tmp_path):
    capture = clip(tmp_path)
    names = [f"frame{row}" for row in range(len(capture))]
    assert chosen(capture.with_frames(capture.frames.assign(camera=names))) == chosen(capture)
    still = clip(tmp_path, move=0)
    assert chosen(still.with_frames(still.frames.assign(camera=names))) == "static"


def test_sources_of_one_camera_are_not_compared(tmp_path):
    """A graded copy of a still scene is no motion."""
    still = clip(tmp_path, move=0)
    late = still.frames["time"].to_numpy() > 0.5
    dark = {row: (still.picture(row)[0] // 2, still.picture(row)[1]) for row in np.flatnonzero(late)}
    frames = still.frames.assign(source=np.where(late, "graded", "clip"))
    assert chosen(still.with_pictures(dark).with_frames(frames)) == "static"


def test_thresholds_are_in_order():
    assert FAR_DB < STILL_DB and FEW_VIEWS < MANY_VIEWS


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, NO_TIME, 1.0]])
def test_as_few_frames_as_can_be(tmp_path, times):
    rows = torch.zeros(len(times), dtype=torch.int64)
    assert chosen(ball_capture(tmp_path, ball_cameras(1, SIZE)[rows].with_times(torch.tensor(times)))) == "basis"
