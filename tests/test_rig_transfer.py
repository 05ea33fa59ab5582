"""A rig carried over to other meshes: identities, invariances, lips that touch, and what cannot be used."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fourdgs.data.meshes import Mesh
from fourdgs.errors import InputError
from fourdgs.plots.transfer import transfer_sheet
from fourdgs.rig import LinearRig, load_rig, puppet_rig
from fourdgs.rig import registration as reg
from fourdgs.rig.transfer import transfer

transfers = sys.modules["fourdgs.rig.transfer"]  # whose function has its name in the package

ROUNDS = 2  # a mesh that the rig fits from the start needs no more


@pytest.fixture(scope="module", autouse=True)
def _quick():
    patch = pytest.MonkeyPatch()
    patch.setattr(reg, "ROUNDS", ROUNDS)
    patch.setattr(reg, "LEVELS", (1.0, 0.4))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def puppet():
    return puppet_rig(0.5)


@pytest.fixture(scope="module")
def still(puppet):
    """The puppet's rest with another order of vertices and triangles, and no word of the rig."""
    order = np.random.default_rng(0).permutation(len(puppet.rest))
    rank = np.argsort(order)
    faces = rank[puppet.faces.numpy()][np.random.default_rng(1).permutation(len(puppet.faces))]
    return Mesh(puppet.rest.numpy().astype(float)[order], faces, weld=puppet.weld.numpy()[order]), order


@pytest.fixture(scope="module")
def placed(puppet, still):
    return transfer(puppet, still[0], align=False)


def _share(got: torch.Tensor, true: torch.Tensor) -> float:
    return float((got - true).norm() / true.norm())


def test_the_rig_on_its_own_rest_is_itself_in_any_order(puppet, still, placed):
    order = torch.from_numpy(still[1])
    assert _share(placed.rig.deltas, puppet.deltas[:, order]) < 0.05
    for action in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight", "tongueOut"):  # no thin sheet is left behind
        row = puppet.controls.index(action)
        assert _share(placed.rig.deltas[row], puppet.deltas[row, order]) < 0.15, action
    assert _share(placed.rig.weights, puppet.weights[order]) < 0.02
    pose = {"jawOpen": 0.7, "eyeBlinkLeft": 1.0, "headYaw": 20.0, "headPitch": -8.0}
    true = puppet.vertices(puppet.drive(pose)[None])[:, order] - puppet.rest[order]
    got = placed.rig.vertices(placed.rig.drive(pose)[None]) - placed.rig.rest
    assert _share(got, true) < 0.03
    torch.testing.assert_close(placed.rig.rest.double(), torch.from_numpy(still[0].points), atol=1e-6, rtol=0)
    assert placed.matched.max() < 1e-3 and 0 <= placed.uncertainty.min() <= placed.uncertainty.max() <= 1


def test_touching_lips_part(puppet, placed, still):
    """Where the rig's jaw tears neighbours apart, the mesh's tears the same ones."""
    jaw, order = puppet.controls.index("jawOpen"), still[1]
    true = puppet.deltas[jaw][torch.from_numpy(order)].norm(dim=1).numpy()
    got = placed.rig.deltas[jaw].norm(dim=1).numpy()
    points = still[0].points
    lips = (np.abs(points[:, 0]) < 0.1) & (true > 0.5 * true.max()) | (true < 1e-6)
    swapped = np.abs(got - true) > 0.5 * true.max()
    assert lips.sum() > 100 and swapped.mean() < 0.002


def test_a_turned_grown_shifted_mesh_moves_alike(puppet, still, placed):
    turn = Rotation.from_rotvec([0.05, 0.07, -0.03]).as_matrix()
    mesh = replace(still[0], points=1.1 * still[0].points @ turn.T + [0.3, -0.2, 0.1])
    done = transfer(puppet, mesh)
    assert done.moved["growth"] == pytest.approx(1.1, rel=0.01)
    assert done.moved["turn_deg"] == pytest.approx(np.degrees(np.linalg.norm([0.05, 0.07, -0.03])), abs=0.5)
    pose = {"jawOpen": 1.0, "mouthSmileLeft": 1.0, "headYaw": 15.0}
    one = placed.rig.vertices(placed.rig.drive(pose)[None])[0] - placed.rig.rest
    two = done.rig.vertices(done.rig.drive(pose)[None])[0] - done.rig.rest
    assert _share(two.double(), 1.1 * one.double() @ torch.from_numpy(turn.T)) < 0.05


def test_it_is_a_rig_like_any_other(placed, still, tmp_path):
    placed.rig.save(tmp_path / "made.safetensors")
    again = load_rig(tmp_path / "made.safetensors")
    drive = torch.rand(3, len(again.controls), requires_grad=True)
    posed = again.vertices(drive)
    torch.testing.assert_close(posed, placed.rig.vertices(drive))
    posed.square().sum().backward()
    assert torch.isfinite(drive.grad).all() and drive.grad.abs().sum() > 0
    drawn = placed.drawn(lambda time: {"jawOpen": time})
    assert drawn.faces is still[0].faces
    assert np.abs(drawn.vertices(1.0) - drawn.vertices(0.0)).max() > 0.01
    np.testing.assert_allclose(drawn.vertices(None), still[0].points, atol=1e-6)


# --- the parts ---


@pytest.mark.parametrize("seed", range(5))
def test_a_similarity_is_found_again(seed):
    random = np.random.default_rng(seed)
    points = random.normal(size=(9, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = random.uniform(0.1, 9) * Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = random.normal(size=3)
    np.testing.assert_allclose(reg.similarity(points, reg.moved(matrix, points)), matrix, atol=1e-9)
    mirrored = reg.similarity(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored[:3, :3]) > 0


def test_a_warp_of_nothing_is_the_identity_and_its_shares_add_up():
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    assert np.array_equal(reg.Warp()(points), points)
    shares = reg._splines(points, np.full(3, -2.0), 0.5, (9, 9, 9))
    np.testing.assert_allclose(np.asarray(shares.sum(axis=1)).ravel(), 1)
    knots = np.stack(np.meshgrid(*[np.arange(9) * 0.5 - 2.0] * 3, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(shares @ knots, points, atol=1e-9)  # cubic B-splines keep what is linear


def test_a_filling_is_even_and_keeps_what_is_sure():
    from fourdgs.rig.carry import _filled

    links = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    field = np.array([[0.0], [9.0], [-9.0], [7.0], [4.0]])
    got = _filled(field, np.array([1.0, 0, 0, 0, 1.0]), links, np.ones(4), 5)
    np.testing.assert_allclose(got[:, 0], range(5), atol=1e-6)


# --- what cannot be used ---


def _flipped(mesh):
    return replace(mesh, faces=mesh.faces[:, ::-1])


def _half_flipped(mesh):
    half = np.arange(len(mesh.faces))[:, None] % 2 == 0
    return replace(mesh, faces=np.where(half, mesh.faces, mesh.faces[:, ::-1]))


def _soup(mesh):
    count = 3 * len(mesh.faces)
    return Mesh(mesh.points[mesh.faces].reshape(-1, 3), np.arange(count).reshape(-1, 3), weld=np.arange(count))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda mesh: Mesh(mesh.points[:60], np.array([[0, 1, 2]])), "too few"),
        (_flipped, "inwards"),
        (lambda mesh: replace(mesh, points=mesh.points * [-1, 1, 1]), "inwards"),
        (_half_flipped, "opposite sides"),
        (_soup, "holes"),
        (lambda mesh: replace(mesh, points=mesh.points * [1, 1, 1e-4]), "flat"),
        (lambda mesh: replace(mesh, points=np.where(mesh.points > 0.5, np.nan, mesh.points)), "not finite"),
    ],
)
def test_a_mesh_that_cannot_be_used_is_named(puppet, still, spoil, words):
    with pytest.raises(InputError, match=words) as told:
        transfer(puppet, spoil(still[0]))
    assert told.value.field == "mesh" and "\n" not in str(told.value)


def test_units_and_places_that_do_not_go_together_are_named(puppet, still):
    mesh = still[0]
    with pytest.raises(InputError, match="units: it is 1e"):
        transfer(puppet, replace(mesh, points=1000 * mesh.points), align=False)
    with pytest.raises(InputError, match="not where the rig is"):
        transfer(puppet, replace(mesh, points=mesh.points + 9), align=False)


def test_what_is_no_head_is_refused(puppet):
    turn, height = np.meshgrid(np.arange(40) / 40 * 2 * np.pi, np.linspace(-1, 1, 20))
    points = np.stack([0.4 * np.cos(turn), height, 0.4 * np.sin(turn)], -1).reshape(-1, 3)
    grid = np.arange(800).reshape(20, 40)
    a, b, c, d = grid[:-1], np.roll(grid[:-1], -1, 1), grid[1:], np.roll(grid[1:], -1, 1)
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    with pytest.raises(InputError, match="no head that the rig fits"):
        transfer(puppet, Mesh(points, faces), align=False)


def test_a_rig_without_actions_and_landmarks_without_partners_are_named(puppet, still):
    bare = LinearRig.make(puppet.rest, puppet.faces, ())
    with pytest.raises(InputError, match="rig: has no actions"):
        transfer(bare, still[0])
    for marks in (([[0, 0, 0]], []), ([[0, 0, 0]], [[np.nan, 0, 0]]), ("no", "yes")):
        with pytest.raises(InputError, match="landmarks: are no pairs"):
            transfer(puppet, still[0], landmarks=marks)


def test_landmarks_stand_in_for_the_search(puppet, still, monkeypatch):
    def never(*_):
        raise AssertionError("searched")

    monkeypatch.setattr(transfers, "best_similarity", never)
    monkeypatch.setattr(reg, "LEVELS", (1.0,))
    own = puppet.rest.numpy()[[5, 300, 700, 1000]]
    turn = Rotation.from_euler("y", 130, degrees=True).as_matrix()
    done = transfer(puppet, replace(still[0], points=3 * still[0].points @ turn.T), landmarks=(own, 3 * own @ turn.T))
    assert done.moved["turn_deg"] == pytest.approx(130, abs=1e-3) and done.matched.max() < 0.01


def test_a_sheet_needs_as_many_pictures_of_both():
    picture = np.zeros((8, 8, 3), np.uint8)
    assert len(transfer_sheet(["a", "b"], [picture] * 2, [picture] * 2, [picture] * 2).axes) == 7
    with pytest.raises(InputError, match="do not go together"):
        transfer_sheet(["a"], [picture], [picture] * 2, [picture] * 2)
