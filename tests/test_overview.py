from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import Model, Static, overview, plots
from fourdgs.compare import held_out_views
from fourdgs.doctor import Finding, Remedy, survey
from fourdgs.doctor.diagnose import Diagnosis
from fourdgs.workspace import place, root


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ball")
    front = ball_cameras(1, 20)
    clip = fd.Cameras.concatenate([front.with_times(time) for time in np.linspace(0, 1, 15)])
    still = ball_capture(folder, ball_cameras(5, 20))
    return fd.merge([still, ball_capture(folder, clip, source="clip", camera="front")])


@pytest.fixture(scope="module")
def seen(capture):
    return survey(capture, progress=False)


def finding(code="sources_differ_color", severity="warning", plot="sources", action="", frames=(), **more) -> Finding:
    remedy = Remedy("Do something.", action, more.pop("arguments", {}))
    return Finding(code, severity, f"A sentence | about\n{code}.", pd.DataFrame(), plot, remedy, tuple(frames), **more)


class Predicted:
    """Stands in for a prediction: every finding that is cured gives 5 dB."""

    uncertainty_db = 1.5

    def __init__(self, psnr_db=20.0):
        self.psnr_db = psnr_db

    def cured(self, codes):
        return Predicted(self.psnr_db + 5 * len(codes))

    def sentence(self):
        return f"Expected: {self.psnr_db:.0f} dB."


def test_the_overview_counts_what_is_there(seen):
    table = overview.overview(seen).set_index("source")
    assert table.loc["orbit", ["frames", "cameras", "still", "times"]].tolist() == [5, 5, 5, 0]
    assert table.loc["clip", ["frames", "cameras", "still", "times"]].tolist() == [15, 1, 0, 15]
    assert table["steps"].tolist() == pytest.approx([75, 25]) and set(table["around"]) == {"transparent"}


def test_weights_change_the_steps_and_held_out_frames_have_none(capture):
    balanced = capture.frames.assign(weight=np.where(capture.frames["source"] == "orbit", 3.0, 1.0))
    table = overview.overview(survey(capture.with_frames(balanced), progress=False)).set_index("source")
    assert table.loc["orbit", "steps"] == pytest.approx(50)
    held_out = capture.with_split(["test" if name == "clip" else "train" for name in capture.frames["source"]])
    table = overview.overview(survey(held_out, progress=False)).set_index("source")
    assert np.isnan(table.loc["clip", "steps"]) and table.loc["orbit", "steps"] == pytest.approx(100)


def test_the_sheet_shows_every_source(capture):
    images, titles = overview.sheet(capture, per_source=3)
    assert len(images) == 6 and all(image.shape == (20, 20, 3) for image in images)
    assert sum(title.startswith("clip, t") for title in titles) == 3 and titles.count("orbit, still") == 3


def test_up_is_an_axis_whichever_way_the_cameras_are_turned(capture):
    assert overview.upright(capture.cameras) == (0, 1, 0)
    upside_down = torch.diag(torch.tensor([-1.0, -1, 1, 1])) @ capture.cameras.viewmats
    assert overview.upright(replace(capture.cameras, viewmats=upside_down)) == (0, -1, 0)


def test_around_the_subject_is_joined_to_the_border_and_free_of_the_subject(seen):
    looks = overview.looks(seen)
    assert list(looks) == ["clip", "orbit"]
    for look in looks.values():
        around, alpha = look["around"], look["picture"][..., 3]
        assert around[0].all() and around[:, -1].all() and not (alpha[around] > 0).any()
        # The ball's colours lie within 0.5 +- 0.45; the transparent pixels around it are black.
        assert len(look["pixels"]) > 100 and look["pixels"].max(1).min() > 10
        assert look["words"] == "transparent"
    plots.sources(looks)


def test_opaque_sources_show_their_backdrop_and_its_color(capture):
    clip = capture.select(source="clip")
    painted = {}
    for row in range(len(clip)):
        rgb, alpha = clip.picture(row)
        rgb = np.where(alpha[..., None] > 0, rgb, np.array([51, 102, 153], np.uint8))
        painted[row] = (rgb, None)
    mixed = fd.merge([capture.select(source="orbit"), clip.with_pictures(painted)])
    looks = overview.looks(survey(mixed, progress=False))
    assert "0.20, 0.40, 0.60" in looks["clip"]["words"] and looks["orbit"]["words"] == "transparent"
    around = looks["clip"]["around"]
    assert around.any() and (looks["clip"]["picture"][around] == [51, 102, 153, 255]).all()
    bare = overview.looks(survey(clip.with_pictures(painted), progress=False))["clip"]
    assert "no mask" in bare["words"] and not bare["around"][8:12, 8:12].any() and bare["around"][0].all()


def test_the_table_says_severity_cost_and_who_does_it_in_words():
    rows = [
        finding("poses_off", "error", predicted_loss_db=4.25, uncertainty_db=0.5),
        finding("camera_dominates", "warning", action="balance"),
        finding("near_duplicates", "info"),
    ]
    lines = overview.findings_table(rows).split("\n")
    assert len(lines) == 4 and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
    words = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines[2:]]
    assert "**error**" in words[0] and "4.2 \N{PLUS-MINUS SIGN} 0.5 dB" in words[0] and "by hand" in words[0]
    assert "**warning**" in words[1] and "cost not known" in words[1] and "`apply_remedies` does it" in words[1]
    assert "Near duplicates" in overview.notes(rows) and overview.notes(rows).count("\n") == 0
    assert "|" not in overview.findings_table(rows[2:]) and overview.notes(rows[:2]) == ""


def test_the_verdict_says_what_to_expect_before_and_after(seen):
    ill = Diagnosis([finding(action="balance")], seen, Predicted())
    words = overview.verdict(ill).replace("\N{NO-BREAK SPACE}", " ")
    assert words.startswith("**This capture will train, with losses.** ")
    assert "**20.0 \N{PLUS-MINUS SIGN} 1.5 dB** as it is, **25.0 \N{PLUS-MINUS SIGN} 1.5 dB** after the rem" in words
    by_hand = Diagnosis([finding()], seen, Predicted())
    assert [row[0] for row in overview.expected(by_hand)] == ["as it is"]
    again = Diagnosis([], seen, Predicted(24.0))
    assert overview.expected(ill, again) == [("as it was", 20.0, 1.5), ("as it is now", 24.0, 1.5)]


def test_findings_about_the_same_cameras_share_their_pictures(capture):
    clip = list(capture.select(source="clip").frames["frame"])
    found = [
        finding("poses_off", plot="coverage", frames=clip[:3]),
        finding("mask_missing", plot="pictures", frames=clip[:2]),
        finding("motion_blur", plot="pictures", frames=[*clip[4:9], "gone"]),
        finding("near_duplicates", "info", plot="pictures", frames=clip[:2]),
        finding("mixed_resolution", plot="pictures", frames=capture.select(source="orbit").frames["frame"]),
    ]
    cases = overview.cases(capture, found, pictures=4)
    assert [[one.code for one in group] for group, _, _ in cases] == [
        ["mask_missing", "motion_blur"],
        ["mixed_resolution"],
    ]
    assert [len(images) for _, images, _ in cases] == [2, 4] and cases[0][1][0].shape == (20, 20, 4)
    assert cases[0][2][0].replace("\N{NO-BREAK SPACE}", " ") == "clip, front, t = 0.00"
    assert "Motion blur" in overview.caption(cases[0][0])
    assert overview.named(capture, found, "coverage").sum() == 3


def test_only_pictures_that_a_remedy_changed_are_shown_before_and_after(capture):
    names = list(capture.select(source="clip").frames["frame"])[:4]
    cured, done = overview.remedied(
        capture, [finding("mask_inverted", action="invert_masks", arguments={"frames": names})]
    )
    before, after, titles = overview.changed(capture, cured, most=3)
    assert done == "- Do something." and len(titles) == len(after) == 3
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old[..., 3], 255 - new[..., 3]) and np.array_equal(old[..., :3], new[..., :3])
    assert overview.changed(capture, capture) == ([], [], [])


def test_a_remedy_that_fails_is_told_and_the_others_are_applied(capture):
    broken = finding("sources_differ_background", action="matte", arguments={"source": "nobody"})
    cured, done = overview.remedied(capture, [broken, finding("camera_dominates", action="balance")])
    assert "weight" in cured.frames and done.startswith("- *Not done* (sources differ background)")
    assert len(done.split("\n")) == 2
    assert overview.remedied(capture, [finding()])[1] == ""


def test_views_are_rendered_at_the_time_at_which_they_were_measured(tmp_path):
    from scenes import random_gaussians
    from test_motion import shaken

    test = ball_capture(tmp_path, ball_cameras(4, 24), source="still", split="test")
    model = Model(random_gaussians(40), shaken())
    timed = fd.evaluate(model, test.with_times(0.7), progress=False)

    class Measured:
        metrics = timed

    Measured.model = model
    views = held_out_views({"a": Measured}, test)
    rows = [list(timed["frame"]).index(name) for name in test.frames["frame"].iloc[[0, 1]]]
    expected = fd.render(model, test.with_times(0.7).cameras[rows]).rgb.clamp(0, 1).numpy()
    assert np.allclose(views.pictures[0][1], expected)
    assert views.notes["a"] == [f"{timed['psnr_db'][row]:.1f} dB" for row in rows]
    assert not np.allclose(views.pictures[0][1], fd.render(Model(model.gaussians, Static()), test.cameras[rows]).rgb)


def test_a_place_is_the_same_from_the_root_and_from_the_notebooks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        assert root() == tmp_path and place("data/alpha") == tmp_path / "data" / "alpha"
    assert place(tmp_path / "x") == tmp_path / "x"
