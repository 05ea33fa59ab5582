"""Rigs: what poses them, what is kept in files, the embedded avatar as one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fourdgs.data import avatar as avatars
from fourdgs.data.track import HEAD
from fourdgs.errors import InputError
from fourdgs.rig import ARKIT, KINDS, LinearRig, Rig, SequenceRig, anny_rig, load_rig, make_rig
from fourdgs.rig.linear import rotations
from fourdgs.rig.names import is_left


@pytest.fixture(scope="module")
def avatar():
    return avatars.build()


@pytest.fixture(scope="module")
def anny(avatar):
    return anny_rig(avatar)


def _toy(seed=0, joints=3):
    """A linear rig of random parts: two actions, every joint turned, moved and grown by a control."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=random) - 0.5

    frames = torch.eye(4).repeat(joints, 1, 1)
    frames[:, :3, 3] = draw(joints, 3)
    binds = torch.eye(4).repeat(joints, 1, 1)
    binds[:, :3, 3] = -frames[:, :3, 3].cumsum(0)
    return LinearRig.make(
        draw(7, 3), [[0, 1, 2], [2, 3, 4], [4, 5, 6]], ("smile", "frown", "turn", "shift", "grow"), draw(2, 7, 3),
        parents=range(-1, joints - 1), weights=(draw(7, joints) + 0.5) / joints, frames=frames, binds=binds,
        turns=60 * draw(joints, 3, 3), moves=draw(joints, 3, 3), grows=draw(joints, 3, 3),
        uv=draw(7, 2) + 0.5, colors=(255 * (draw(7, 3) + 0.5)).to(torch.uint8),
    )  # fmt: skip


def _sequence(seed=0):
    random = torch.Generator().manual_seed(seed)
    frames = torch.rand(4, 6, 3, generator=random)
    return SequenceRig.make(frames, [[0, 1, 2], [3, 4, 5]], times=[0.0, 0.1, 0.6, 1.0])


# --- all rigs ---


@pytest.mark.parametrize("make", [_toy, _sequence, lambda: _toy(joints=1)])
def test_any_rig_comes_back_from_its_settings_and_from_its_file(make, tmp_path):
    rig = make()
    again = make_rig(rig.kind, rig.settings())
    again.load_state_dict(rig.state_dict())
    rig.save(tmp_path / "a.safetensors")
    for other in (again, load_rig(tmp_path / "a.safetensors")):
        assert type(other) is type(rig) and other.controls == rig.controls
        assert other.settings() == rig.settings()
        drive = rig.neutral + torch.rand(3, len(rig.controls))
        torch.testing.assert_close(other.vertices(drive), rig.vertices(drive), rtol=0, atol=0)
        for name in ("rest", "faces", "weld", "uv", "colors", "neutral"):
            one, two = getattr(rig, name), getattr(other, name)
            assert (one is None) == (two is None) and (one is None or torch.equal(one, two))


@pytest.mark.parametrize("make", [_toy, _sequence])
def test_vertices_are_batched_the_rest_is_neutral_and_rows_do_not_mix(make):
    rig = make()
    drive = rig.neutral + torch.rand(4, len(rig.controls))
    torch.testing.assert_close(rig.vertices(rig.neutral[None])[0], rig.rest)
    torch.testing.assert_close(rig.vertices(drive), torch.cat([rig.vertices(row[None]) for row in drive]))
    torch.testing.assert_close(rig.vertices(drive.flip(0)), rig.vertices(drive).flip(0))
    assert rig.vertices(drive[:0]).shape == (0, *rig.rest.shape)
    drive = drive.clone()
    before = rig.rest.clone()
    rig.vertices(rig.neutral[None]).add_(1)  # what it gives is the caller's own
    torch.testing.assert_close(rig.rest, before)
    torch.testing.assert_close(rig.vertices(rig.neutral[None])[0], rig.rest)


@pytest.mark.parametrize("make", [_toy, _sequence])
def test_vertices_are_differentiable_in_the_drive(make):
    rig = make().double()
    drive = (rig.neutral + 0.23 + 0.1 * torch.rand(2, len(rig.controls), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(rig.vertices, (drive,))


def test_named_values_make_a_row_and_unknown_names_are_told():
    rig = LinearRig.make(np.zeros((3, 3)), [[0, 1, 2]], ("eyeBlinkLeft", "jawOpen", "headYaw"), np.zeros((3, 3, 3)))
    assert rig.drive({"jawOpen": 0.5}).tolist() == [0, 0.5, 0]
    assert rig.drive({}).equal(rig.neutral)
    assert rig.drive({"eyeBlink_L": 1, "JawOpen": 2}).tolist() == [1, 2, 0]
    with pytest.raises(InputError, match="'jawOpn' is unknown.*near: jawOpen"):
        rig.drive({"jawOpn": 1})
    with pytest.raises(InputError, match="drive.jawOpen: is 'wide', must be a number"):
        rig.drive({"jawOpen": "wide"})
    with pytest.raises(InputError, match=r"drive: has shape \[2\], must be \['T', 3\]"):
        rig.vertices(torch.zeros(2))


def test_bad_parts_are_told():
    with pytest.raises(InputError, match="'a' is there twice"):
        LinearRig.make(np.zeros((3, 3)), [[0, 1, 2]], ("a", "a"), np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="deltas: has shape"):
        LinearRig.make(np.zeros((3, 3)), [[0, 1, 2]], ("a",), np.zeros((1, 4, 3)))
    with pytest.raises(InputError, match="outside 0 to 2"):
        LinearRig.make(np.zeros((3, 3)), [[0, 1, 3]], ())
    with pytest.raises(InputError, match="base: holds a value that is not finite"):
        LinearRig.make(np.full((3, 3), np.nan), [[0, 1, 2]], ())
    with pytest.raises(InputError, match="times: do not rise"):
        SequenceRig.make(np.zeros((2, 3, 3)), [[0, 1, 2]], [0.5, 0.5])
    with pytest.raises(InputError, match="'bones' is unknown.*linear or sequence"):
        make_rig("bones", {})


def test_damaged_files_are_told(tmp_path):
    rig = _toy()
    rig.save(tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for name, content in (
        ("cut", whole[:-9]),
        ("none", b""),
        ("other", whole.replace(b'\\"vertices\\": 7', b'\\"vertices\\": 8')),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.safetensors: is not a rig"):
            load_rig(path)
    with pytest.raises(InputError, match="there is no such file"):
        load_rig(tmp_path / "absent.safetensors")


def test_every_kind_says_its_name():
    assert set(KINDS) == {"linear", "sequence"}
    assert all(issubclass(kind, Rig) and kind.kind == name for name, kind in KINDS.items())


# --- names ---


def test_arkit_names_are_the_avatars(avatar):
    assert set(ARKIT) == set(avatar.actions) and len(ARKIT) == 52
    sides = [is_left(name) for name in ARKIT]
    assert sides.count(True) == sides.count(False) == 18 and is_left("mouthLeft") is None
    assert [is_left(name) for name in ("eye_blink_r", "browInnerUp_L", "jawOpen")] == [False, True, None]


# --- linear rigs ---


def test_actions_add_up_and_scale():
    rig = LinearRig.make(torch.rand(5, 3), [[0, 1, 2]], ("a", "b"), torch.rand(2, 5, 3))
    one, two = rig.drive({"a": 1}), rig.drive({"b": 1})
    moved = rig.vertices(torch.stack([one, two, 2 * one - 0.5 * two])) - rig.rest
    torch.testing.assert_close(moved[2], 2 * moved[0] - 0.5 * moved[1])


def test_rotations_are_the_avatars():
    angles = torch.rand(8, 3, dtype=torch.float64) * 3 - 1.5  # pitch, yaw, roll
    turned = rotations(angles)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3, dtype=torch.float64).expand(8, 3, 3))
    for turn, (pitch, yaw, roll) in zip(turned, angles.tolist(), strict=True):
        np.testing.assert_allclose(turn, avatars._rotation(yaw, pitch, roll), atol=1e-12)


def test_whole_weight_on_one_joint_moves_rigidly_and_no_weight_stands_still():
    weights = np.zeros((6, 1))
    weights[:3] = 1
    bind = np.eye(4)[None].copy()
    frame = bind.copy()
    frame[0, :3, 3], bind[0, :3, 3] = (0.1, 0.2, 0.3), (-0.1, -0.2, -0.3)
    rig = LinearRig.make(
        torch.rand(6, 3), [[0, 1, 2], [3, 4, 5]], ("headYaw",), parents=[-1], weights=weights, frames=frame, binds=bind,
        turns=np.array([[[0.0], [1], [0]]]),
    )  # fmt: skip
    moved = rig.vertices(torch.tensor([[77.0]]))[0]
    torch.testing.assert_close(torch.cdist(moved[:3], moved[:3]), torch.cdist(rig.rest[:3], rig.rest[:3]))
    assert (moved[:3] - rig.rest[:3]).norm(dim=1).min() > 0.01
    assert torch.equal(moved[3:], rig.rest[3:])
    torch.testing.assert_close(rig.vertices(torch.tensor([[360.0]]))[0], rig.rest)


def test_vertices_that_only_touch_are_not_welded():
    points = np.zeros((6, 3))
    points[[1, 4], 0], points[[2, 5], 1] = 1, 1
    deltas = np.zeros((1, 6, 3))
    deltas[0, 3:5] = 0.1
    rig = LinearRig.make(points, [[0, 1, 2], [3, 4, 5]], ("open",), deltas)
    assert rig.weld[2] == rig.weld[5] and len(set(rig.weld.tolist())) == 5


# --- sequences ---


def test_sequence_plays_its_frames_and_holds_its_ends():
    rig = _sequence()
    torch.testing.assert_close(rig.vertices(rig.times[:, None]), rig.frames)
    ends = rig.vertices(torch.tensor([[-3.0], [9.0]]))
    torch.testing.assert_close(ends, rig.frames[[0, -1]])
    middle = rig.vertices(torch.tensor([[0.35]]))[0]
    torch.testing.assert_close(middle, rig.frames[1:3].mean(0))
    assert torch.equal(rig.rest, rig.frames[0]) and rig.drive({}).tolist() == [0.0]
    one = SequenceRig.make(rig.frames[:1], rig.faces)
    torch.testing.assert_close(one.vertices(torch.rand(3, 1)), rig.frames[:1].expand(3, -1, -1))


# --- the embedded avatar ---


def test_anny_rig_poses_as_the_avatar(avatar, anny):
    random = np.random.default_rng(0)
    for size in (0, 3, 52):
        names = random.choice(avatar.actions, size, replace=False)
        pose = dict(zip(names, random.uniform(-0.2, 1, size), strict=True))
        pose |= dict(zip(HEAD, random.uniform(-40, 40, 3), strict=True))
        posed = anny.vertices(anny.drive(pose)[None])[0].numpy()
        np.testing.assert_allclose(posed, avatar.posed(pose), atol=1e-5)
    np.testing.assert_allclose(anny.rest, avatar.points, atol=1e-6)
    assert np.array_equal(anny.weld, avatar.weld) and np.array_equal(anny.faces, avatar.faces)


def test_anny_rig_plays_the_avatars_track(avatar, anny):
    times = np.linspace(0, 1, 7)
    drive = torch.stack([anny.drive(avatar.track.at(time)) for time in times])
    for time, points in zip(times, anny.vertices(drive).numpy(), strict=True):
        np.testing.assert_allclose(points, avatar.vertices(time), atol=1e-5)
    mesh = anny.mesh(avatar.track.at)
    np.testing.assert_allclose(mesh.vertices(0.3), avatar.vertices(0.3), atol=1e-5)
    assert np.array_equal(mesh.vertices(None), anny.rest)


def test_importing_rigs_imports_no_tools():
    code = "import sys, fourdgs.rig; print({'anny', 'pyvista', 'trimesh', 'matplotlib', 'gsplat'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
