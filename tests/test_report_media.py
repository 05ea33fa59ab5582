"""Wipes, videos, scenes, languages and blogs: what a report holds besides figures, and that it is the same twice."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_run
from PIL import Image

from fourdgs import files, paths, report
from fourdgs.data.video import write_video
from fourdgs.errors import InputError, MissingDependency
from fourdgs.gaussians import Gaussians
from fourdgs.model import Model, render
from fourdgs.motion import Static
from fourdgs.plots import figures_into
from fourdgs.report import blocks, markdown, pages, scene, words
from fourdgs.runs import Run

v4 = nbformat.v4
ROOT = Path(report.__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FACTS = {
    "title": "T", "date": "2026-01-02", "summary": "", "made": "made", "metrics": False, "lang": "en",
    "tags": ["4DGS"], "flavor": "plain",
}  # fmt: skip
LEFT, RIGHT = np.zeros((8, 6, 3)), np.full((8, 6, 3), 255, np.uint8)
MIXED = [
    blocks.Prose("## The verdict\n\nWords {{ braces }}.\n\n```python\n## The verdict\n```"),
    blocks.Code("f'{{x}}'"),
    blocks.Settings([("a", 1, "help", True)]),
    blocks.Media("wipe", "w", "A [view] \"q\" | x", "Cap.", ["w-left.png", "w-right.png"], (480, 640), ["a", "b"]),
    blocks.Media("video", "v", "Moves", "Runs.", ["v.mp4", "v-poster.jpg"], (480, 270)),
    blocks.Media("scene", "s", "Turns", "3D.", ["s.html", "s-poster.jpg"], (480, 480)),
]  # fmt: skip


def ball(count: int = 40, drift: float = 0.0) -> Model:
    """Some Gaussians; those of the second half move by ``drift`` over time."""
    generator = torch.Generator().manual_seed(0)
    half = torch.arange(count) >= count // 2

    class Drift(Static):
        def at(self, gaussians, times):
            shift = times[:, None, None] * drift * half[None, :, None] * torch.ones(3)
            return gaussians.replace(means=gaussians.means + shift)

    gaussians = Gaussians(
        means=torch.randn(count, 3, generator=generator) * 0.4,
        quats=torch.randn(count, 4, generator=generator),
        scales=torch.rand(count, 3, generator=generator) - 3,
        opacities=torch.randn(count, generator=generator) + 1,
        sh0=torch.randn(count, 1, 3, generator=generator),
        shN=torch.zeros(count, 0, 3),
    )
    return Model(gaussians, Drift() if drift else Static())


def figures_of(folder: Path, *media: blocks.Media) -> Path:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name in [name for block in media for name in block.files]:
        path = folder / ("" if name.endswith(".html") else "figures") / name
        if path.suffix in (".png", ".jpg"):
            Image.new("RGB", (6, 8), (len(name), 0, 0)).save(path)
        else:
            path.write_bytes(b"x" * 100)
    return folder


# --- what a notebook shows -------------------------------------------------------------------------------------------


def test_a_wipe_keeps_both_pictures_to_the_bit(tmp_path):
    with figures_into(tmp_path):
        report.show_wipe(LEFT, torch.from_numpy(RIGHT), "w", alt="x")
        report.show_wipe(LEFT - 0.5, LEFT + 1.5, "clipped", alt="x")
    for name, left in (("w", 0), ("clipped", 0)):
        assert (np.asarray(Image.open(tmp_path / f"{name}-left.png")) == left).all()
        assert (np.asarray(Image.open(tmp_path / f"{name}-right.png")) == 255).all()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("left", "right", "labels", "field"),
    [
        (LEFT, RIGHT[:4], ("a", "b"), "right"), (LEFT, RIGHT, ("a",), "right"),
        (LEFT[..., 0], RIGHT, ("a", "b"), "left"), (LEFT, np.zeros((0, 6, 3)), ("a", "b"), "right"),
    ],
)  # fmt: skip
def test_pictures_that_are_no_pair_are_refused(tmp_path, left, right, labels, field):
    with figures_into(tmp_path), pytest.raises(InputError, match=field):
        report.show_wipe(left, right, "w", alt="x", labels=labels)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "a.gif").touch()
    for name in ("a.mp4", "a.gif", "missing.mp4"):
        with figures_into(tmp_path / "out"), pytest.raises(InputError, match=re.escape(name)):
            report.show_video(tmp_path / name, "v", alt="x")
    for name, alt in (("No Name", "x"), ("v", " ")):
        with pytest.raises(InputError):
            report.show_video(tmp_path / "a.mp4", name, alt=alt)
    assert not (tmp_path / "out").exists()


def test_a_video_and_its_first_picture_are_kept(tmp_path):
    pictures = [np.full((16, 32, 3), level, np.uint8) for level in (40, 200)]
    film = write_video(pictures, tmp_path / "film.mp4", 10, progress=False)
    with figures_into(tmp_path / "out"):
        report.show_video(film, "v", alt="x")
    assert (tmp_path / "out/v.mp4").read_bytes() == film.read_bytes()
    poster = np.asarray(Image.open(tmp_path / "out/v-poster.jpg"))
    assert poster.shape == (16, 32, 3) and abs(int(poster.mean()) - 40) < 4


# --- scenes ----------------------------------------------------------------------------------------------------------


def unpacked(buffer: np.ndarray) -> dict[str, np.ndarray]:
    """A buffer's centres, covariances (full), colours and opacities, by an independent reading of its 32 bytes."""
    kind = np.dtype([("at", "<f4", 3), ("_", "u4"), ("cov", "<f2", 6), ("rgba", "u1", 4)])
    rows = buffer.view(np.uint8).reshape(-1, 32).view(kind)[:, 0]
    xx, xy, xz, yy, yz, zz = rows["cov"].astype(np.float64).T
    cov = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).reshape(-1, 3, 3)
    return {"at": rows["at"], "cov": cov, "rgb": rows["rgba"][:, :3] / 255, "opacity": rows["rgba"][:, 3] / 255}


def test_a_scene_holds_the_gaussians_of_every_time():
    model = ball(drift=0.5)
    buffers = scene.packed(model, 5)
    assert len(buffers) == 5
    moved = model.at(torch.linspace(0, 1, 5))
    width = float(np.ptp(moved.means.numpy(), axis=(0, 1)).max())
    rotations = torch.nn.functional.normalize(model.gaussians.quats, dim=-1).double()
    w, axis = rotations[:, :1], rotations[:, 1:]
    for time_index, buffer in enumerate(buffers):
        found = unpacked(buffer)
        assert np.abs(found["at"] - moved.means[time_index].numpy()).max() <= width / 4096
        # R s along each axis of a Gaussian, by Rodrigues' formula: v + 2 w (u x v) + 2 u x (u x v).
        for k in range(3):
            unit = torch.eye(3, dtype=torch.float64)[k].expand(len(w), 3)
            across = torch.linalg.cross(axis, unit)
            turned = (unit + 2 * w * across + 2 * torch.linalg.cross(axis, across)).numpy()
            variance = np.einsum("ni,nij,nj->n", turned, found["cov"], turned)
            expected = np.exp(2 * model.gaussians.scales[:, k].double().numpy())
            largest = np.exp(2 * model.gaussians.scales.double().numpy()).max(1)
            assert np.abs(variance - expected).max() <= 0.03 * largest.max()
        color = (0.5 + 0.28209479177387814 * model.gaussians.sh0[:, 0]).clamp(0, 1).numpy()
        assert np.abs(found["rgb"] - color).max() <= 0.5 / 255 + 1e-6
        assert np.abs(found["opacity"] - model.gaussians.opacities.sigmoid().numpy()).max() <= 0.5 / 255 + 1e-6


def test_what_rounding_does_to_a_scene_cannot_be_seen():
    model, camera = ball(200), paths.orbit(1, width=96, height=96)
    found = unpacked(scene.packed(model, 1)[0])
    values, vectors = np.linalg.eigh(found["cov"])
    vectors *= np.sign(np.linalg.det(vectors))[:, None, None]
    trace = 1 + np.trace(vectors, axis1=1, axis2=2)
    quats = []
    for rotation, t in zip(vectors, trace, strict=True):
        # Any rotation of the ellipsoid will do: one whose quaternion has a real part.
        for signs in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]):
            turned = rotation * signs
            t = 1 + np.trace(turned)
            if t > 0.1:
                break
        off = [turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]
        quats.append([math.sqrt(t) / 2, *(value / (2 * math.sqrt(t)) for value in off)])
    opacity = np.clip(found["opacity"], 1e-3, 1 - 1e-3)
    rounded = Gaussians(
        means=torch.tensor(found["at"].copy()),
        quats=torch.tensor(quats, dtype=torch.float32),
        scales=torch.tensor(np.log(np.maximum(values, 1e-9)) / 2, dtype=torch.float32),
        opacities=torch.tensor(np.log(opacity / (1 - opacity)), dtype=torch.float32),
        sh0=torch.tensor((found["rgb"] - 0.5) / 0.28209479177387814, dtype=torch.float32)[:, None],
        shN=torch.zeros(len(values), 0, 3),
    )
    one, other = (render(shown, camera).rgb.clamp(0, 1) for shown in (model, Model(rounded, Static())))
    assert one.std() > 0.05
    assert -10 * math.log10(float(((one - other) ** 2).mean())) > 40


def test_what_stands_still_costs_nothing_twice():
    still = scene.packed(ball(), 8)
    assert len(still) == 1
    buffers = scene.packed(ball(drift=0.5), 3)
    first, last = unpacked(buffers[0])["at"], unpacked(buffers[-1])["at"]
    assert (first[:20] == last[:20]).all() and (first[20:] != last[20:]).all()
    hidden = ball()
    hidden.gaussians.opacities[:7] = -9
    assert len(scene.packed(hidden, 1)[0]) == 33


def test_a_scene_is_one_file_without_a_network_and_the_same_twice(tmp_path):
    pytest.importorskip("viser")
    camera = paths.orbit(1)
    one, two = (
        report.write_scene(ball(drift=0.3), tmp_path / name, camera=camera, frames=3, title="<A>") for name in "ab"
    )
    assert one.read_bytes() == two.read_bytes() and one.stat().st_size < 1.2e6
    page = one.read_text()
    assert "<title>&lt;A&gt;</title>" in page and "__VISER_EMBED_DATA__" in page
    assert page.index('location.protocol === "file:"') < page.index("__VISER_EMBED_DATA__")
    outside = [link for link in re.findall(r'(?:src|href)="([^"]*)"', page) if not link.startswith("data:")]
    assert outside == []


def test_a_scene_that_is_too_large_or_cannot_be_is_refused(tmp_path, monkeypatch):
    camera = paths.orbit(2)
    with pytest.raises(InputError, match="camera"):
        report.write_scene(ball(), tmp_path / "a.html", camera=camera)
    with pytest.raises(InputError, match="frames"):
        report.write_scene(ball(), tmp_path / "a.html", camera=camera[:1], frames=0)
    hidden = ball()
    hidden.gaussians.opacities[:] = -9
    with pytest.raises(InputError, match="can be seen"):
        report.write_scene(hidden, tmp_path / "a.html", camera=camera[:1])
    monkeypatch.setattr(scene, "_page", lambda *_: "<title>Viser</title>" + "x" * 200_000)
    with pytest.raises(InputError, match=r"a\.html: limit_mb: 1 frames of 40 Gaussians take 0\.2 MB"):
        report.write_scene(ball(), tmp_path / "a.html", camera=camera[:1], limit_mb=0.1)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingDependency, match="pip install viser"):
        report.write_scene(ball(), tmp_path / "a.html", camera=camera[:1])
    assert not list(tmp_path.iterdir())


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_embeds_a_wipe_and_a_small_video_and_links_a_scene(tmp_path):
    page = pages.html_page(MIXED, figures_of(tmp_path, *MIXED[3:]), FACTS)
    assert page.count("<script>") == 1 and not re.search(r"<script[^>]+src|<link|@import|url\(", page)
    wipe = re.search(r'<figure id="figure-w".*?</figure>', page, re.DOTALL).group()
    assert re.findall(r'alt="([^"]*)"', wipe) == [f"{name}: A [view] &quot;q&quot; | x" for name in "ab"]
    assert 'type="range"' in wipe and "hidden>" in wipe  # shown by the script only
    assert 'aria-label="Divider between a on the left and b on the right"' in wipe
    video = re.search(r"<video.*?</video>", page, re.DOTALL).group()
    assert {"controls", "loop", "muted", "playsinline"} <= set(video.split(">")[0].split())
    sources = re.findall(r'<source src="([^"]*)"', video)
    assert sources[0].startswith("data:video/mp4;base64,") and sources[1] == "figures/v.mp4"
    assert '<a href="figures/v.mp4">' in video and "poster=" in video
    frame = re.search(r"<iframe[^>]*>", page).group()
    assert 'data-src="s.html"' in frame and " src=" not in frame  # nothing is loaded before it is opened
    assert [int(number) for number in re.findall(r"<b>Figure (\d+)\.</b>", page)] == [1, 2, 3]


def test_a_large_video_lies_beside_the_page_and_no_wipe_means_no_script(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "EMBEDDED_MB", 1e-5)
    page = pages.html_page([MIXED[4]], figures_of(tmp_path, MIXED[4]), FACTS)
    assert re.findall(r'<source src="([^"]*)"', page) == ["figures/v.mp4"] and "<script" not in page


def test_the_page_shows_a_figure_as_it_was_or_as_its_file_whichever_is_smaller(tmp_path):
    """Noise in three colours, of which the file has two."""
    colors = np.random.default_rng(0).integers(0, 3, (60, 60))
    data = []
    for levels in ((0, 120, 255), (0, 120, 120)):
        buffer = io.BytesIO()
        Image.fromarray(np.array(levels, np.uint8)[colors]).convert("RGB").save(buffer, "PNG")
        data.append(buffer.getvalue())

    def shown(uri: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))

    assert set(np.unique(shown(pages.embedded(*data)))) == {0, 120}
    assert set(np.unique(shown(pages.embedded(data[0])))) == {0, 120, 255}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "f.png").write_bytes(data[1])
    page = pages.html_page([blocks.Picture("f", "Noise", "", data[0], ["f.png"])], tmp_path, FACTS)
    assert pages.embedded(*data) in page


def test_the_wipe_is_short():
    style, script = pages.wipe_parts()
    assert len((style + script).splitlines()) + 10 <= 70  # and its dozen lines of markup


# --- languages -------------------------------------------------------------------------------------------------------


def test_every_word_has_every_language_and_the_same_blanks():
    blanks = {lang: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in table.items()}
              for lang, table in words.WORDS.items()}  # fmt: skip
    assert blanks["en"] == blanks["ru"]
    with pytest.raises(InputError, match="lang: 'de' is unknown .*en, ru"):
        words.words_of("de")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_heading_of_the_notebooks_has_a_russian_one(path):
    cells = json.loads(path.read_text())["cells"]
    shown = [cell for cell in cells if "interactive" not in cell["metadata"].get("tags", [])]
    text = "\n\n".join("".join(cell["source"]) for cell in shown if cell["cell_type"] == "markdown")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading not in words.HEADINGS["ru"]] == []


def test_a_russian_report_keeps_its_anchors_and_says_which_words_are_english(tmp_path):
    folder = figures_of(tmp_path, *MIXED[3:])
    page = pages.html_page(MIXED, folder, FACTS | {"lang": "ru"})
    assert '<html lang="ru"' in page and '<main lang="en">' in page
    assert '<h2 id="the-verdict" lang="ru">Вердикт</h2>' in page
    assert '<b lang="ru">Рис. 1.</b>' in page and '<summary lang="ru">код</summary>' in page
    text = markdown.markdown_page(MIXED, FACTS | {"lang": "ru"})
    assert "## Вердикт\n" in text and "```python\n## The verdict\n```" in text and "**Рис. 1.** Cap." in text
    assert 'lang: "ru"' in text and "<summary>код</summary>" in text


# --- blogs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavor", markdown.FLAVORS)
def test_every_flavor_has_front_matter_and_its_figures_beside_it(flavor):
    facts = FACTS | {"flavor": flavor, "title": 'A: "b" \\ #c', "summary": "Some *words*: `x`"}
    text = markdown.markdown_page(MIXED, facts)
    front = yaml.safe_load(text.split("---\n")[1])
    tags = "categories" if flavor == "quarto" else "tags"
    assert front == {"title": 'A: "b" \\ #c', "date": "2026-01-02", "description": "Some words: x", tags: ["4DGS"],
                     "lang": "en"}  # fmt: skip
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    expected = {path for block in MIXED[3:] for path in block.paths}
    assert links == (expected - {"s.html"} if flavor == "hugo" else expected)  # Hugo takes a page for content
    rows = [line for line in text.splitlines() if "w-left.png" in line]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 3


def test_flavors_differ_where_the_programs_do():
    pages_of = {flavor: markdown.markdown_page(MIXED, FACTS | {"flavor": flavor}) for flavor in markdown.FLAVORS}
    assert '{{< details summary="code" >}}' in pages_of["hugo"] and "<details" not in pages_of["hugo"]
    assert '<details markdown="1">' in pages_of["jekyll"]
    body = pages_of["jekyll"].split("{% raw %}")[1].split("{% endraw %}")[0]
    assert "{{x}}" in body and "{{ braces }}" in body
    assert '![](figures/v-poster.jpg){fig-alt="Moves"}' in pages_of["quarto"]
    assert '{fig-alt="a: A [view] \\"q\\" \\| x"}' in pages_of["quarto"]
    assert "![Moves](figures/v-poster.jpg)" in pages_of["plain"] and "{%" not in pages_of["plain"]
    with pytest.raises(InputError, match="flavor: 'wordpress' is unknown"):
        markdown.check_flavor("wordpress")


# --- the same twice --------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("ab [:]<,0x/%|"), max_size=40))
def test_steady_text_is_stable(text):
    once = blocks.steady(text)
    assert blocks.steady(once) == once


@pytest.mark.parametrize(
    ("text", "steady"),
    [
        ("train: 100%|##| 3/3 [00:01<00:00, 2.9it/s]", "train: 100%|##| 3/3"),
        ("v: 100%|##| 3/3 [1:00:01<00:00, 2.9s/step, v3 done]\nx", "v: 100%|##| 3/3\nx"),
        ("7picture [00:01, 5.1picture/s]", "7picture"),
        ("/tmp/ipykernel_812/99.py:3: UserWarning: x", "<cell>:3: UserWarning: x"),
        ("<A object at 0x7f12ab>", "<A object at 0x...>"),
        (f"in {Path.home()}/x/y", "in ~/x/y"),
        ("at [12:30] we met [3] at [0, 1], 0x10", "at [12:30] we met [3] at [0, 1], 0x10"),
    ],
)
def test_what_changes_from_run_to_run_is_left_out_and_nothing_else(text, steady):
    assert blocks.steady(text) == steady


SHOWN = (
    "import time, numpy as np, warnings\nfrom tqdm.auto import tqdm\nfrom fourdgs import plots, report\n"
    "for _ in tqdm(range(3)): time.sleep(0.01 * np.random.rand())\nwarnings.warn('take care')\nprint(object())",
    "fig = plots.timeline([('install', 90), ('train', 30.25)])\nplots.show(fig, 'cost', 'Cost')\n"
    "fig = plots.contact_sheet(list(np.random.default_rng(0).random((6, 40, 40, 3))))\n"
    "plots.show(fig, 'sheet', 'Noise')",
    "left = np.zeros((20, 20, 3))\nreport.show_wipe(left, left + 1, 'wipe', 'Black and white', 'Move *it*.')",
    "import pandas as pd\nreport.record_metrics(pd.DataFrame({'psnr_db': [1 / 3]}))\npd.DataFrame({'a': [1]}).style",
)


def test_a_report_built_twice_is_the_same_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [v4.new_markdown_cell("# The verdict"), *(v4.new_code_cell(source) for source in SHOWN)]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    found, run = [], Run(made_up_run(tmp_path / "run"))
    for name, date in (("a", "2026-01-02"), ("b", None)):
        page = report.build_report(
            [tmp_path / "a.ipynb"], tmp_path / name, title="T", date=date, lang="ru", runs=[run], progress=False
        )
        found.append({p.relative_to(page.parent): p.read_bytes() for p in page.parent.rglob("*") if p.is_file()})
    first, second = found
    assert {str(name) for name in first} == {
        "index.html", "index.md", "metrics.csv", "run.json", "figures/cost.png", "figures/cost.svg",
        "figures/sheet.png", "figures/wipe-left.png", "figures/wipe-right.png",
    }  # fmt: skip
    today = json.loads(second[Path("run.json")])["date"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", today) and first.keys() == second.keys()
    for name, content in second.items():
        assert content.replace(today.encode(), b"2026-01-02") == first[name], name
    text = first[Path("index.md")].decode()
    assert "take care" in text and "3/3" in text and "it/s" not in text
    assert run.costs.set_index("phase")["seconds"]["report"] > 0.1


# --- kills -----------------------------------------------------------------------------------------------------------


WRITER = """
import os, signal, sys, types
package = types.ModuleType("fourdgs")  # without its __init__, which takes seconds to import
package.__path__ = ["fourdgs"]
sys.modules["fourdgs"] = package
from fourdgs import files
where, module = sys.argv[2], {"replace": files.os, "rmtree": files.shutil}.get(sys.argv[2])
if module:  # killed as soon as it has renamed something, or when it begins to remove
    real = getattr(module, where)
    def die(*arguments, **settings):
        if where == "replace":
            real(*arguments, **settings)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, where, die)
with files.folder_aside(sys.argv[1]) as folder:
    for part in "abc":
        (folder / part).write_text("second")
        if where == part:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("where", "left"), [("b", "first"), ("replace", "second"), ("rmtree", "second")])
def test_a_killed_writer_leaves_a_whole_folder_and_the_next_one_sweeps(tmp_path, monkeypatch, where, left):
    target = tmp_path / "x"
    with files.folder_aside(target) as folder:
        for part in "abc":
            (folder / part).write_text("first")
    done = subprocess.run([sys.executable, "-c", WRITER, str(target), where], cwd=ROOT)
    assert done.returncode in (0, -signal.SIGKILL)
    assert {path.name: path.read_text() for path in target.iterdir()} == dict.fromkeys("abc", left)
    monkeypatch.setattr(files, "_FRESH_S", -1.0)
    with files.folder_aside(target) as mine, files.folder_aside(target):
        # What nobody holds is gone; another's folder is left alone while it is held.
        assert mine.is_dir() and len(list(tmp_path.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
