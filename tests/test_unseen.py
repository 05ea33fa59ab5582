from __future__ import annotations

import json

import numpy as np
import pytest
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError
from fourdgs.evaluate import training_views
from fourdgs.unseen import BOTH, CAMERA, PAIR, SAME_VIEW, TIME, TRAINING, at_edge, kinds, read_views

TIMES = (0.0, 0.25, 0.5)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Six cameras at three times, but for the last camera at the last time."""
    cameras = fd.Cameras.concatenate([ball_cameras(6, 16, times=np.full(6, time)) for time in TIMES])
    capture = ball_capture(tmp_path_factory.mktemp("grid"), cameras)
    names = [f"ring{row % 6}" for row in range(len(capture))]
    capture = capture.with_frames(capture.frames.assign(camera=names))
    return capture.select(rows=slice(0, len(capture) - 1))


def views(capture):
    return read_views(json.loads(json.dumps(training_views(capture), allow_nan=False)))


def places(capture) -> np.ndarray:
    return capture.cameras.positions.double().numpy()


def ring(elevations_deg, azimuths_deg, distance=4.0) -> np.ndarray:
    elevation, azimuth = np.radians(np.broadcast_arrays(elevations_deg, azimuths_deg)).astype(float)
    level = np.cos(elevation)
    return distance * np.stack([level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)], axis=-1)


def ring_views(elevation_deg: float, count: int):
    cameras = fd.Cameras.look_at(
        ring(elevation_deg, np.arange(count) * 360 / count), (0, 0, 0), fov_x_deg=30.0, width=8, height=8
    )
    return views(ball_capture(".", cameras))


def test_every_training_frame_is_one_of_its_own(grid):
    assert set(kinds(views(grid), places(grid), grid.frames["time"])) == {TRAINING}


def test_what_training_had_not(grid):
    seen, strange = places(grid)[5], ring(10.0, 31.0)
    asked = [(seen, 0.25), (seen, 0.5), (seen, 0.9), (strange, 0.25), (strange, 0.9), (strange, np.nan), (seen, np.nan)]
    found = kinds(views(grid), np.stack([place for place, _ in asked]), [time for _, time in asked])
    assert found == [TRAINING, PAIR, TIME, CAMERA, BOTH, BOTH, TIME]


def test_no_time_is_a_time_of_its_own(tmp_path):
    still = ball_capture(tmp_path, ball_cameras(5, 16))
    assert kinds(views(still), places(still)[:2], [np.nan, 0.5]) == [TRAINING, TIME]


def test_a_camera_beside_a_training_camera_is_not_held_out(grid):
    seen = places(grid)[0]
    aside = np.cross(seen, [0, 1, 0]) / np.linalg.norm(np.cross(seen, [0, 1, 0]))
    near, far = (seen + aside * factor * SAME_VIEW * np.linalg.norm(seen) for factor in (0.7, 1.4))
    assert kinds(views(grid), np.stack([near, far]), [0.0, 0.0]) == [TRAINING, CAMERA]


def test_it_does_not_depend_on_names_or_order(grid):
    shuffled = grid.select(rows=np.random.default_rng(0).permutation(len(grid)))
    renamed = shuffled.with_frames(shuffled.frames.assign(camera="moving", frame=[f"x{i}" for i in range(len(grid))]))
    test = np.concatenate([places(grid), ring(0.0, np.arange(0, 360, 17.0))])
    times = np.resize([0.0, 0.3, 0.5, np.nan], len(test))
    assert kinds(views(renamed), test, times) == kinds(views(grid), test, times)
    assert (at_edge(views(renamed), test) == at_edge(views(grid), test)).all()


def test_the_json_is_compact_and_holds_all(grid):
    described = training_views(grid)
    assert len(described["views"]) == 6 and sum("0-2" in line for line in described["views"]) == 5
    known = views(grid)
    assert known.names == [f"ring{row}" for row in range(6)]
    np.testing.assert_allclose(known.positions, places(grid)[:6], rtol=1e-5, atol=1e-5)
    assert [list(times) for times in known.times] == [list(TIMES)] * 5 + [list(TIMES[:2])]
    clip = fd.Cameras.concatenate([ball_cameras(1, 16).with_times(time) for time in np.linspace(0, 1, 121)])
    capture = ball_capture(grid.root, clip, camera="front | left")
    assert len(json.dumps(training_views(capture))) < 2000
    assert views(capture).names == ["front | left"]


def test_edges_of_a_ring():
    known = ring_views(10.0, 12)
    inside = ring([10, 10, 0, 20, 10], [15, 0, 3, 17, 100])
    outside = ring([40, -25, 85, -85], [0, 15, 40, 0])
    assert not at_edge(known, inside).any() and at_edge(known, outside).all()


def test_edges_of_an_arc():
    arc = ring(0.0, np.arange(-60, 61, 15.0))
    known = views(ball_capture(".", fd.Cameras.look_at(arc, (0, 0, 0), fov_x_deg=30.0, width=8, height=8)))
    found = at_edge(known, ring(0.0, [0, 7.5, 52, 66, 80, 180]))
    assert found.tolist() == [False, False, False, False, True, True]


def test_distance_does_not_make_an_edge():
    known = ring_views(0.0, 10)
    assert not at_edge(known, ring(0.0, [5.0, 90.0], distance=9.0)).any()


@pytest.mark.parametrize(
    "change", [{"views": ["1 2 | none | a"]}, {"views": ["1 2 x | 0 | a"]}, {"times": None}, {"focus": "1 2"}]
)
def test_damaged_views_are_one_clear_message(grid, change):
    with pytest.raises(InputError, match=r"run\.json: views: cannot be read"):
        read_views(training_views(grid) | change, "run.json")
