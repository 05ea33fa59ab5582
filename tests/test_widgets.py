"""The widgets without a browser: what is asked, what is drawn, what is shown, and what the page sends."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import ball_cameras, ball_capture, random_gaussians

import fourdgs as fd
from fourdgs import Deform, InputError, Model, Static, live, wire
from fourdgs.live import Newest, Stage, View
from fourdgs.widgets import Picker, Viewer, Wipe

ROOT = Path(__file__).parents[1]
SIZE = 48


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fourdgs-")]


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    root = tmp_path_factory.mktemp("ball")
    train = ball_capture(root, ball_cameras(8, SIZE, start_deg=70, times=np.linspace(0, 1, 8)))
    still = ball_capture(root, ball_cameras(3, SIZE, start_deg=30), split="test", source="still", move=0)
    test = ball_capture(
        root, ball_cameras(4, SIZE, start_deg=50, times=[0, 0.3, 0.7, 1]), split="test", source="moving"
    )
    return fd.merge([train, still, test])


@pytest.fixture(scope="module")
def run(capture, tmp_path_factory):
    config = fd.TrainConfig(motion="deform", iterations=60, gaussians=120, warmup=0.5)
    run = fd.train(capture.select(split="train"), config, tmp_path_factory.mktemp("runs") / "ball", progress=False)
    fd.evaluate(run, capture, progress=False)
    return fd.load_run(run.path)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for newest in list(live._EVERY):
        newest.close()
    assert names() == []


def moving_model() -> Model:
    gaussians, motion = random_gaussians(200), Deform([0.0, 0.0, 0.0], 1.5, resolutions=[8], time_resolution=6)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in motion.parameters():
            values += 0.3 * torch.randn(values.shape, generator=random)
    return Model(gaussians, motion)


def decoded(widget) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(widget.image.value)))


def rendered(model: Model, camera: fd.Cameras) -> np.ndarray:
    return (fd.render(model, camera).rgb[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def pictures_of(widget) -> list[tuple[str, tuple[int, int]]]:
    """Format and size of every picture that the widget shows from now on."""
    seen = []
    widget.image.observe(
        lambda change: seen.append((widget.image.format, Image.open(io.BytesIO(change["new"])).size)), "value"
    )
    return seen


# --- one thread, the newest request wins -----------------------------------------------------------------------------


class Desk:
    """Work that can be held up, and a record of what was worked on and shown."""

    def __init__(self, **options):
        self.worked, self.shown, self.failed = [], [], []
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()
        self.newest = Newest(self.work, lambda *answer: self.shown.append(answer), self.failed.append, **options)

    def work(self, request, fine):
        self.worked.append((request, fine))
        self.begun.release()
        assert self.gate.wait(20)
        if request == "bad":
            raise ValueError("no such picture")
        return request

    def hold(self, request, **options) -> None:
        """Ask, and return when the work on it has begun and cannot end before the gate opens."""
        self.gate.clear()
        self.newest.ask(request, **options)
        assert self.begun.acquire(timeout=20)

    def finish(self) -> None:
        self.gate.set()
        assert self.newest.settle(20)
        self.newest.close()


def test_a_request_is_answered_coarsely_and_then_finely():
    desk = Desk(rest_s=0.01)
    desk.newest.ask(1)
    desk.finish()
    assert desk.shown == [(1, False), (1, True)]


def test_what_was_let_go_is_answered_finely_at_once():
    desk = Desk(rest_s=60)
    desk.newest.ask(1, rest=True)
    desk.finish()
    assert desk.worked == desk.shown == [(1, True)]


def test_requests_that_were_overtaken_are_never_worked_on():
    desk = Desk(rest_s=0.01)
    desk.hold(0)
    begun = time.perf_counter()
    for request in range(1, 51):
        desk.newest.ask(request)
    assert time.perf_counter() - begun < 1  # asking does not wait for the work
    desk.finish()
    assert desk.worked == [(0, False), (50, False), (50, True)]
    assert desk.shown == [(0, False), (50, False), (50, True)]


def test_a_fine_answer_that_was_overtaken_is_not_shown():
    desk = Desk(rest_s=0.01)
    desk.hold(1, rest=True)
    desk.newest.ask(2)
    desk.finish()
    assert desk.worked == [(1, True), (2, False), (2, True)] and desk.shown == [(2, False), (2, True)]


def test_a_fine_answer_waits_for_rest():
    desk = Desk(rest_s=60)
    desk.newest.ask(1)
    assert desk.begun.acquire(timeout=20) and not desk.newest.settle(0.3)
    assert desk.shown == [(1, False)]
    desk.newest.ask(1, rest=True)
    desk.finish()
    assert desk.shown == [(1, False), (1, True)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.0, 0.001, 0.004])), min_size=1, max_size=12))
def test_answers_come_in_order_and_the_newest_one_comes_last(asked):
    desk = Desk(rest_s=0.002)
    for request, (rest, pause) in enumerate(asked):
        desk.newest.ask(request, rest=rest)
        time.sleep(pause)
    desk.finish()
    order = [request for request, _ in desk.shown]
    assert order == sorted(order) and desk.shown[-1] == (len(asked) - 1, True)
    assert len(set(desk.shown)) == len(desk.shown) and not desk.failed


def test_an_error_is_told_and_the_next_request_is_served():
    desk = Desk(rest_s=0.01)
    desk.newest.ask("bad")
    assert desk.newest.settle(20)
    assert [str(error) for error in desk.failed] == ["no such picture"] and desk.shown == []
    desk.newest.ask(2, rest=True)
    desk.finish()
    assert desk.shown == [(2, True)]


def test_closing_ends_the_thread_and_shows_nothing_more():
    desk = Desk(name="fourdgs-closing")
    desk.hold(1)
    closing = threading.Thread(target=desk.newest.close)
    closing.start()
    while not desk.newest._closed:
        time.sleep(0.001)
    desk.gate.set()
    closing.join(20)
    assert names() == [] and desk.shown == [] and desk.failed == []
    desk.newest.ask(2)
    assert names() == [] and desk.newest.settle(0)


def test_an_idle_thread_ends_by_itself_and_another_takes_over():
    desk = Desk(name="fourdgs-idle", rest_s=0, idle_s=0.05)
    for request in range(2):
        desk.newest.ask(request, rest=True)
        assert names() == ["fourdgs-idle"]
        until = time.perf_counter() + 20
        while names() and time.perf_counter() < until:
            time.sleep(0.01)
        assert names() == []
    assert desk.shown == [(0, True), (1, True)]
    desk.finish()


def test_an_interpreter_with_a_busy_thread_comes_to_its_end():
    code = (
        "import time; from fourdgs.live import Newest\n"
        "newest = Newest(lambda *a: (time.sleep(0.5), print('ended', flush=True)), print, print)\n"
        "newest.ask(1); time.sleep(0.1)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    # What was begun is ended first, and is not shown any more.
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


# --- the viewer ------------------------------------------------------------------------------------------------------


def test_the_picture_is_the_one_that_render_gives(capture):
    viewer = Viewer(moving_model(), capture, size=40, steps=11)
    pictures = [decoded(viewer)]
    assert np.array_equal(pictures[0], rendered(viewer.model, viewer.camera))
    for move in (
        lambda: setattr(viewer.time, "value", 0.7),
        lambda: setattr(viewer.azimuth, "value", 123.0),
        lambda: setattr(viewer.elevation, "value", -40.0),
        lambda: setattr(viewer.radius, "value", 2.5),
        lambda: setattr(viewer.canonical, "value", True),
    ):
        move()
        assert viewer.settle()
        pictures.append(decoded(viewer))
        assert np.array_equal(pictures[-1], rendered(viewer.model, viewer.camera))
        assert not np.array_equal(*pictures[-2:])
    assert bool(viewer.camera.times.isnan()) and viewer.camera.width == 40


def test_while_it_moves_the_picture_is_small_and_at_rest_it_is_full(capture):
    viewer = Viewer(moving_model(), capture, size=40, coarse=4)
    viewer.newest.rest_s = 1  # a busy machine does not make a pause of a step
    seen = pictures_of(viewer)
    for angle in range(0, 60, 5):
        viewer.azimuth.value = angle
        time.sleep(0.02)
    assert viewer.settle()
    assert set(seen[:-1]) == {("jpeg", (10, 10))} and seen[-1] == ("png", (40, 40)) and len(seen) > 2


def test_the_same_state_gives_the_same_bytes(capture):
    first, second = (Viewer(moving_model(), capture, size=40) for _ in range(2))
    home = first.image.value
    first.azimuth.value = first.azimuth.value + 30
    assert first.settle() and first.image.value != home
    first.look(first.scene.home)
    assert first.settle() and first.image.value == home == second.image.value


def test_the_viewer_starts_at_the_first_camera_of_the_capture(capture):
    viewer = Viewer(moving_model(), capture, size=40)
    assert viewer.view == viewer.scene.home
    mine, first = viewer.camera, capture.cameras[0]
    target = torch.tensor(viewer.scene.target)
    directions = [torch.nn.functional.normalize(camera.positions[0] - target, dim=0) for camera in (mine, first)]
    assert torch.allclose(*directions, atol=1e-4)
    assert viewer.scene.fov_x_deg == pytest.approx(30) and viewer.scene.up == (0, 1, 0)
    # The ball's cameras all look at its centre.
    assert np.abs(viewer.scene.target).max() < 1e-4
    assert float(viewer.time.value) == 0


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (1, 0, 0)])
def test_worlds_with_another_up_are_seen_upright(up, capture):
    axis = np.array(up, float)
    positions = np.array([[3, 1, 2], [-2, 3, 1], [1, -2, -3]]) * 1.0
    positions -= np.outer((positions - 0.3 * axis) @ axis, axis)  # a ring a little above the centre
    cameras = fd.Cameras.look_at(positions, (0, 0, 0), up=up, fov_x_deg=40, width=SIZE, height=24, times=[0, 0.5, 1])
    ring = capture.select(rows=[0, 1, 2]).resized(SIZE, 24).with_times([0, 0.5, 1]).with_frames(cameras=cameras)
    stage = Stage.of(moving_model(), ring, size=40, coarse=2)
    camera = stage.camera(stage.home)
    assert stage.up == tuple(up) and (camera.width, camera.height) == (40, 20)
    assert float(-camera.viewmats[0, 1, :3] @ torch.tensor(axis).float()) > 0.5
    unit = torch.nn.functional.normalize(cameras.positions[0] - torch.tensor(stage.target), dim=0)
    mine = torch.nn.functional.normalize(camera.positions[0] - torch.tensor(stage.target), dim=0)
    assert torch.allclose(unit, mine, atol=1e-3)


def test_without_a_capture_the_whole_model_is_in_the_picture():
    gaussians = random_gaussians(500)
    gaussians = gaussians.replace(means=gaussians.means * 7 + torch.tensor([50.0, -20.0, 3.0]))
    viewer = Viewer(Model(gaussians, Static()), size=40)
    uv = viewer.camera.Ks[0] @ (
        viewer.camera.viewmats[0, :3, :3] @ gaussians.means.T + viewer.camera.viewmats[0, :3, 3:]
    )
    inside = ((uv[:2] / uv[2] > 0) & (uv[:2] / uv[2] < 40) & (uv[2] > 0)).all(0).float().mean()
    assert inside > 0.97 and decoded(viewer).std() > 0


def test_a_static_model_has_no_time(capture):
    viewer = Viewer(Model(random_gaussians(50), Static()), capture, size=16)
    assert bool(viewer.camera.times.isnan())
    assert not {viewer.time, viewer.play, viewer.canonical} & set(viewer.children[0].children[1].children)


def test_play_moves_the_time_and_goes_on_from_where_the_slider_was_left(capture):
    viewer = Viewer(moving_model(), capture, size=16, steps=11)
    viewer.play.value = 3
    assert viewer.time.value == pytest.approx(0.3) and viewer.view.time == pytest.approx(0.3)
    viewer.time.value = 0.52
    assert viewer.play.value == 5 and viewer.time.value == 0.52  # and the slider stays under the hand
    viewer.play.value = 10
    assert viewer.time.value == 1
    assert viewer.settle()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2)), min_size=1, max_size=6), st.integers(1, 63))
def test_a_drag_ends_the_same_however_its_messages_were_merged(viewer_at_home, path, kept):
    viewer, home = viewer_at_home
    ends = []
    for mask in (63, kept):
        viewer.look(home)
        gesture = time.time_ns()
        for index, (x, y) in enumerate(path):
            last = index == len(path) - 1
            if mask >> index & 1 or last:
                viewer.text.value = f"{gesture} 0.5 0.25 {x} {y} {int(last)}"
        ends.append(viewer.view)
    assert ends[0] == ends[1]
    x, y = path[-1]
    turned = (home.azimuth_deg - 180 * (x - 0.5) - ends[0].azimuth_deg) % 360
    assert min(turned, 360 - turned) < 1e-6
    assert ends[0].elevation_deg == pytest.approx(np.clip(home.elevation_deg + 180 * (y - 0.25), -90, 90))


@pytest.fixture(scope="module")
def viewer_at_home(capture):
    viewer = Viewer(moving_model(), capture, size=8)
    viewer.newest.close()  # only the state is of interest
    return viewer, viewer.view


def test_letting_go_gives_the_full_picture_without_waiting(capture):
    viewer = Viewer(moving_model(), capture, size=40)
    viewer.newest.rest_s = 60
    viewer.text.value = "1 0.5 0.5 0.6 0.5 0"
    viewer.text.value = "1 0.5 0.5 0.7 0.5 1"
    assert viewer.settle(20)
    assert viewer.image.format == "png" and np.array_equal(decoded(viewer), rendered(viewer.model, viewer.camera))


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f", "1 nan 0 0 0 0", "1 0 0 inf 0 0", "1 0 0 0 0 0 0"])
def test_what_the_page_did_not_send_is_ignored(viewer_at_home, text):
    viewer, _ = viewer_at_home
    before = viewer.view
    viewer.text.value = text
    assert viewer.view == before and wire.numbers(text, 6) is None


def test_an_error_is_told_under_the_picture(capture, monkeypatch):
    viewer = Viewer(moving_model(), capture, size=16)
    monkeypatch.setattr("fourdgs.widgets.picture", lambda *_: 1 / 0)
    viewer.azimuth.value = 12
    assert viewer.settle() and "ZeroDivisionError" in viewer.status.value
    monkeypatch.undo()
    viewer.azimuth.value = 13
    assert viewer.settle() and "pixels" in viewer.status.value


@pytest.mark.parametrize("wrong", [{"run": "runs/v2"}, {"size": 0}, {"coarse": 0}, {"steps": 1}])
def test_a_bad_call_names_the_field(wrong):
    with pytest.raises(InputError) as caught:
        Viewer(**({"run": moving_model(), "size": 16} | wrong))
    assert caught.value.field == next(iter(wrong))


def test_closing_closes_every_part(capture):
    viewer = Viewer(moving_model(), capture, size=16)
    parts = [viewer.image, viewer.text, viewer.time, viewer.status]
    assert all(part.comm is not None for part in parts)
    viewer.azimuth.value = 99
    viewer.close()
    assert all(part.comm is None for part in [viewer, *parts])


# --- the wipe --------------------------------------------------------------------------------------------------------


def test_the_wipe_shows_its_left_side_left_of_the_line_and_its_right_side_right_of_it(capture, run):
    wipe = Wipe("truth", run, capture, size=96)
    test = capture.select(split="test")
    for index in (0, len(test) - 1):
        wipe.frame.value = index
        truth = (test.image(index, (1, 1, 1)) * 255).round().astype(np.uint8)
        drawn = rendered(run.model, test.cameras[index])
        for share in (0.0, 0.25, 0.75, 1.0):
            wipe.share.value = share
            assert wipe.settle()
            shown, column = decoded(wipe), round(share * SIZE)
            assert np.array_equal(shown[:, :column], truth[:, :column])
            right = column + (0 < share < 1)  # the line itself
            assert np.array_equal(shown[:, right:], drawn[:, right:])
        measured = run.metrics.set_index("frame")["psnr_db"][test.frames["frame"][index]]
        assert f"ball, {measured:.1f} dB" in wipe.status.value and "truth" in wipe.status.value


def test_the_line_follows_the_pointer(capture, run):
    wipe = Wipe(run, run.model, capture)
    for x, share in ((0.3, 0.3), (1.7, 1.0), (-2.0, 0.0)):
        wipe.text.value = f"5 0.9 0.5 {x} 0.5 0"
        assert wipe.share.value == pytest.approx(share)
    assert wipe.settle()


def test_a_wipe_needs_runs_models_or_the_truth(capture, run):
    with pytest.raises(InputError, match="str"):
        Wipe(run, "trouth", capture)
    with pytest.raises(InputError, match="val"):
        Wipe(run, "truth", capture, split="val")


# --- the picker ------------------------------------------------------------------------------------------------------


def test_the_picker_lists_the_worst_frame_first_and_shows_what_was_measured(capture, run):
    picker = Picker(run, capture)
    measured = run.metrics.set_index("frame")["psnr_db"]
    listed = [picker.table["frame"][value] for _, value in picker.rows.options]
    assert list(measured[listed]) == sorted(measured) and len(listed) == 7
    for value in (picker.rows.value, 5):
        picker.rows.value = value
        assert picker.settle()
        frame = picker.table["frame"][value]
        place = list(capture.frames["frame"]).index(frame)
        truth, drawn, heat = np.split(decoded(picker), 3, axis=1)
        assert np.array_equal(truth, (capture.image(place, (1, 1, 1)) * 255).round().astype(np.uint8))
        assert np.array_equal(drawn, rendered(run.model, capture.cameras[place]))
        error = np.abs(drawn.astype(float) - truth).mean(-1)
        assert np.corrcoef(error.ravel(), heat.astype(float).sum(-1).ravel())[0, 1] > 0.9
        assert f"render, {measured[frame]:.1f} dB" in picker.status.value and frame in picker.status.value


def test_a_click_in_the_chart_picks_the_frame(capture, run):
    picker = Picker(run, capture)
    before, rows = picker.chart.value, [int(row) for row in re.findall(r'data-row="(\d+)"', picker.chart.value)]
    assert sorted(rows) == list(range(7))
    other = next(row for row in rows if row != picker.rows.value)
    picker.click.value = f"1 {other}"
    assert picker.rows.value == other and picker.chart.value != before
    ringed = re.findall(r'data-row="(\d+)">(?:(?!</g>).)*stroke-width="3"', picker.chart.value)
    assert ringed == [str(other)]
    for nonsense in ("2 700", "3 -1", "4 x", "5"):
        picker.click.value = nonsense
    assert picker.rows.value == other and picker.settle()


def test_a_run_that_was_not_measured_cannot_be_picked_from(capture, run, tmp_path):
    other = ball_capture(tmp_path, ball_cameras(2, SIZE), split="test", source="other")
    with pytest.raises(InputError, match="both measured"):
        Picker(run, other)
    with pytest.raises(InputError, match="evaluate"):
        Picker(run.model, capture)


# --- what goes into the page -----------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.handlers = [], {}

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.handlers |= {name: value for name, value in attributes if name.startswith("on")}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["glass", "chart"])
def test_the_page_parts_are_whole_and_their_handlers_survive_the_quoting(run, kind):
    table = run.metrics.assign(frame='<b>"&', source="<i>")
    text = wire.glass('turn "it" <now>') if kind == "glass" else wire.chart(table, 0)
    page = Tags()
    page.feed(text)
    assert page.open == []
    assert set(page.handlers) == (
        {"onpointerdown", "onpointermove", "onpointerup", "onpointercancel"} if kind == "glass" else {"onclick"}
    )
    for code in page.handlers.values():
        assert "querySelector('.fourdgs-wire input')" in code and code.count("{") == code.count("}")


def test_without_ipywidgets_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['ipywidgets'] = None\nimport fourdgs\n"
        "try:\n    import fourdgs.widgets\nexcept fourdgs.MissingDependency as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'fourdgs-lab[notebook]'" in done.stdout


def test_nothing_else_imports_ipywidgets():
    files = sorted((ROOT / "fourdgs").rglob("*.py"))
    pattern = re.compile(r"^\s*(import|from) ipywidgets", re.MULTILINE)
    assert [file.name for file in files if pattern.search(file.read_text())] == ["widgets.py"]


def test_a_view_can_be_kept_in_a_set():
    assert len({View(0.5, 1.0, 2.0, 3.0), View(0.5, 1.0, 2.0, 3.0), View(None, 1.0, 2.0, 3.0)}) == 2
