"""Promotion and rollback: what is refused, what the history keeps, and that the pointer is always whole."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up_run, measured
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError
from fourdgs.evaluate import paired
from fourdgs.production import challengers, compare_metrics, production, production_history, promote, rollback
from fourdgs.runs import held_out, read_info


@pytest.fixture
def root(tmp_path):
    """Runs of one capture: the level is in the name; ``same`` is as good as ``r30``."""
    for name, level, seed in (("r20", 20, 0), ("r30", 30, 1), ("same", 30, 2), ("r32", 32, 3)):
        made_up_run(tmp_path / name, measured(level, seed=seed))
    return tmp_path


def names(history: pd.DataFrame) -> list[tuple[str, str]]:
    return list(history[["action", "run"]].itertuples(index=False, name=None))


def test_the_first_the_better_and_what_cannot_be_told_apart_are_promoted(root):
    first = promote(root / "r30", root=root, by="ann", reason="a start")
    assert (first.action, first.run, first.replaced) == ("promoted", "r30", None)
    assert (first.by, first.reason) == ("ann", "a start")
    mean = held_out(fd.Run(root / "r30").metrics)["psnr_db"].mean()
    assert first.verdict == {"word": "first", "text": f"the first: {mean:.2f} dB of held-out PSNR (24 frames)"}
    assert promote(root / "same", root=root).verdict["word"] == "undecided"
    better = promote(root / "r32", root=root)
    assert better.verdict["word"] == "better" and better.replaced == "same" and not better.forced
    assert better.verdict["low"] > 0 and (better.verdict["frames"], better.verdict["cameras"]) == (24, 6)
    assert production(root=root).path == root / "r32"


def test_a_regression_beyond_its_interval_is_refused_and_listed(root):
    promote(root / "r32", root=root)
    with pytest.raises(InputError, match=r"r30: production: worse: -[0-9.]+ dB \[-.*force=True with a reason"):
        promote(root / "r30", root=root)
    assert production(root=root).name == "r32"
    history = production_history(root=root)
    assert names(history) == [("promoted", "r32"), ("refused", "r30")]
    assert list(history["standing"]) == ["in production", "refused"] and history["high"][1] < 0
    assert dict(fd.runs(root)[["name", "standing"]].values) == {
        "r20": "", "r30": "refused", "same": "", "r32": "in production"
    }  # fmt: skip


def test_force_takes_a_reason_and_says_so(root):
    promote(root / "r32", root=root)
    with pytest.raises(InputError, match="reason: is empty"):
        promote(root / "r20", root=root, force=True, reason=" ")
    forced = promote(root / "r20", root=root, force=True, reason="half the Gaussians")
    assert forced.forced and forced.verdict["word"] == "worse" and production(root=root).name == "r20"
    assert promote(root / "r30", root=root, force=True, reason="why not").forced is False  # nothing stood against it


def test_one_camera_gives_no_interval_to_hide_behind(tmp_path):
    for name, level in (("a", 30), ("b", 29), ("c", 31)):
        made_up_run(tmp_path / name, measured(level, cameras=1))
    promote(tmp_path / "a", root=tmp_path)
    with pytest.raises(InputError, match="worse: -1.00 dB .one camera, no interval"):
        promote(tmp_path / "b", root=tmp_path)
    entry = promote(tmp_path / "c", root=tmp_path)
    assert entry.verdict["word"] == "undecided" and entry.verdict["low"] is None
    assert math.isnan(production_history(root=tmp_path)["low"].iloc[-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.iloc[:0], "was not measured.*fd.evaluate"),
        (lambda table: table[table["split"] == "train"], "was not measured.*fd.evaluate"),
        (lambda table: table.assign(frame="x" + table["frame"]), "no held-out frame is shared.*same capture"),
        (lambda table: table.drop(columns="truth"), "before frames were told apart.*evaluate it again"),
        (lambda table: table.assign(truth="f" * 16), "24 of 24 shared frames have another picture"),
        (lambda table: table.assign(psnr_db=np.inf), "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_remedy_unless_forced(root, change, words):
    made_up_run(root / "odd", change(measured(35)))
    promote(root / "r30", root=root)
    with pytest.raises(InputError, match=words):
        promote(root / "odd", root=root)
    assert production(root=root).name == "r30"
    entry = promote(root / "odd", root=root, force=True, reason="another capture")
    assert entry.forced and entry.verdict["word"] == "incomparable" and production(root=root).name == "odd"
    # And from there on the next one, compared with it, is in the same position.
    with pytest.raises(InputError):
        promote(root / "r32", root=root)


def test_the_first_has_to_be_measured(root):
    made_up_run(root / "blind")
    with pytest.raises(InputError, match="was not measured.*fd.evaluate"):
        promote(root / "blind", root=root)
    with pytest.raises(InputError, match="nothing has been promoted"):
        production(root=root)


def test_some_other_pictures_among_the_shared_frames_are_enough(root):
    table = measured(35)
    table.loc[3, "truth"] = "f" * 16
    made_up_run(root / "odd", table)
    promote(root / "r30", root=root)
    with pytest.raises(InputError, match="1 of 24 shared frames"):
        promote(root / "odd", root=root)


def test_only_held_out_frames_that_both_have_count(root):
    table = measured(31, seed=5)
    train = table["split"] == "train"
    table.loc[train, "psnr_db"] = 5.0
    more = table[~train].head(2).assign(frame=["a", "b"], psnr_db=0.0)
    made_up_run(root / "odd", pd.concat([table, more]))
    promote(root / "r30", root=root)
    assert promote(root / "odd", root=root).verdict["frames"] == 24


def test_runs_trained_on_other_frames_are_compared_and_it_is_said(root):
    capture = read_info(root / "r32")["capture"] | {"digest": "e" * 64}
    made_up_run(root / "r32", measured(32, seed=3), capture=capture)
    promote(root / "r30", root=root)
    assert "trained on other frames" in promote(root / "r32", root=root).verdict["text"]


def test_unfinished_and_changed_runs_are_refused_even_by_force(root):
    made_up_run(root / "open", measured(40), state="running")
    made_up_run(root / "gone", measured(40))
    (root / "gone" / "model.safetensors").unlink()
    made_up_run(root / "swapped", measured(40), model_sha256="0" * 64)
    for name, words in (
        ("open", "did not end"),
        ("gone", "did not end"),
        ("swapped", "not the model"),
        ("no", "no run"),
    ):
        with pytest.raises(InputError, match=words):
            promote(root / name, root=root, force=True, reason="please")
    assert not (root / "production.json").exists()


def test_promoting_what_is_there_changes_nothing(root):
    entry = promote(root / "r30", root=root, reason="first")
    before = (root / "production.json").read_bytes()
    assert promote(root / "r30", root=root, reason="again") == entry
    assert (root / "production.json").read_bytes() == before


def test_rolling_back_goes_back_step_by_step(root):
    for name in ("r20", "r30", "r32"):
        promote(root / name, root=root)
    back = rollback(root=root, reason="flickers", by="bob")
    assert (back.run, back.replaced, back.by, back.reason) == ("r30", "r32", "bob", "flickers")
    assert back.verdict["word"] == "worse" and production(root=root).name == "r30"
    rollback(root=root)
    assert production(root=root).name == "r20"
    with pytest.raises(InputError, match="no earlier run"):
        rollback(root=root)
    promote(root / "same", root=root)
    rollback(root=root)
    assert production(root=root).name == "r20"
    standing = production_history(root=root).drop_duplicates("run", keep="last").set_index("run")["standing"].to_dict()
    assert standing == {"r20": "in production", "r30": "rolled back", "r32": "rolled back", "same": "rolled back"}
    assert len(production_history(root=root)) == 7 and all((root / name / "run.json").exists() for name in standing)


def test_rolling_back_to_a_run_that_is_gone_is_refused(root):
    promote(root / "r30", root=root)
    promote(root / "r32", root=root)
    (root / "r30" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="did not end"):
        rollback(root=root)
    assert production(root=root).name == "r32"


def test_a_production_run_that_was_changed_is_an_error_and_can_be_replaced_by_force(root):
    promote(root / "r30", root=root)
    (root / "r30" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="not the model"):
        production(root=root)
    with pytest.raises(InputError, match="cannot be used"):
        promote(root / "r32", root=root)
    assert promote(root / "r32", root=root, force=True, reason="the other broke").forced


def test_pointers_do_not_mix(root):
    promote(root / "r30", root=root)
    promote(root / "r20", name="draft", root=root)
    assert (production(root=root).name, production("draft", root=root).name) == ("r30", "r20")
    listed = fd.runs(root).set_index("name")["standing"]
    assert listed["r30"] == "production: in production" and listed["r20"] == "draft: in production"
    for wrong in ("run", "hypothesis", "../x", "", "a/b", ".hidden"):
        with pytest.raises(InputError, match="cannot name a pointer"):
            promote(root / "r30", name=wrong, root=root)


def test_runs_elsewhere_and_a_root_that_moves(root, tmp_path_factory):
    outside = made_up_run(tmp_path_factory.mktemp("elsewhere") / "far", measured(33, seed=9))
    inside = made_up_run(root / "deep" / "down", measured(30, seed=8))
    assert promote(inside, root=root).run == "deep/down"
    assert promote(outside, root=root).run == str(outside)
    rollback(root=root)
    moved = root.rename(root.with_name(root.name + "-moved"))
    assert production(root=moved).path == moved / "deep" / "down"


def test_a_damaged_pointer_is_one_clear_message(root):
    promote(root / "r30", root=root)
    content = json.loads((root / "production.json").read_text())
    for damage in ("{", "[]", json.dumps(content | {"run": "r32"}), json.dumps({"run": None, "history": [{}]})):
        (root / "production.json").write_text(damage)
        with pytest.raises(InputError, match=r"production\.json: is no pointer.*restore"):
            production(root=root)
        assert len(fd.runs(root)) == 4  # the listing does without


def test_who_did_it_is_the_user_of_the_system_unless_said(root, monkeypatch):
    monkeypatch.setenv("LOGNAME", "carol")
    assert promote(root / "r30", root=root).by == "carol"
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    assert promote(root / "r32", root=root).by.startswith("user ")


def test_a_promoted_run_is_never_overwritten(root, tmp_path):
    capture = ball_capture(tmp_path / "capture", ball_cameras(4, 16))
    promote(root / "r30", root=root)
    promote(root / "r32", root=root)
    for name in ("r30", "r32"):  # what was in production can be returned to
        with pytest.raises(InputError, match="was promoted to production.*another folder"):
            config = replace(fd.Run(root / name).config, seed=5)
            fd.train(capture, config, root / name, overwrite=True, progress=False)
    assert rollback(root=root).run == "r30"


def test_promotions_at_once_are_all_in_the_history(root):
    made = [made_up_run(root / f"n{k}", measured(40 + k, seed=k)) for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(promote, path, root=root) for path in made]
    failed = [future.exception() for future in futures if future.exception()]
    history = production_history(root=root)
    assert len(history) == 6 and (history["action"] == "refused").sum() == len(failed)
    assert all(isinstance(error, InputError) for error in failed) and production(root=root).name == "n5"


def test_challengers_are_judged_as_promotion_would(root):
    promote(root / "r30", root=root)
    made_up_run(root / "open", measured(40), state="running")
    made_up_run(root / "odd", measured(40).assign(truth="f" * 16))
    table = challengers(root, root=root)
    assert [path.rpartition("/")[2] for path in table["run"]] == ["r32", "same", "r20", "odd"]
    assert list(table["verdict"]) == ["better", "undecided", "worse", "incomparable"]
    entry = promote(root / "r32", root=root)
    assert entry.verdict["mean"] == table["mean"][0] and entry.verdict["low"] == table["low"][0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(-2, 2), st.integers(1, 7), st.integers(2, 30))
def test_the_verdict_is_the_paired_difference(seed, gain, cameras, frames):
    old = held_out(measured(30, seed=seed, cameras=cameras, frames=frames))
    new = held_out(measured(30 + gain, seed=seed + 100, cameras=cameras, frames=frames)).sample(
        frac=1, random_state=seed
    )
    verdict, expected = compare_metrics(new, old), paired(old, new)
    assert verdict["mean"] == pytest.approx(expected["mean"], abs=1e-9)
    assert (verdict["frames"], verdict["cameras"]) == (expected["frames"], expected["cameras"])
    if math.isnan(expected["low"]):
        assert verdict["low"] is None and verdict["word"] == ("worse" if expected["mean"] < 0 else "undecided")
    else:
        assert (verdict["low"], verdict["high"]) == pytest.approx((expected["low"], expected["high"]), abs=1e-6)
        assert (verdict["word"] == "worse") == (verdict["high"] < 0)
        assert (verdict["word"] == "better") == (verdict["low"] > 0)
