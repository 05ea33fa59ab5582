"""The CPU rasteriser under random scenes, in threads, after a fork, and in its plain form."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from test_raster import Scene, check, make_cameras, make_scene

from fourdgs.raster import rasterize, runtime, ssim

# FOURDGS_SCENES=10000 python -m pytest tests/test_raster_robust.py -k random
SCENES = int(os.environ.get("FOURDGS_SCENES", "300"))


@st.composite
def wild_scenes(draw):
    """A scene, a picture size and options, with everything that may go wrong now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, cameras = draw(st.integers(0, 60)), draw(st.integers(1, 3))
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    small, large = draw(st.sampled_from([(-2, -1), (-8, -3), (-1, 1), (-6, 3), (-20, 4)]))
    scales = 10.0 ** rng.uniform(small, large, (count, 3))
    scales *= rng.random((count, 3)) > draw(st.sampled_from([0.0, 0.1]))
    quats = rng.normal(size=(count, 4)) * (rng.random((count, 1)) > draw(st.sampled_from([0.0, 0.1])))
    means = rng.normal(size=(count, 3)) * draw(st.sampled_from([0.3, 1.0, 10.0, 1e4]))
    opacities = rng.random(count).round(draw(st.sampled_from([0, 1, 3, 8])))
    degree = draw(st.sampled_from([None, None, 0, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 2, 3, 3, 4, 5, 17]))
    colors = rng.normal(size=(count, 16, 3) if degree is not None else (count, channels))
    if draw(st.booleans()):
        colors = np.repeat(colors[None], cameras, 0)
    viewmats, Ks = make_cameras(cameras, width, height, distance=draw(st.sampled_from([3.0, 0.5, 0.011, -2.0])))
    arrays = [torch.tensor(array, dtype=torch.float32) for array in (means, quats, scales, opacities, colors)]
    mode = draw(st.sampled_from(["RGB", "RGB", "D", "ED", "RGB+D", "RGB+ED"]))
    options = {
        "render_mode": mode,
        "sh_degree": degree,
        "rasterize_mode": draw(st.sampled_from(["classic", "antialiased"])),
        "radius_clip": draw(st.sampled_from([0.0, 0.0, 2.0])),
        "eps2d": draw(st.sampled_from([0.3, 0.3, 0.1, 0.0])),
        "absgrad": draw(st.booleans()),
    }
    if draw(st.booleans()):
        options["backgrounds"] = torch.rand(cameras, 3 if degree is not None else channels)
    return Scene(*arrays, viewmats, Ks), width, height, options


@hypothesis.settings(max_examples=SCENES, deadline=None, derandomize=SCENES < 1000, database=None)
@hypothesis.given(wild_scenes())
def test_random_scenes_stay_finite_and_within_bounds(wild):
    scene, width, height, options = wild
    scene.grad()
    picture, alpha, meta = rasterize(*scene, width, height, **options)
    C = len(scene.viewmats)
    channels = (3 if options["sh_degree"] is not None else scene.colors.shape[-1]) * ("RGB" in options["render_mode"])
    assert picture.shape == (C, height, width, channels + ("D" in options["render_mode"]))
    assert alpha.min() >= 0 and alpha.max() <= 1 - 0.9e-4
    assert picture.isfinite().all()
    if options["render_mode"] == "RGB" and "backgrounds" not in options and options["sh_degree"] is None:
        bound = scene.colors.detach().abs().amax() if scene.colors.numel() else 0
        assert picture.detach().abs().max() <= bound * (1 + 1e-5)
    meta["means2d"].retain_grad()
    (picture.sum() + alpha.square().sum()).backward()
    for name in Scene._fields[:6]:
        grad = getattr(scene, name).grad
        assert grad is None or grad.isfinite().all(), name
    assert meta["means2d"].grad is None or meta["means2d"].grad[~(meta["radii"] > 0).all(-1)].abs().sum() == 0


@pytest.mark.parametrize("seed", range(4))
def test_plain_form_is_right_as_well(seed, monkeypatch):
    monkeypatch.setenv("FOURDGS_RASTER", "plain")
    width, height = [(40, 32), (33, 17), (7, 50), (64, 48)][seed]
    check(make_scene(seed=seed, cameras=2, width=width, height=height), width, height)
    check(make_scene(60, low=0.3, high=0.8, opacity=1.0, channels=5, seed=seed), width, height)


def test_plain_and_vector_forms_agree(monkeypatch):
    results = []
    for form in ("vector", "plain"):
        monkeypatch.setenv("FOURDGS_RASTER", form)
        scene = make_scene(800, cameras=2, width=80, height=60, low=0.01, high=0.3, seed=9).grad()
        picture, alpha, meta = rasterize(*scene, 80, 60, absgrad=True)
        a = picture.detach()[..., :3].clone().requires_grad_()
        value = ssim(a, torch.rand(a.shape, generator=torch.Generator().manual_seed(0)))
        (picture.square().sum() + alpha.sum() + value).backward()
        results.append([picture, alpha, meta["means2d"].absgrad, value, a.grad, *(t.grad for t in scene[:6])])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 2e-4 * b.norm()


def test_gsplats_default_strategy_runs_on_what_meta_holds():
    strategies = pytest.importorskip("gsplat.strategy")
    scene = make_scene(300, cameras=2, width=64, height=64, low=0.02, high=0.2).grad("means")
    params = {
        "means": scene.means,
        "scales": scene.scales.log().requires_grad_(),
        "quats": scene.quats.requires_grad_(),
        "opacities": scene.opacities.clamp(0.01, 0.99).logit().requires_grad_(),
        "colors": scene.colors.requires_grad_(),
    }
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(tensor.detach()) for name, tensor in params.items()})
    optimizers = {name: torch.optim.Adam([{"params": params[name], "name": name}]) for name in params}
    for absgrad in (False, True):
        strategy = strategies.DefaultStrategy(
            refine_start_iter=0, refine_every=2, grow_grad2d=1e-5, reset_every=1000, absgrad=absgrad
        )
        state = strategy.initialize_state(scene_scale=1.0)
        before = len(params["means"])
        for step in range(1, 4):
            picture, _, meta = rasterize(
                params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
                params["colors"], scene.viewmats, scene.Ks, 64, 64, absgrad=absgrad,
            )  # fmt: skip
            strategy.step_pre_backward(params, optimizers, state, step, meta)
            picture.square().mean().backward()
            strategy.step_post_backward(params, optimizers, state, step, meta, packed=False)
        assert len(params["means"]) > before


def picture_and_gradient(seed: int) -> torch.Tensor:
    scene = make_scene(500, width=64, height=64, low=0.02, high=0.2, seed=seed).grad("means")
    picture, _, _ = rasterize(*scene, 64, 64)
    picture.square().sum().backward()
    return torch.cat([picture.detach().flatten(), scene.means.grad.flatten()])


def test_two_python_threads_at_once():
    expected = [picture_and_gradient(seed) for seed in range(4)]
    wrong = []

    def work(seed):
        for _ in range(20):
            if not torch.equal(picture_and_gradient(seed), expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_child(queue) -> None:
    torch.set_num_threads(1)  # what a DataLoader worker does; torch itself hangs otherwise
    queue.put(float(picture_and_gradient(0).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_hang():
    expected = float(picture_and_gradient(0).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_use_python_threads():
    expected = float(picture_and_gradient(0)[:100].sum())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # No torch operation that would start OpenMP's threads: only the engine's own.
        assert runtime._parallel() is None
        scene = make_scene(500, width=64, height=64, low=0.02, high=0.2, seed=0)
        picture = rasterize(*scene, 64, 64)[0]
        os.write(writer, repr(float(picture.numpy().ravel()[:100].sum(dtype=np.float32))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert abs(float(os.read(reader, 100)) - expected) < 1e-3 * abs(expected)


def test_torchs_default_type_does_not_matter():
    expected = picture_and_gradient(2)
    scene = make_scene(500, width=64, height=64, low=0.02, high=0.2, seed=2).grad("means")
    torch.set_default_dtype(torch.float64)
    try:
        picture, _, _ = rasterize(*scene, 64, 64)
        picture.square().sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.cat([picture.detach().flatten(), scene.means.grad.flatten()]), expected)


def test_second_derivatives_are_refused():
    scene = make_scene(20).grad("means")
    picture, _, _ = rasterize(*scene, 40, 32)
    gradient = torch.autograd.grad(picture.square().sum(), scene.means, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_python_threads_take_the_place_of_openmp(monkeypatch):
    expected = picture_and_gradient(1)
    monkeypatch.setattr(runtime, "_parallel", lambda: None)
    assert torch.equal(picture_and_gradient(1), expected)


def test_import_compiles_nothing_and_needs_no_gsplat():
    code = (
        "import sys, time, torch, fourdgs.raster as r; from fourdgs.raster import compositing_vector as v;"
        "assert not v.composite_forward.signatures; assert 'gsplat' not in sys.modules; print('well')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "well" and not done.stderr
