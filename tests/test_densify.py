from __future__ import annotations

import pytest
import torch
from scenes import random_gaussians

from fourdgs.densify import DEAD_OPACITY, Budget, rotation_matrices, split_copies


def budget(gaussians, most: int, seed: int = 0, **more) -> Budget:
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in gaussians.items().items()}
    optimisers = {key: torch.optim.Adam([value], lr=1e-3) for key, value in parameters.items()}
    sum((value**2).sum() for value in parameters.values()).backward()
    for optimiser in optimisers.values():
        optimiser.step()
    return Budget(parameters, optimisers, torch.Generator().manual_seed(seed), most, **more)


def test_copies_in_one_place_have_the_opacity_of_the_one_they_replace():
    opacity = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.9 + 0.05
    copies = torch.arange(50) % 7 + 1
    new, _ = split_copies(opacity, torch.ones(50, 3, dtype=torch.float64), copies)
    torch.testing.assert_close(1 - (1 - new) ** copies, opacity)


def test_copies_have_the_projected_mass_of_the_one_they_replace():
    """Along a line through the centre the integrals of the composited opacities agree: eq. 8 of the paper."""
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    for opacity, count in ((0.3, 2), (0.7, 3), (0.9, 5)):
        new, scale = split_copies(torch.tensor([opacity]).double(), torch.ones(1, 3).double(), torch.tensor([count]))
        before = opacity * torch.exp(-(x**2) / 2)
        after = 1 - (1 - new * torch.exp(-(x**2) / (2 * scale[0, 0] ** 2))) ** count
        assert float(after.sum() / before.sum()) == pytest.approx(1, rel=1e-6)


def test_one_copy_changes_nothing():
    opacity, scale = torch.tensor([0.2, 0.8]), torch.rand(2, 3)
    new, same = split_copies(opacity, scale, torch.ones(2, dtype=torch.int64))
    torch.testing.assert_close(new, opacity)
    torch.testing.assert_close(same, scale)


def test_growth_stops_at_the_budget_and_keeps_the_optimisers_in_step():
    keeper = budget(random_gaussians(40), most=60)
    counts = [keeper.refine() for _ in range(8)]
    assert counts == sorted(counts) and counts[-1] == 60
    for key, parameter in keeper.parameters.items():
        optimiser = keeper.optimisers[key]
        assert optimiser.param_groups[0]["params"] == [parameter] and len(parameter) == 60
        assert optimiser.state[parameter]["exp_avg"].shape == parameter.shape
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()


def test_the_dead_move_onto_the_living():
    gaussians = random_gaussians(40)
    gaussians = gaussians.replace(opacities=torch.where(torch.arange(40) < 10, -12.0, 1.0))
    keeper = budget(gaussians, most=40)
    living = keeper.parameters["means"][10:].detach().clone()
    assert keeper.refine() == 40
    assert (keeper.parameters["opacities"].sigmoid() >= DEAD_OPACITY).all()
    distance = torch.cdist(keeper.parameters["means"][:10], living).min(1).values
    assert torch.equal(distance, torch.zeros_like(distance))


def test_carried_rows_go_where_their_gaussians_go():
    """Relocation and growth copy them from the same source: each place keeps its number, and its own row."""
    gaussians = random_gaussians(40)
    gaussians = gaussians.replace(opacities=torch.where(torch.arange(40) < 10, -12.0, 1.0))
    number, places = torch.arange(40), gaussians.means.clone()
    carried = {"face": number.clone(), "wide": torch.stack([number, -number], 1)}
    keeper = budget(gaussians, most=55, carried=carried)
    places = keeper.parameters["means"].detach().clone()
    assert [keeper.refine() for _ in range(4)] == [44, 49, 54, 55]
    assert carried["face"].dtype == torch.int64 and len(carried["face"]) == 55
    assert torch.equal(keeper.parameters["means"], places[carried["face"]])
    assert torch.equal(carried["wide"], torch.stack([carried["face"], -carried["face"]], 1))
    assert (carried["face"] >= 10).all() and torch.equal(carried["face"][10:40], number[10:])


def test_carried_rows_draw_no_random_numbers():
    plain, carrying = (
        budget(random_gaussians(40), most=60),
        budget(random_gaussians(40), most=60, carried={"a": torch.ones(40)}),
    )
    for keeper in (plain, carrying):
        keeper.refine()
    assert torch.equal(plain.parameters["means"], carrying.parameters["means"])


def test_a_scene_that_is_all_dead_is_left_alone():
    gaussians = random_gaussians(40)
    keeper = budget(gaussians.replace(opacities=torch.full((40,), -12.0)), most=80)
    assert keeper.refine() == 40


def test_exploration_moves_the_faint_and_not_the_solid():
    gaussians = random_gaussians(40)
    keeper = budget(gaussians.replace(opacities=torch.where(torch.arange(40) < 20, -12.0, 4.0)), most=40)
    before = keeper.parameters["means"].detach().clone()
    keeper.explore(1.0)
    moved = (keeper.parameters["means"].detach() - before).norm(dim=1)
    assert (moved[:20] > 0).all() and moved[20:].max() < 1e-6 * moved[:20].max()


def test_rotation_matrices_are_rotations():
    matrices = rotation_matrices(torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(20, dtype=torch.float64))
