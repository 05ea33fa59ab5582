"""HexPlane features: the fused kernels against torch's grid_sample in float64, and what must hold of both."""

from __future__ import annotations

import pytest
import torch

from fourdgs import Deform, InputError
from fourdgs.hexplane import hexplane_features, sampled_features

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the kernels, and grid_sample


def planes(channels=16, sizes=(8, 13), rows=7, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def make(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return [make(3, size, size, channels) for size in sizes], [make(3, rows, size, channels) for size in sizes]


def points(count=200, instants=3, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    place = 2 * torch.rand(count, 3, generator=generator) - 1
    return place.to(dtype), torch.rand(instants, generator=generator).to(dtype)


def doubled(*lists):
    return [[plane.detach().double().requires_grad_() for plane in level] for level in lists]


def gradients(function, space, time, place, times, seed=2):
    """The features, and the gradients of their weighted sum to all planes."""
    features = function(space, time, place, times)
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    return features.detach(), torch.autograd.grad((features * weight).sum(), [*space, *time])


def assert_exact(space, time, place, times):
    ours, v_ours = gradients(hexplane_features, space, time, place, times)
    truth, v_truth = gradients(sampled_features, *doubled(space, time), place.double(), times.double())
    assert ours.dtype == torch.float32 and ours.shape == truth.shape
    assert (ours - truth).abs().max() < 1e-5 * (1 + truth.abs().max())
    for a, b, plane in zip(v_ours, v_truth, [*space, *time], strict=True):
        assert a.shape == plane.shape
        assert (a - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("channels", [1, 3, 16, 20, 32])
@pytest.mark.parametrize("instants", [1, 4])
def test_values_and_gradients_are_float64s(channels, instants):
    assert_exact(*planes(channels), *points(instants=instants))


@pytest.mark.parametrize(("sizes", "rows"), [((5,), 1), ((2, 3, 4), 2), ((1, 9), 24)])
def test_any_number_of_levels_and_cells(sizes, rows):
    assert_exact(*planes(4, sizes, rows), *points(60))


def test_at_the_size_of_a_training_step():
    assert_exact(*planes(16, (24, 48), 24), *points(4000, 2))


def test_on_the_border_and_beyond():
    space, time = planes()
    place, _ = points()
    edges = torch.tensor([[-1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    place, times = torch.cat([3 * place, edges]), torch.tensor([0.0, 1.0, -0.5, 1.5, 1 / 6])
    assert_exact(space, time, place, times)
    beyond = hexplane_features(space, time, place, times)
    assert torch.equal(beyond, hexplane_features(space, time, place.clamp(-1, 1), times.clamp(0, 1)))
    assert torch.equal(beyond[:2], beyond[2:4])


@BOTH
def test_at_a_cell_it_is_the_product_of_the_cells(dtype):
    space, time = planes(sizes=(9,), rows=5, dtype=dtype)
    x, y, z, t = 2, 8, 0, 3
    place = torch.tensor([[x, y, z]], dtype=dtype) / 4 - 1
    features = hexplane_features(space, time, place, torch.tensor([t / 4], dtype=dtype))
    (xy, xz, yz), (xt, yt, zt) = space[0], time[0]
    expected = xy[y, x] * xz[z, x] * yz[z, y] * xt[t, x] * yt[t, y] * zt[t, z]
    torch.testing.assert_close(features[0, 0], expected)


@BOTH
def test_planes_of_one_change_nothing(dtype):
    space, time = planes(dtype=dtype)
    place, times = points(dtype=dtype)
    ones = [torch.ones_like(plane) for plane in time]
    features = hexplane_features(space, ones, place, times)
    torch.testing.assert_close(features[0], features[2])
    whole = hexplane_features([torch.ones_like(plane) for plane in space], ones, place, times)
    torch.testing.assert_close(whole, torch.ones_like(whole))


def test_planes_of_one_are_exact_in_the_kernels():
    space, time = ([torch.ones_like(plane) for plane in level] for level in planes())
    assert (hexplane_features(space, time, *points()) == 1).all()


@pytest.mark.parametrize("zeros", [("space", 0), ("space", 2), ("time", 1), ("time", 0, 2)])
def test_a_plane_of_zero_still_gets_its_gradient(zeros):
    space, time = planes()
    with torch.no_grad():
        for plane in {"space": space, "time": time}[zeros[0]]:
            plane[list(zeros[1:])] = 0
    assert_exact(space, time, *points())
    assert (hexplane_features(space, time, *points()) == 0).all()


def test_order_of_gaussians_and_times_does_not_matter():
    space, time = planes()
    place, times = points()
    order, turn = torch.randperm(len(place), generator=torch.Generator().manual_seed(3)), torch.tensor([2, 0, 1])
    expected = hexplane_features(space, time, place, times)[turn][:, order]
    assert torch.equal(hexplane_features(space, time, place[order], times[turn]), expected)


def test_repeats_and_does_not_depend_on_the_threads():
    space, time = planes(20)
    place, times = points(3000)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (2, 2, 1):
            torch.set_num_threads(threads)
            features, v = gradients(hexplane_features, space, time, place, times)
            results.append([features, *v])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@BOTH
@pytest.mark.parametrize(("count", "instants"), [(0, 2), (5, 0), (0, 0)])
def test_nothing_to_look_up(dtype, count, instants):
    space, time = planes(dtype=dtype)
    features, v = gradients(hexplane_features, space, time, *points(count, instants, dtype=dtype))
    assert features.shape == (instants, count, 32)
    assert all((gradient == 0).all() for gradient in v)


def test_places_that_are_no_numbers_stay_inside_the_planes():
    space, time = planes()
    place = torch.tensor([[float("nan"), 0.0, 0.0], [float("inf"), -float("inf"), 0.0], [1e38, 0.0, -1e38]])
    features, v = gradients(hexplane_features, space, time, place, torch.tensor([float("nan"), float("inf"), 0.5]))
    assert features.isfinite().all() and all(gradient.isfinite().all() for gradient in v)


def test_inputs_need_not_be_contiguous():
    space, time = planes()
    place, times = points()
    turned = [
        [plane.detach().transpose(1, 2).contiguous().transpose(1, 2) for plane in level] for level in (space, time)
    ]
    ours = hexplane_features(*turned, place.T.contiguous().T, times.repeat_interleave(2)[::2])
    assert torch.equal(ours, hexplane_features(space, time, place, times))
    features = hexplane_features(space, time, place, times)
    v = torch.ones(()).expand_as(features)
    one, other = (torch.autograd.grad(features, space, of, retain_graph=True) for of in (v, v.contiguous()))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_plane_changed_before_backward_is_an_error():
    space, time = planes()
    features = hexplane_features(space, time, *points())
    with torch.no_grad():
        space[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()


def test_the_plain_form_is_grid_sample(monkeypatch):
    space, time = planes()
    monkeypatch.setenv("FOURDGS_RASTER", "plain")
    assert torch.equal(hexplane_features(space, time, *points()), sampled_features(space, time, *points()))


def test_bad_inputs_are_refused():
    space, time = planes()
    place, times = points()
    with pytest.raises(InputError, match="place: .* no gradient"):
        hexplane_features(space, time, place.clone().requires_grad_(), times)
    with pytest.raises(InputError, match="times: .* no gradient"):
        hexplane_features(space, time, place, times.clone().requires_grad_())
    for wrong in (
        (space, time, place[:, :2], times),
        (space, time, place, times[:, None]),
        (space[:1], time, place, times),
        ([], [], place, times),
        (space[::-1], time, place, times),
        (space, [plane[..., :8] for plane in time], place, times),
        (space, [plane[:, :0] for plane in time], place, times),
        ([plane[0] for plane in space], time, place, times),
    ):
        with pytest.raises(InputError, match="expected"):
            hexplane_features(*wrong)


def test_deform_looks_up_where_its_gaussians_are():
    motion = Deform([0.2, -0.1, 0.0], 1.5, [8, 16])
    place, times = points()
    means = motion.centre + motion.radius * place
    features = motion.features(means, times)
    torch.testing.assert_close(features, sampled_features(motion.space, motion.time, place, times))
    exact = motion.double().features(means.double(), times.double())
    assert exact.dtype == torch.float64 and (features - exact).abs().max() < 1e-5
