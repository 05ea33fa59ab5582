from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import RADIUS, ball_cameras, ball_capture, random_gaussians
from scipy.spatial import ConvexHull

from fourdgs import InputError
from fourdgs.basis import Basis
from fourdgs.binding import foot_gaps, foot_shares, matrix_quats, nearest_faces, surface_of, turns, walked
from fourdgs.config import TrainConfig
from fourdgs.densify import rotation_matrices
from fourdgs.metrics import psnr_db
from fourdgs.model import Model, render
from fourdgs.motion import Static
from fourdgs.motions import motion_for
from fourdgs.rig import LinearRig, SequenceRig
from fourdgs.rig_start import FLAT, check_alignment, depth_picture, gaussians_on
from fourdgs.rigged import Rigged
from fourdgs.train import train


def ball_mesh(count: int = 200, radius: float = RADIUS) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices spread over a sphere, and its triangles, anticlockwise from outside."""
    step = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * step / count), math.pi * (1 + 5**0.5) * step
    points = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], -1)
    faces = ConvexHull(points).simplices
    corner = points[faces]
    inwards = (np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]) * corner.mean(1)).sum(1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return radius * torch.tensor(points, dtype=torch.float32), torch.tensor(faces, dtype=torch.int64)


def ball_rig(points=None, faces=None, weld=None) -> LinearRig:
    """Controls: jawOpen, which drags the front down; grow; and a turn of the upper half about y, of all about x."""
    points, faces = ball_mesh() if points is None else (points, faces)
    jaw = -0.3 * torch.exp(-((points - torch.tensor([0.0, 0, RADIUS])) ** 2).sum(1) / 0.1)[:, None] * torch.eye(3)[1]
    weights = torch.stack([torch.sigmoid(8 * points[:, 1]), 1 - torch.sigmoid(8 * points[:, 1])], 1)
    turn = torch.tensor([[[0.0, 1], [0, 0], [0, 0]], [[0.0, 1], [0, 0], [0, 0]]])
    turn[0, 1, 0] = 1.0
    controls = ("jawOpen", "grow", "headYaw", "headPitch")
    deltas = torch.stack([jaw, points])
    return LinearRig.make(
        points, faces, controls, deltas, parents=(-1, -1), weights=weights, turns=turn, weld=weld
    )  # fmt: skip


def on_the_ball(count: int, seed: int = 0, off: float = 0.0):
    """Gaussians within ``off`` of the sphere."""
    gaussians = random_gaussians(count, seed)
    places = RADIUS * torch.nn.functional.normalize(gaussians.means, dim=-1)
    return gaussians.replace(means=places + off * gaussians.sh0[:, 0])


def bound(gaussians, rig=None, **more) -> Rigged:
    motion = Rigged(ball_rig() if rig is None else rig, **more)
    motion.begin(gaussians)
    return motion


def row(motion: Rigged, **values: float) -> torch.Tensor:
    return motion.rig.drive(values)[None]


def same_turn(first: torch.Tensor, second: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(rotation_matrices(first), rotation_matrices(second), atol=atol, rtol=0)


# --- geometry ---


def test_quaternions_of_matrices_of_any_turn_and_back():
    quats = torch.nn.functional.normalize(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    half = torch.cat([torch.zeros(3, 1), torch.eye(3)], 1)  # half turns, where w is 0
    quats = torch.cat([quats, half, torch.eye(4)[:1]]).double()
    found = matrix_quats(rotation_matrices(quats))
    assert (found[:, 0] >= 0).all()
    torch.testing.assert_close(rotation_matrices(found), rotation_matrices(quats))


def test_the_foot_is_the_nearest_place_of_a_triangle():
    random = torch.Generator().manual_seed(1)
    corners = torch.randn(300, 3, 3, generator=random, dtype=torch.float64)
    corners[:5, 2] = 2 * corners[:5, 1] - corners[:5, 0]  # without area
    corners[5] = corners[5, :1]  # one point
    points = 1.5 * torch.randn(300, 3, generator=random, dtype=torch.float64)
    shares = foot_shares(points, corners)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(300, dtype=torch.float64))
    foot = (shares[..., None] * corners).sum(1)
    # On a convex set the nearest place is where no corner lies further along the way to the point.
    ahead = ((points - foot)[:, None] * (corners - foot[:, None])).sum(-1)
    assert float(ahead.max()) < 1e-9
    inner = (shares > 0).all(-1)
    assert 20 < int(inner.sum()) < 280


@pytest.mark.parametrize("stretch", [1, 5])
def test_nearest_triangles_are_those_of_a_search_through_all(stretch):
    points, faces = ball_mesh(150)
    points[points[:, 0] > 0.3] *= stretch  # some triangles are then much larger than others
    wanted = random_gaussians(200).means
    gaps = foot_gaps(wanted.repeat_interleave(len(faces), 0), points[faces].repeat(200, 1, 1)).view(200, -1)
    found = nearest_faces(wanted, points, faces)
    torch.testing.assert_close(gaps.gather(1, found[:, None])[:, 0], gaps.min(1).values)


def test_a_walk_follows_the_surface_and_does_not_jump_to_another_that_is_nearer():
    points, faces = ball_mesh(300)
    surface = surface_of(points, faces, torch.arange(300))
    start = on_the_ball(100).means
    goal = RADIUS * torch.nn.functional.normalize(start + 0.05, dim=-1)
    walk = walked(nearest_faces(start, points, faces), goal, points, surface, steps=12)
    nearest = nearest_faces(goal, points, faces)
    torch.testing.assert_close(foot_gaps(goal, points[faces[walk]]), foot_gaps(goal, points[faces[nearest]]))
    # Two balls, one in the other: the walk stays on its own.
    both, double = torch.cat([points, 0.98 * points]), torch.cat([faces, faces + 300])
    shell = surface_of(both, double, torch.arange(600))
    walk = walked(nearest_faces(start, points, faces), 0.97 * goal, both, shell, steps=12)
    assert (walk < len(faces)).all()
    assert (nearest_faces(0.97 * goal, both, double) >= len(faces)).float().mean() > 0.8


def test_the_turn_of_a_surface_that_turns_and_grows_is_exact_also_at_seams_and_points():
    points, faces = ball_mesh(100)
    points = torch.cat([points, points[:1], torch.zeros(1, 3)])  # a vertex twice, and one without triangles
    faces[(faces == 0).nonzero()[0, 0], (faces == 0).nonzero()[0, 1]] = 100
    weld = torch.cat([torch.arange(100), torch.tensor([0, 101])])
    surface = surface_of(points, faces, weld)
    quat = torch.nn.functional.normalize(torch.tensor([[0.2, 0.9, -0.3, 0.4]]), dim=-1)
    moved = 1.7 * points @ rotation_matrices(quat)[0].T + torch.tensor([3.0, -1, 0.5])
    turn, growth = turns(moved[None], surface)
    same_turn(turn[0], quat.expand(102, 4))
    torch.testing.assert_close(growth[0], torch.full((102,), math.log(1.7)), atol=1e-4, rtol=0)
    assert torch.equal(turn[0, 0], turn[0, 100])


# --- posing ---


def test_a_rig_that_turns_as_a_whole_turns_its_gaussians_however_far_off():
    gaussians = on_the_ball(60, off=0.4)
    motion = bound(gaussians)
    moved = motion.at_drive(gaussians, torch.cat([row(motion, headPitch=40), row(motion, headPitch=-170)]))
    for index, angle in enumerate((40, -170)):
        half = math.radians(angle) / 2
        quat = torch.tensor([[math.cos(half), math.sin(half), 0, 0]])
        turn = rotation_matrices(quat)[0]
        torch.testing.assert_close(moved.means[index], gaussians.means @ turn.T, atol=1e-5, rtol=0)
        wanted = turn @ rotation_matrices(gaussians.quats)
        torch.testing.assert_close(rotation_matrices(moved.quats[index]), wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(moved.scales[index], gaussians.scales, atol=1e-4, rtol=0)
    assert moved.sh0 is gaussians.sh0 and moved.opacities is gaussians.opacities


def test_a_rig_that_grows_grows_its_gaussians():
    gaussians = on_the_ball(60, off=0.2)
    motion = bound(gaussians)
    moved = motion.at_drive(gaussians, row(motion, grow=0.5))
    torch.testing.assert_close(moved.means[0], 1.5 * gaussians.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.scales[0], gaussians.scales + math.log(1.5), atol=1e-4, rtol=0)


def test_on_the_surface_gaussians_go_with_it_however_it_bends():
    rig, shares = ball_rig(), torch.rand(80, 3, generator=torch.Generator().manual_seed(0))
    shares = shares / shares.sum(1, keepdim=True)
    face = torch.arange(80)
    corners = rig.faces[face]
    gaussians = random_gaussians(80).replace(means=(shares[..., None] * rig.rest[corners]).sum(1))
    motion = bound(gaussians, rig)
    drive = torch.cat([row(motion, jawOpen=1, headYaw=30, grow=-0.2), row(motion, jawOpen=0.3, headYaw=-50)])
    moved = motion.at_drive(gaussians, drive)
    wanted = (shares[..., None] * rig.vertices(drive)[:, corners]).sum(-2)
    torch.testing.assert_close(moved.means, wanted, atol=2e-6, rtol=0)


def test_neutral_is_the_identity_to_the_last_bit():
    gaussians = on_the_ball(40, off=0.3)
    motion = bound(gaussians, track=([0.0, 1.0], [[0.5, 0, 20, 0], [0, 0, 0, 0]]))
    for moved in (motion.at_drive(gaussians, row(motion)), motion.at(gaussians, torch.tensor([1.0]))):
        for key in ("means", "quats", "scales"):
            assert torch.equal(moved.items()[key][0], gaussians.items()[key]), key


def test_crossing_edges_leaves_no_seam():
    """Along a path over many triangles, posed places, turns and sizes step no further where the triangle changes."""
    rig = ball_rig()
    angle = torch.linspace(0, 2, 4001)
    path = 1.03 * RADIUS * torch.stack([0.3 + 0 * angle, angle.sin(), angle.cos()], -1)
    gaussians = random_gaussians(4001).replace(
        means=path, quats=torch.eye(4)[:1].repeat(4001, 1), scales=torch.zeros(4001, 3)
    )
    motion = bound(gaussians, rig)
    edges = motion.face.diff() != 0
    assert int(edges.sum()) > 10
    motion.requires_grad_(False)
    moved = motion.at_drive(gaussians, row(motion, jawOpen=0.8, headYaw=40))
    way = torch.cat([moved.means[0], 0.1 * rotation_matrices(moved.quats[0]).flatten(1), 0.1 * moved.scales[0]], 1)
    steps = way.diff(dim=0).norm(dim=1)
    assert float(steps[edges].max()) < 1.5 * float(steps[~edges].max())
    # Where triangles are kept, and places slide along them and over their edges, there is no seam either.
    motion.place(motion.face[(torch.arange(4001) // 50) * 50])
    moved = motion.at_drive(gaussians, row(motion, jawOpen=0.8, headYaw=40))
    late = moved.means[0].diff(dim=0).norm(dim=1)[torch.arange(4000) % 50 != 49]
    assert float(late.max()) < 1.5 * float(steps[~edges].max())


def test_texture_seams_change_nothing():
    points, faces = ball_mesh()
    split, own = points[faces].reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3)
    gaussians = on_the_ball(50, off=0.1)
    whole, cut = bound(gaussians, ball_rig(points, faces)), bound(gaussians, ball_rig(split, own, weld=faces.flatten()))
    drive = row(whole, jawOpen=0.7, headYaw=25)
    for one, other in zip(*(m.at_drive(gaussians, drive).items().values() for m in (whole, cut)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_drive_is_found_from_where_the_gaussians_are():
    gaussians = on_the_ball(60, off=0.02)
    motion = bound(gaussians)
    true = torch.cat([row(motion, jawOpen=0.6, headYaw=12), row(motion, jawOpen=0.1, headYaw=-8)])
    wanted = motion.at_drive(gaussians, true).means.detach()
    drive = torch.zeros_like(true).requires_grad_()
    size = torch.tensor([1.0, 1, 50, 50])
    optimiser = torch.optim.Adam([drive], lr=0.05)
    for _ in range(120):
        loss = (motion.at_drive(gaussians, drive * size).means - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close((drive * size).detach(), true, atol=0.05, rtol=0.02)


def test_offsets_find_where_the_rig_lies_in_the_capture():
    """Gaussians whose true binding is a shift away are told by how they move; the offsets slide the binding there."""
    gaussians = on_the_ball(300)
    motion = bound(gaussians, track=([0.0, 1.0], [[0.0, 0, 0, 0], [1, 0, 0, 0]]))
    shift = torch.tensor([0.0, 0.08, 0.0])
    true = gaussians.replace(means=RADIUS * torch.nn.functional.normalize(gaussians.means - shift, dim=-1))
    other, time = bound(true, track=([0.0, 1.0], [[0.0, 0, 0, 0], [1, 0, 0, 0]])), torch.tensor([1.0])
    wanted = gaussians.means + (other.at(true, time).means[0] - true.means).detach()

    def error():
        return (motion.at(gaussians, time).means[0] - wanted).square().mean()

    before = float(error().detach())
    optimiser = torch.optim.Adam([motion.offsets], lr=3e-3)
    for step in range(120):
        loss = error() + 1e-6 * motion.regularisation()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 9:
            motion.follow(gaussians)
    assert float(error().detach()) < 0.1 * before


def test_the_penalty_knows_sliding_from_bending():
    motion = bound(on_the_ball(10))
    assert motion.regularisation().item() == 0
    with torch.no_grad():
        motion.offsets[:] = torch.tensor([0.01, 0, 0])
        slid = float(motion.regularisation())
        motion.offsets[1::2] *= -1
    assert 0 < slid < 0.1 * float(motion.regularisation().detach())


# --- tracks ---


def test_a_track_is_linear_held_beyond_its_ends_and_neutral_at_no_time():
    gaussians = on_the_ball(20)
    motion = bound(gaussians, track=([0.2, 0.4, 0.8], [[0.0, 0, 0, 0], [1, 0, 10, 0], [0, 0, 30, 0]]))
    times = torch.tensor([0.0, 0.3, 0.4, 0.7, 1.0, math.nan])
    wanted = torch.tensor([[0, 0, 0, 0], [0.5, 0, 5, 0], [1, 0, 10, 0], [0.25, 0, 25, 0], [0, 0, 30, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(motion.drive_at(times), wanted)
    for key in ("means", "quats", "scales"):
        moved, direct = motion.at(gaussians, times), motion.at_drive(gaussians, wanted)
        torch.testing.assert_close(moved.items()[key], direct.items()[key], atol=1e-6, rtol=1e-5)


def test_another_track_plays_on_a_copy_without_the_residual():
    gaussians, time = on_the_ball(20), torch.tensor([0.5])
    residual = Basis(trajectories=2, knots=4)
    motion = bound(gaussians, track=([0.0, 1.0], [[0.0] * 4, [1.0, 0, 0, 0]]), residual=residual)
    with torch.no_grad():
        motion.residual.curves += 0.1
    before = motion.at(gaussians, time).means.clone()
    other = motion.driven([0.0], [[0.0, 0, 25, 0]])
    wanted = motion.at_drive(gaussians, row(motion, headYaw=25)).means
    torch.testing.assert_close(other.at(gaussians, time).means, wanted)
    assert torch.equal(motion.at(gaussians, time).means, before) and other.residual is None


def test_a_sequence_plays_by_its_own_time():
    points, faces = ball_mesh()
    frames = torch.stack([points, points + torch.tensor([0.0, 0, 1]), points + torch.tensor([0.0, 1, 1])])
    gaussians = on_the_ball(20)
    motion = bound(gaussians, SequenceRig.make(frames, faces))
    shift = motion.at(gaussians, torch.tensor([0.25, 1.0, math.nan])).means - gaussians.means
    wanted = torch.tensor([[0.0, 0, 0.5], [0, 1, 1], [0, 0, 0]])[:, None].expand(3, 20, 3)
    torch.testing.assert_close(shift, wanted, atol=1e-5, rtol=0)


def test_the_digest_knows_what_is_told_and_not_what_is_learned():
    gaussians, track = on_the_ball(20), ([0.0, 1.0], [[0.0] * 4, [1.0, 0, 0, 0]])
    motion = Rigged(ball_rig(), track=track, residual=Basis(trajectories=2, knots=4))
    digest = motion.digest()
    motion.begin(gaussians)
    with torch.no_grad():
        motion.offsets += 0.1
    assert motion.digest() == digest and len(digest) == 64
    others = [motion.driven([0.0, 1.0], [[0.0] * 4, [0.9, 0, 0, 0]]), Rigged(ball_rig(*ball_mesh(150)), track=track)]
    assert len({digest, *(other.digest() for other in others)}) == 3


def test_a_model_comes_back_from_its_file(tmp_path):
    gaussians, times = on_the_ball(30, off=0.05), torch.tensor([0.3, math.nan])
    track = ([0.0, 1.0], [[0.2, 0, 0, 0], [1, 0, 20, 0]])
    motion = bound(gaussians, track=track, residual=Basis(trajectories=2, knots=4))
    with torch.no_grad():
        motion.offsets += 0.01 * torch.randn(motion.offsets.shape, generator=torch.Generator().manual_seed(0))
        motion.residual.curves += 0.1
    Model(gaussians, motion).save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path / "model.safetensors")
    for key, value in motion.at(gaussians, times).items().items():
        assert torch.equal(again.at(times).items()[key], value), key
    assert again.motion.digest() == motion.digest()


# --- starting on the surface ---


def test_depths_are_those_of_the_ball():
    points, faces = ball_mesh(2000)
    cameras = ball_cameras(2, 64)
    for i in range(2):
        depth = depth_picture(points.double().numpy(), faces.numpy(), cameras, i)
        assert depth[32, 32] == pytest.approx(np.linalg.norm(cameras.positions[i]) - RADIUS, abs=0.01)
        assert np.isinf(depth[0, 0])


def test_gaussians_start_flat_on_the_surface_in_its_colours(tmp_path):
    points, faces = ball_mesh(1000)
    rig, capture = ball_rig(points, faces), ball_capture(tmp_path, ball_cameras(8, 64))
    start, face = gaussians_on(rig, 2000, capture)
    assert len(start) == len(face) == 2000
    assert float(foot_gaps(start.means, points[faces[face]]).max()) < 1e-9
    frame = rotation_matrices(start.quats)
    outwards = torch.nn.functional.normalize(points[faces[face]].mean(1), dim=-1)
    assert float((frame[..., 2] * outwards).sum(-1).min()) > 0.97
    torch.testing.assert_close(start.scales[:, 2], start.scales[:, 0] + math.log(FLAT))
    count, _ = np.histogram(start.means[:, 1].numpy(), bins=4, range=(-RADIUS, RADIUS))
    assert count.min() > 450  # by area: bands of one height are alike (Archimedes)
    true = torch.from_numpy(np.stack([capture.image(i, (1, 1, 1)) for i in range(8)]))
    assert float(psnr_db(render(Model(start, Static()), capture.cameras).rgb, true).mean()) > 20


def test_what_lies_inside_takes_no_colour_from_pictures_of_the_outside(tmp_path):
    points, faces = ball_mesh(500)
    both, double = torch.cat([points, 0.5 * points]), torch.cat([faces, faces + 500])
    capture = ball_capture(tmp_path, ball_cameras(8, 64))
    from fourdgs import rig_start

    motion = Rigged(ball_rig(both, double))
    face = np.arange(len(double))
    _, seen = rig_start._colors(motion, capture, face, np.full((len(face), 3), 1 / 3))
    assert seen[: len(faces)].mean() > 0.9 and not seen[len(faces) :].any()


def test_alignment_says_what_would_help(tmp_path):
    points, faces = ball_mesh()
    capture = ball_capture(tmp_path, ball_cameras(6, 64))
    assert check_alignment(ball_rig(points, faces), capture) > 0.95
    for wrong, words in (
        (100 * points, "times 0.01"),
        (points + torch.tensor([0.5, 0, 0]), r"plus \(-0\.[45]"),
        (points + torch.tensor([0.0, 0, 50]), "plus"),
    ):
        with pytest.raises(InputError, match=words):
            check_alignment(ball_rig(wrong, faces), capture)
    with pytest.warns(UserWarning, match="part of the subject"):
        assert check_alignment(ball_rig(points * torch.tensor([0.3, 1, 0.3]), faces), capture) < 0.5
    opaque = capture.with_pictures({i: (capture.picture(i)[0], None) for i in range(6)})
    assert math.isnan(check_alignment(ball_rig(points, faces), opaque))


def test_a_rig_elsewhere_has_no_colours(tmp_path):
    points, faces = ball_mesh()
    with pytest.raises(InputError, match="check_alignment"):
        gaussians_on(ball_rig(points + 100, faces), 50, ball_capture(tmp_path, ball_cameras(4, 32)))


# --- refusals ---


def test_what_cannot_be_played_or_bound_is_refused(tmp_path):
    rig, gaussians = ball_rig(), on_the_ball(10)
    for track, words in (
        (([0.0, 1.0], [[0.0], [1.0]]), r"shapes \[2\] and \[2, 1\].*rig.controls"),
        (([0.5, 0.5], [[0.0] * 4] * 2), "do not rise"),
        (([0.0, 1.0], [[0.0] * 4, [math.nan] * 4]), "not finite"),
    ):
        with pytest.raises(InputError, match=words):
            Rigged(rig, track=track)
    motion = bound(gaussians)
    for faces in (torch.zeros(9, dtype=torch.int64), torch.full((10,), 10_000)):
        with pytest.raises(InputError, match="give 10 numbers from 0"):
            motion.place(faces)
    with pytest.raises(InputError, match="10 Gaussians and is asked for 9"):
        motion.at_drive(on_the_ball(9), row(motion))


def test_a_training_with_frames_at_times_needs_a_track(tmp_path):
    config = TrainConfig(motion="rig")
    still, moving = ball_cameras(3, 16), ball_cameras(3, 16, times=[0.0, 0.5, 1.0])
    stills, clip = ball_capture(tmp_path, still), ball_capture(tmp_path, moving)
    with pytest.raises(InputError, match="there is no rig"):
        motion_for(config, stills, np.zeros(3), 1.0)
    with pytest.raises(InputError, match="no track"):
        motion_for(config, clip, np.zeros(3), 1.0, rig=ball_rig())
    rig = ball_rig()
    motion = motion_for(config, stills, np.zeros(3), 1.0, rig=rig)
    assert isinstance(motion, Rigged) and motion.rig is not rig
    assert motion_for(config, clip, np.zeros(3), 1.0, rig=Rigged(rig, track=([0.0], [[0.0] * 4]))).TOLD


# --- training ---


class Stopped(Exception):
    pass


def test_stills_and_a_rig_are_enough_for_motion_that_no_frame_shows_also_after_a_stop(tmp_path):
    points, faces = ball_mesh(300)
    rig = LinearRig.make(points, faces, ("slide",), torch.eye(3)[:1].expand(1, 300, 3))
    rigged = Rigged(rig, track=([0.0, 1.0], [[-0.25], [0.25]]))  # as ball_capture moves
    stills = ball_capture(tmp_path, ball_cameras(6, 40))
    test = ball_capture(tmp_path, ball_cameras(3, 40, start_deg=20, times=[0.0, 0.1, 1.0]), split="test")
    true = torch.from_numpy(np.stack([test.image(i, (1, 1, 1)) for i in range(3)]))
    config = TrainConfig(motion="rig", iterations=90, gaussians=500, refine_every=20, checkpoint_every=30)

    def stop(steps: int, done: list[int] = [0]) -> None:  # noqa: B006
        done[0] += steps
        if done[0] > 70:
            raise Stopped

    with pytest.raises(Stopped):
        train(stills, config, tmp_path / "stopped", rig=rigged, progress=stop)
    runs = [train(stills, config, tmp_path / name, rig=rigged, progress=False) for name in ("whole", "stopped")]
    one, other = (run.model for run in runs)
    assert len(one.gaussians) > 300 and one.motion.count == len(one.gaussians)
    assert torch.equal(one.motion.face, other.motion.face) and torch.equal(one.gaussians.means, other.gaussians.means)
    seen = [render(one, cameras).rgb for cameras in (test.cameras, test.cameras.with_times(None))]
    moving, still = (float(psnr_db(rgb, true).mean()) for rgb in seen)
    assert moving > still + 5
    with pytest.raises(InputError, match="another rig"):
        train(stills, config, tmp_path / "whole", rig=rigged.driven([0.0], [[0.1]]), progress=False)
    with pytest.raises(InputError, match="there is no rig"):
        train(stills, config, tmp_path / "none", progress=False)
