from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scenes import random_gaussians

from fourdgs import Gaussians, InputError, Model, OutputError, paths, render
from fourdgs.gaussians_io import at_time, model_digest, read_ply, write_ply, write_ply_sequence
from fourdgs.motion import Deform, Static

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bits(gaussians: Gaussians) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() + str(tuple(value.shape)).encode() for key, value in gaussians.items().items()}


def moving(count: int = 30, sh_degree: int = 0) -> Model:
    """A model whose Gaussians move, turn and grow with time."""
    motion = Deform([0.0, 0.0, 0.0], 1.5, resolutions=[6], time_resolution=5, channels=4, width=8)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        motion.head.weight.normal_(0, 1.0, generator=random)
        for plane in motion.time:
            plane.add_(0.3 * torch.randn(plane.shape, generator=random))
    return Model(random_gaussians(count, sh_degree=sh_degree), motion)


def parsed(path: Path) -> tuple[list[str], list[dict[str, float]]]:
    """Header lines and records, read value by value with nothing but `struct`."""
    data = path.read_bytes()
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    assert len(body) == 4 * len(names) * count
    values = struct.unpack(f"<{len(names) * count}f", body)
    return lines, [dict(zip(names, values[k : k + len(names)], strict=True)) for k in range(0, len(values), len(names))]


def header(*properties: str, count: int = 2, form: str = "binary_little_endian 1.0") -> bytes:
    lines = ["ply", f"format {form}", f"element vertex {count}", *properties, "end_header"]
    return ("\n".join(lines) + "\n").encode()


# --- round trips ---


@pytest.mark.parametrize("y_down", [False, True])
@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_what_is_written_is_read_again_bit_by_bit(tmp_path, sh_degree, y_down):
    gaussians = random_gaussians(50, seed=sh_degree, sh_degree=sh_degree)
    path = write_ply(gaussians, tmp_path / "a.ply", y_down=y_down)
    back = read_ply(path, y_down=y_down)
    assert bits(back) == bits(gaussians) and back.sh_degree == sh_degree
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in back.items().values())
    assert [file.name for file in tmp_path.iterdir()] == ["a.ply"]
    assert path.stat().st_size == len(path.read_bytes().split(b"end_header\n")[0]) + 11 + 50 * 4 * (
        17 + 3 * ((sh_degree + 1) ** 2 - 1)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: arrays.arrays(np.float32, (n, 59), elements=FLOATS)))
def test_any_finite_values_survive(tmp_path_factory, values):
    values = torch.from_numpy(values)
    means, quats, scales, opacities, sh0, shN = values.split([3, 4, 3, 1, 3, 45], dim=1)
    gaussians = Gaussians(means, quats, scales, opacities[:, 0], sh0[:, None], shN.reshape(-1, 15, 3))
    gaussians = Gaussians(**{key: value.contiguous() for key, value in gaussians.items().items()})
    path = write_ply(gaussians, tmp_path_factory.getbasetemp() / "any.ply")
    assert bits(read_ply(path)) == bits(gaussians)


def test_the_layout_read_by_another_reader(tmp_path):
    gaussians = random_gaussians(7, sh_degree=2)
    lines, records = parsed(write_ply(gaussians, tmp_path / "a.ply"))
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{k}" for k in range(24))]
    expected += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [line.split()[2] for line in lines[3:]] == expected
    for k, record in enumerate(records):
        assert [record[n] for n in "xyz"] == gaussians.means[k].tolist()
        assert [record[f"f_dc_{c}"] for c in range(3)] == gaussians.sh0[k, 0].tolist()
        for channel in range(3):  # channel by channel: eight of red, then green, then blue
            assert [record[f"f_rest_{8 * channel + j}"] for j in range(8)] == gaussians.shN[k, :, channel].tolist()
        assert record["opacity"] == float(gaussians.opacities[k])  # a logit
        assert [record[f"scale_{j}"] for j in range(3)] == gaussians.scales[k].tolist()  # logarithms
        assert [record[f"rot_{j}"] for j in range(4)] == gaussians.quats[k].tolist()  # wxyz
        assert record["nx"] == record["ny"] == record["nz"] == 0


@pytest.mark.parametrize("sh_degree", [0, 3])
def test_gsplat_writes_the_same_values(tmp_path, sh_degree):
    exporter = pytest.importorskip("gsplat.exporter")
    ours = random_gaussians(20, sh_degree=sh_degree)
    tensors = ours.items()
    exporter.export_splats(**tensors, format="ply", save_to=str(tmp_path / "theirs.ply"))
    assert bits(read_ply(tmp_path / "theirs.ply")) == bits(ours)


def test_trimesh_finds_the_points(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    gaussians = random_gaussians(20, sh_degree=1)
    cloud = trimesh.load(write_ply(gaussians, tmp_path / "a.ply"))
    assert np.array_equal(np.asarray(cloud.vertices, np.float32), gaussians.means.numpy())


def test_other_orders_types_and_further_elements_are_read(tmp_path):
    names = ["rot_3", "x", "f_dc_0", "opacity", "z", "scale_1", "rot_0", "id", "y", "f_dc_2", "scale_0", "rot_1"]
    names += ["f_dc_1", "scale_2", "rot_2"]
    kinds = {"x": "double", "id": "uchar", "opacity": "float32"}
    lines = [f"property {kinds.get(name, 'float')} {name}" for name in names]
    lines += ["element camera 1", "property list uchar int frames"]
    text = ["ply", "comment of somebody", "format binary_little_endian 1.0", "element vertex 1", *lines, "end_header"]
    record = struct.pack("<" + "".join({"x": "d", "id": "B"}.get(n, "f") for n in names), *range(1, 16))
    (tmp_path / "a.ply").write_bytes("\r\n".join(text).encode() + b"\r\n" + record + b"\1\0\0\0\0")
    back = read_ply(tmp_path / "a.ply")
    assert (back.means.tolist(), back.quats.tolist()) == ([[2, 9, 5]], [[7, 12, 15, 1]])
    assert (back.scales.tolist(), back.sh0.tolist(), back.opacities.tolist()) == ([[11, 6, 14]], [[[3, 13, 10]]], [4])


# --- turning for viewers ---


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_a_turned_scene_looks_the_same_from_turned_cameras(tmp_path, sh_degree):
    gaussians = random_gaussians(40, sh_degree=sh_degree)
    turned = read_ply(write_ply(gaussians, tmp_path / "a.ply", y_down=True))
    assert torch.equal(turned.means, gaussians.means * torch.tensor([-1.0, -1.0, 1.0]))
    cameras = paths.orbit(5, 4.0, 25.0, width=40, height=32, times=None)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    behind = replace(cameras, viewmats=cameras.viewmats @ half_turn)
    before = render(Model(gaussians, Static()), cameras).rgb
    after = render(Model(turned, Static()), behind).rgb
    assert float(before.std()) > 0.05
    assert (before - after).abs().max() < 1e-4


# --- times ---


def test_a_model_at_a_time_renders_as_the_model_at_that_time(tmp_path):
    model = moving(sh_degree=1)
    cameras = paths.orbit(3, 4.0, 10.0, width=40, height=32, times=None)
    still = {}
    for time in (None, 0.0, 0.37, 1.0):
        frozen = Model(read_ply(write_ply(at_time(model, time), tmp_path / "a.ply")), Static())
        still[time] = render(frozen, cameras).rgb
        assert (still[time] - render(model, cameras.with_times(time)).rgb).abs().max() < 1e-5
    assert torch.equal(at_time(model).means, model.gaussians.means)
    assert (still[0.0] - still[1.0]).abs().max() > 0.05  # or the test would pass for a scene that stands still


def test_a_sequence_is_the_model_at_its_times(tmp_path):
    model = moving()
    files = write_ply_sequence(model, tmp_path / "s", 5, progress=False)
    assert [file.name for file in files] == [f"frame_{k:05d}.ply" for k in range(5)]
    for file, time in zip(files, (0, 0.25, 0.5, 0.75, 1), strict=True):
        assert bits(read_ply(file)) == bits(at_time(model, time))
    about = json.loads((tmp_path / "s/sequence.json").read_text())
    assert about["times"] == [0, 0.25, 0.5, 0.75, 1] and about["files"] == [file.name for file in files]
    assert about["model"] == model_digest(model)


def test_a_sequence_goes_on_where_it_was(tmp_path):
    model, folder = moving(), tmp_path / "s"
    files = write_ply_sequence(model, folder, [0.1, 0.2, 0.9], progress=False)
    whole = [file.read_bytes() for file in files]
    files[1].unlink()
    (folder / ".frame_00001-x1y2.ply").write_bytes(b"half")  # what a kill leaves
    os.utime(files[0], ns=(1, 1))
    assert write_ply_sequence(model, folder, [0.1, 0.2, 0.9], progress=False) == files
    assert [file.read_bytes() for file in files] == whole
    assert files[0].stat().st_mtime_ns == 1  # not written again
    assert not list(folder.glob(".*"))


def test_a_sequence_never_mixes_with_another(tmp_path):
    model = moving()
    write_ply_sequence(model, tmp_path, [0.1, 0.2], progress=False)
    other = replace(model, gaussians=model.gaussians.replace(means=model.gaussians.means + 1))
    for given_model, times, y_down in ((model, [0.1, 0.3], False), (other, [0.1, 0.2], False), (model, [0.1, 0.2], 1)):
        with pytest.raises(InputError, match="another model, or of other times"):
            write_ply_sequence(given_model, tmp_path, times, y_down=bool(y_down), progress=False)
    (tmp_path / "sequence.json").write_text("{")
    with pytest.raises(InputError, match="sequence.json: cannot be read"):
        write_ply_sequence(model, tmp_path, [0.1, 0.2], progress=False)
    (tmp_path / "sequence.json").unlink()
    with pytest.raises(InputError, match="holds .ply files"):
        write_ply_sequence(model, tmp_path, [0.1, 0.2], progress=False)


def test_the_digest_of_a_model_is_of_all_that_shows():
    model = moving()
    assert model_digest(model) == model_digest(moving())
    with torch.no_grad():
        bent = moving()
        bent.motion.head.bias[0] += 1e-6
    others = [
        bent,
        replace(model, background=(0.0, 0.0, 0.0)),
        replace(model, motion=Static()),
        replace(model, gaussians=model.gaussians.replace(opacities=model.gaussians.opacities + 1e-3)),
    ]
    assert len({model_digest(each) for each in [model, *others]}) == 5


# --- faults ---


def whole(tmp_path, sh_degree: int = 0) -> bytes:
    return write_ply(random_gaussians(5, sh_degree=sh_degree), tmp_path / "whole.ply").read_bytes()


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[:100], "no end_header"),
        (lambda data: data[:-1], "names 5 Gaussians, but the file has bytes for 4"),
        (lambda data: data + b"\0", "1 bytes follow"),
        (lambda data: b"PK" + data, "not a PLY"),
        (lambda data: data.replace(b"binary_little_endian", b"binary_big_endian"), "binary_big_endian"),
        (lambda data: data.replace(b"binary_little_endian", b"ascii"), "has format ascii"),
        (lambda data: data.replace(b"vertex 5", b"vertex 99999999999999"), "bytes for 5"),
        (lambda data: data.replace(b"vertex 5", b"vertex 9999999999999999999"), "whole number"),
        (lambda data: data.replace(b"vertex 5", b"vertex -5"), "whole number"),
        (lambda data: data.replace(b"vertex 5", b"vertex 0"), "no Gaussian"),
        (lambda data: data.replace(b"vertex 5", b"vertex five"), "whole number"),
        (lambda data: data.replace(b"vertex 5", b"face 5"), "element face 5"),
        (lambda data: data.replace(b"element vertex 5\n", b""), "must be element vertex"),
        (lambda data: data.replace(b"element vertex", b"element chunk 1\nelement vertex"), "compressed"),
        (lambda data: data.replace(b"property float opacity", b"property float alpha"), "lacks opacity"),
        (lambda data: data.replace(b"property float opacity", b"property list uchar float opacity"), "property list"),
        (lambda data: data.replace(b"property float opacity", b"property half opacity"), "property half"),
        (lambda data: data.replace(b"property float nx", b"property float x"), "twice"),
        (lambda data: data.replace(b"property float nx", b"property float f_rest_0"), "1 f_rest"),
        (lambda data: data.replace(b"float scale_2", b"float scale_x"), "2DGS"),
        (lambda data: header("property float x", "property float y", "property float z") + bytes(24), "point cloud"),
        (lambda data: header() + bytes(24), "no property"),
        (lambda data: data[:-4] + struct.pack("<f", math.nan), "rot_3: is not finite in 1 of 5 .* number 4"),
        (lambda data: data[: -17 * 4] + struct.pack("<f", math.inf) + data[-16 * 4 :], "x: is not finite in 1 of 5"),
        (lambda data: b"ply\n" + b"comment " + b"x" * 70000 + data, "no end_header"),
    ],
)
def test_faults_in_files_are_named(tmp_path, change, text):
    path = tmp_path / "broken.ply"
    path.write_bytes(change(whole(tmp_path)))
    with pytest.raises(InputError, match=text) as caught:
        read_ply(path)
    assert "broken.ply" in str(caught.value) and "\n" not in str(caught.value)


def test_f_rest_of_no_degree_is_named(tmp_path):
    path = tmp_path / "broken.ply"
    path.write_bytes(whole(tmp_path, 2).replace(b"float f_rest_23", b"float f_rest_99"))
    with pytest.raises(InputError, match="24 f_rest"):
        read_ply(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(whole(folder, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the header, where a byte means more.
        place = data.draw(st.integers(0, min(len(content) - 1, data.draw(st.sampled_from([700, 100, 10**6])))))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (folder / "damaged.ply").write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        gaussians = read_ply(folder / "damaged.ply")
    except InputError as error:
        assert len(str(error)) < 2000
    else:
        assert all(bool(torch.isfinite(value).all()) for value in gaussians.items().values())


def test_what_cannot_be_read_or_written(tmp_path):
    gaussians = random_gaussians(5)
    with pytest.raises(InputError, match="No such file"):
        read_ply(tmp_path / "none.ply")
    with pytest.raises(InputError, match="cannot be read"):
        read_ply(tmp_path)
    with pytest.raises(InputError, match="name it something.ply"):
        write_ply(gaussians, tmp_path / "a.splat")
    with pytest.raises(InputError, match="take one time"):
        write_ply(moving().at(torch.tensor([0.1, 0.2])), tmp_path / "a.ply")
    bad = gaussians.scales.clone()
    bad[3, 1] = math.nan
    with pytest.raises(InputError, match="scales: Gaussian 3 is not finite"):
        write_ply(gaussians.replace(scales=bad), tmp_path / "a.ply")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_ply(gaussians, tmp_path / "file/a.ply")
    assert {file.name for file in tmp_path.iterdir()} == {"file"}


@pytest.mark.parametrize("time", [-0.1, 1.01, math.nan, "now", True])
def test_times_outside_the_scene(tmp_path, time):
    with pytest.raises(InputError, match="time"):
        at_time(moving(), time)
    with pytest.raises(InputError, match="time"):
        write_ply_sequence(moving(), tmp_path / "s", [0.0, time], progress=False)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("times", [0, -3, []])
def test_a_sequence_needs_a_time(tmp_path, times):
    with pytest.raises(InputError, match="times"):
        write_ply_sequence(moving(), tmp_path / "s", times, progress=False)
