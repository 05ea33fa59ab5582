"""The CPU rasteriser against its definition in float64, and the properties that every picture must have."""

from __future__ import annotations

import math
from typing import NamedTuple

import oracle
import pytest
import torch
from torch import Tensor

from fourdgs.errors import InputError, MissingDependency
from fourdgs.raster import rasterize

IMAGE_ERROR, GRADIENT_ERROR = 1e-5, 1e-4


class Scene(NamedTuple):
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor

    def double(self) -> Scene:
        return Scene(*(tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in self))

    def grad(self, *names: str) -> Scene:
        for name in names or self._fields[:6]:
            getattr(self, name).requires_grad_()
        return self


def make_cameras(count: int, width: int, height: int, distance: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cameras around the origin that look at it, not quite centred."""
    generator = torch.Generator().manual_seed(seed)
    turn = oracle.rotation(torch.randn(count, 4, generator=generator, dtype=torch.float64))
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    viewmats[:, :3, :3] = turn
    viewmats[:, 2, 3] = distance
    focal = 0.5 * width / math.tan(math.radians(25))
    Ks = torch.tensor([[focal, 0, 0.48 * width], [0, 1.1 * focal, 0.53 * height], [0, 0, 1]]).repeat(count, 1, 1)
    return viewmats.float(), Ks.float()


def make_scene(
    count=40, cameras=1, width=40, height=32, channels=3, sh=None, seed=0, low=0.05, high=0.4, opacity=0.95
) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, sh, 3) if sh else (count, channels)
    return Scene(
        torch.randn(count, 3, generator=generator) * 0.5,
        torch.randn(count, 4, generator=generator),
        low * (high / low) ** torch.rand(count, 3, generator=generator),
        opacity * torch.rand(count, generator=generator),
        torch.randn(shape, generator=generator) * 0.3 if sh else torch.rand(shape, generator=generator),
        *make_cameras(cameras, width, height, seed=seed),
    )


def check(scene: Scene, width: int, height: int, gradients=Scene._fields[:6], **options) -> int:
    """Picture, alpha and gradients of the engine against the oracle; returns the number of pixels set apart."""
    scene = Scene(*(tensor.detach().clone() for tensor in scene)).grad(*gradients)
    exact = scene.double()
    wide = {key: value.double() if isinstance(value, Tensor) else value for key, value in options.items()}
    picture, alpha, _ = rasterize(*scene, width, height, **options)
    truth = oracle.render(*exact, width, height, **wide)
    sure = (~truth.unsure)[..., None]
    scale = max(1.0, float(truth.picture.detach().abs().max()))
    assert torch.where(sure, picture - truth.picture, 0).abs().max() < IMAGE_ERROR * scale
    assert torch.where(sure, alpha - truth.alpha, 0).abs().max() < IMAGE_ERROR
    generator = torch.Generator().manual_seed(1)
    v_picture = torch.randn(picture.shape, generator=generator) * sure
    v_alpha = torch.randn(alpha.shape, generator=generator) * sure
    ((picture * v_picture).sum() + (alpha * v_alpha).sum()).backward()
    ((truth.picture * v_picture).sum() + (truth.alpha * v_alpha).sum()).backward()
    for name in gradients:
        ours, theirs = getattr(scene, name).grad, getattr(exact, name).grad
        error = (ours - theirs).norm() / theirs.norm().clamp_min(1e-9)
        assert error < GRADIENT_ERROR, f"gradient to {name}: {error:.1e}"
    return int(truth.unsure.sum())


@pytest.mark.parametrize("seed", range(6))
def test_picture_and_gradients_are_the_oracles(seed):
    width, height = [(40, 32), (33, 17), (16, 16), (7, 50), (50, 7), (64, 48)][seed]
    apart = check(make_scene(seed=seed, width=width, height=height), width, height)
    assert apart < 0.05 * width * height


@pytest.mark.parametrize("low, high, count", [(0.002, 0.01, 60), (0.5, 3.0, 20), (0.003, 1.5, 40)])
def test_tiny_huge_and_needle_shaped_gaussians(low, high, count):
    check(make_scene(count, seed=3, low=low, high=high), 40, 32)


def test_heavy_overlap_reaches_the_early_stop():
    scene = make_scene(150, low=0.3, high=0.8, opacity=1.0, seed=5)
    exact = oracle.render(*scene.double(), 40, 32)
    assert exact.alpha.max() > 0.999
    check(scene, 40, 32)


@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_render_modes(mode):
    names = [name for name in Scene._fields[:6] if not (name == "colors" and mode in ("D", "ED"))]
    scene = make_scene(opacity=0.9, cameras=2)
    backgrounds = torch.rand(2, 1 if mode in ("D", "ED") else 3)
    check(scene, 40, 32, names, render_mode=mode, backgrounds=backgrounds)


@pytest.mark.parametrize("degree, coefficients", [(0, 1), (1, 4), (2, 16), (3, 16)])
def test_spherical_harmonics(degree, coefficients):
    check(make_scene(cameras=2, sh=coefficients), 40, 32, sh_degree=degree)


def test_antialiased():
    check(make_scene(low=0.005, high=0.2), 40, 32, rasterize_mode="antialiased")


@pytest.mark.parametrize("channels", [1, 2, 4, 7, 33])
def test_any_number_of_channels(channels):
    check(make_scene(channels=channels), 40, 32)


def test_colors_for_each_camera_and_gradient_to_the_background():
    scene = make_scene(cameras=3)
    scene = scene._replace(colors=torch.rand(3, *scene.colors.shape))
    backgrounds = torch.rand(3, 3).requires_grad_()
    exact = backgrounds.detach().double().requires_grad_()
    check(scene, 40, 32, backgrounds=backgrounds.detach())
    picture, _, _ = rasterize(*scene, 40, 32, backgrounds=backgrounds)
    picture.square().sum().backward()
    oracle.render(*scene.double(), 40, 32, backgrounds=exact).picture.square().sum().backward()
    assert (backgrounds.grad - exact.grad).norm() < 1e-4 * exact.grad.norm()


def test_batches_are_rendered_one_by_one():
    scenes = [make_scene(cameras=2, seed=seed) for seed in range(6)]
    batch = Scene(*(torch.stack(tensors).unflatten(0, (2, 3)) for tensors in zip(*scenes, strict=True))).grad()
    picture, alpha, meta = rasterize(*batch, 40, 32)
    assert picture.shape == (2, 3, 2, 32, 40, 3) and alpha.shape == (2, 3, 2, 32, 40, 1)
    assert meta["means2d"].shape == (2, 3, 2, 40, 2) and meta["n_batches"] == 6
    picture.square().sum().backward()
    for k, scene in enumerate(scenes):
        scene.grad()
        alone, _, _ = rasterize(*scene, 40, 32)
        alone.square().sum().backward()
        assert torch.equal(alone, picture[k // 3, k % 3])
        for name in Scene._fields[:6]:
            assert torch.equal(getattr(scene, name).grad, getattr(batch, name).grad[k // 3, k % 3]), name


def test_projection_is_gsplats():
    torch_impl = pytest.importorskip("gsplat.cuda._torch_impl")
    scene = make_scene(200, cameras=3, seed=2)
    for mode in ("classic", "antialiased"):
        _, _, meta = rasterize(*scene, 40, 32, rasterize_mode=mode)
        covars = torch_impl._quat_scale_to_covar_preci(scene.quats, scene.scales, compute_preci=False)[0]
        radii, means2d, depths, conics, compensation = torch_impl._fully_fused_projection(
            scene.means, covars, scene.viewmats, scene.Ks, 40, 32, calc_compensations=True
        )
        seen = (meta["radii"] > 0).all(-1)
        assert seen.any()
        # gsplat's torch version does not know about opacities; with them, boxes only get smaller.
        assert ((radii > 0).all(-1) | ~seen).all() and (meta["radii"] <= radii)[seen].all()
        torch.testing.assert_close(meta["means2d"][seen], means2d[seen], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(meta["conics"][seen], conics[seen], rtol=2e-3, atol=1e-4)
        torch.testing.assert_close(meta["depths"][seen], depths[seen])
        if mode == "antialiased":
            expected = (scene.opacities * compensation)[seen]
            torch.testing.assert_close(meta["opacities"][seen], expected, rtol=1e-3, atol=1e-4)


def test_radii_of_opaque_gaussians_are_gsplats():
    torch_impl = pytest.importorskip("gsplat.cuda._torch_impl")
    scene = make_scene(200)._replace(opacities=torch.ones(200))
    covars = torch_impl._quat_scale_to_covar_preci(scene.quats, scene.scales, compute_preci=False)[0]
    radii = torch_impl._fully_fused_projection(scene.means, covars, scene.viewmats, scene.Ks, 40, 32)[0]
    ours = rasterize(*scene, 40, 32)[2]["radii"]
    assert (ours == radii).float().mean() > 0.98  # 3.33 against sqrt(2 ln 255) = 3.329: one pixel here and there
    assert (ours - radii).abs().max() <= 1


def test_means2d_keeps_its_gradient_and_absgrad():
    scene = make_scene(cameras=2).grad()
    picture, _, meta = rasterize(*scene, 40, 32, absgrad=True)
    meta["means2d"].retain_grad()
    picture.square().sum().backward()
    exact = scene.double()
    truth = oracle.render(*exact, 40, 32)
    expected = torch.autograd.grad(truth.picture.square().sum(), truth.means2d)[0]
    grad, absgrad = meta["means2d"].grad, meta["means2d"].absgrad
    assert (grad - expected).norm() < 1e-3 * expected.norm()
    assert absgrad.shape == grad.shape and (absgrad >= grad.abs() * (1 - 1e-4) - 1e-5).all()
    assert absgrad.sum() > 1.1 * grad.abs().sum()


def test_gradient_passes_through_everything_in_meta():
    scene = make_scene().grad()
    _, _, meta = rasterize(*scene, 40, 32)
    weights = {key: torch.randn(meta[key].shape) for key in ("means2d", "conics", "depths")}
    seen = (meta["radii"] > 0).all(-1, keepdim=True)
    sum((meta[key] * weight * (seen if meta[key].dim() == 3 else seen[..., 0])).sum()
        for key, weight in weights.items()).backward()  # fmt: skip
    exact = scene.double()
    truth = oracle.render(*exact, 40, 32)
    sum((getattr(truth, key) * weight * (seen if weight.dim() == 3 else seen[..., 0])).sum()
        for key, weight in weights.items()).backward()  # fmt: skip
    for name in ("means", "quats", "scales", "viewmats"):
        ours, theirs = getattr(scene, name).grad, getattr(exact, name).grad
        assert (ours - theirs).norm() < 1e-4 * theirs.norm(), name


def test_permutation_changes_nothing():
    scene = make_scene(200, seed=4)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    mixed = Scene(*(tensor[order] for tensor in scene[:5]), *scene[5:])
    a, b = rasterize(*scene, 40, 32), rasterize(*mixed, 40, 32)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_background_shows_through_by_one_minus_alpha():
    scene = make_scene(15, cameras=2)
    backgrounds = torch.rand(2, 3)
    with_it, alpha, _ = rasterize(*scene, 40, 32, backgrounds=backgrounds)
    without, same, _ = rasterize(*scene, 40, 32)
    assert torch.equal(alpha, same)
    torch.testing.assert_close(with_it - without, (1 - alpha) * backgrounds[:, None, None], rtol=0, atol=2e-7)


def test_doubling_the_resolution_agrees_after_pooling():
    scene = make_scene(60, width=48, height=32, low=0.2, high=0.5, seed=7)
    small, _, _ = rasterize(*scene, 48, 32, eps2d=0.3)
    Ks = scene.Ks * torch.tensor([2.0, 2.0, 1.0])[:, None]
    large, _, _ = rasterize(*scene[:6], Ks, 96, 64, eps2d=1.2)
    pooled = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (pooled - small).abs().mean() < 2e-3


@pytest.mark.parametrize("kind", ["none", "behind", "transparent", "aside", "beyond", "clipped"])
def test_scenes_with_nothing_to_see(kind):
    scene = make_scene(0 if kind == "none" else 20)
    options = {"far_plane": 0.5} if kind == "beyond" else {"radius_clip": 1e4} if kind == "clipped" else {}
    shift = {"behind": (0, 0, -9.0), "aside": (99.0, 0, 0)}.get(kind, (0, 0, 0))
    scene.viewmats[:, :3, 3] += torch.tensor(shift)
    if kind == "transparent":
        scene = scene._replace(opacities=torch.full((20,), 0.003))
    scene.grad()
    backgrounds = torch.rand(1, 3)
    picture, alpha, meta = rasterize(*scene, 40, 32, backgrounds=backgrounds)[:3]
    picture, alpha, meta = rasterize(*scene, 40, 32, backgrounds=backgrounds, **options)
    assert torch.equal(picture, backgrounds[:, None, None].expand(picture.shape)) and not alpha.any()
    assert not meta["radii"].any()
    (picture.sum() + alpha.sum()).backward()
    for name in Scene._fields[:5]:
        assert not getattr(scene, name).grad.any(), name


def test_gaussians_at_the_near_plane_and_behind_do_not_disturb():
    scene = make_scene(40)
    scene.viewmats[:, 2, 3] = 0.2  # the camera stands among them
    picture, alpha, _ = rasterize(*scene.grad(), 40, 32)
    picture.square().sum().backward()
    assert picture.isfinite().all() and alpha.max() <= 1
    for tensor in scene[:6]:
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", Scene._fields)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_named(name, value):
    scene = make_scene(20)
    getattr(scene, name).view(-1)[5] = value
    with pytest.raises(InputError, match=name):
        rasterize(*scene, 40, 32)


def test_nan_in_coefficients_is_named():
    scene = make_scene(20, sh=4)
    scene.colors[rasterize(*scene, 40, 32, sh_degree=1)[2]["radii"][0, :, 0].argmax(), 2, 1] = float("nan")
    with pytest.raises(InputError, match="colors"):
        rasterize(*scene, 40, 32, sh_degree=1)


@pytest.mark.parametrize("name", Scene._fields)
def test_wrong_shapes_are_named(name):
    scene = make_scene(20)
    broken = scene._replace(**{name: getattr(scene, name)[..., :-1, :] if name == "viewmats" else torch.rand(3, 5)})
    with pytest.raises(InputError, match=name):
        rasterize(*broken, 40, 32)


@pytest.mark.parametrize(
    "options",
    [{"render_mode": "X"}, {"rasterize_mode": "X"}, {"backend": "X"}, {"sh_degree": 2}, {"backend": "gsplat"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError):
        rasterize(*make_scene(20), 40, 32, **options)
    with pytest.raises(InputError):
        rasterize(*make_scene(20), 40, 0)


def test_cuda_tensors_without_gsplat_say_what_to_install(monkeypatch):
    from fourdgs.raster import api

    monkeypatch.setattr(api, "_engine", lambda backend, device: "gsplat")
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependency, match="gsplat"):
            rasterize(*make_scene(20), 40, 32)


def run_once(threads: int) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scene = make_scene(3000, cameras=2, width=96, height=80, low=0.01, high=0.2).grad()
        picture, alpha, _ = rasterize(*scene, 96, 80)
        (picture.square().sum() + alpha.sum()).backward()
        return [picture, alpha, *(tensor.grad for tensor in scene[:6])]
    finally:
        torch.set_num_threads(before)


def test_results_repeat_and_do_not_depend_on_the_threads():
    first = run_once(2)
    for threads in (2, 1, 3):
        for a, b in zip(first[:2] + first[2:7], run_once(threads), strict=False):
            assert torch.equal(a, b)
