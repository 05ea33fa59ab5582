"""Workers of a sweep that die, come and go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from sweeping import LONG, SHORT, a_scheduler, parameters, small_capture, until

import fourdgs as fd
from fourdgs import InputError, TrainConfig, farm
from fourdgs.data.transforms import write_transforms
from fourdgs.sweep import grid, sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    return write_transforms(small_capture(root / "ball"), root / "written")


@pytest.fixture(scope="module")
def scheduler():
    with a_scheduler() as address:
        yield address


def worker_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            if "spawn_main" in " ".join(process.cmdline()) and process.status() != "zombie":
                found.append(process)
    return found


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "TORCH"))}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_changes_nothing_in_the_result(folder, tmp_path):
    out = tmp_path / "killed"
    table = grid(motion="deform", seed=[0, 1], **LONG)
    table["name"] = ["a", "b"]
    seen: dict[str, list] = {"ports": [], "killed": []}
    before = environment()

    def busy() -> psutil.Process | None:
        """The worker that holds the folder of a run which has a checkpoint."""
        for process in worker_processes():
            with contextlib.suppress(psutil.Error):
                held = [Path(file.path) for file in process.open_files() if file.path.endswith(".lock")]
                if any((lock.parent / "checkpoint.safetensors").exists() for lock in held if lock.is_relative_to(out)):
                    return process
        return None

    def kill() -> None:
        until(lambda: seen["killed"].append(busy()) or seen["killed"][-1], 120)
        os.kill(seen["killed"][-1].pid, signal.SIGKILL)
        for process in [psutil.Process(), *worker_processes()]:
            seen["ports"] += [one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"]

    killer = threading.Thread(target=kill)
    killer.start()
    result = sweep(table, folder, out, workers=2, progress=False)
    killer.join()
    assert seen["killed"][-1] is not None and set(seen["ports"]) == {"127.0.0.1"}
    assert (result["state"] == "finished").all()
    assert sorted(result["attempts"]) == [1, 2]
    assert environment() == before
    until(lambda: not worker_processes(), 10)
    torch.set_num_threads(1)
    again = result["name"][result["attempts"].idxmax()]
    info = json.loads((out / again / "run.json").read_text())
    assert info["sessions"][-1]["step"] > 0  # from a checkpoint, not from the start
    capture, config = fd.load_capture(folder), TrainConfig.from_dict({**LONG, "motion": "deform"})
    config = replace(config, seed="ab".index(again))
    undisturbed = fd.train(capture.select(split="train"), config, tmp_path / "alone", progress=False)
    assert torch.equal(parameters(out / again), parameters(undisturbed.path))


def test_a_run_that_kills_every_worker_is_reported_with_its_last_step(tmp_path):
    from distributed.scheduler import KilledWorker

    class Erred:
        status = "error"

        def exception(self):
            return KilledWorker("a", SimpleNamespace(address="tcp://127.0.0.1:9"), 3)

    job = farm.Job(tmp_path / "a", 100, {})
    watch = farm._Watch(None, [job], False, "sweep")
    for _ in range(4):
        watch._hear((0.0, {"index": 0, "step": 60, "begun": True}))
    watch._end(0, Erred())
    assert watch.outcomes[0].state == "failed" and "died 4 times" in watch.outcomes[0].error
    assert "at step 60" in watch.outcomes[0].error and "KilledWorker" in job.failure.read_text()


def test_an_interrupted_sweep_stops_its_runs(scheduler, folder, tmp_path, monkeypatch):
    show = farm._Watch._show

    def interrupted(self):
        show(self)
        if sum(self.steps):
            raise KeyboardInterrupt

    monkeypatch.setattr(farm._Watch, "_show", interrupted)
    table = [{"iterations": 10**6, "gaussians": 60, "checkpoint_every": 5, "name": "endless"}]
    with pytest.raises(KeyboardInterrupt):
        sweep(table, folder, tmp_path, scheduler=scheduler, progress=False)
    assert farm._ALONE.acquire(timeout=20)  # the thread of the worker is out of the job
    farm._ALONE.release()
    assert fd.Run(tmp_path / "endless").info["state"] == "running"
    assert (tmp_path / "endless" / "checkpoint.safetensors").exists()


def test_a_worker_that_sees_another_folder_says_so(scheduler, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(farm, "_mark", lambda out: "a mark of another folder")
    result = sweep([{**SHORT, "name": "a"}], folder, tmp_path, scheduler=scheduler, progress=False)
    assert result["state"].tolist() == ["failed"] and "all workers share" in result["error"][0]


def test_a_scheduler_that_is_not_there_is_one_clear_message(folder, tmp_path):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match="is not reached"),
    ):
        sweep([SHORT], folder, tmp_path, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match="workers: is for processes"):
        sweep([SHORT], folder, tmp_path, scheduler="tcp://127.0.0.1:9", workers=2)


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    seen = {}
    for name in (0, 1, 2, 3):
        worker = SimpleNamespace(name=name, state=SimpleNamespace(nthreads=1))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
        monkeypatch.setattr(Path, "is_file", lambda self: True)
        monkeypatch.setattr(Path, "read_text", lambda self, encoding: "m")
        farm._prepare({"gpus": ["4", "6"], "out": "x", "mark": "m"}, worker)
        seen[name] = os.environ["CUDA_VISIBLE_DEVICES"]
    assert seen == {0: "4", 1: "6", 2: "4", 3: "6"}


def test_devices_and_cores_decide_how_many_run_at_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert farm.gpus() == ["0", "1", "2"] and farm.slots(9) == 3 and farm.slots(2) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    assert farm.gpus() == ["5", "GPU-ab"] and farm.slots(9) == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert farm.gpus() == [] and farm.slots(10**6) == farm.cores() and farm.slots(0) == 1
