"""The nvdiffrast engine: the same maths as pyvista's, on the CPU against a stand-in, on a GPU against the package."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
import trimesh

from fourdgs.cameras import Cameras, orbit
from fourdgs.data import nvdiff
from fourdgs.data import orbit as orbits
from fourdgs.data.meshes import Mesh, load_mesh
from fourdgs.data.orbit import iterate_pictures, render_mesh
from fourdgs.errors import MissingDependency


def _camera(width, height, K=None):
    camera = Cameras.look_at([(1.0, 0.8, 3.0)], (0.1, 0.0, 0.0), focal=1.0, width=width, height=height)
    K = [[1.7 * width, 3.0, 0.45 * width], [0, 1.5 * width, 0.55 * height], [0, 0, 1]] if K is None else K
    return Cameras(camera.viewmats, torch.tensor([K]), camera.sizes, camera.times)


def _matrices(camera):
    return camera.viewmats[0].double().numpy(), camera.Ks[0].double().numpy()


@pytest.mark.parametrize(("width", "height"), [(128, 128), (160, 90)])
def test_clip_coordinates_are_the_pinhole_projection(width, height):
    viewmat, K = _matrices(_camera(width, height))
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    clip = nvdiff.clip_matrix(viewmat, orbits._projection(K, width, height, 1.0, 9.0))
    x, y, z, w = (np.c_[places, np.ones(50)] @ clip.T).T
    seen = places @ viewmat[:3, :3].T + viewmat[:3, 3]
    pixels = (seen @ K.T)[:, :2] / seen[:, 2:]
    np.testing.assert_allclose((x / w + 1) / 2 * width, pixels[:, 0], atol=1e-9)
    np.testing.assert_allclose((1 - y / w) / 2 * height, pixels[:, 1], atol=1e-9)  # OpenGL's rows count upwards
    np.testing.assert_allclose(w, seen[:, 2])
    assert (np.abs(z / w) < 1).all() and (np.argsort(z / w) == np.argsort(seen[:, 2])).all()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_average_is_that_of_the_other_engine_to_the_last_bit(scale):
    random = np.random.default_rng(scale)
    samples = random.integers(0, 256, (6 * scale, 5 * scale, 4)).astype(np.uint8)
    samples[..., 3] = random.choice([0, 255], samples.shape[:2])
    samples[: 2 * scale, : 3 * scale, 3] = 0
    samples *= samples[..., 3:] > 0
    wanted = orbits._average(samples, scale)
    got = nvdiff.average(torch.tensor(samples[..., :3]).int(), torch.tensor(samples[..., 3] > 0), scale)
    np.testing.assert_array_equal(got.numpy(), wanted)


def test_mip_levels_halve_evenly():
    for extents, wanted in (((1, 1), 0), ((8, 8), 3), ((8, 2), 3), ((1392, 2048), 4), ((5, 8), 0), ((1, 8), 3)):
        assert nvdiff.mip_levels(*extents) == wanted == nvdiff.mip_levels(*extents[::-1])


# --- a stand-in for nvdiffrast.torch: what its manual promises, slowly ---------------------------------------------


def _rasterize(context, pos, tri, resolution):
    """(u, v, z/w, triangle + 1) [1, H, W, 4], bottom row first; u and v weigh a triangle's first and second corner."""
    height, width = resolution
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = 2 * x.double() / width - 1, 2 * y.double() / height - 1
    hits, depth = torch.zeros(1, height, width, 4), torch.full((height, width), torch.inf, dtype=torch.float64)
    for number, corners in enumerate(pos[0].double()[tri.long()]):  # [3, 4]
        place, w = corners[:, :2] / corners[:, 3:], corners[:, 3]

        def side(a, b, place=place):
            (ax, ay), (bx, by) = place[a], place[b]
            return (bx - ax) * (y - ay) - (by - ay) * (x - ax)

        flat = torch.stack([side(1, 2), side(2, 0), side(0, 1)])
        flat = flat / flat.sum(0)  # shares on the screen
        true = flat / w[:, None, None]
        true = true / true.sum(0)  # shares on the triangle
        z = (flat * (corners[:, 2] / w)[:, None, None]).sum(0)
        over = (flat >= 0).all(0) & (z < depth)
        depth[over] = z[over]
        values = torch.stack([true[0], true[1], z, torch.full_like(z, number + 1)], dim=-1).float()
        hits[0][over] = values[over]
    return hits, torch.zeros(1, height, width, 4)


def _interpolate(attr, rast, tri, rast_db=None, diff_attrs=None):
    corners = attr[0][tri.long()[(rast[0, ..., 3].long() - 1).clamp(min=0)]]  # [H, W, 3, A]
    u, v = rast[0, ..., 0], rast[0, ..., 1]
    shares = torch.stack([u, v, 1 - u - v], dim=-1) * (rast[0, ..., 3:] > 0)
    out = (corners * shares[..., None]).sum(-2)[None]
    return out, torch.zeros(*out.shape[:-1], 2 * out.shape[-1] if diff_attrs == "all" else 0)


def _texture(tex, uv, filter_mode, boundary_mode):
    """Linear; row 0 of ``tex`` is at v = 0."""
    assert filter_mode == "linear" and boundary_mode == "wrap"
    height, width = tex.shape[1:3]
    x, y = uv[0, ..., 0] * width - 0.5, uv[0, ..., 1] * height - 0.5
    left, low = x.floor(), y.floor()
    across, up = (x - left)[..., None], (y - low)[..., None]

    def texel(column, row):
        return tex[0][row.long() % height, column.long() % width]

    bottom = texel(left, low) * (1 - across) + texel(left + 1, low) * across
    top = texel(left, low + 1) * (1 - across) + texel(left + 1, low + 1) * across
    return (bottom * (1 - up) + top * up)[None]


@pytest.fixture
def stand_in(monkeypatch):
    package = types.ModuleType("nvdiffrast")
    package.torch = types.ModuleType("nvdiffrast.torch")
    package.torch.RasterizeCudaContext = lambda device=None: device
    package.torch.rasterize, package.torch.interpolate, package.torch.texture = _rasterize, _interpolate, _texture
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", package.torch)


def _plain():
    return load_mesh(trimesh.creation.icosphere(2, radius=0.5))


def _parts():
    """Two textures, and a part of neither."""
    random = np.random.default_rng(0)
    box = trimesh.creation.box((1, 0.8, 0.9))
    points, faces = np.asarray(box.vertices)[box.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3)
    uv = np.tile([(-0.2, 0.1), (1.1, 0.2), (0.3, 1.2)], (12, 1))
    textures = tuple(random.integers(0, 256, (4, 2, 3)).astype(np.uint8) for _ in range(2))
    worn = np.arange(12) % 3 - 1
    colors = random.integers(128, 256, (36, 3)).astype(np.uint8)
    return Mesh(points, faces, uv, None, colors, textures=textures, texture_of=worn)


def _moving():
    mesh = _plain()
    return Mesh(mesh.points, mesh.faces, motion=lambda time: mesh.points * (1, 1 - (time or 0) / 2, 1))


def _draw(mesh, camera, scale, shading=True, device="cpu"):
    stage = nvdiff.NvdiffStage(load_mesh(mesh), camera.width, camera.height, scale, shading, False, device=device)
    stage.pose(None if camera.times.isnan().any() else float(camera.times[0]))
    return stage.shoot(*_matrices(camera))


def _same(picture, wanted):
    """Engines may differ where an edge meets a sample, and by a bit of rounding."""
    assert picture.shape == wanted.shape and picture.dtype == np.uint8
    apart = np.abs(picture.astype(int) - wanted)
    assert (apart[..., 3] > 0).mean() < 0.005 and apart.mean() < 0.2
    assert (apart.max(axis=-1) > 3).mean() < 0.01
    assert wanted[..., 3].any() and wanted[wanted[..., 3] == 255][:, :3].std() > 5


@pytest.mark.parametrize(
    ("make", "shading"),
    [(_plain, True), (_parts, True), (_parts, False), (_moving, True)],
    ids=["plain", "parts", "parts, no light", "moving"],
)
def test_pictures_are_those_of_the_other_engine(stand_in, make, shading):
    camera = _camera(48, 40)
    if make is _moving:
        camera = camera.with_times(1.0)
    wanted = render_mesh(make(), camera, shading=shading, supersample=2, progress=False)[0]
    _same(_draw(make(), camera, 2, shading), wanted)


def test_a_missing_package_and_a_missing_gpu_are_named(monkeypatch):
    camera = orbit(1, 4.0, width=16, height=16)
    find = nvdiff.importlib.util.find_spec
    there = {"nvdiffrast": None}
    monkeypatch.setattr(nvdiff.importlib.util, "find_spec", lambda name: there[name] if name in there else find(name))
    with pytest.raises(MissingDependency, match="pip install .*github.com/NVlabs/nvdiffrast"):
        render_mesh(_plain(), camera, engine="nvdiffrast", progress=False)
    assert orbits.choose_engine("auto") == "pyvista"
    there["nvdiffrast"] = object()
    monkeypatch.setattr(nvdiff.torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependency, match="NVIDIA GPU.*engine='pyvista'"):
        next(iterate_pictures(_plain(), camera, engine="nvdiffrast", progress=False))
    assert orbits.choose_engine("auto") == "pyvista"
    monkeypatch.setattr(nvdiff.torch.cuda, "is_available", lambda: True)
    assert orbits.choose_engine("auto") == "nvdiffrast"


@pytest.mark.gpu
@pytest.mark.parametrize("make", [_plain, _parts, _moving], ids=["plain", "parts", "moving"])
def test_real_pictures_are_those_of_the_other_engine(make):
    pytest.importorskip("nvdiffrast")
    camera = _camera(160, 120)
    if make is _moving:
        camera = camera.with_times(0.5)
    wanted = render_mesh(make(), camera, supersample=3, progress=False)[0]
    _same(render_mesh(make(), camera, supersample=3, engine="nvdiffrast", progress=False)[0], wanted)
