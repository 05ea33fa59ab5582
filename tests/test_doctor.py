"""The doctor as a whole: what `diagnose` says, what `apply_remedies` does, what the predictor may never do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import small_alpha

import fourdgs as fd
from fourdgs.data import alpha
from fourdgs.data.load import load_capture
from fourdgs.data.writing import write_transforms
from fourdgs.doctor import Finding, Remedy, apply_remedies, plan, remedies
from fourdgs.doctor.diagnose import CODES
from fourdgs.doctor.facts import Asked, Facts
from fourdgs.doctor.predict import COEFFICIENTS, COMPONENTS, _fitted, parts, psnr_of
from fourdgs.doctor.survey import survey

PACKAGE = Path(fd.__file__).parent / "doctor"


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """The story's v3 in small: ten stills, and a clip on a backdrop with another white balance."""
    whole = small_alpha(tmp_path_factory).select(split="train", source=["orbit", "clip"])
    # The clip of nine frames must outnumber the stills, as the story's does.
    table, more = whole.frames, []
    clip = np.flatnonzero(table["source"] == "clip")
    for turn in range(6):
        part = whole.select(rows=clip)
        more.append(part.with_frames(part.frames.assign(frame=part.frames["frame"] + f"+{turn}")))
    return fd.merge([whole, *more])


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "doctor_grid"
    alpha.make_alpha(folder, 96, grid=(12, 3), progress=False)
    return load_capture(folder).select(source=["grid", "still", "talking"])


@pytest.fixture(scope="module")
def diagnosis(mixture):
    return fd.diagnose(mixture, progress=False)


def codes(findings, severity=("warning", "error")):
    return {finding.code for finding in findings if finding.severity in severity}


# --- diagnose ---


def test_the_story_s_mixture_is_seen_through(diagnosis):
    assert {"sources_differ_background", "sources_differ_color", "camera_dominates"} <= codes(diagnosis)
    about = next(finding for finding in diagnosis if finding.code == "sources_differ_background")
    assert about.severity == "error" and about.remedy.arguments["source"] == "clip"
    assert about.predicted_loss_db > 3


def test_a_clean_grid_is_left_in_peace(grid):
    found = fd.diagnose(grid, progress=False)
    assert codes(found) <= {"time_gap"}  # three moments are few, and that would be true
    assert not codes(found, ("error",))
    assert "fitted" not in found.prediction.sentence()


def test_findings_come_worst_first_with_all_their_parts(diagnosis):
    ranks = [("error", "warning", "info").index(finding.severity) for finding in diagnosis]
    assert ranks == sorted(ranks)
    for finding in diagnosis:
        assert finding.code in CODES
        assert re.search(r"\d", finding.message) and finding.message.endswith(".")
        assert len(finding.evidence) and finding.remedy.text
        if finding.severity != "info" and finding.code in COMPONENTS:
            assert finding.predicted_loss_db >= 0 and finding.uncertainty_db >= 0
    table = diagnosis.table()
    assert list(table["finding"]) == [finding.code for finding in diagnosis]
    assert len(diagnosis.table("error")) < len(table)


def test_the_verdict_says_what_to_expect_and_what_can_be_done(diagnosis):
    text = diagnosis.verdict()
    assert "will not train well" in text and "`apply_remedies`" in text
    assert f"about {diagnosis.prediction.psnr_db:.0f} dB" in text


def test_every_code_in_the_checks_is_listed_and_the_other_way_round():
    used = set()
    for file in PACKAGE.glob("*.py"):
        used |= set(re.findall(r"Finding\(\s*\"(\w+)\"", file.read_text(encoding="utf-8")))
    assert used == set(CODES)
    assert set(COMPONENTS) <= set(CODES)


def test_no_training_frames_is_an_error(grid):
    with pytest.raises(fd.InputError, match="split"):
        fd.diagnose(grid.select(split="test"), progress=False)


# --- remedies ---


def test_the_remedies_cure_what_they_are_for_and_leave_the_files_alone(mixture, diagnosis):
    files = {path: Path(path).read_bytes() for path in mixture.frames["image"].unique()[:3]}
    before = mixture.digest()
    cured = fd.apply_remedies(mixture, diagnosis)
    assert mixture.digest() == before and cured.digest() != before
    assert all(Path(path).read_bytes() == content for path, content in files.items())
    again = fd.diagnose(cured, progress=False)
    gone = {"sources_differ_background", "sources_differ_color", "camera_dominates", "source_dominates"}
    assert not gone & codes(again)
    assert again.prediction.psnr_db > diagnosis.prediction.psnr_db + 5
    assert not plan(again)


def test_a_cured_capture_written_out_is_that_capture_again(mixture, diagnosis, tmp_path):
    cured = fd.apply_remedies(mixture, diagnosis)
    write_transforms(cured, tmp_path / "cured")
    back = load_capture(tmp_path / "cured")
    np.testing.assert_allclose(back.frames["weight"], cured.frames["weight"])
    assert codes(fd.diagnose(back, progress=False)) == codes(fd.diagnose(cured, progress=False))


def finding(action: str, severity: str = "error", code: str = "mask_wrong", **arguments) -> Finding:
    import pandas as pd

    return Finding(code, severity, "1.", pd.DataFrame(), remedy=Remedy("Do.", action, arguments))


def test_remedies_are_planned_in_order_and_once():
    asked = [finding("balance"), finding("drop_times", sources=["a"]), finding("balance"), finding("", code="time_gap")]
    asked.append(finding("flip_axes", how="opengl_to_opencv"))
    assert [f.remedy.action for f in plan(asked)] == ["flip_axes", "drop_times", "balance"]
    assert plan([finding("balance", "info")]) == []
    assert len(plan([finding("balance", "info", code="x")], codes=["x"])) == 1
    with pytest.raises(fd.InputError, match="unknown"):
        plan([finding("magic")])
    with pytest.raises(fd.InputError, match="severity"):
        plan([], severity="awful")


def test_balance_gives_sources_and_cameras_equal_shares(mixture):
    table = remedies.balance(mixture).frames
    shares = table.groupby("source")["weight"].sum()
    np.testing.assert_allclose(shares / shares.iloc[0], 1)
    assert table["weight"].min() == pytest.approx(1)
    alone = remedies.balance(mixture.select(source="orbit")).frames["weight"]
    np.testing.assert_allclose(alone, 1)


def test_inverting_twice_changes_nothing_and_needs_a_mask(mixture):
    stills = mixture.select(source="orbit")
    names = list(stills.frames["frame"][:2])
    once = remedies.invert_masks(stills, names)
    np.testing.assert_allclose(once.alpha(0) + stills.alpha(0), 1)
    np.testing.assert_array_equal(remedies.invert_masks(once, names).alpha(0), stills.alpha(0))
    np.testing.assert_array_equal(once.alpha(3), stills.alpha(3))
    clip = mixture.select(source="clip")
    with pytest.raises(fd.InputError, match="no mask"):
        apply_remedies(clip, [finding("invert_masks", frames=list(clip.frames["frame"][:1]))])


def test_times_are_dropped_in_training_only(grid):
    bare = remedies.drop_times(grid, sources=["grid"])
    assert bare.frames["time"][bare.frames["split"] == "train"].isna().all()
    assert bare.frames["time"][bare.frames["source"] == "talking"].notna().all()


def test_dropped_frames_are_gone_and_a_second_time_only_warns(grid):
    names = list(grid.frames["frame"][:3])
    less = remedies.drop_frames(grid, names)
    assert len(less) == len(grid) - 3 and not set(names) & set(less.frames["frame"])
    with pytest.warns(UserWarning, match="any more"):
        assert len(remedies.drop_frames(less, names)) == len(less)


# --- the predictor ---


def some_facts(**changes) -> Facts:
    count = 20
    plain = Facts(
        weight=np.ones(count), timed=np.arange(count) >= 10, view=np.arange(count) % 10, source=np.arange(count) // 10,
        background=np.zeros(count), color=np.zeros(count), mask=np.zeros(count), cutouts=True, pose_px=0.1,
        confounded=0.0, still=Asked(12, 20.0), moving=Asked(30, 20.0, 7e-4, 0.05, 1.0),
    )  # fmt: skip
    return replace(plain, **changes)


VALUES = _fitted()["values"]
HALF = np.where(np.arange(20) >= 10, 1.0, 0.0)


@pytest.mark.parametrize(
    "worse",
    [
        {"pose_px": 0.4},
        {"background": 0.2 * HALF},
        {"color": 2e-3 * HALF},
        {"mask": 0.05 * HALF},
        {"still": Asked(12, 40.0), "moving": Asked(30, 40.0, 7e-4, 0.05, 1.0)},
        {"moving": Asked(30, 20.0, 2e-3, 0.05, 1.0)},
        {"weight": np.where(np.arange(20) == 0, 60.0, 1.0)},
        {"confounded": 1.0},
    ],
    ids=lambda worse: next(iter(worse)),
)
def test_a_fault_never_helps_and_graver_is_worse(worse):
    assert psnr_of(some_facts(**worse), VALUES)["both"] < psnr_of(some_facts(), VALUES)["both"]


def test_errors_add_up_so_a_fault_costs_less_beside_a_graver_one():
    def cost(**beside):
        return (
            psnr_of(some_facts(**beside), VALUES)["both"] - psnr_of(some_facts(pose_px=0.5, **beside), VALUES)["both"]
        )

    assert 0 < cost(background=0.3 * HALF) < cost()


def test_more_of_a_wrong_source_is_worse_and_balance_mends_it():
    shares = [np.where(np.arange(20) >= 10, weight, 1.0) for weight in (0.5, 1.0, 5.0)]
    levels = [psnr_of(some_facts(background=0.3 * HALF, weight=w), VALUES)["still"] for w in shares]
    assert levels[0] > levels[1] > levels[2]
    uneven = some_facts(weight=shares[2])
    np.testing.assert_allclose(np.bincount(uneven.balanced().source, uneven.balanced().weight), 1)


def test_kinds_that_nobody_asks_for_have_no_part():
    facts = some_facts(moving=Asked(0, 0.0))
    assert set(parts(facts, VALUES)) == {"still"}
    assert psnr_of(facts, VALUES)["both"] == psnr_of(facts, VALUES)["still"]


def test_the_coefficients_in_the_package_are_those_of_the_model():
    fitted = _fitted()
    assert set(fitted["values"]) == set(COEFFICIENTS)
    assert all(set(sample) == set(COEFFICIENTS) for sample in fitted["samples"])
    assert fitted["error_db"] > 0 and fitted["captures"] >= 24


def test_a_scene_unlike_the_benchmark_s_is_called_an_extrapolation(grid):
    opaque = {row: (grid.picture(row)[0], None) for row in range(len(grid))}
    found = fd.doctor.predict(survey(grid.with_pictures(opaque), progress=False))
    assert found.strange and "extrapolation" in found.sentence()


# --- the survey ---


def test_a_survey_kept_is_the_survey_and_a_changed_file_is_seen(tmp_path, monkeypatch, mixture):
    monkeypatch.setenv("FOURDGS_CACHE", str(tmp_path / "cache"))
    write_transforms(mixture.select(source="orbit"), tmp_path / "stills")
    stills = load_capture(tmp_path / "stills")
    first, second = survey(stills, progress=False), survey(stills, progress=False)
    assert list((tmp_path / "cache").glob("survey-*.npz"))
    for one, two in zip(first.rgb + first.alpha, second.rgb + second.alpha, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first.detail, second.detail)
    from PIL import Image

    path = Path(stills.frames["image"][0])
    Image.fromarray(np.full((96, 96, 4), 77, np.uint8)).save(path)
    assert (survey(stills, progress=False).rgb[0] == 77).all()
    (store,) = (tmp_path / "cache").glob("survey-*.npz")
    store.write_bytes(store.read_bytes()[:1000])
    assert (survey(stills, progress=False).rgb[0] == 77).all()


def test_pictures_in_memory_are_looked_at_anew(mixture):
    black = mixture.with_pictures({0: (np.zeros((96, 96, 3), np.uint8), None)})
    assert (survey(mixture, progress=False).rgb[0] > 0).any()
    assert (survey(black, progress=False).rgb[0] == 0).all()


def test_a_subset_is_the_survey_of_the_selection(mixture):
    rows = np.array([3, 1, 12])
    whole = survey(mixture, progress=False)
    part, direct = whole.subset(rows), survey(mixture.select(rows=rows), progress=False)
    assert list(part.frames["frame"]) == list(direct.frames["frame"])
    for one, two in zip(part.rgb, direct.rgb, strict=True):
        np.testing.assert_array_equal(one, two)


def test_detail_falls_with_blur_and_not_with_contrast(mixture):
    from scipy import ndimage

    still = mixture.select(source="orbit")
    rgb, cover = still.picture(0)
    soft = ndimage.uniform_filter1d(rgb, 5, axis=1)
    faint = (rgb // 2 + 60).astype(np.uint8)
    changed = still.with_pictures({1: (soft, cover), 2: (faint, cover), 0: (rgb, cover)})
    detail = survey(changed.with_frames(cameras=still.cameras), progress=False).detail
    assert detail[1, 0] < 0.8 * detail[0, 0] and detail[1, 0] < detail[1, 1]
    assert detail[2, 0] == pytest.approx(detail[0, 0], rel=0.05)
    assert np.isfinite(detail).all()
