"""The embedded avatar: shape, paint, performance, cache."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import sparse

from fourdgs.data import avatar as avatars
from fourdgs.data import pieces
from fourdgs.data.track import HEAD, ExpressionTrack
from fourdgs.errors import InputError, MissingDependency


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("FOURDGS_CACHE", str(cache))


@pytest.fixture(scope="module")
def avatar(cache):
    """Built cold, with the network cut off, in the time that a first run may take."""
    patch = pytest.MonkeyPatch()
    patch.setenv("FOURDGS_CACHE", str(cache))
    patch.setattr(socket, "socket", _no_network)
    try:
        start = time.perf_counter()
        built = avatars.build(0)
        assert time.perf_counter() - start < 15
    finally:
        patch.undo()
    return built


def _no_network(*_args, **_kwargs):
    raise AssertionError("the avatar must be built offline")


def test_second_build_comes_from_the_cache_and_is_the_same(avatar):
    start = time.perf_counter()
    again = avatars.build(0)
    assert time.perf_counter() - start < 1
    assert again.actions == avatar.actions
    for name in ("points", "faces", "deltas", "weights", "joints", "uv", "texture", "weld"):
        np.testing.assert_array_equal(getattr(again, name), getattr(avatar, name))


def test_a_broken_cache_is_rebuilt(avatar, cache, monkeypatch):
    monkeypatch.setattr(avatars, "paint", lambda figure, seed: avatar.texture)
    (file,) = cache.glob("avatar-*.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(avatars.build(0).points, avatar.points)
    assert file.stat().st_size == len(whole)


def test_a_cache_that_cannot_be_written_does_no_harm(avatar, monkeypatch, tmp_path):
    monkeypatch.setattr(avatars, "paint", lambda figure, seed: avatar.texture)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FOURDGS_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(avatars.build(0).points, avatar.points)


def test_world_is_the_unit_ball_with_y_up_and_the_face_on_z(avatar):
    radius = np.linalg.norm(avatar.points, axis=1)
    assert 0.9 < radius.max() <= 1.0
    np.testing.assert_allclose(avatar.points.min(0) + avatar.points.max(0), 0, atol=1e-5)
    # The eyes move with their actions: they lie high, in front, the left one on +x.
    moved = np.linalg.norm(avatar.deltas[avatar.actions.index("eyeBlinkLeft")], axis=1)
    lid = avatar.points[moved > 0.5 * moved.max()].mean(axis=0)
    assert lid[0] > 0.03 and lid[1] > 0.4 and lid[2] > 0.1


def test_mesh_is_sound(avatar):
    count = len(avatar.points)
    assert avatar.faces.min() == 0 and avatar.faces.max() == count - 1
    assert avatar.points.dtype == avatar.deltas.dtype == np.float32 and avatar.faces.dtype == np.int64
    assert len(avatar.actions) == 52 and avatar.deltas.shape == (52, count, 3)
    assert avatar.uv.min() >= 0 and avatar.uv.max() <= 1
    assert (avatar.weights >= 0).all() and avatar.weights.sum(axis=1).max() <= 1 + 1e-5
    # The outside faces outwards: shirt and skin normals point away from the body's middle on average.
    normals = avatar.normals()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    side = avatar.points * (1, 0, 1)
    assert (np.sum(normals * side, axis=1) > 0).mean() > 0.7
    # Vertices split at texture seams stay together in every pose.
    posed = avatar.vertices(0.3)
    first = np.unique(avatar.weld, return_index=True)[1][avatar.weld]
    np.testing.assert_allclose(posed, posed[first], atol=1e-5)


def test_paint_is_worth_reconstructing(avatar):
    colors = avatar.colors.astype(float)
    head = avatar.points[:, 1] > 0.3
    for region in (head, ~head):
        assert colors[region].std(axis=0).min() > 20
    saturation = (colors.max(axis=1) - colors.min(axis=1)) / np.maximum(colors.max(axis=1), 1)
    assert np.quantile(saturation[~head], 0.75) > 0.5


def test_seeds_make_different_people_and_performances(avatar):
    other = avatars.build(1, cache=False)
    assert other.texture.shape[1] == avatar.texture.shape[1]
    assert not np.array_equal(other.points, avatar.points)
    assert other.track.at(0.3) != avatar.track.at(0.3)


def test_still_pose_is_no_moment_of_the_track(avatar):
    assert avatar.vertices(None) is avatar.points
    assert np.abs(avatar.vertices(0.5) - avatar.points).max() > 0.005
    np.testing.assert_array_equal(avatar.vertices(0.25), avatar.vertices(0.25))


def test_talking_is_visible(avatar):
    poses = [avatar.track.at(t) for t in np.linspace(0, 1, 121)]
    jaw = np.array([pose.get("jawOpen", 0.0) for pose in poses])
    yaw = np.array([pose["headYaw"] for pose in poses])
    assert jaw.max() > 0.6 and jaw.min() < 0.05
    assert yaw.max() > 5 and yaw.min() < -5 and np.abs(yaw).max() < 12
    assert max(pose.get("eyeBlinkLeft", 0.0) for pose in poses) > 0.8
    # The chin goes down by some centimetres (of about 0.3 units a decimetre).
    drop = (avatar.posed({"jawOpen": 1.0}) - avatar.points)[:, 1].min()
    assert -0.2 < drop < -0.05


def test_shirt_stands_still_while_the_head_turns(avatar):
    turned = avatar.posed({"headYaw": 8.0})
    moved = np.linalg.norm(turned - avatar.points, axis=1)
    assert moved[avatar.points[:, 1] < -0.2].max() < 1e-6
    top = avatar.points[:, 1] > 0.65
    angle = np.degrees(np.arctan2(*(turned[top][:, [0, 2]] - avatar.joints[3, [0, 2]]).T))
    before = np.degrees(np.arctan2(*(avatar.points[top][:, [0, 2]] - avatar.joints[3, [0, 2]]).T))
    far = np.linalg.norm(avatar.points[top][:, [0, 2]] - avatar.joints[3, [0, 2]], axis=1) > 0.1
    turn = (angle - before + 180) % 360 - 180
    assert abs(np.median(turn[far]) - 8) < 1  # to the presenter's left: towards +x


def test_full_weights_turn_the_head_rigidly(avatar):
    rigid = avatar.weights[:, 3] > 0.9999
    pose = avatar.posed(dict(zip(HEAD, (8.0, -5.0, 3.0), strict=True)))[rigid]
    rest = avatar.points[rigid]
    index = np.random.default_rng(0).integers(0, len(rest), (200, 2))
    lengths = [np.linalg.norm(points[index[:, 0]] - points[index[:, 1]], axis=1) for points in (pose, rest)]
    np.testing.assert_allclose(*lengths, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_track_is_smooth_and_bounded(seed):
    track = ExpressionTrack(seed)
    names = sorted({name for t in np.linspace(0, 1, 301) for name in track.at(t)})

    def bend(step):
        times = np.linspace(0, 1, int(1 / step) + 1)
        curves = np.array([[track.at(t).get(name, 0.0) for name in names] for t in times])
        actions = curves[:, [name not in HEAD for name in names]]
        assert actions.min() >= 0 and actions.max() <= 1
        return np.abs(np.diff(curves, 2, axis=0)).max(axis=0) / step

    # The jump of the slope from step to step goes to 0 with the step: once differentiable.
    coarse, fine = bend(2e-3), bend(5e-4)
    assert (fine < 0.5 * coarse + 0.02).all()


def test_unknown_action_is_named(avatar):
    with pytest.raises(InputError, match="jawOpenn.*jawOpen"):
        avatar.posed({"jawOpenn": 1.0})


def test_missing_anny_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "anny" else find(name, *rest))
    with pytest.raises(MissingDependency, match="pip install anny"):
        avatars.build(12345)


def test_importing_the_makers_does_not_import_their_tools():
    code = (
        "import sys, fourdgs.data.alpha, fourdgs.data.hybrid; print({'anny', 'pyvista', 'trimesh'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- cutting ---


def _cube():
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return corners, pieces.quads_to_piece(quads, quads, 0, corners[:, :2], 8)


def test_clipped_mesh_ends_at_the_plane_and_carries_linear_values():
    corners, cube = _cube()
    cut = pieces.clip(cube, (cube.rows @ corners)[:, 1] - 0.3)
    places = cut.rows @ corners
    assert places[:, 1].min() == pytest.approx(0.3)
    np.testing.assert_allclose(cut.rows.sum(axis=1), 1)
    assert isinstance(cut.rows, sparse.csr_matrix)
    np.testing.assert_allclose(cut.uv, places[:, :2] * (1, -1), atol=1e-12)


def test_capped_mesh_is_closed_and_has_the_right_volume():
    corners, cube = _cube()
    cut = pieces.clip(cube, (cube.rows @ corners)[:, 1] - 0.3)
    whole = pieces.cap(cut, corners, 0.3, 7)
    same = pieces.weld(whole.rows)
    edges = same[whole.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    there = set(map(tuple, edges.tolist()))
    assert len(there) == len(edges) and all((b, a) in there for a, b in there)
    a, b, c = ((whole.rows @ corners)[whole.faces[:, k]] for k in range(3))
    assert abs(np.sum(a * np.cross(b, c)) / 6) == pytest.approx(0.7)
    assert set(whole.parts) == {0, 7}


def test_packed_charts_do_not_overlap():
    corners, cube = _cube()
    two = pieces.join([cube, cube])
    uv, (width, height) = pieces.pack(two, two.rows @ corners, np.full(len(two.faces), 30.0), 256)
    boxes = [uv[: len(cube.uv)], uv[len(cube.uv) :]]
    assert uv.min() >= 0 and uv[:, 0].max() <= width and uv[:, 1].max() <= height
    low, high = [box.min(axis=0) for box in boxes], [box.max(axis=0) for box in boxes]
    assert (high[0] < low[1]).any() or (high[1] < low[0]).any()
