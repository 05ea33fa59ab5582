"""Pictures of meshes: they agree with the pinhole model, their alpha is coverage, their light stands still."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import pyvista as pv
import torch
import trimesh
from PIL import Image

from fourdgs.cameras import Cameras, orbit
from fourdgs.data import orbit as orbits
from fourdgs.data.meshes import Mesh, load_mesh
from fourdgs.data.orbit import render_mesh
from fourdgs.errors import InputError, MissingDependency


def _camera(K, width, height, position=(1.0, 0.8, 3.0), times=None):
    camera = Cameras.look_at([position], (0.1, 0.0, 0.0), focal=1.0, width=width, height=height, times=times)
    return Cameras(camera.viewmats, torch.tensor([K], dtype=torch.float32), camera.sizes, camera.times)


def _project(places, camera):
    view, K = camera.viewmats[0].double().numpy(), camera.Ks[0].double().numpy()
    seen = places @ view[:3, :3].T + view[:3, 3]
    return (seen @ K.T)[:, :2] / seen[:, 2:]


def _marker(place, radius=0.03):
    return pv.Sphere(radius=radius, center=place, theta_resolution=24, phi_resolution=24)


SQUARE = ([[200.0, 0, 64], [0, 200, 64], [0, 0, 1]], 128, 128)
SKEWED = ([[300.0, 0, 70.3], [0, 240, 40.7], [0, 0, 1]], 160, 96)  # fx != fy, principal point off the middle


@pytest.mark.parametrize(("K", "width", "height"), [SQUARE, SKEWED], ids=["square", "off-centre"])
def test_markers_lie_where_the_pinhole_model_projects_them(K, width, height):
    camera = _camera(K, width, height)
    places = np.random.default_rng(0).uniform(-0.45, 0.45, (10, 3))
    wanted = _project(places, camera)
    # One marker at a time, drawn by moving one mesh: its centroid, weighted by coverage.
    rest = _marker((0, 0, 0))
    mesh = load_mesh(rest, lambda time: rest.points + places[round(time * 9)])
    pictures = render_mesh(mesh, camera[[0] * 10].with_times(np.arange(10) / 9), progress=False)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    found = []
    for picture in pictures:
        cover = picture[..., 3] / 255.0
        found.append([(cover * x).sum() / cover.sum(), (cover * y).sum() / cover.sum()])
    errors = np.linalg.norm(np.array(found) - wanted, axis=1)
    assert errors.mean() < 0.1 and errors.max() < 0.2


def test_alpha_is_the_covered_share_of_each_pixel():
    camera = Cameras.look_at([(0, 0, 4.0)], focal=200.0, width=128, height=128)
    # A square in the plane z = 0, 1 wide: 50 pixels wide at distance 4, shifted by a third of a pixel.
    shift = 4 / 200 / 3
    points = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]]) + (shift, 0, 0)
    mesh = Mesh(points, np.array([[0, 1, 2], [0, 2, 3]]), colors=np.full((4, 3), (200, 60, 20), np.uint8))
    picture = render_mesh(mesh, camera, shading=False, progress=False, supersample=6)[0]
    cover = picture[..., 3] / 255.0
    assert cover.sum() == pytest.approx(2500, rel=1e-3)
    row = cover[64]
    assert row[39] == pytest.approx(2 / 3, abs=0.09)
    assert row[89] == pytest.approx(1 / 3, abs=0.09) and row[38] == 0 and row[45] == 1
    # Straight alpha: the outline has the surface's colour, not a mixture with a background.
    edge = picture[(cover > 0) & (cover < 1)]
    assert len(edge) > 90 and np.abs(edge[:, :3].astype(int) - (200, 60, 20)).max() <= 1
    assert (picture[cover == 0] == 0).all()


def test_up_is_up_and_x_is_right_seen_from_the_front():
    points = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0.0]])
    mesh = Mesh(points, np.array([[0, 1, 2]]))
    picture = render_mesh(mesh, orbit(1, 4.0, width=64, height=64), progress=False)[0]
    rows, columns = np.nonzero(picture[..., 3] > 128)
    assert rows.max() < 33 and columns.min() > 30


def test_light_stands_still_in_the_world():
    ball = load_mesh(pv.Sphere(radius=0.5, theta_resolution=60, phi_resolution=60))
    cameras = orbit(24, 4.0, 10.0, width=96, height=96)
    pictures = render_mesh(ball, cameras, progress=False)
    place = np.array([[0.5 * np.sin(0.2), 0.0, 0.5 * np.cos(0.2)]])
    seen = []
    for index in (22, 23, 0, 1, 2, 3):
        u, v = _project(place, cameras[index])[0]
        seen.append(pictures[index, int(v), int(u), :3].astype(int))
    assert np.ptp(seen, axis=0).max() <= 8
    # And it models the ball: the lit side is brighter than the other.
    assert pictures[0, 30, 40, :3].mean() > pictures[12, 70, 48, :3].mean() + 15


def test_each_camera_sees_its_own_time_and_none_sees_the_rest_pose():
    rest = _marker((0, 0, 0), 0.2)
    calls = []

    def motion(time):
        calls.append(time)
        return rest.points + (0 if time is None else 0.5 * time, 0, 0)

    cameras = orbit(1, 4.0, width=64, height=64)[[0, 0, 0, 0]].with_times([float("nan"), 0.0, 1.0, float("nan")])
    pictures = render_mesh(rest, cameras, motion=motion, progress=False)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[3])
    middles = [np.nonzero(picture[..., 3].sum(axis=0))[0].mean() for picture in pictures]
    assert middles[2] > middles[1] + 5
    assert calls == [None, 0.0, 1.0, None]


def test_pictures_repeat():
    cameras = orbit(2, 4.0, width=48, height=48)
    shape = pv.ParametricTorus(ringradius=0.5, crosssectionradius=0.2)
    np.testing.assert_array_equal(*(render_mesh(shape, cameras, progress=False) for _ in range(2)))


def test_near_and_far_parts_are_all_drawn():
    two = _marker((0, 0, 3.5), 0.05).merge(_marker((0, 0, -40.0), 3.0))
    picture = render_mesh(two.extract_surface(algorithm="dataset_surface"), orbit(1, 4.0, width=64, height=64))[0]
    assert picture[32, 32, 3] == 255 and picture[32, 38, 3] > 0


def _textured_box():
    box = trimesh.creation.box((1, 1, 1))
    uv = np.random.default_rng(0).uniform(0.4, 0.6, (len(box.vertices), 2))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), (10, 200, 30)))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return box


def test_meshes_from_files_and_objects(tmp_path):
    camera = orbit(1, 4.0, width=48, height=48)
    sphere = pv.Sphere(radius=0.5)
    sphere.point_data["RGB"] = np.tile(np.array([[250, 10, 10]], np.uint8), (sphere.n_points, 1))
    sphere.save(tmp_path / "ball.ply", texture="RGB")
    sphere.save(tmp_path / "ball.vtp")
    sphere.save(tmp_path / "ball.stl")
    _textured_box().export(tmp_path / "box.glb")
    trimesh.creation.icosphere(radius=0.5).export(tmp_path / "ball.obj")
    red, green = (250, 10, 10), (10, 200, 30)
    cases = [("ball.ply", red), ("ball.vtp", red), ("ball.stl", None), ("box.glb", green), ("ball.obj", None)]
    for name, color in cases:
        picture = render_mesh(tmp_path / name, camera, shading=False, progress=False)[0]
        assert picture[24, 24, 3] == 255 and picture[0, 0, 3] == 0, name
        if color is not None:
            assert np.abs(picture[24, 24, :3].astype(int) - color).max() <= 2, name
    assert len(load_mesh(sphere).faces) == sphere.n_cells
    assert load_mesh(_textured_box()).texture is not None


def test_bad_meshes_are_named(tmp_path):
    (tmp_path / "text.ply").write_text("this is no mesh")
    camera = orbit(1, 4.0, width=32, height=32)
    with pytest.raises(InputError, match="missing.ply.*no such file"):
        load_mesh(tmp_path / "missing.ply")
    with pytest.raises(InputError, match="text.ply"):
        load_mesh(tmp_path / "text.ply")
    with pytest.raises(InputError, match="no triangle"):
        load_mesh(Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int64)))
    with pytest.raises(InputError, match="not finite"):
        load_mesh(Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]])))
    with pytest.raises(InputError, match="is a int"):
        load_mesh(7)
    with pytest.raises(InputError, match="motion.*shape"):
        render_mesh(_marker((0, 0, 0)), camera, motion=lambda time: np.zeros((2, 3)), progress=False)
    mixed = Cameras.concatenate([camera, orbit(1, 4.0, width=16, height=32)])
    with pytest.raises(InputError, match="width"):
        render_mesh(_marker((0, 0, 0)), mixed, progress=False)


def test_no_opengl_is_one_error_that_names_the_package():
    """Without a driver VTK ends the process; here it must come back as an error."""
    code = (
        "from fourdgs.data.orbit import render_mesh; from fourdgs.cameras import orbit\n"
        "import pyvista as pv\n"
        "try: render_mesh(pv.Sphere(), orbit(1, 4.0, width=16, height=16), progress=False)\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    bare = {**os.environ, "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent", "VTK_DEFAULT_OPENGL_WINDOW": "", "DISPLAY": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MissingDependency") and "apt install" in done.stdout


def test_no_opengl_library_is_found_without_a_trial(monkeypatch):
    monkeypatch.setattr(orbits, "_loads", lambda library: False)
    monkeypatch.setattr(orbits, "_probed", set())
    monkeypatch.setattr(orbits.sys, "platform", "linux")
    monkeypatch.setattr(orbits.subprocess, "run", None)
    with pytest.raises(MissingDependency, match="apt install libegl1"):
        orbits.require_gl()


def test_missing_pyvista_is_named(monkeypatch):
    find = orbits.importlib.util.find_spec
    monkeypatch.setattr(
        orbits.importlib.util, "find_spec", lambda name, *rest: None if name == "pyvista" else find(name, *rest)
    )
    with pytest.raises(MissingDependency, match="pip install pyvista"):
        orbits.require_gl()
