"""Pre-registration: what is written down first, what the runs keep of it, and what the verdict says of both."""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up import made_up_run, measured
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, TrainConfig, verdict
from fourdgs.hypothesis import Hypothesis, judge, load_hypothesis, outcome, precedence, register, registered
from fourdgs.runs import Run

JUMP = Hypothesis(
    "The grid reaches what the clip cannot.",
    30,
    source="still",
    outcomes={"below": "a ceiling", "above": "a real jump"},
)


@pytest.fixture
def file(tmp_path):
    return register(JUMP, tmp_path / "runs")


def run_under(file: Path, path: Path, table: pd.DataFrame, **changes) -> Run:
    """A made-up run that started a minute after the hypothesis was written."""
    kept = registered(file, path)
    started = pd.Timestamp(kept["written_at"]) + pd.Timedelta("1min")
    return Run(made_up_run(path, table, **({"hypothesis": kept, "started": started.isoformat()} | changes)))


def test_what_is_registered_is_read_back_with_its_date(file):
    assert file.name == "hypothesis.json" and not file.stat().st_size == 0
    back = load_hypothesis(file)
    assert replace(back, written_at="") == JUMP and back == load_hypothesis(file.parent)
    assert abs(pd.Timestamp.now("UTC") - pd.Timestamp(back.written_at)) < pd.Timedelta("1min")
    assert list(back.outcomes) == ["above", "below"]


def test_what_was_registered_is_not_changed(file, tmp_path):
    before = file.read_bytes()
    assert register(JUMP, tmp_path / "runs") == file and file.read_bytes() == before
    with pytest.raises(InputError, match="another hypothesis was registered here.*another file"):
        register(replace(JUMP, threshold_db=20), tmp_path / "runs")
    assert file.read_bytes() == before
    assert register(replace(JUMP, threshold_db=20), tmp_path / "other.json").name == "other.json"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"statement": " "}, "statement"), ({"threshold_db": math.nan}, "threshold_db"),
        ({"threshold_db": "30"}, "threshold_db"), ({"threshold_db": True}, "threshold_db"),
        ({"metric": "beauty"}, "metric"), ({"outcomes": {"above": "a"}}, "outcomes"),
        ({"outcomes": {"above": "a", "below": "b", "left": "c"}}, "outcomes"), ({"outcomes": "x"}, "outcomes"),
        ({"outcomes": {"above": 1, "below": "b"}}, "outcomes"), ({"source": 3}, "source"), ({"split": None}, "split"),
        ({"written_at": "yesterday"}, "written_at"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(change, field, tmp_path):
    values = JUMP.to_dict() | change
    with pytest.raises(InputError, match=f"^{field}: "):
        Hypothesis.from_dict(values)
    (tmp_path / "h.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"h\.json: {field}: "):
        load_hypothesis(tmp_path / "h.json")


def test_files_that_cannot_be_read_are_one_clear_message(tmp_path):
    with pytest.raises(InputError, match="no hypothesis here.*fd.register"):
        load_hypothesis(tmp_path)
    for content, words in (("{", "cannot be read"), ("[]", "no JSON object"), ("{}", "statement: is missing")):
        (tmp_path / "h.json").write_text(content)
        with pytest.raises(InputError, match=words):
            load_hypothesis(tmp_path / "h.json")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (30, 31, "above"),
        (29, 29.9, "below"),
        (29, 30, "undecided"),
        (29, 31, "undecided"),
        (math.nan,) * 2 + ("undecided",),
    ],
)
def test_the_outcome_follows_the_interval(low, high, expected):
    assert outcome(JUMP, low, high) == expected


@pytest.mark.parametrize(
    ("level", "noise", "expected", "meaning"),
    [(36, 0.1, "above", "a real jump"), (24, 0.1, "below", "a ceiling"), (30, 0.1, "undecided", "")],
)
def test_runs_are_judged_by_what_was_written(file, tmp_path, level, noise, expected, meaning):
    runs = [run_under(file, tmp_path / f"grid-s{seed}", measured(level, seed=seed, noise=noise)) for seed in (0, 1)]
    runs = [Run(made_up_run(run.path, None, **run.info | {"config": run.info["config"] | {"seed": seed}}))
            for seed, run in enumerate(runs)]  # fmt: skip
    (row,) = judge(load_hypothesis(file), runs).itertuples()
    assert (row.row, row.seeds, row.frames, row.cameras) == ("grid", 2, 24, 6)
    assert (row.verdict, row.meaning, row.before) == (expected, meaning, True)
    assert row.mean == pytest.approx(level, abs=0.2) and row.low < row.mean < row.high
    text = verdict.cite(file, runs)
    assert f"**{expected}**: {meaning or 'the interval spans the line'}" in text and "before the runs" in text
    assert f"{row.mean:.1f} dB [{row.low:.1f}, {row.high:.1f}], 24 frames of 6 cameras, 2 seeds" in text
    assert JUMP.statement in text and load_hypothesis(file).digest[:12] in text and "30 dB of PSNR" in text


def test_one_camera_decides_nothing(file, tmp_path):
    run = run_under(file, tmp_path / "one", measured(50, cameras=1))
    assert list(judge(load_hypothesis(file), [run])["verdict"]) == ["undecided"]
    assert "one camera decides nothing" in verdict.cite(file, [run])


def test_only_the_frames_that_were_named_count(tmp_path):
    table = pd.concat([measured(36), measured(10).assign(source="talking", frame=lambda t: "t" + t["frame"])])
    again = measured(1).assign(source="still@0.5", frame=lambda t: t["frame"] + "@0.5")
    run = Run(made_up_run(tmp_path / "a", pd.concat([table, again])))
    means = {
        name: judge(replace(JUMP, source=name), [run])["mean"][0] for name in ("still", "talking", None, "still@0.5")
    }
    assert list(means.values()) == pytest.approx([36, 10, 23, 1], abs=0.2)
    assert judge(replace(JUMP, metric="psnr_fg_db"), [run])["mean"][0] == pytest.approx(31, abs=0.2)
    with pytest.raises(InputError, match=r"no psnr_db of split 'test' source 'dancing'.*fd.evaluate"):
        judge(replace(JUMP, source="dancing"), [run])


# --- before the run --------------------------------------------------------------------------------------------------


def test_what_shows_that_it_was_there_before(file, tmp_path):
    hypothesis = load_hypothesis(file)
    good = run_under(file, tmp_path / "good", measured(30))
    assert precedence(hypothesis, good)[0] and "not in git" in precedence(hypothesis, good)[1]
    kept = good.info["hypothesis"]
    wrong = {
        "does not name it": {"hypothesis": None},
        "under another": {"hypothesis": kept | {"digest": "0" * 64}},
        "was changed": {"hypothesis": kept | {"threshold_db": 20.0}},
        "after the run's start": {"started": "2020-01-01T00:00:00+00:00"},
    }
    for words, change in wrong.items():
        run = run_under(file, tmp_path / "run-s0", measured(30), **change)
        before, evidence = precedence(hypothesis, run)
        assert not before and words in evidence
        text = verdict.cite(file, [good, run])
        assert "**Not pre-registered**" in text and words in text and "but not before every run" in text


def git(folder: Path, *words: str, date: str = "2020-01-01T00:00:00+00:00") -> None:
    who = {f"GIT_{role}_{part}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    environment = os.environ | who | {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, env=environment)


def test_a_commit_before_the_run_is_cited_and_a_changed_file_is_not(tmp_path):
    file = register(JUMP, tmp_path / "repo" / "grid.json")
    git(file.parent, "init")
    assert registered(file, tmp_path / "a")["commit"] is None
    git(file.parent, "add", "grid.json")
    assert registered(file, tmp_path / "a")["commit"] is None
    git(file.parent, "commit", "-m", "before the runs")
    commit = registered(file, tmp_path / "a")["commit"]
    assert commit["time"].startswith("2020-01-01") and len(commit["commit"]) == 40
    before, evidence = precedence(load_hypothesis(file), run_under(file, tmp_path / "a", measured(30)))
    assert before and f"commit {commit['commit'][:10]}" in evidence
    late = run_under(file, tmp_path / "b", measured(30), hypothesis=registered(file, tmp_path) | {
        "commit": commit | {"time": "2999-01-01T00:00:00+00:00"}})  # fmt: skip
    assert "not in git before it" in precedence(load_hypothesis(file), late)[1]
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"threshold_db": 20}))
    assert registered(file, tmp_path / "a")["commit"] is None
    (file.parent / ".gitignore").write_text("*.json")
    ignored = register(JUMP, file.parent / "ignored.json")
    assert registered(ignored, tmp_path / "a")["commit"] is None


def test_a_training_keeps_what_lies_beside_it_and_nothing_that_comes_later(tmp_path):
    capture = ball_capture(tmp_path / "capture", ball_cameras(4, 16))
    config = TrainConfig(iterations=2, gaussians=40, init="box")
    free = fd.train(capture, config, tmp_path / "runs" / "free", progress=False)
    file = register(JUMP, tmp_path / "runs")
    bound = fd.train(capture, config, tmp_path / "runs" / "bound", progress=False)
    assert free.info["hypothesis"] is None and bound.info["hypothesis"]["digest"] == load_hypothesis(file).digest
    assert precedence(load_hypothesis(file), bound)[0]
    assert not precedence(load_hypothesis(file), free)[0]
    # Going on with a run that began without it does not make it one that was trained under it.
    info = json.loads((free.path / "run.json").read_text())
    (free.path / "run.json").write_text(json.dumps(info | {"state": "running"}))
    again = fd.train(capture, config, free.path, progress=False)
    assert again.finished and again.info["hypothesis"] is None
    other = register(replace(JUMP, threshold_db=20), tmp_path / "other.json")
    for given in (other, load_hypothesis(other)):
        named = fd.train(capture, config, tmp_path / "runs" / "named", hypothesis=given, progress=False)
        assert named.info["hypothesis"]["threshold_db"] == 20
    with pytest.raises(InputError, match="written_at: is empty.*fd.register"):
        fd.train(capture, config, tmp_path / "runs" / "loose", hypothesis=JUMP, progress=False)
    with pytest.raises(InputError, match="no hypothesis here"):
        fd.train(capture, config, tmp_path / "runs" / "lost", hypothesis=tmp_path / "lost.json", progress=False)
    assert not (tmp_path / "runs" / "lost" / "run.json").exists()
