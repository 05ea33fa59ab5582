from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_run

from fourdgs import InputError, verdict
from fourdgs.evaluate import summary
from fourdgs.runs import Run


def table(levels: dict[str, float], spread: float = 1.0, kinds=("still", "talking"), seeds: int = 1) -> pd.DataFrame:
    """Made-up metrics: each row of the story at a level, six cameras of two frames each."""
    random, rows = np.random.default_rng(0), []
    noise = random.normal(scale=spread, size=6)
    for name, level in levels.items():
        for seed in range(seeds):
            for kind in ("train", *kinds):
                for frame in range(12):
                    value = level + (5 if kind == "train" else 0) + noise[frame // 2]
                    frame_name, camera = f"{kind}/{frame}", f"{kind}{frame // 2}"
                    rows.append((name, seed, kind, frame_name, camera, value, value - 5.0))
    columns = ["row", "seed", "kind", "frame", "camera", "psnr_db", "psnr_fg_db"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(("level", "expected"), [(33.0, "above"), (27.0, "below"), (30.0, "undecided")])
def test_the_verdict_follows_the_interval(level, expected):
    means = verdict.means_table(table({"static": level}))
    assert list(verdict.verdict(means)["verdict"]) == [expected]


def test_one_camera_decides_nothing():
    single = table({"static": 40.0})
    means = verdict.means_table(single.assign(camera="only"))
    assert list(verdict.verdict(means)["verdict"]) == ["undecided"]


def test_means_are_those_of_the_frames_and_count_them():
    data = table({"static": 25.0, "v3": 13.0}, seeds=2)
    means = verdict.means_table(data)
    for line in means.itertuples():
        chosen = data[(data["row"] == line.row) & (data["kind"] == line.kind)]
        assert line.mean == pytest.approx(chosen["psnr_db"].mean())
        assert (line.frames, line.cameras, line.seeds) == (12, 6, 2) and line.low <= line.mean <= line.high


def test_frames_without_alpha_have_no_foreground_table():
    opaque = table({"static": 25.0}).assign(psnr_fg_db=float("nan"))
    assert "no foreground" in verdict.wide_table(opaque, "psnr_fg_db")["row"][0]


def test_only_the_story_is_introduced_as_the_story():
    assert "avatar" in verdict.introduction(["static", "v3"])
    assert "avatar" not in verdict.introduction(["static_all", "deform_all"])


def test_the_test_of_the_story_is_registered_and_of_what_there_is():
    frames = pd.DataFrame({"source": ["orbit", "talking"], "split": ["train", "test"]})
    found = verdict.expectation(SimpleNamespace(frames=frames))
    assert (found.source, found.split, found.threshold_db) == ("talking", "test", verdict.THRESHOLD_DB)
    assert "talking" in found.statement and found.outcomes["above"] == "a real jump"
    own = verdict.expectation(SimpleNamespace(frames=frames.assign(split=["test", "train"])))
    assert own.source is None and "talking" not in own.statement


def test_a_figure_of_the_time_has_no_bar_that_a_report_adds(tmp_path):
    spent = {"data": 3.0, "train": 50.0, "look": 1.0, "evaluate": 2.0, "render": 4.0, "report": 9.0}
    run = Run(made_up_run(tmp_path / "a", phases_s=spent))
    assert verdict.timeline([run])["seconds"].tolist() == [3.0, 50.0, 3.0]


def test_rows_come_in_the_order_of_the_story():
    means = verdict.means_table(table({"v3": 13.0, "static": 25.0, "v1": 20.0}))
    assert list(dict.fromkeys(means["row"])) == ["static", "v1", "v3"]
    assert list(means["kind"][:3]) == ["train", "still", "talking"]


def test_the_wide_table_shows_the_figures_of_the_means():
    data = table({"static": 25.0})
    wide, means = verdict.wide_table(data), verdict.means_table(data)
    still = means[means["kind"] == "still"].iloc[0]
    assert wide["still"][0] == f"{still['mean']:.1f} [{still['low']:.1f}, {still['high']:.1f}]"
    assert list(wide.columns) == ["row", "train", "still", "talking"]
    front = verdict.means_table(data, "psnr_fg_db").set_index("kind")["mean"]
    assert verdict.wide_table(data, "psnr_fg_db")["still"][0].startswith(f"{front['still']:.1f} [")


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"static": 30.0, "v3": 14.0, "v3_remedied": 29.0}, "dataset's fault"),
        ({"static": 30.0, "v3": 14.0, "v3_remedied": 20.0}, "do not explain"),
        ({"static": 30.0, "v3": 29.9, "v3_remedied": 30.0}, "nothing to explain"),
        ({"static": 30.0, "v3": 14.0}, "^$"),
    ],
)
def test_the_conclusion_follows_the_figures(levels, words):
    assert re.search(words, verdict.conclusion(table(levels)))


def test_sentences_carry_the_paired_difference():
    found = verdict.sentences(table({"static": 27.0, "v3": 14.0}))
    assert len(found) == 1 and "**-13.0 dB** [-13.0, -13.0] (12 frames, 6 cameras, paired)" in found[0]
    assert verdict.sentences(table({"static": 27.0})) == []


def test_other_captures_get_sentences_for_their_own_sources():
    found = verdict.sentences(table({"static_all": 20.0, "deform_all": 22.0}, kinds=("capture",)))
    assert len(found) == 1 and "held-out frames of capture by **+2.0 dB**" in found[0]


def test_the_headline_names_the_rows_above_and_the_best():
    decided = verdict.verdict(verdict.means_table(table({"static": 27.0, "grid": 35.0}, spread=0.5)))
    text = verdict.headline(decided)
    assert "`grid` at or above it" in text and "the best is `grid`" in text and "`static`" not in text
    none = verdict.verdict(verdict.means_table(table({"static": 27.0}, spread=0.5)))
    assert "no row at or above it" in verdict.headline(none)


def test_evidence_counts_frames_cameras_and_seeds():
    text = verdict.evidence(verdict.means_table(table({"static": 27.0}, seeds=3)))
    assert "12 frames of 6 cameras" in text and "3 seeds a row" in text


def test_a_row_that_is_not_there_has_no_difference():
    with pytest.raises(InputError, match="share no frame"):
        verdict.difference(table({"static": 1.0}), "static", "v3", "still")


def test_a_variant_of_a_kind_is_paired_with_the_frames_it_is_a_variant_of():
    data = table({"timeless": 30.0, "v2_cold": 22.0})
    again = data[(data["row"] == "v2_cold") & (data["kind"] == "still")]
    again = again.assign(kind="still@0.5", frame=again["frame"] + "@0.5", psnr_db=again["psnr_db"] + 6)
    both = pd.concat([data, again])
    assert verdict.difference(both, "timeless", "v2_cold", "still", "still@0.5")["mean"] == pytest.approx(-2)
    assert any("at time 0.5 instead" in text and "**-2.0 dB**" in text for text in verdict.sentences(both))
    assert not any("at time 0.5 instead" in text for text in verdict.sentences(data))


def test_summary_agrees_with_pandas():
    data = table({"static": 25.0, "v3": 13.0})
    ours = summary(data, by=("row", "kind")).set_index(["row", "kind"])["mean"]
    assert ours.to_dict() == pytest.approx(data.groupby(["row", "kind"])["psnr_db"].mean().to_dict())
