"""Rigs from meshes in folders and files, the puppet, and what the check says of each fault."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from fourdgs.data.track import HEAD
from fourdgs.errors import InputError
from fourdgs.rig import (
    ARKIT,
    LinearRig,
    SequenceRig,
    check_rig,
    load_deltas_rig,
    load_rig,
    load_sequence_rig,
    puppet_rig,
)
from fourdgs.rig.meshes import read_shape

FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


@pytest.fixture(scope="module")
def puppet():
    return puppet_rig()


def _obj(path, points, faces=FACES, extra=""):
    lines = [f"v {x} {y} {z}" for x, y, z in points] + [extra]
    path.write_text("# made\n" + "\n".join(lines + ["f " + " ".join(str(k + 1) for k in face) for face in faces]))
    return path


def _ply(path, points, faces=FACES):
    head = (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [" ".join(map(str, point)) for point in points] + ["3 " + " ".join(map(str, face)) for face in faces]
    path.write_text(head + "\n".join(rows) + "\n")


def _frames(count=3):
    return np.random.default_rng(0).normal(size=(count, 4, 3)).round(4)


# --- sequences ---


def test_the_same_sequence_from_an_npz_and_folders(tmp_path):
    frames = _frames(11)
    np.savez(tmp_path / "a.npz", vertices=frames, faces=FACES)
    for kind, write in (("obj", _obj), ("ply", _ply)):
        (tmp_path / kind).mkdir()
        for number, points in enumerate(frames):  # frame2 comes before frame10
            write(tmp_path / kind / f"frame{number}.{kind}", points)
    for name in ("a.npz", "obj", "ply"):
        rig = load_rig(tmp_path / name)
        assert isinstance(rig, SequenceRig) and torch.equal(rig.faces, torch.from_numpy(FACES))
        np.testing.assert_allclose(rig.frames, frames, atol=1e-6)
        np.testing.assert_allclose(rig.times, np.linspace(0, 1, 11), atol=1e-7)
    np.savez(tmp_path / "b.npz", vertices=frames[:2], faces=FACES, times=[2.0, 5.0], uv=np.ones((4, 2)))
    rig = load_sequence_rig(tmp_path / "b.npz")
    assert rig.times.tolist() == [2, 5] and rig.drive({}).tolist() == [2] and rig.uv.shape == (4, 2)


def test_polygons_negative_indices_and_texture_of_an_obj(tmp_path):
    (tmp_path / "seq").mkdir()
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    path = _obj(tmp_path / "seq" / "a.obj", square, [], "vt 0.5 0.25\nvt 0 1\nf -4/1/1 -3/1 -2/2 4/2")
    rig = load_sequence_rig(path.parent)
    assert rig.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert rig.uv.tolist() == [[0.5, 0.25], [0.5, 0.25], [0, 1], [0, 1]]


def test_an_obj_is_read_however_it_is_laid_out(tmp_path):
    """Colours behind the places (MeshLab), tabs, lines that go on, numbers from the last between new vertices."""
    square = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\n" + "".join(f"v\t{x} {y} {z} 0.5 0 1\n" for x, y, z in square[:3]) + "g one\nusemtl skin\n"
        "f -3//1 -2//1 -1//1\n" + f"v {square[3][0]} {square[3][1]} {square[3][2]} 0.5 0 1\nf -4 \\\n -2 -1\n"
    )  # fmt: skip
    rig = load_sequence_rig(tmp_path)
    assert rig.rest.tolist() == [list(map(float, point)) for point in square]
    assert rig.faces.tolist() == [[0, 1, 2], [0, 2, 3]] and rig.uv is None
    assert rig.colors.tolist() == [[128, 0, 255]] * 4


def test_colours_of_a_ply_are_read(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 3\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    head += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(head + "0 0 0 1 2 3\n1 0 0 4 5 6\n0 1 0 7 8 9\n3 0 1 2\n")
    assert load_sequence_rig(tmp_path).colors.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_what_was_read_before_does_not_matter(tmp_path):
    """The faces of one file are kept for the next."""
    frames = _frames(2)
    paths = [_obj(tmp_path / f"{name}.obj", frames[0], faces) for name, faces in (("a", FACES), ("b", FACES[::-1]))]
    for path in (*paths, *paths[::-1], paths[0]):
        assert read_shape(path).faces.tolist() == (FACES if path.stem == "a" else FACES[::-1]).tolist()


def test_a_mesh_of_another_topology_is_named(tmp_path):
    for number, points in enumerate(_frames()):
        _obj(tmp_path / f"f{number}.obj", points)
    _obj(tmp_path / "f1.obj", _frames()[0], FACES[:, ::-1])
    with pytest.raises(InputError, match="f1.obj: topology: has other triangles than f0.obj"):
        load_rig(tmp_path)
    _obj(tmp_path / "f1.obj", [*_frames()[0], (0, 0, 0)])
    with pytest.raises(InputError, match="f1.obj: topology: has 5 vertices, f0.obj has 4"):
        load_rig(tmp_path)
    _obj(tmp_path / "f1.obj", _frames()[0], [[0, 1, 7]])
    with pytest.raises(InputError, match="f1.obj: a face names a vertex outside its 4"):
        load_rig(tmp_path)
    (tmp_path / "f1.obj").write_text("v 1 2 x")
    with pytest.raises(InputError, match="f1.obj: cannot be read as OBJ"):
        load_rig(tmp_path)


def test_bad_npz_files_are_told_and_nothing_is_unpickled(tmp_path):
    path = tmp_path / "a.npz"

    def told(word, **arrays):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=f"a.npz: {word}"):
            load_rig(path)

    told("vertices: is missing", faces=FACES)
    told("faces: is missing", vertices=_frames())
    told("cannot be read", vertices=np.array([{}], object), faces=FACES)
    told("vertices: has shape", vertices=_frames()[0], faces=FACES)
    told("faces: must be whole", vertices=_frames(), faces=FACES + 0.5)
    told("times: has shape", vertices=_frames(), faces=FACES, times=[0, 1])
    told("times: do not rise", vertices=_frames(), faces=FACES, times=[0, 0, 1])
    told("frames: holds a value that is not finite", vertices=_frames() * np.nan, faces=FACES)
    told("vertices: holds <U1", vertices=np.full((2, 4, 3), "x"), faces=FACES)
    np.savez(path, vertices=_frames(), faces=FACES)
    whole = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("vertices.npy", b"nonsense")
        archive.writestr("faces.npy", b"")
    for content in (b"", whole[:100], buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.npz: "):
            load_rig(path)


# --- expressions ---


def test_expressions_become_actions_by_their_arkit_names(tmp_path):
    base, blink, wide, odd = _frames(4)
    _obj(tmp_path / "generic_neutral_mesh.obj", base)
    for name, points in (("eyeBlink_L", blink), ("jawOpen", wide), ("myOwn", odd)):
        _obj(tmp_path / f"{name}.obj", points)
    rig = load_rig(tmp_path)
    assert set(rig.controls) == {"eyeBlinkLeft", "jawOpen", "myOwn"} and isinstance(rig, LinearRig)
    np.testing.assert_allclose(rig.rest, base, atol=1e-6)
    for name, points in (("eyeBlinkLeft", blink), ("jawOpen", wide), ("myOwn", odd)):
        np.testing.assert_allclose(rig.vertices(rig.drive({name: 1})[None])[0], points, atol=1e-5)
    _obj(tmp_path / "eyeBlinkLeft.obj", blink)
    with pytest.raises(InputError, match="is an action that another file is, too"):
        load_rig(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: holds no expression"):
        load_deltas_rig(tmp_path / "generic_neutral_mesh.obj", tmp_path / "none")
    with pytest.raises(InputError, match="none: holds no OBJ or PLY"):
        load_rig(tmp_path / "none")


def test_a_folder_as_ict_facekit_has_it(tmp_path):
    base, left, right, jaw, person = _frames(5)
    text = "mtllib ICTFaceModelMaterial.mtl\n"
    for name, points in (
        ("generic_neutral_mesh", base), ("browInnerUp_L", left), ("browInnerUp_R", right), ("jawOpen", jaw),
        ("PupilDilate_L", left), ("identity000", person), ("identity001", person),
    ):  # fmt: skip
        rows = [f"v {x:.15f} {y:.15f} {z:.15f}" if name[0] == "g" else f"v {x:g} {y:g} {z:g}" for x, y, z in points]
        rows += ["vt 0.5 0.25", "vt 3.17 0.17", "f 1/1 2/2 3/1 4/2", "f 4/2 3/1 2/2 1/1"]
        (tmp_path / f"{name}.obj").write_text(text + "\n".join(rows) + "\n")
    (tmp_path / "vertex_indices.json").write_text("{}")
    rig = load_rig(tmp_path)
    assert set(rig.controls) == {"browInnerUp_L", "browInnerUp_R", "browInnerUp", "jawOpen", "PupilDilate_L"}
    moved = rig.vertices(rig.drive({"browInnerUp": 0.5})[None])[0]
    np.testing.assert_allclose(moved, base + 0.5 * (left + right - 2 * base), atol=1e-5)
    assert len(rig.faces) == 4 and rig.uv.shape == (4, 2)


def test_expressions_without_a_neutral_are_no_sequence(tmp_path):
    for name in ("base", "jawOpen", "EyeBlink_L", "mouthFunnel"):
        _obj(tmp_path / f"{name}.obj", _frames()[0])
    with pytest.raises(InputError, match="no mesh named neutral .name it neutral.obj, or .*load_deltas_rig"):
        load_rig(tmp_path)
    assert len(load_deltas_rig(tmp_path / "base.obj", tmp_path).controls) == 3


def test_what_is_no_rig_is_told(tmp_path):
    with pytest.raises(InputError, match="absent.glb: there is no such file .give a .safetensors"):
        load_rig(tmp_path / "absent.glb")
    (tmp_path / "a.fbx").write_bytes(b"")
    with pytest.raises(InputError, match="a.fbx: is not a rig that can be read.*Blender exports others as .glb"):
        load_rig(tmp_path / "a.fbx")
    _obj(tmp_path / "a.obj", _frames()[0])
    with pytest.raises(InputError, match="a.obj: is one mesh, which does not move .*fourdgs.rig.transfer"):
        load_rig(tmp_path / "a.obj")


# --- the puppet ---


def _apart(one, two):
    return torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")


def test_puppet_has_every_action_and_each_moves_its_side(puppet):
    assert puppet.controls == (*ARKIT, *HEAD) and 2000 <= len(puppet.rest) <= 4500
    assert puppet.deltas.flatten(1).abs().amax(1).min() > 0.003
    assert 0.95 < puppet.rest.norm(dim=1).max() < 0.99
    assert [word for word in check_rig(puppet) if not word.startswith("holes")] == []


def test_puppets_mirror_image_swaps_left_and_right(puppet):
    swapped = {name: name for name in ARKIT}
    for name in ARKIT:
        if name.endswith("Left"):
            swapped[name], swapped[name[:-4] + "Right"] = name[:-4] + "Right", name
    mirror = torch.tensor([-1.0, 1, 1])
    for name in ("eyeBlinkLeft", "mouthSmileLeft", "browDownLeft", "jawLeft", "eyeLookInLeft", "mouthUpperUpLeft"):
        one, two = (puppet.vertices(puppet.drive({word: 1})[None])[0] for word in (name, swapped[name]))
        assert _apart(one * mirror, two).min(1).values.max() < 1e-4, name


def test_puppets_mouth_opens_on_a_dark_cavity_and_its_lids_close(puppet):
    jaw = puppet.deltas[ARKIT.index("jawOpen")]
    assert jaw[:, 1].min() < -0.08 and jaw[:, 1].max() < 0.03
    # Vertices at one place at rest that the jaw parts: the lips.
    lips = puppet.rest[:, None, :].round(decimals=5)
    place = torch.unique(lips.flatten(1), dim=0, return_inverse=True)[1]
    drop = torch.zeros(int(place.max()) + 1).scatter_reduce(0, place, -jaw[:, 1], "amax")[place] + jaw[:, 1]
    assert drop.max() > 0.08
    dark = puppet.colors.float().mean(1) < 30
    assert dark.sum() > 40 and (jaw[dark].norm(dim=1) > 0.01).any()
    blink = puppet.deltas[ARKIT.index("eyeBlinkLeft")]
    assert (blink.norm(dim=1) > 0.01).sum() > 20 and (puppet.rest[blink.norm(dim=1) > 1e-6, 0] > 0).all()


def test_puppets_shoulders_stand_still_and_its_head_turns_rigidly(puppet):
    moved = puppet.vertices(puppet.drive({"headYaw": 30, "headPitch": -8})[None])[0]
    still = puppet.rest[:, 1] < -0.45
    assert still.sum() > 100 and torch.equal(moved[still], puppet.rest[still])
    head = puppet.weights[:, 1] > 0.9999
    torch.testing.assert_close(torch.pdist(moved[head][::7]), torch.pdist(puppet.rest[head][::7]), atol=1e-5, rtol=0)


def test_puppet_detail_keeps_the_shape(puppet):
    coarse = puppet_rig(0.7)
    assert len(coarse.rest) < 0.65 * len(puppet.rest)
    assert _apart(coarse.rest, puppet.rest).min(1).values.mean() < 0.03


# --- the check ---


def _ball(**parts):
    """A closed tetrahedron, anticlockwise from outside, with one action each side."""
    points = np.array([[0.0, 1, 0], [-1, -0.5, 0.6], [1, -0.5, 0.6], [0, -0.5, -1]])
    deltas = np.zeros((2, 4, 3))
    deltas[0, 2], deltas[1, 1] = (0, 0.1, 0), (0, 0.1, 0)
    parts = {
        "base": points,
        "faces": FACES,
        "controls": ("mouthSmileLeft", "mouthSmileRight"),
        "deltas": deltas,
    } | parts
    return LinearRig.make(**parts)


def test_a_sound_rig_has_no_fault_and_each_fault_has_its_word():
    rig = _ball()
    points, faces, deltas = rig.rest.numpy(), rig.faces.numpy(), rig.deltas.numpy()

    def kinds(radius=1.0, **parts):
        return [words.partition(":")[0] for words in check_rig(_ball(**parts), radius)]

    assert kinds() == []
    assert kinds(faces=faces[:, ::-1]) == ["flipped"]
    assert kinds(faces=[faces[0], faces[1], faces[2], faces[3][::-1]]) == ["flipped"]
    assert kinds(faces=faces[:3]) == ["holes"]
    assert kinds(faces=[*faces, [0, 0, 1]]) == ["degenerate"]
    assert kinds(faces=[*faces, faces[0]]) == ["knots"]
    assert kinds(base=1000 * points, deltas=1000 * deltas) == ["units"]
    assert kinds(base=0.001 * points, deltas=0.001 * deltas) == ["units"]
    assert kinds(base=1000 * points, deltas=1000 * deltas, radius=1000.0) == []
    assert kinds(deltas=deltas[::-1].copy()) == ["mirrored"]
    assert kinds(deltas=0 * deltas) == ["idle"]


def test_a_rig_turned_away_is_mirrored_and_one_swapped_action_is_named(puppet):
    turned = LinearRig.make(
        puppet.rest * torch.tensor([-1.0, 1, -1]), puppet.faces, ARKIT, puppet.deltas * torch.tensor([-1.0, 1, -1])
    )
    assert "mirrored" in " ".join(check_rig(turned)) and "face +z" in " ".join(check_rig(turned))
    deltas = puppet.deltas.clone()
    swap = [ARKIT.index("eyeBlinkLeft"), ARKIT.index("eyeBlinkRight")]
    deltas[swap] = deltas[swap[::-1]]
    words = [word for word in check_rig(LinearRig.make(puppet.rest, puppet.faces, ARKIT, deltas)) if "mirrored" in word]
    assert len(words) == 1 and "eyeBlinkLeft, eyeBlinkRight move the other side" in words[0]
