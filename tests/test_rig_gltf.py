"""Rigs from glTF: against posing by the specification, in every storage, and what is told of bad files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rig_files import Gltf
from scipy.spatial.transform import Rotation, Slerp

from fourdgs.data.track import HEAD
from fourdgs.errors import InputError
from fourdgs.rig import gltf_animations, load_gltf_animation, load_gltf_rig, load_rig

KEYS = np.array([0.0, 0.4, 1.0])


def _draw(seed=0):
    random = np.random.default_rng(seed)
    turns = Rotation.random(8, random_state=random)
    return random, turns


def _scene(sparse=False, stride=0):
    """A file with all that moves: a skin whose rest is not its bind pose, a hat on a bone, a still part; and its parts.

    Nodes: 0 root > 1 hips > 2 plain > 3 Head > 4 hat (mesh 1); 5 body (mesh 0, skin); 6 floor (mesh 2).
    """
    random, turns = _draw()
    file = Gltf(scene=0, scenes=[{"nodes": [0, 5, 6]}])
    body, hat, floor = random.normal(size=(9, 3)), random.normal(size=(4, 3)), random.normal(size=(3, 3))
    targets = random.normal(size=(2, 9, 3))
    targets[1, 3:] = 0
    hat_target = random.normal(size=(4, 3))
    weights = random.uniform(size=(9, 4)) * (1, 1, 0, 0)
    joints = np.tile([0, 1, 0, 0], (9, 1))
    binds = np.stack([_matrix(turns[k], random.normal(size=3), random.uniform(0.5, 2, 3)) for k in (0, 1)])
    primitive = {
        "attributes": {
            "POSITION": file.put(body, stride=stride), "JOINTS_0": file.put(joints, "uint8"),
            "WEIGHTS_0": file.put(weights), "TEXCOORD_0": file.put(random.uniform(size=(9, 2))),
        },
        "indices": file.put(np.arange(9), "uint16"),
        "targets": [{"POSITION": (file.put_sparse if sparse else file.put)(target)} for target in targets],
    }  # fmt: skip
    file.add(
        "meshes", {"primitives": [primitive], "weights": [0.0, 0.25], "extras": {"targetNames": ["JawOpen", "odd"]}}
    )
    primitive = {"attributes": {"POSITION": file.put(hat)}, "targets": [{"POSITION": file.put(hat_target)}], "mode": 5}
    file.add("meshes", {"primitives": [primitive], "extras": {"targetNames": ["jawOpen"]}})
    file.add("meshes", {"primitives": [{"attributes": {"POSITION": file.put(floor)}}]})
    file.add("skins", {"joints": [1, 3], "inverseBindMatrices": file.put(binds.transpose(0, 2, 1).reshape(2, 16))})
    trs = {}
    for node, (name, children, mesh) in enumerate(
        [("root", [1], None), ("hips", [2], None), ("plain", [3], None), ("rig:Head", [4], None), ("hat", None, 1),
         ("body", None, 0), ("floor", None, 2)]
    ):  # fmt: skip
        trs[node] = [random.normal(size=3), turns[node], random.uniform(0.6, 1.6, 3)]
        row = {"name": name, "translation": trs[node][0].tolist(), "rotation": turns[node].as_quat().tolist()}
        row |= {"scale": trs[node][2].tolist()} | ({"children": children} if children else {})
        row |= {} if mesh is None else {"mesh": mesh}
        file.add("nodes", row | ({"skin": 0} if node == 5 else {}))
    parts = {"body": body, "hat": hat, "floor": floor, "targets": targets, "hat_target": hat_target, "binds": binds}
    return file, parts | {"weights": weights / weights.sum(1, keepdims=True), "trs": trs}


def _matrix(turn, place, scale):
    matrix = np.eye(4)
    matrix[:3, :3] = turn.as_matrix() * scale
    matrix[:3, 3] = place
    return matrix


def _pose(parts, trs, morphs):
    """By the specification: [V, 3] of hat, body and floor for nodes' ``trs`` and ``morphs`` of both meshes."""
    world = {node: _matrix(turn, place, scale) for node, (place, turn, scale) in trs.items()}
    for child, parent in ((1, 0), (2, 1), (3, 2), (4, 3)):
        world[child] = world[parent] @ world[child]
    body = parts["body"] + np.tensordot(morphs[0], parts["targets"], 1)
    skin = np.einsum("vj,jab->vab", parts["weights"][:, :2], np.stack([world[1], world[3]]) @ parts["binds"])
    hat = parts["hat"] + morphs[1] * parts["hat_target"]
    body = np.einsum("vab,vb->va", skin[:, :3, :3], body) + skin[:, :3, 3]
    hat, floor = (at @ world[node][:3, :3].T + world[node][:3, 3] for node, at in ((4, hat), (6, parts["floor"])))
    return np.concatenate([hat, body, floor])  # in the order of the nodes


def _animate(file, parts, how="LINEAR"):
    """Give the file an animation of every path; what poses it at a time by the specification."""
    random, _ = _draw(3)
    turns = {node: Rotation.from_rotvec(random.uniform(-0.5, 0.5, (3, 3))) for node in (1, 3)}
    turns = {node: parts["trs"][node][1] * turn for node, turn in turns.items()}
    places, scales = random.normal(size=(3, 3)), random.uniform(0.5, 2, (3, 3))
    morphs = random.uniform(size=(3, 2))
    keys = file.put(KEYS)
    channels, samplers = [], []
    for node, path, values in (
        (1, "rotation", turns[1].as_quat()), (3, "rotation", -turns[3].as_quat()), (1, "translation", places),
        (0, "scale", scales), (5, "weights", morphs.reshape(-1, 1)),
    ):  # fmt: skip
        if how == "CUBICSPLINE":  # with tangents of nothing
            values = np.stack([0 * values, values, 0 * values], 1) if path != "weights" else values
            if path == "weights":
                table = values.reshape(3, 1, 2) * np.array([0, 1, 0])[:, None]
                values = table.reshape(-1, 1)
            values = values.reshape(-1, values.shape[-1])
        samplers.append({"input": keys, "output": file.put(values), "interpolation": how})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})
    file.add("animations", {"name": "talk", "channels": channels, "samplers": samplers})

    def posed(time):
        def mix(values):
            return np.stack([np.interp(time, KEYS, column) for column in values.reshape(3, -1).T])

        trs = {node: list(part) for node, part in parts["trs"].items()}
        for node in (1, 3):
            trs[node][1] = Slerp(KEYS, turns[node])(time)
        trs[1][0], trs[0][2] = mix(places), mix(scales)
        weights = mix(morphs)
        return _pose(parts, trs, (weights, 0.0)), weights[0]

    return posed


def test_rest_and_every_control_pose_by_the_specification(tmp_path):
    file, parts = _scene()
    posed = _animate(file, parts)
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(rig.rest, _pose(parts, parts["trs"], ([0, 0.25], 0)), atol=2e-5)
    moved = rig.vertices(rig.drive({"jawOpen": 0.7, "odd": -1})[None])[0]
    np.testing.assert_allclose(moved, _pose(parts, parts["trs"], ([0.7, -1], 0.7)), atol=2e-5)
    np.testing.assert_allclose(rig.vertices(rig.neutral[None])[0], rig.rest, atol=1e-6)
    trs = {node: list(part) for node, part in parts["trs"].items()}
    trs[3][1] = trs[3][1] * Rotation.from_euler("YXZ", (30, -20, 10), degrees=True)
    drive = {"rig:Head.rotateX": -20, "rig:Head.rotateY": 30, "rig:Head.rotateZ": 10}
    moved = rig.vertices(rig.drive(drive)[None])[0]
    np.testing.assert_allclose(moved, _pose(parts, trs, ([0, 0.25], 0)), atol=2e-5)
    assert gltf_animations(tmp_path / "a.glb") == ["talk"]
    # An animation drives the body's jaw; the hat's, the same control, follows it in the rig and not in the file.
    table = load_gltf_animation(tmp_path / "a.glb", "talk")
    assert table["time_s"].is_monotonic_increasing and np.isin(KEYS, table["time_s"]).all()
    for _, row in table.iloc[::5].iterrows():
        moved = rig.vertices(rig.drive({name: row[name] for name in table.columns[1:]})[None])[0].numpy()
        expected, _ = posed(row["time_s"])
        np.testing.assert_allclose(moved[4:], expected[4:], atol=1e-4)


@pytest.mark.parametrize("how", ["STEP", "CUBICSPLINE"])
def test_animations_of_other_kinds_meet_their_keys(tmp_path, how):
    linear, other = _scene()[0], _scene()[0]
    _animate(linear, _scene()[1])
    _animate(other, _scene()[1], how)
    one = load_gltf_animation(linear.write(tmp_path / "a.glb")).set_index("time_s")
    two = load_gltf_animation(other.write(tmp_path / "b.glb")).set_index("time_s")
    np.testing.assert_allclose(two.loc[KEYS], one.loc[KEYS], atol=1e-4)
    jaw, before = two["jawOpen"], one.loc[KEYS[0], "jawOpen"]
    between = jaw[(jaw.index > 0.001) & (jaw.index < 0.399)]
    if how == "STEP":
        np.testing.assert_allclose(between, before, atol=1e-6)
    else:  # no tangent: halfway after half the time, nearly still at the ends
        after = one.loc[KEYS[1], "jawOpen"]
        share = (between - before) / (after - before)
        at = between.index / KEYS[1]
        np.testing.assert_allclose(share, at**2 * (3 - 2 * at), atol=1e-4)


def test_every_container_and_storage_gives_the_same_rig(tmp_path):
    rigs = [
        load_gltf_rig(_scene()[0].write(tmp_path / "a.glb")),
        load_gltf_rig(_scene()[0].write(tmp_path / "b.gltf", "data")),
        load_gltf_rig(_scene()[0].write(tmp_path / "c.gltf", "file")),
        load_gltf_rig(_scene(sparse=True, stride=20)[0].write(tmp_path / "d.glb")),
        load_rig(tmp_path / "a.glb"),
    ]
    drive = rigs[0].neutral + torch.rand(3, len(rigs[0].controls))
    for rig in rigs[1:]:
        assert rig.controls == rigs[0].controls and torch.equal(rig.faces, rigs[0].faces)
        torch.testing.assert_close(rig.vertices(drive), rigs[0].vertices(drive))
    rigs[0].save(tmp_path / "kept.safetensors")
    torch.testing.assert_close(load_rig(tmp_path / "kept.safetensors").vertices(drive), rigs[0].vertices(drive))


def test_a_joint_named_head_turns_about_the_worlds_axes(tmp_path):
    file, parts = _scene()
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    assert set(HEAD) <= set(rig.controls)
    hat = slice(0, 4)
    joint = np.linalg.multi_dot([_matrix(turn, place, scale) for place, turn, scale in map(parts["trs"].get, range(4))])
    for drive, axis in (({"headYaw": 25}, (0, 1, 0)), ({"headPitch": 25}, (1, 0, 0)), ({"headRoll": 25}, (0, 0, 1))):
        moved = rig.vertices(rig.drive(drive)[None])[0].numpy()
        turn = Rotation.from_rotvec(np.radians(25) * np.array(axis)).as_matrix()
        expected = (rig.rest.numpy()[hat] - joint[:3, 3]) @ turn.T + joint[:3, 3]
        np.testing.assert_allclose(moved[hat], expected, atol=2e-5)
        np.testing.assert_allclose(moved[13:], rig.rest[13:], atol=1e-6)


def test_quantised_meshes_and_colours_are_read(tmp_path):
    points = np.array([[-127, 0, 0], [127, 0, 0], [0, 127, 64]])
    file = Gltf(extensionsUsed=["KHR_mesh_quantization"], extensionsRequired=["KHR_mesh_quantization"])
    primitive = {
        "attributes": {
            "POSITION": file.put(points, "int8", normalized=True, stride=4),
            "COLOR_0": file.put([[0, 255, 55]] * 3, "uint8", normalized=True, stride=4),
            "TEXCOORD_0": file.put([[0, 0], [65535, 0], [0, 65535]], "uint16", normalized=True),
        },
        "targets": [{"POSITION": file.put(points // 2, "int8", normalized=True, stride=4)}],
    }
    file.add("meshes", {"primitives": [primitive]})
    file.add("nodes", {"mesh": 0, "scale": [2, 2, 2]})
    rig = load_gltf_rig(file.write(tmp_path / "q.glb"))
    np.testing.assert_allclose(rig.rest, 2 * points / 127, atol=1e-6)
    assert rig.controls == ("mesh0.0",)
    assert rig.colors[:, :2].tolist() == [[0, 255]] * 3 and 120 < rig.colors[0, 2] < 132  # 55 of linear light
    np.testing.assert_allclose(rig.uv, [[0, 1], [1, 1], [0, 0]], atol=1e-6)


def test_faces_of_mirrored_parts_look_outside(tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    file = Gltf()
    position = file.put(corners)
    file.add("meshes", {"primitives": [{"attributes": {"POSITION": position}, "targets": [{"POSITION": position}]}]})
    file.add("nodes", {"mesh": 0})
    file.add("nodes", {"mesh": 0, "scale": [-1, 1, 1]})
    rig = load_gltf_rig(file.write(tmp_path / "m.glb"))
    a, b, c = (rig.rest[rig.faces[:, k]] for k in range(3))
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()


@pytest.mark.parametrize(
    "extension, word",
    [
        ("KHR_draco_mesh_compression", "gltf-transform copy"), ("EXT_meshopt_compression", "gltf-transform copy"),
        ("KHR_meshopt_compression", "gltf-transform copy"), ("VRM_odd", "export the file without it"),
    ],
)  # fmt: skip
def test_packed_files_are_told_with_the_command_that_unpacks(tmp_path, extension, word):
    file, _ = _scene()
    file.json["extensionsRequired"] = [extension]
    with pytest.raises(InputError, match=f"a.glb: needs {extension}, which is not read here .*{word}"):
        load_gltf_rig(file.write(tmp_path / "a.glb"))


@pytest.mark.parametrize("extension", ["KHR_texture_basisu", "EXT_texture_avif", "KHR_materials_unlit", "VRMC_vrm"])
def test_how_it_looks_may_be_packed_in_any_way(tmp_path, extension):
    file, _ = _scene()
    file.json["extensionsRequired"] = [extension]
    assert "jawOpen" in load_gltf_rig(file.write(tmp_path / "a.glb")).controls


def test_damaged_files_are_told_and_never_crash(tmp_path):
    whole = _scene()[0].write(tmp_path / "a.glb").read_bytes()
    path = tmp_path / "bad.glb"
    for content, word in ((b"", "not a glTF"), (whole[:40], "not a whole GLB"), (whole[:-8], "not a whole GLB"),
                          (b"hello", "not a glTF"), (b"[]", "not a glTF")):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"bad.glb: is {word}"):
            load_gltf_rig(path)
    with pytest.raises(InputError, match="there is no such file"):
        load_gltf_rig(tmp_path / "absent.glb")
    # Any value of the JSON replaced by another: an InputError that names the file, or a rig.
    source = json.loads(_scene()[0].write(tmp_path / "a.gltf", "data").read_text())
    random, outcomes = np.random.default_rng(0), []
    for _ in range(150):
        broken, at = json.loads(json.dumps(source)), None
        at = broken
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = keys[random.integers(len(keys))]
            if not isinstance(at[key], dict | list) or not at[key] or random.random() < 0.1:
                break
            at = at[key]
        at[key] = (None, -1, 10**7, "x", [], {}, [0], 1.5)[random.integers(8)]
        (tmp_path / "bad.gltf").write_text(json.dumps(broken))
        try:
            load_gltf_rig(tmp_path / "bad.gltf")
            outcomes.append(True)
        except InputError as error:
            assert error.file == tmp_path / "bad.gltf"
            outcomes.append(False)
    assert any(outcomes) and outcomes.count(False) > 20


def test_files_reach_only_beside_themselves(tmp_path):
    (tmp_path / "in").mkdir()
    file, _ = _scene()
    path = file.write(tmp_path / "in" / "a.gltf", "file")
    (tmp_path / "b.bin").write_bytes(file.binary)
    for uri in ("../b.bin", "/etc/hostname", "file:///etc/hostname"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"buffers": [{"byteLength": 8, "uri": uri}]}))
        with pytest.raises(InputError, match="is not a file beside it"):
            load_gltf_rig(path)


def test_files_without_movement_or_triangles_are_told(tmp_path):
    still = Gltf()
    still.add("meshes", {"primitives": [{"attributes": {"POSITION": still.put(np.eye(3))}}]})
    still.add("nodes", {"mesh": 0})
    with pytest.raises(InputError, match="still.glb: nothing in it moves"):
        load_gltf_rig(still.write(tmp_path / "still.glb"))
    still.json["meshes"][0]["primitives"][0]["mode"] = 0
    with pytest.raises(InputError, match="points.glb: meshes: holds no triangle"):
        load_gltf_rig(still.write(tmp_path / "points.glb"))
    with pytest.raises(InputError, match="there is no animation 0 .it has none"):
        load_gltf_animation(tmp_path / "points.glb")


# --- what files of other makers taught ---


def _face(file, points, target, names=("jawOpen",), **more):
    """The number of a mesh of triangles with one target."""
    primitive = {"attributes": {"POSITION": file.put(points)}, "targets": [{"POSITION": file.put(target)}]}
    return file.add("meshes", {"primitives": [primitive], "extras": {"targetNames": list(names)}} | more)


def test_primitives_that_share_all_vertices_keep_those_they_use(tmp_path):
    random, _ = _draw()
    points, target = random.normal(size=(2, 12, 3))
    file = Gltf()
    shared = {"attributes": {"POSITION": file.put(points)}, "targets": [{"POSITION": file.put(target)}]}
    used = [(1, 5, 2), (5, 7, 11, 11, 2, 5), (0, 3, 4)]
    rows = [shared | {"indices": file.put(np.array(index), "uint16")} for index in used]
    file.add("meshes", {"primitives": rows, "extras": {"targetNames": ["jawOpen"]}})
    file.add("nodes", {"mesh": 0})
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    assert sorted(set(rig.faces.flatten().tolist())) == list(range(len(rig.rest)))
    moved = rig.vertices(rig.drive({"jawOpen": 0.5})[None])[0]
    corners = np.concatenate(used)
    np.testing.assert_allclose(moved[rig.faces.flatten()], (points + 0.5 * target)[corners], atol=1e-6)


def test_one_value_moves_all_meshes_that_have_the_control_though_they_start_apart(tmp_path):
    random, _ = _draw()
    points, target = random.normal(size=(2, 2, 3, 3))
    file = Gltf()
    for mesh, start in enumerate(({}, {"weights": [0.25]})):
        _face(file, points[mesh], target[mesh], **start)
        file.add("nodes", {"mesh": mesh})
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    assert rig.neutral.tolist() == [0.25]
    for value in (0.25, 0.0, 1.0):
        moved = rig.vertices(rig.drive({"jawOpen": value})[None])[0]
        np.testing.assert_allclose(moved, np.concatenate(points + value * target), atol=1e-6)


def test_an_action_in_halves_is_a_control_too(tmp_path):
    random, _ = _draw()
    points, left, right = random.normal(size=(3, 3, 3))
    file = Gltf()
    targets = [{"POSITION": file.put(part)} for part in (left, right)]
    primitive = {"attributes": {"POSITION": file.put(points)}, "targets": targets}
    file.add("meshes", {"primitives": [primitive], "extras": {"targetNames": ["browInnerUp_L", "browInnerUp_R"]}})
    file.add("nodes", {"mesh": 0})
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    assert rig.controls == ("browInnerUp_L", "browInnerUp_R", "browInnerUp")
    moved = rig.vertices(rig.drive({"browInnerUp": 0.5})[None])[0]
    np.testing.assert_allclose(moved, points + 0.5 * (left + right), atol=1e-6)


@pytest.mark.parametrize("extras", ["smile", ["smile"], {"targetNames": None}, {"targetNames": "smile"}, None, 3])
def test_extras_that_are_something_else_name_nothing(tmp_path, extras):
    file = Gltf()
    _face(file, np.eye(3), np.eye(3), name="Face", extras=extras)
    file.add("nodes", {"mesh": 0})
    assert load_gltf_rig(file.write(tmp_path / "a.glb")).controls == ("Face.0",)


@pytest.mark.parametrize(
    ("name", "is_head"),
    [
        ("Head", True), ("head", True), ("HEAD", True), ("mixamorig:Head", True), ("mixamorigHead", True),
        ("J_Bip_C_Head", True), ("CC_Base_Head", True), ("Bip01 Head", True), ("head_jnt", True), ("Head_M", True),
        ("DEF-head", True), ("b_Head_05", True), ("Head.001", True),
        ("HeadTop_End", False), ("head_end", False), ("forehead", False), ("HeadNub", False), ("Neck", False),
    ],
)  # fmt: skip
def test_heads_are_known_by_their_names(tmp_path, name, is_head):
    file, _ = _scene()
    file.json["nodes"][3]["name"] = name
    file.json["nodes"][5]["name"] = name  # a mesh of that name takes nothing from the joint
    rig = load_gltf_rig(file.write(tmp_path / "a.glb"))
    assert set(HEAD) <= set(rig.controls) if is_head else not set(HEAD) & set(rig.controls)
    assert f"{name}.rotateX" in rig.controls


def test_a_vrm_names_its_head_and_version_0_is_turned_to_the_front(tmp_path):
    plain = load_gltf_rig(_scene()[0].write(tmp_path / "a.glb"))
    drive = plain.neutral + torch.rand(3, len(plain.controls))
    drive[:, [plain.controls.index(name) for name in HEAD]] = 0  # about the axes of the world, which is turned
    for extensions, turn in (
        ({"VRM": {"humanoid": {"humanBones": [{"bone": "hips", "node": 1}, {"bone": "head", "node": 3}]}}}, -1.0),
        ({"VRMC_vrm": {"humanoid": {"humanBones": {"hips": {"node": 1}, "head": {"node": 3}}}}}, 1.0),
    ):
        file, _ = _scene()
        file.json["extensions"] = extensions
        file.json["nodes"][1]["name"], file.json["nodes"][3]["name"] = "Head", "Bone"
        rig = load_rig(file.write(tmp_path / "a.glb").rename(tmp_path / "a.vrm"))
        assert [name.replace("Bone", "rig:Head") for name in rig.controls] == [
            name.replace("hips", "Head") for name in plain.controls
        ]
        expected = plain.vertices(drive) * torch.tensor([turn, 1, turn])
        torch.testing.assert_close(rig.vertices(drive), expected, atol=1e-5, rtol=0)


def _moved(tmp_path, path, values, times=(0.0, 1.0), rest=None):
    """A file of one bone-like node 1 m from its parent, with an animation of it."""
    file = Gltf(scene=0, scenes=[{"nodes": [0]}])
    _face(file, np.eye(3), np.eye(3))
    file.add("nodes", {"name": "root", "children": [1], "mesh": 0})
    file.add("nodes", {"name": "bone", "translation": [0, 1, 0]} | (rest or {}))
    sampler = {"input": file.put(times), "output": file.put(values)}
    channel = {"sampler": 0, "target": {"node": 1, "path": path}}
    file.add("animations", {"channels": [channel], "samplers": [sampler]})
    return file.write(tmp_path / "a.glb")


@pytest.mark.parametrize(
    ("path", "values", "moves"),
    [
        ("translation", [[0, 1, 0], [0, 1.00005, 0]], False), ("translation", [[0, 1, 0], [0, 1.001, 0]], True),
        ("translation", [[0, 1.0005, 0]] * 2, False), ("translation", [[0, 1.1, 0]] * 2, True),
        ("scale", [[1, 1, 1], [1.00002, 1, 1]], False), ("scale", [[1, 1, 1], [1.01, 1, 1]], True),
        ("rotation", [[0, 0, 0, 1], [0, 0, 0, -1]], False), ("rotation", [[0, 0, 0, 1], [0.002, 0, 0, 1]], True),
        ("rotation", [[3e-5, 0, 0, 1], [0, 3e-5, 0, 1]], False),
    ],
)  # fmt: skip
def test_rounding_in_an_animation_makes_no_controls(tmp_path, path, values, moves):
    controls = load_gltf_rig(_moved(tmp_path, path, values)).controls
    assert any(name.startswith("bone.") for name in controls) == moves


def test_of_keys_at_one_time_the_last_counts_and_times_that_fall_are_told(tmp_path):
    values = [[0, 1, 0], [5, 1, 0], [1, 1, 0], [2, 1, 0]]
    table = load_gltf_animation(_moved(tmp_path, "translation", values, (0, 0.5, 0.5, 1)), fps=4).set_index("time_s")
    np.testing.assert_allclose(table.loc[[0, 0.25, 0.5, 0.75, 1], "bone.moveX"], [0, 0.5, 1, 1.5, 2], atol=1e-6)
    with pytest.raises(InputError, match="has times that fall"):
        load_gltf_animation(_moved(tmp_path, "translation", values, (0, 0.5, 0.4, 1)))


def test_of_meshes_that_disagree_about_a_control_the_livelier_counts(tmp_path):
    file = Gltf()
    for mesh in range(3):
        _face(file, np.eye(3), np.eye(3))
        file.add("nodes", {"mesh": mesh})
    samplers = [{"input": file.put([0.0, 1.0]), "output": file.put(values)} for values in ([0, 0], [0, 1], [0.5, 0.5])]
    channels = [{"sampler": mesh, "target": {"node": mesh, "path": "weights"}} for mesh in range(3)]
    file.add("animations", {"channels": channels, "samplers": samplers})
    table = load_gltf_animation(file.write(tmp_path / "a.glb"), fps=2)
    np.testing.assert_allclose(table["jawOpen"], table["time_s"], atol=1e-6)
