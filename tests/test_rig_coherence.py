from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians
from test_rigged import ball_mesh, ball_rig, bound, on_the_ball

from fourdgs import rig_coherence
from fourdgs.binding import matrix_quats
from fourdgs.config import TrainConfig
from fourdgs.densify import Budget
from fourdgs.rig import LinearRig
from fourdgs.rig_coherence import RigPrior, coherent_reach
from fourdgs.rig_start import SOLID, prior_of
from fourdgs.rigged import Rigged, _without_strengths
from fourdgs.train import train

SIDE, GAP = 5, 0.01


def plates(gap: float = GAP, moves: float = 1.0, twice: bool = False) -> LinearRig:
    """Two plates of SIDE x SIDE places, edge to edge ``gap`` apart; one control lifts the second."""
    line = torch.linspace(0, 1, SIDE)
    grid = torch.stack([*torch.meshgrid(line, line, indexing="xy"), torch.zeros(SIDE, SIDE)], -1).reshape(-1, 3)
    points = torch.cat([grid, grid + torch.tensor([1 + gap, 0, 0])])
    corner = [a + SIDE * b for b in range(SIDE - 1) for a in range(SIDE - 1)]
    one = torch.tensor([f for c in corner for f in ((c, c + 1, c + SIDE), (c + 1, c + SIDE + 1, c + SIDE))])
    faces = torch.cat([one, one + SIDE**2])
    lift = torch.zeros(1, len(points), 3)
    lift[0, SIDE**2 :, 2] = moves
    if not twice:
        return LinearRig.make(points, faces, ("lift",), lift)
    weld = torch.arange(len(points)).repeat(2)
    return LinearRig.make(points.repeat(2, 1), faces, ("lift",), lift.repeat(1, 2, 1), weld=weld)


def test_reach_ends_where_another_part_begins():
    rig = plates()
    x = rig.rest[:, 0]
    wanted = torch.where(x <= 1, 1 + GAP - x, x - 1)
    torch.testing.assert_close(coherent_reach(rig, 0.1), wanted)
    assert torch.isinf(coherent_reach(rig, 1.1)).all()  # nothing parts so far
    assert float(coherent_reach(rig, 0.1, least=0.3).min()) == pytest.approx(0.3)


def test_reach_counts_places_once_and_heeds_only_what_is_shown():
    rig = plates()
    torch.testing.assert_close(coherent_reach(plates(twice=True), 0.1), coherent_reach(rig, 0.1).repeat(2))
    first = np.arange(len(rig.rest)) < SIDE**2
    assert torch.isinf(coherent_reach(rig, 0.1, shown=first)).all()


def test_a_turn_parts_places_by_their_distance():
    """Turned by 20 degrees, places d apart in the plane of the turn go 2 d sin(10 degrees) apart."""
    points, faces = ball_mesh(600)
    turns = torch.tensor([[[0.0], [1.0], [0.0]]])
    rig = LinearRig.make(
        points, faces, ("headYaw",), torch.zeros(0, 600, 3), parents=(-1,), weights=torch.ones(600, 1), turns=turns
    )
    tolerance = 0.05
    reach = coherent_reach(rig, tolerance).numpy()
    least = tolerance / (2 * math.sin(math.radians(10)))
    assert reach.min() >= least * 0.999 and np.median(reach) < 1.6 * least


def lying(gaussians):
    """Small ones whose first axis, a little the shortest, is the normal of their triangle."""
    motion = bound(gaussians)
    a, b, c = motion.rig.rest[motion.rig.faces[motion.face]].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    tangent = torch.nn.functional.normalize(b - a, dim=-1)
    frames = torch.stack([normal, tangent, torch.linalg.cross(normal, tangent)], -1)
    scales = torch.tensor([0.0199, 0.02, 0.02]).log().expand(len(gaussians), 3)
    return gaussians.replace(quats=matrix_quats(frames), scales=scales)


def test_the_penalty_is_nought_within_reach_grows_beyond_and_knows_no_unit():
    gaussians = lying(on_the_ball(200))

    def penalty(grown=0.0, lifted=1.0, unit=1.0) -> float:
        points, faces = ball_mesh()
        rig = ball_rig(unit * points, faces)
        its = gaussians.replace(means=unit * lifted * gaussians.means, scales=gaussians.scales + grown + math.log(unit))
        prior = RigPrior(torch.full((200,), 0.1 * unit), torch.zeros(len(faces), dtype=torch.bool))
        return float(prior.penalty(bound(its, rig), its))

    assert penalty() == pytest.approx(0, abs=1e-6)
    assert penalty(grown=math.log(10)) == pytest.approx(math.log(2 * 0.2 / 0.1), rel=2e-3)
    assert 0 < penalty(lifted=1.3) < penalty(lifted=1.6)
    assert penalty(grown=3.0, lifted=1.5, unit=100.0) == pytest.approx(penalty(grown=3.0, lifted=1.5), rel=1e-3)


def test_what_never_parts_may_lie_anywhere_and_has_a_finite_gradient():
    gaussians = lying(on_the_ball(50, off=0.3))
    free = RigPrior(torch.full((200,), torch.inf), torch.zeros(len(ball_mesh()[1]), dtype=torch.bool))
    parameters = gaussians.replace(
        **{key: value.clone().requires_grad_() for key, value in gaussians.items().items()}
    )  # fmt: skip
    total = free.penalty(bound(gaussians), parameters)
    total.backward()
    assert float(total.detach()) == pytest.approx(0, abs=1e-6)
    assert not parameters.means.grad.any() and not parameters.scales.grad.any()


def test_the_penalty_lays_gaussians_flat():
    gaussians = lying(on_the_ball(50))
    motion, free = bound(gaussians), RigPrior(torch.full((200,), torch.inf), torch.zeros(1, dtype=torch.bool))
    flat = gaussians.replace(scales=gaussians.scales - torch.tensor([2.0, 0, 0]))
    quats = torch.nn.Parameter(gaussians.quats + 0.3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    first = float(free.penalty(motion, flat.replace(quats=quats)).detach())
    optimiser = torch.optim.Adam([quats], lr=0.05)
    for _ in range(60):
        total = free.penalty(motion, flat.replace(quats=quats))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert first > 0.05 and float(total.detach()) < 0.02 * first
    edge_on = flat.replace(scales=flat.scales[:, [1, 0, 2]])
    assert float(free.penalty(motion, edge_on)) == pytest.approx(1, abs=1e-5)


def test_the_penalty_is_the_same_whether_or_not_it_looks_for_those_with_a_limit(monkeypatch):
    gaussians = on_the_ball(200, off=0.1)
    reach = torch.where(torch.arange(200) < 80, 0.05, torch.inf)
    prior, found = RigPrior(reach, torch.zeros(1, dtype=torch.bool)), []
    for _ in range(2):
        leaves = {key: value.clone().requires_grad_() for key, value in gaussians.items().items()}
        total = prior.penalty(bound(gaussians), gaussians.replace(**leaves))
        total.backward()
        found.append([total.detach(), *(leaves[key].grad for key in ("means", "scales", "quats"))])
        monkeypatch.setattr(rig_coherence, "_limited", lambda reach: slice(None))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any() and torch.isfinite(other).all()


def test_fixed_gaussians_are_taught_nothing_by_stills_and_colours_by_frames_with_times():
    gaussians = random_gaussians(6)
    leaves = gaussians.replace(**{key: value.clone().requires_grad_() for key, value in gaussians.items().items()})
    prior = RigPrior(torch.ones(3), torch.tensor([True, False]))
    prior.begin(torch.tensor([0, 1, 0, 1]), torch.device("cpu"))  # two came after
    assert prior.fixed(6).tolist() == [True, False, True, False, False, False]

    def taught(some) -> dict[str, torch.Tensor]:
        sum(value.sum() for value in some.items().values() if value.numel()).backward()
        found = {key: leaf.grad.flatten(1).any(1) if leaf.dim() > 1 else leaf.grad != 0
                 for key, leaf in leaves.items().items() if leaf.grad is not None and leaf.numel()}  # fmt: skip
        for leaf in leaves.items().values():
            leaf.grad = None
        return found

    fixed = prior.fixed(6)
    for key, value in prior.guarded(leaves).items().items():
        assert torch.equal(value, leaves.items()[key])
    assert all(torch.equal(rows, ~fixed) for rows in taught(prior.guarded(leaves)).values())
    for key, rows in taught(prior.revealed(leaves, others=True)).items():
        assert torch.equal(rows, torch.ones(6, dtype=torch.bool) if key.startswith("sh") else ~fixed), key
    alone = taught(prior.revealed(leaves, others=False))
    assert set(alone) <= {"sh0", "shN"} and all(torch.equal(rows, fixed) for rows in alone.values())


def test_fixed_gaussians_are_neither_moved_nor_copied():
    gaussians = random_gaussians(40)
    gaussians = gaussians.replace(opacities=torch.where(torch.arange(40) < 10, -12.0, 1.0))
    fixed = torch.arange(40) % 2 == 0  # of the dead as of the living
    parameters = {key: torch.nn.Parameter(value.clone()) for key, value in gaussians.items().items()}
    optimisers = {key: torch.optim.Adam([value]) for key, value in parameters.items()}
    number = {"number": torch.arange(40)}
    keeper = Budget(parameters, optimisers, torch.Generator().manual_seed(0), 60, carried=number)
    assert keeper.refine(fixed) == 44
    assert torch.equal(number["number"][:40][fixed], torch.arange(40)[fixed])
    others = torch.cat([number["number"][:10][~fixed[:10]], number["number"][40:]])
    assert (others % 2 == 1).all() and (others >= 10).all()
    for key, value in gaussians.items().items():
        assert torch.equal(parameters[key][:40][fixed], value[fixed]), key


def nested() -> LinearRig:
    """A ball in the ball, which one control lets out."""
    points, faces = ball_mesh(300)
    inner = 0.3 * points
    out = torch.cat([torch.zeros(300, 3), torch.tensor([0.0, 0.0, 1.0]).expand(300, 3)])[None]
    return LinearRig.make(torch.cat([points, inner]), torch.cat([faces, faces + 300]), ("out",), out)


def test_what_lies_inside_and_can_come_out_is_hidden_and_begins_opaque_and_stays(tmp_path):
    rig, stills = nested(), ball_capture(tmp_path, ball_cameras(6, 96))
    prior = prior_of(Rigged(rig), stills, 400)
    inside = torch.arange(len(rig.faces)) >= len(rig.faces) // 2
    assert torch.equal(prior.hidden, inside)
    stuck = LinearRig.make(rig.rest, rig.faces, ("all",), torch.ones(1, 600, 3))
    assert not prior_of(Rigged(stuck), stills, 400).hidden.any()  # nothing ever reveals it

    config = TrainConfig(motion="rig", iterations=60, gaussians=400, refine_every=10)
    model = train(stills, config, tmp_path / "run", rig=rig, progress=False).model
    opaque = torch.isclose(model.gaussians.opacities.sigmoid(), torch.tensor(SOLID))
    held = inside[model.motion.face] & opaque
    start = round(config.gaussians * config.initial)
    assert held[:start].sum() == inside[model.motion.face[:start]].sum() > 10
    radii = model.gaussians.means[:start][held[:start]].norm(dim=1)
    torch.testing.assert_close(radii, radii.mean().expand_as(radii), rtol=0.03, atol=0)  # on the inner ball yet


def test_strengths_of_actions_are_found_from_how_far_the_gaussians_go():
    gaussians, times = on_the_ball(100), torch.tensor([0.0, 0.5, 1.0])
    values = torch.tensor([[0.0, 0, 0, 0], [0.8, 0.1, 0, 5], [0.3, 0.2, 20, 0]])
    true = bound(gaussians, track=(times, values)).at(gaussians, times).means.detach()
    factors = torch.tensor([0.5, 2.0, 0.7, 1.6])
    motion = bound(gaussians, track=(times, values * factors))
    optimiser = torch.optim.Adam([motion.strengths], lr=0.02)
    for _ in range(400):
        loss = (motion.at(gaussians, times).means - true).square().mean() + 1e-6 * motion.regularisation()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(motion.strengths.detach() * factors, torch.ones(4), atol=0.02, rtol=0)
    unmoved = bound(gaussians, track=(times[:1], values[:1]))
    unmoved.at(gaussians, times).means.sum().backward()
    assert not unmoved.strengths.grad.any()  # no frame shows them


def test_models_from_before_strengths_have_them_at_one():
    motion = bound(on_the_ball(10))
    state = {key: value for key, value in motion.state_dict().items() if key != "strengths"}
    with torch.no_grad():
        motion.strengths *= 3
    motion.load_state_dict(state)
    assert torch.equal(motion.strengths.detach(), torch.ones(4))
    prefixed: dict = {}
    _without_strengths(motion, prefixed, "motion.")
    assert list(prefixed) == ["motion.strengths"]


def test_a_rig_that_nothing_moves_or_no_picture_shows_has_no_limits():
    still = LinearRig.make(plates().rest, plates().faces, (), torch.zeros(0, 2 * SIDE**2, 3))
    nothing = np.zeros(2 * SIDE**2, bool)
    for rig, shown in ((still, ~nothing), (still, nothing), (plates(), nothing)):
        prior = RigPrior.of(rig, shown, 100, 0.01)
        assert torch.isinf(prior.reach).all() and not prior.hidden.any()
