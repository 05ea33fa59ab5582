"""The committed notebooks: their form, and all of them run through the real executor on a small capture."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scenes import ball_cameras, ball_capture
from test_rigged import ball_rig

import fourdgs as fd
from fourdgs import InputError, verdict
from fourdgs import demo as demo_module
from fourdgs.data.transforms import write_transforms
from fourdgs.demo import demo, main
from fourdgs.drive import DriveTrack
from fourdgs.report import read_parameters, run_notebook
from fourdgs.runs import Run
from fourdgs.story import STORY, base_config

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("notebooks")
    train = ball_capture(root, ball_cameras(6, 32, times=[0, 0.2, 0.4, 0.6, 0.8, 1]))
    test = ball_capture(root, ball_cameras(4, 32, start_deg=30, times=[0, 0.3, 0.7, 1]), split="test")
    return write_transforms(fd.merge([train, test]), root / "capture")


def test_the_notebooks_are_there():
    names = {path.stem for path in NOTEBOOKS}
    assert names >= {"01_dataset", "02_train", "03_compare", "04_report", "05_ablation", "06_scaling", "07_avatar"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) <= 25 and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert code[0]["metadata"]["tags"] == ["parameters"] and read_parameters(path)
    for cell in code:
        source = "".join(cell["source"])
        assert source.count("\n") < 12
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    words = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert re.findall(r"\d+\.\d+ dB", words) == []  # figures in the prose are printed from the metrics, never typed


def test_the_defaults_name_the_rows_of_the_story():
    for path in NOTEBOOKS[2:4]:
        assert {p.name: p.default for p in read_parameters(path)}["rows"] == list(STORY)


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="iteration"):
        run_notebook(NOTEBOOKS[1], tmp_path / "out.ipynb", {"iteration": 5})
    assert not (tmp_path / "out.ipynb").exists()


def test_the_main_job_on_a_capture_of_ones_own(folder, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").symlink_to(NOTEBOOKS[0].parent)
    monkeypatch.chdir(tmp_path)
    page = demo(folder, ["static_all", "deform_all"], base=base_config(20, 60), slug="ball", title="A ball")
    out = tmp_path / "reports" / "ball"
    assert page == out / "index.html"
    metrics = pd.read_csv(out / "metrics.csv")
    assert set(metrics["row"]) == {"static_all", "deform_all"} and metrics["psnr_db"].notna().all()
    html, words = page.read_text(), (out / "index.md").read_text()
    # Each mean in the table is that of metrics.csv.
    mean = metrics[(metrics["row"] == "deform_all") & (metrics["kind"] == "orbit")]["psnr_db"].mean()
    assert f"{mean:.1f} [" in html and f"{mean:.1f} [" in words
    assert html.count("<figure") >= 10 and len(list((out / "figures").glob("*.svg"))) >= 10
    assert not list(tmp_path.glob("reports/.*"))
    # The test was written down before the runs; again, with the same words, it stands; with others it is refused.
    runs = [Run(path) for path in sorted((tmp_path / "runs" / "ball").glob("*-s0"))]
    assert len(runs) == 2 and all({"train", "evaluate", "report"} <= set(run.costs["phase"]) for run in runs)
    cited = words.split("### What was registered")[1].split("###")[0]
    assert "before the runs" in cited and "Registered: " in cited and "source `" not in cited
    built = []
    monkeypatch.setattr(demo_module, "build_report", lambda *_, **settings: built.append(settings["runs"]))
    demo(folder, ["static_all", "deform_all"], base=base_config(20, 60), slug="ball")
    assert [run.name for run in built[0]] == ["static_all-s0", "deform_all-s0"]
    expected = verdict.expectation
    monkeypatch.setattr(verdict, "expectation", lambda capture: expected(capture, 20.0))
    with pytest.raises(InputError, match=r"ball/hypothesis\.json: another hypothesis was registered here"):
        demo(folder, ["static_all", "deform_all"], base=base_config(20, 60), slug="ball")


def test_the_avatars_notebook_on_a_rig_and_a_track_of_ones_own(folder, tmp_path):
    pytest.importorskip("av")
    still = ball_capture(tmp_path, ball_cameras(6, 32), move=0)
    test = fd.load_capture(folder).select(split="test")
    capture = write_transforms(fd.merge([still, test]), tmp_path / "capture")
    ball_rig().save(tmp_path / "ball.safetensors")
    clip = DriveTrack([0, 5], ("jawOpen", "headYaw"), [[0, 0], [1, 20]]).save(tmp_path / "clip.csv")
    settings = {"capture": capture, "rig": tmp_path / "ball.safetensors", "clip": clip, "speech": clip}
    settings = {name: str(path) for name, path in settings.items()} | {"out": str(tmp_path / "runs")}
    settings |= {"iterations": 20, "gaussians": 60, "size": 32}
    places = {"figures": tmp_path / "figures", "tables": tmp_path / "tables", "progress": False}
    with open(run_notebook(NOTEBOOKS[-1], tmp_path / "out.ipynb", settings, **places)) as file:
        words = file.read()
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names >= {"stills", "talking", "faces", "expressions", "film"} and "against static 3DGS" in words
    assert "teeth, the inside" not in json.dumps([c["outputs"] for c in json.loads(words)["cells"] if "outputs" in c])
    runs = [Run(path) for path in sorted((tmp_path / "runs").glob("*-s0"))]
    assert [run.info["config"]["motion"] for run in runs] == ["rig", "static"]
    assert len(pd.read_csv(next((tmp_path / "tables").iterdir()))) == 2 * 3


def by_name(name: str) -> Path:
    return next(path for path in NOTEBOOKS if path.stem == name)


def shown(notebook: Path) -> str:
    """All that an executed notebook prints or writes as Markdown."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    texts = [output.get("data", {}).get("text/markdown", output.get("text", "")) for output in outputs]
    return "\n".join("".join(text) for text in texts)


def test_the_ablations_notebook_prints_the_gains_of_its_table(tmp_path, monkeypatch):
    rows = [
        (trial, trial, seed, source, part, 30 + gain + 0.1 * seed * k)
        for part, trials in (("stills", {"plain": 0, "hull": 1.5, "base": 4.25, "sh1": 3}), ("clip", {"static": 0}))
        for k, (trial, gain) in enumerate(trials.items()) for seed in range(2) for source in ("still", "talking")
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["trial", "label", "seed", "source", "part", "psnr_db"])
    others = ["psnr_fg_db", "psnr_interior_db", "psnr_edge_db", "psnr_train_db", "outside", "depth_outliers"]
    table[[*others, "ssim", "frames", "cameras", "views", "gaussians", "seconds", "specks"]] = 1.0
    table.to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.chdir(tmp_path)
    places = {"figures": tmp_path / "figures", "tables": tmp_path / "tables", "progress": False}
    out = run_notebook(by_name("05_ablation"), tmp_path / "out.ipynb", {"table": "table.csv"}, **places)
    words = shown(out)
    assert "most `base` +4.35 dB [+4.25, +4.45], least `hull` +1.55 dB [+1.50, +1.60]" in words
    assert "10 runs of 5 trials" in words
    # Groups of one trial, as the clip's here, have no gains to show.
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"gains-ladder", "gains-single"}
    assert len(pd.read_csv(next((tmp_path / "tables").iterdir()))) == len(table)


def test_the_scaling_notebook_answers_for_its_table(tmp_path):
    cells = [
        (c, t, -10 * np.log10(2e-3 * (c / 10) ** -1 + 1e-4 * (t / 10) ** -2)) for c in (6, 12, 24) for t in (4, 15, 60)
    ]
    table = pd.DataFrame(cells, columns=["grid_cameras", "grid_times", "psnr_db"]).assign(trial="deform")
    table[["psnr_fg_db", "psnr_train_db", "ssim", "specks", "seconds", "views", "gaussians", "frames", "cameras"]] = 1.0
    table.to_csv(tmp_path / "table.csv", index=False)
    places = {"figures": tmp_path / "figures", "tables": tmp_path / "tables", "progress": False}
    given = {"table": str(tmp_path / "table.csv"), "threshold": 28.0}
    words = shown(run_notebook(by_name("06_scaling"), tmp_path / "out.ipynb", given, **places))
    best = (table["psnr_db"] >= 28).sum()
    assert f"{best} of 9 measured cells reach 28 dB" in words and "With 6 cameras no number of times is enough" in words
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"law"}


def test_a_bad_call_is_one_line_and_a_status(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--capture", "nowhere", "--slug", "x"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "nowhere" in error and "Traceback" not in error
