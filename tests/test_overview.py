from __future__ import annotations

import numpy as np
import pytest
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import Model, Static, compare, overview
from fourdgs.workspace import place, root


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ball")
    front = ball_cameras(1, 20)
    clip = fd.Cameras.concatenate([front.with_times(time) for time in np.linspace(0, 1, 15)])
    still = ball_capture(folder, ball_cameras(5, 20))
    return fd.merge([still, ball_capture(folder, clip, source="clip", camera="front")])


def test_the_overview_counts_what_is_there(capture):
    table = overview.overview(capture).set_index("source")
    assert table.loc["orbit", ["frames", "cameras", "still", "times"]].tolist() == [5, 5, 5, 0]
    assert table.loc["clip", ["frames", "cameras", "still", "times"]].tolist() == [15, 1, 0, 15]
    _, alpha = capture.select(source="orbit").pictures()
    assert table.loc["orbit", "background"] == pytest.approx(float((alpha < 128).double().mean()))


def test_remarks_name_the_camera_that_dominates(capture):
    found = overview.remarks(capture)
    assert "20 training frames" in found[0] and "75 %" in found[0]
    assert "15 times there are 1 to 1 cameras; 100 %" in found[1]
    assert "5 training frames have no time" in found[2]


def test_effective_cameras_of_an_even_orbit_are_its_cameras(capture):
    assert "count as 5.0 evenly used cameras" in overview.remarks(capture.select(source="orbit"))[0]


def test_the_sheet_shows_every_source(capture):
    images, titles = overview.sheet(capture, per_source=3)
    assert len(images) == 6 and all(image.shape == (20, 20, 3) for image in images)
    assert sum(title.startswith("clip, t = ") for title in titles) == 3 and titles.count("orbit, still") == 3


def test_foreground_pixels_are_opaque_ones(capture):
    pixels = overview.foreground_pixels(capture, per_source=100)
    # The ball's colours lie within 0.5 +- 0.45; the transparent pixels around it are black.
    assert set(pixels) == {"orbit", "clip"}
    assert all(len(values) == 100 and values.max(1).min() > 10 for values in pixels.values())


def test_views_are_rendered_at_the_time_at_which_they_were_measured(tmp_path):
    from scenes import random_gaussians
    from test_motion import shaken

    test = ball_capture(tmp_path, ball_cameras(4, 24), source="still", split="test")
    model = Model(random_gaussians(40), shaken())
    timed = fd.evaluate(model, test.with_times(0.7), progress=False)

    class Measured:
        metrics = timed

    Measured.model = model
    views = compare.held_out_views({"a": Measured}, test)
    rows = [list(timed["frame"]).index(name) for name in test.frames["frame"].iloc[[0, 1]]]
    expected = fd.render(model, test.with_times(0.7).cameras[rows]).rgb.clamp(0, 1).numpy()
    assert np.allclose(views.pictures[0][1], expected)
    assert views.notes["a"] == [f"{timed['psnr_db'][row]:.1f} dB" for row in rows]
    assert not np.allclose(views.pictures[0][1], fd.render(Model(model.gaussians, Static()), test.cameras[rows]).rgb)


def test_a_place_is_the_same_from_the_root_and_from_the_notebooks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        assert root() == tmp_path and place("data/alpha") == tmp_path / "data" / "alpha"
    assert place(tmp_path / "x") == tmp_path / "x"
