"""The interactive cells driven in a real JupyterLab: open, run all, move a slider, see the picture change.

Skipped where playwright or a browser is absent. ``FOURDGS_SHOTS=folder`` keeps the screenshots,
``FOURDGS_LAB_CAPTURE=folder`` takes another capture than the small ball.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs.data.transforms import write_transforms

pytest.importorskip("playwright.sync_api")

from lab import Picture, browser, drag, installed, jupyter_lab, middle, notebook_with, open_and_run  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(installed() is None, reason="no Chromium on the machine"),
]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    own = os.environ.get("FOURDGS_LAB_CAPTURE")
    if own:
        folder = Path(own).resolve()
    else:
        train = ball_capture(root, ball_cameras(10, 64, times=[k / 9 for k in range(10)]))
        test = ball_capture(root, ball_cameras(6, 64, start_deg=30, times=[k / 5 for k in range(6)]), split="test")
        folder = write_transforms(fd.merge([train, test]), root / "capture")
    settings = {"capture": str(folder), "iterations": 1500 if own else 150, "gaussians": 3000 if own else 300}
    settings |= {"out": str(root / "runs")}
    notebook_with(NOTEBOOKS / "02_train.ipynb", root / "train.ipynb", row="deform_all", **settings)
    notebook_with(NOTEBOOKS / "03_compare.ipynb", root / "compare.ipynb", rows=["static_all", "deform_all"], **settings)
    with jupyter_lab(root) as address:
        yield address


@pytest.fixture
def page():
    with browser() as page:
        yield page


def shot(page, name: str) -> None:
    folder = os.environ.get("FOURDGS_SHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def slider(place, name: str):
    return place.locator(".widget-slider", has_text=name)


def test_the_viewer_and_the_picker_of_the_training_notebook(address, page):
    open_and_run(page, address, "train.ipynb")
    stages = page.locator(".fourdgs-stage")
    assert stages.count() == 3  # the viewer's picture, the picker's chart and its picture
    viewer = page.locator(".jp-OutputArea-output", has=page.locator(".widget-play"))
    picture = Picture(page, stages.first)
    home = picture.rest()

    # A slider: small pictures while it moves, the full one at rest.
    handle = slider(viewer, "azimuth").locator(".noUi-handle")
    picture.take()
    drag(page, middle(handle), (70, 0), steps=70, pause_ms=0)
    turned = picture.rest()
    seen = picture.take()
    moving = [one for one in seen if one["width"] == turned["width"] // 2]
    assert turned["hash"] != home["hash"] and turned["width"] == home["width"]
    assert len(moving) >= 5 and len({one["hash"] for one in moving}) >= 5
    assert max(abs(one["tall"] - home["tall"]) for one in seen) < 1
    span = (moving[-1]["at"] - moving[0]["at"]) / 1000
    print(f"\n{len(moving)} pictures in {span:.2f} s while the slider moved: {(len(moving) - 1) / span:.0f} a second")
    shot(page, "viewer-slider")

    # The picture itself, and back.
    readout = slider(viewer, "azimuth").locator(".widget-readout")
    before = readout.inner_text()
    drag(page, middle(picture.image), (90, 40))
    dragged = picture.rest()
    assert dragged["hash"] != turned["hash"] and readout.inner_text() != before
    shot(page, "viewer-drag")
    viewer.get_by_role("button", name="back to the start").click()
    assert picture.rest()["hash"] == home["hash"]

    # Time: by the slider's keys, then playing.
    slider(viewer, "time").locator(".noUi-handle").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    later = picture.rest()
    assert later["hash"] != home["hash"]
    picture.take()
    viewer.locator(".widget-play button").first.click()
    page.wait_for_timeout(2000)
    shot(page, "viewer-play")
    viewer.locator(".widget-play button").first.click()
    assert len({one["hash"] for one in picture.take()}) >= 8
    picture.rest()
    picture.assert_steady()

    # The picker: a click in the chart, then a choice in the list.
    chart, strip = page.locator(".fourdgs-chart"), Picture(page, stages.nth(2))
    first = strip.rest()
    chosen = page.locator("[data-row]:has([stroke-width]) title").text_content()
    dots = chart.locator("[data-row]")
    dot = next(dots.nth(k) for k in range(dots.count()) if dots.nth(k).locator("title").text_content() != chosen)
    wanted = dot.locator("title").text_content()
    page.mouse.click(*middle(dot, 0.5, 0.3))
    second = strip.rest()
    assert second["hash"] != first["hash"]
    assert page.locator("[data-row]:has([stroke-width]) title").text_content() == wanted
    assert wanted.split(" (")[0] in page.locator(".widget-select option:checked").text_content()
    shot(page, "picker-click")
    page.locator(".widget-select select").select_option(index=0)
    assert strip.rest()["hash"] == first["hash"]
    strip.assert_steady()


def test_the_wipe_of_the_comparison_notebook(address, page):
    open_and_run(page, address, "compare.ipynb")
    stage = page.locator(".fourdgs-stage")
    assert stage.count() == 1
    picture = Picture(page, stage)
    half = picture.rest()
    output = page.locator(".jp-OutputArea-output", has=stage)
    drag(page, middle(output.locator(".noUi-handle")), (80, 0))
    wiped = picture.rest()
    assert wiped["hash"] != half["hash"] and wiped["width"] == half["width"]
    shot(page, "wipe-slider")
    drag(page, middle(picture.image, 0.7), (-150, 0))
    assert picture.rest()["hash"] != wiped["hash"]
    shot(page, "wipe-line")
    before = picture.now()
    output.locator("select").select_option(index=2)
    assert picture.rest()["hash"] != before["hash"]
    picture.assert_steady()
