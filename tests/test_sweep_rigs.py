"""Sweeps over rigs: rows of the motion ``rig``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sweeping import SHORT, a_scheduler, parameters, small_capture
from toy_rig import tent_rig

import fourdgs as fd
from fourdgs import InputError, TrainConfig, driven, farm
from fourdgs.basis import Basis
from fourdgs.data.transforms import write_transforms
from fourdgs.drive import DriveTrack
from fourdgs.rigged import Rigged
from fourdgs.sweep import _finished, _places, _recipes, _rigs, grid, sweep

pytestmark = pytest.mark.filterwarnings("ignore:.*silhouettes cover the masks")
CONFIG = TrainConfig(**SHORT, motion="rig")
TRACK = DriveTrack([2.0, 2.5, 4.0], ("headYaw", "fold"), [[0, 0], [20, 0.1], [-10, 0.4]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    return write_transforms(small_capture(root / "ball"), root / "written")


@pytest.fixture(scope="module")
def scheduler():
    with a_scheduler() as address:
        yield address


@pytest.fixture()
def files(tmp_path):
    """A rig's file, and a track's."""
    tent_rig().save(tmp_path / "tent.safetensors")
    return tmp_path / "tent.safetensors", TRACK.save(tmp_path / "track.csv")


def other_rig():
    """The tent, wider."""
    rig = tent_rig()
    rig.base *= 1.2
    rig.rest *= 1.2
    return rig


def test_a_run_of_a_sweep_is_the_run_that_train_makes_with_the_rig(folder, files, scheduler, tmp_path, monkeypatch):
    rigs = {"tent": files, "wide": Rigged(other_rig(), ([0.0, 1.0], [[0.0, 0], [0.3, 9]]))}
    table = grid(motion="rig", rig=list(rigs), **SHORT)
    result = sweep(table, folder, tmp_path / "out", rigs=rigs, scheduler=scheduler, progress=False)
    assert (result["state"] == "finished").all(), result["error"].tolist()
    assert [name.split("-")[0] for name in result["name"]] == ["tent", "wide"]
    torch.set_num_threads(1)
    capture = fd.load_capture(folder)
    frames = capture.select(split="train")
    for name, path, rig in zip(rigs, result["path"], (driven.driven(tent_rig(), TRACK), rigs["wide"]), strict=True):
        alone = fd.train(frames, CONFIG, tmp_path / name, progress=False, rig=rig)
        assert torch.equal(parameters(path), parameters(alone.path))
        run = fd.load_run(path)
        assert run.info["rig"] == alone.info["rig"] == rig.digest()
        held_out = fd.evaluate(alone.model, capture, progress=False).set_index("frame")["psnr_db"]
        measured = run.metrics.set_index("frame")["psnr_db"]
        assert np.allclose(measured[held_out.index], held_out, atol=1e-3) and len(measured) == 10
    assert not torch.equal(parameters(result["path"][0]), parameters(result["path"][1]))
    monkeypatch.setattr(farm, "_connected", lambda *_: pytest.fail("workers were started"))
    again = sweep(table, folder, tmp_path / "out", rigs=rigs, progress=False)
    assert (again["attempts"] == 0).all()


def test_a_changed_rig_or_track_is_another_run(folder, files, scheduler, tmp_path):
    out, table = tmp_path / "out", [{**SHORT, "motion": "rig", "name": "a"}]

    def finished(rigs) -> bool:
        return _finished(_recipes(table, _places(folder, out), _rigs(rigs, out)), out)[0]

    sweep(table, folder, out, rigs=files, scheduler=scheduler, progress=False)
    assert finished(files) and finished((tent_rig(), TRACK)) and not finished(files[0])
    assert not finished((other_rig(), TRACK))
    before = fd.load_run(out / "a").info
    TRACK.scaled({"fold": 0.5}).save(files[1])
    assert not finished(files)
    result = sweep(table, folder, out, rigs=files, scheduler=scheduler, progress=False)
    assert result["state"].tolist() == ["failed"] and "holds a run of another rig" in result["error"][0]
    assert fd.load_run(out / "a").info == before


def test_what_is_in_memory_is_written_once_by_its_content(tmp_path):
    once = [driven.as_files((tent_rig(), TRACK), tmp_path) for _ in range(2)]
    assert once[0] == once[1] and len(list(tmp_path.iterdir())) == 1
    others = [tent_rig(), other_rig(), (tent_rig(), TRACK.scaled({"fold": 0.5}))]
    told = [driven.as_files(one, tmp_path) for one in others]
    assert len({digest for _, digest in [once[0], *told]}) == 4 and len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("residual", [None, Basis(radius=1.5, trajectories=4, knots=6)])
def test_a_rig_comes_back_from_what_a_worker_is_told(files, tmp_path, residual):
    driving = driven.driven(tent_rig(), TRACK)
    with_more = Rigged(tent_rig(), (driving.track_times, driving.track_values), residual)
    for given in (files[0], files, [tent_rig(), files[1]], tent_rig(), with_more):
        told, digest = driven.as_files(given, tmp_path / "rigs")
        again = driven.from_files(told)
        assert again.digest() == digest
        before = driven.driven_from(given).state_dict()
        assert all(torch.equal(value, before[key]) for key, value in again.state_dict().items())


def test_the_first_and_last_value_of_a_track_are_the_captures_first_and_last_moment():
    rig = tent_rig()
    rig.neutral.copy_(torch.tensor([0.3, 5.0]))
    motion = driven.driven(rig, DriveTrack([2.0, 2.5, 4.0], ("fold",), [[0.1], [0.2], [0.4]]))
    expected = torch.tensor([[0.1, 5], [0.2, 5], [0.3, 5], [0.4, 5]])  # what the track does not name stays neutral
    torch.testing.assert_close(motion.drive_at(torch.tensor([0.0, 0.25, 0.625, 1.0])), expected)
    one = driven.driven(rig, DriveTrack([7.0], ("fold",), [[0.2]]))
    assert one.track_times.tolist() == [0] and one.track_values.tolist() == [[pytest.approx(0.2), 5]]


@pytest.mark.parametrize(
    ("row", "rigs", "message"),
    [
        ({"motion": "rig"}, None, "row 0: motion: is 'rig', and there is no rig.*rigs="),
        ({"motion": "rig", "rig": "a"}, None, "motion: is 'rig', and there is no rig"),
        ({"motion": "static", "rig": "a"}, None, "rig: names 'a' for the motion 'static'"),
        ({"row": "static", "rig": "a"}, {"a": tent_rig()}, "rig: names 'a' for the motion 'static'"),
        ({"motion": "rig", "rig": "c"}, {"a": tent_rig(), "b": tent_rig()}, "rig: 'c' is unknown.*'a', 'b'"),
        ({"motion": "rig"}, {"a": tent_rig(), "b": tent_rig()}, "rig: is not said.*'a', 'b'"),
        ({"motion": "rig", "rig": 3}, tent_rig(), "rig: 3 is no text"),
        ({"motion": "rig"}, {}, "rigs: there is none"),
        ({"motion": "rig"}, "gone.glb", "gone.glb: there is no such file"),
        ({"motion": "rig"}, (tent_rig(), "gone.csv"), "gone.csv: is not there"),
        ({"motion": "rig"}, 7, "rigs: is a int.*give a rig's file"),
        ({"motion": "rig"}, (Rigged(tent_rig()), TRACK), "rigs: is a Rigged, DriveTrack"),
        ({"motion": "rig"}, (tent_rig(), TRACK, 1), "rigs: is a tuple"),
        ({"motion": "rig"}, (tent_rig(), TRACK.renamed({"fold": "f", "headYaw": "y"})), "has none of the rig's"),
    ],
)
def test_rigs_that_cannot_be_meant_are_refused_before_anything_is_trained(row, rigs, message, folder, tmp_path):
    with pytest.raises(InputError, match=message):
        sweep([row], folder, tmp_path / "runs", rigs=rigs, progress=False)
    assert not list(tmp_path.glob("runs/*/run.json"))


def test_an_only_rig_needs_no_column_and_rows_without_one_need_no_rig(folder, tmp_path):
    table = [{"motion": "static"}, {"motion": "rig"}, {"motion": "rig", "rig": "a", "seed": 1}]
    recipes = _recipes(table, _places(folder, tmp_path), _rigs({"a": tent_rig()}, tmp_path))
    assert recipes[0].rig is None and recipes[1].rig == recipes[2].rig is not None
    assert "rig" not in recipes[0].task() and [recipe.name for recipe in recipes] == ["static-s0", "rig-s0", "a-rig-s1"]
    damaged = replace(recipes[1], rig=({"rigged": str(tmp_path / "none")}, "")).task()
    with pytest.raises(InputError, match="none: there is no such file.*run the sweep again"):
        driven.from_files(damaged["rig"])
