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


def _box(texture=None, factor=None, colors=None, uv=None):
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    if colors is not None:
        box.visual.vertex_colors = colors
        return box
    uv = np.random.default_rng(0).uniform(0.1, 0.9, (8, 2)) if uv is None else uv
    picture = None if texture is None else Image.new("RGB", (8, 8), texture)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture, baseColorFactor=factor)
    box.visual = trimesh.visual.TextureVisuals(uv=None if picture is None else uv, material=material)
    return box


CORNERS = ((-0.6, 0.5), (0.6, 0.5), (-0.6, -0.5), (0.6, -0.5))


def _four(*boxes, mirrored=()):
    scene = trimesh.Scene()
    for number, (box, (x, y)) in enumerate(zip(boxes, CORNERS, strict=True)):
        place = trimesh.transformations.translation_matrix((x, y, 0))
        if number in mirrored:
            place[0, 0] = -1
        scene.add_geometry(box, transform=place)
    return scene


def _seen(mesh, **options):
    """Straight colours in the middle of the four boxes, [4, 3]."""
    camera = Cameras.look_at([(0, 0, 4.0)], focal=150.0, width=96, height=96)
    picture = render_mesh(mesh, camera, shading=False, progress=False, **options)[0]
    places = _project(np.array([(x, y, 0.25) for x, y in CORNERS]), camera)
    pixels = np.array([picture[int(v), int(u)] for u, v in places])
    assert (pixels[:, 3] == 255).all()
    return pixels[:, :3].astype(int)


def test_every_part_of_a_file_keeps_its_own_texture_and_colour(tmp_path):
    wanted = [(10, 200, 30), (200, 10, 30), (30, 40, 220), (250, 250, 10)]
    textured = _four(*map(_box, wanted))
    mixed = _four(_box(wanted[0]), _box(colors=[*wanted[1], 255]), _box(wanted[2]), _box(colors=[*wanted[3], 255]))
    for name, scene, textures in (("textured.glb", textured, 4), ("mixed.glb", mixed, 2)):
        scene.export(tmp_path / name)
        mesh = load_mesh(tmp_path / name)
        assert len(mesh.textures) == textures and mesh.texture is None
        assert np.abs(_seen(mesh) - wanted).max() <= 1
        assert np.abs(_seen(scene) - wanted).max() <= 1  # the scene itself, and not only its file


def test_order_of_the_parts_does_not_matter():
    boxes = [_box((10, 200, 30)), _box(colors=[200, 10, 30, 255]), _box((30, 40, 220)), _box(factor=[255, 0, 0, 255])]
    seen = _seen(_four(*boxes))
    for turn in range(1, 4):
        np.testing.assert_array_equal(_seen(_four(*boxes[turn:], *boxes[:turn])), np.roll(seen, -turn, axis=0))


def test_a_material_multiplies_its_texture_in_linear_light():
    half = 128  # of linear light, which is 188 of 255 in sRGB
    boxes = [
        _box((200, 200, 200)), _box((200, 200, 200), [half, half, half, 255]), _box(None, [half, half, half, 255]),
        _box((200, 200, 200), [255, 0, 255, 255]),
    ]  # fmt: skip
    wanted = [(200,) * 3, (147,) * 3, (188,) * 3, (200, 0, 200)]
    assert np.abs(_seen(_four(*boxes)) - wanted).max() <= 2


def test_parts_are_where_the_scene_puts_them_and_mirrored_ones_are_lit_from_outside():
    balls = [trimesh.creation.icosphere(4, radius=0.3) for _ in range(4)]
    plain, mirrored = (load_mesh(_four(*balls, mirrored=which)) for which in ((), (1, 2)))
    camera = Cameras.look_at([(1.0, 1.5, 4.0)], focal=150.0, width=96, height=96)
    # A ball is the same from behind a mirror, and so must be its light.
    pictures = [render_mesh(mesh, camera, progress=False)[0].astype(int) for mesh in (plain, mirrored)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
    assert np.ptp(pictures[0][pictures[0][..., 3] == 255][:, 0]) > 50


def test_textures_repeat_outside_the_unit_square():
    random = np.random.default_rng(1)
    tile = random.integers(0, 255, (4, 4, 3)).astype(np.uint8)
    points = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]])
    uv, faces = (points[:, :2] + 1) / 2, np.array([[0, 1, 2], [0, 2, 3]])
    camera = Cameras.look_at([(0, 0, 4.0)], focal=120.0, width=64, height=64)
    repeated = Mesh(points, faces, uv * 2, tile)
    spelt_out = Mesh(points, faces, uv, np.tile(tile, (2, 2, 1)))
    pictures = [render_mesh(mesh, camera, shading=False, progress=False)[0] for mesh in (repeated, spelt_out)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 2 and pictures[0][..., :3].std() > 20


def test_one_texture_in_two_parts_is_the_same_as_in_one():
    box, camera = _textured_box(), orbit(1, 4.0, 20.0, width=48, height=48)
    whole = load_mesh(box)
    picture, count = whole.texture, len(whole.faces)
    parted = Mesh(
        whole.points, whole.faces, whole.uv, textures=(picture, picture.copy()), texture_of=np.arange(count) % 2
    )
    np.testing.assert_array_equal(*(render_mesh(mesh, camera, progress=False) for mesh in (whole, parted)))
    assert [len(faces) for faces, _ in parted.looks()] == [count // 2] * 2


def test_mipmaps_are_for_textures_much_finer_than_the_picture():
    """A checkerboard of single texels is grey from afar; without mipmaps it is what the few samples happen to hit."""
    points = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]])
    faces, uv = np.array([[0, 1, 2], [0, 2, 3]]), (points[:, :2] + 1) / 2
    camera = Cameras.look_at([(0.1, 0.2, 4.0)], focal=16.0, width=16, height=16)

    def spread(extent, **options):
        board = np.repeat((np.indices((extent, extent)).sum(0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
        picture = render_mesh(Mesh(points, faces, uv, board), camera, shading=False, progress=False, **options)[0]
        return picture[picture[..., 3] == 255][:, 0].astype(float).std()

    for extent, fine in ((512, False), (2048, True)):
        assert spread(extent) == spread(extent, mipmaps=fine) != spread(extent, mipmaps=not fine)
    assert spread(2048) < 3 < spread(2048, mipmaps=False)


def test_obj_with_two_materials(tmp_path):
    for name, color in (("red", (250, 20, 10)), ("blue", (20, 40, 240))):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    (tmp_path / "two.mtl").write_text("newmtl red\nmap_Kd red.png\nnewmtl blue\nmap_Kd blue.png\n")
    corners = "v -1 -1 0\nv 0 -1 0\nv 1 -1 0\nv -1 1 0\nv 0 1 0\nv 1 1 0\n"
    texcoords = "vt 0 0\nvt 1 0\nvt 0 1\nvt 1 1\n"
    (tmp_path / "two.obj").write_text(
        f"mtllib two.mtl\n{corners}{texcoords}usemtl red\nf 1/1 2/2 5/4\nf 1/1 5/4 4/3\n"
        "usemtl blue\nf 2/1 3/2 6/4\nf 2/1 6/4 5/3\n"
    )
    camera = Cameras.look_at([(0, 0, 4.0)], focal=100.0, width=64, height=64)
    picture = render_mesh(tmp_path / "two.obj", camera, shading=False, progress=False)[0, 32, :, :3].astype(int)
    assert np.abs(picture[16] - (250, 20, 10)).max() <= 1 and np.abs(picture[48] - (20, 40, 240)).max() <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uv": np.zeros((3, 2))}, "uv has shape"),
        ({"faces": np.array([[0, 1, 4]])}, "outside 0 to 3"),
        ({"texture": np.zeros((4, 4), np.uint8)}, "texture has shape"),
        ({"textures": (np.zeros((4, 4, 3), np.uint8),), "uv": np.zeros((4, 2))}, "texture_of"),
        ({"textures": (np.zeros((4, 4, 3), np.uint8),), "texture_of": np.zeros(1, int)}, "need uv"),
        ({"texture_of": np.array([1])}, "outside -1 to -1"),
    ],
)
def test_parts_of_a_mesh_must_fit(change, words):
    with pytest.raises(InputError, match=words):
        Mesh(**{"points": np.eye(4, 3), "faces": np.array([[0, 1, 2]])} | change)


def test_an_unknown_engine_is_named():
    with pytest.raises(InputError, match="engine.*auto, pyvista or nvdiffrast"):
        render_mesh(_marker((0, 0, 0)), orbit(1, 4.0, width=16, height=16), engine="blender", progress=False)


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
