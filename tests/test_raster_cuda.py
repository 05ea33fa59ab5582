"""The CPU engine against gsplat on a GPU: the same call, the same picture, the same gradients."""

from __future__ import annotations

import pytest
import torch
from test_raster import Scene, make_scene

from fourdgs.errors import MissingDependency
from fourdgs.raster import rasterize

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CASES = {
    "usual": ({"count": 3000, "low": 0.01, "high": 0.2}, {}),
    "odd size": ({"count": 500, "width": 77, "height": 51}, {}),
    "tiny": ({"count": 2000, "low": 1e-3, "high": 1e-2}, {}),
    "huge": ({"count": 60, "low": 0.5, "high": 3.0}, {}),
    "needles": ({"count": 500, "low": 3e-3, "high": 1.0}, {}),
    "among the cameras": ({"count": 2000, "low": 0.01, "high": 0.1}, {"shift": 2.7}),
    "antialiased": ({"count": 2000, "low": 3e-3, "high": 0.1}, {"rasterize_mode": "antialiased"}),
    "depth": ({"count": 2000, "low": 0.01, "high": 0.2}, {"render_mode": "RGB+ED"}),
    "harmonics": ({"count": 2000, "low": 0.01, "high": 0.2, "sh": 16}, {"sh_degree": 3}),
    "opaque": ({"count": 2000, "low": 0.05, "high": 0.3, "opacity": 1.0}, {}),
    "transparent": ({"count": 500, "opacity": 0.0}, {}),
    "empty": ({"count": 0}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_parity(case):
    what, options = CASES[case]
    what = {"width": 96, "height": 64, **what}
    options = dict(options)
    cpu = make_scene(cameras=2, **what)
    cpu.viewmats[:, 2, 3] -= options.pop("shift", 0.0)
    gpu = Scene(*(tensor.detach().cuda() for tensor in cpu)).grad()
    cpu.grad()
    width, height = what["width"], what["height"]
    backgrounds = torch.rand(2, 3)
    a, alpha_a, meta_a = rasterize(*cpu, width, height, backgrounds=backgrounds, **options)
    try:
        b, alpha_b, meta_b = rasterize(*gpu, width, height, backgrounds=backgrounds.cuda(), **options)
    except MissingDependency as error:
        pytest.skip(str(error))
    assert (a - b.cpu()).abs().mean() < 1e-4 and (alpha_a - alpha_b.cpu()).abs().mean() < 1e-4
    seen = (meta_a["radii"] > 0).all(-1)
    assert (seen == (meta_b["radii"].cpu() > 0).all(-1)).float().mean() > 0.999 or not seen.numel()
    v = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    (a * v).sum().backward()
    (b * v.cuda()).sum().backward()
    for name in Scene._fields[:6]:
        ours, theirs = getattr(cpu, name).grad, getattr(gpu, name).grad
        if theirs is not None and theirs.numel():
            assert (ours - theirs.cpu()).norm() <= 1e-3 * theirs.norm().cpu() + 1e-6, name
