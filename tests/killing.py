"""Work that is killed in the middle (SIGKILL), looked at, and done again; used by benchmarks/kill.py, too.

    python tests/killing.py FOLDER [--kills 6] [--seed 0]      one JSON line of what was found

The process that kills has imported everything, and forks a child a piece of work: an import takes longer than the work.
It computes on one thread alone, since a fork would not inherit others. A child says through shared memory which phase
it is in, and after how many steps of training.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch._dynamo  # noqa: F401  (the first optimiser imports it, for longer than all the rest takes)
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs.files import hash_file
from fourdgs.production import production, production_history, promote
from fourdgs.runs import Run

torch.set_num_threads(1)  # the work is small, and is to go on whatever else the machine does
PHASES = ("train", "evaluate", "promote")
DONE = len(PHASES) + 1
CONFIG = fd.TrainConfig(
    motion="deform", iterations=60, gaussians=120, init="box", refine_every=10, checkpoint_every=10, evaluate_every=20
)


def captures(root: Path) -> tuple[fd.Capture, fd.Capture]:
    """A small moving capture: its training frames, and held-out ones of three cameras."""
    train = ball_capture(root, ball_cameras(6, 32, times=np.linspace(0, 1, 6)))
    test = ball_capture(root, ball_cameras(3, 32, start_deg=25, times=[0.0, 0.5, 1.0]), split="test")
    return train, test


def work(root: Path, name: str, config: fd.TrainConfig, tell: Callable[[int, int], None]) -> None:
    """Train, evaluate and promote one run, as a script would; what is done is not done again."""
    frames, held_out = captures(root)
    steps = 0

    def step(taken: int) -> None:
        nonlocal steps
        steps += taken
        tell(1, steps)

    tell(1, 0)
    run = fd.train(frames, config, root / name, held_out=held_out, progress=step)
    tell(2, steps)
    if not len(run.metrics):
        fd.evaluate(run, held_out, progress=False)
    tell(3, steps)
    promote(run, root=root, force=True, reason="whatever it is worth", by="killing")
    tell(DONE, steps)


@dataclass
class Child:
    """A forked process that does ``job(tell)``."""

    job: Callable[[Callable[[int, int], None]], None]
    shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))
    pid: int = 0

    def start(self) -> Child:
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.job(self._tell)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return self

    def _tell(self, phase: int, steps: int) -> None:
        self.shared[0], self.shared[1] = phase, steps

    def wait_for(self, phase: int, steps: int = 0) -> bool:
        """Whether the child came to a phase, after so many steps; False where it ended before."""
        while self.shared[0] < phase or self.shared[1] < steps:
            if self.ended():
                return False
            time.sleep(0.0005)
        return True

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> bool:
        """Kill it; whether it was still at work."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        return os.WIFSIGNALED(status)

    def finish(self) -> bool:
        """Wait for its end; whether that was a good one."""
        _, status = os.waitpid(self.pid, 0)
        return status == 0


@dataclass
class Reference:
    """What uninterrupted work gives: the folder before it, the seconds of its phases, the hashes of its results."""

    before: Path
    seconds: list[float]
    models: dict[str, str]
    metrics: dict[str, pd.DataFrame]


def reference(folder: Path) -> Reference:
    """Do the work undisturbed: ``old`` is in production before, ``new`` after it."""
    before, after = folder / "before", folder / "after"
    first = replace(CONFIG, iterations=10)
    # Once here, on one thread, so that not every child has to load the kernels: that takes longer than its work.
    work(folder / "warm", "run", first, lambda phase, steps: None)
    assert Child(lambda tell: work(before, "old", first, tell)).start().finish(), "the work fails undisturbed"
    shutil.copytree(before, after)
    child, marks = Child(lambda tell: work(after, "new", CONFIG, tell)).start(), []
    for phase, steps in ((1, 0), (1, CONFIG.iterations), (2, 0), (3, 0), (DONE, 0)):
        assert child.wait_for(phase, steps), "the work fails undisturbed"
        marks.append(time.perf_counter())
    assert child.finish()
    runs = {name: Run(after / name) for name in ("old", "new")}
    return Reference(
        before,
        [float(marks[1] - marks[0]), *np.diff(marks[2:]).tolist()],
        {name: hash_file(run.path / "model.safetensors") for name, run in runs.items()},
        {name: run.metrics for name, run in runs.items()},
    )


def wrong_after_kill(root: Path, known: Reference) -> list[str]:
    """What must not be, at any moment, however the work was stopped."""
    found = []
    for row in fd.runs(root).itertuples():
        run = Run(Path(row.path))
        if row.state == "damaged":
            found.append(f"{row.name} is damaged")
        if row.state == "finished":
            if hash_file(run.path / "model.safetensors") != known.models[row.name]:
                found.append(f"{row.name} is listed as finished with another model")
            if not (run.path / "curve.csv").exists():
                found.append(f"{row.name} is listed as finished without its curve")
        if len(run.metrics) and not _same(run.metrics, known.metrics[row.name]):
            found.append(f"{row.name} has half its metrics")
    try:
        current = production(root=root)
        if not current.finished or not len(current.metrics):
            found.append(f"{current.name} is in production and not complete")
        if len(production_history(root=root)) != (1 if current.name == "old" else 2):
            found.append("the history does not fit the pointer")
    except fd.InputError as error:
        found.append(f"production: {error}")
    return found


def wrong_after_rerun(root: Path, known: Reference) -> list[str]:
    """What must be, when the work was done again to its end."""
    found = wrong_after_kill(root, known)
    run = Run(root / "new")
    if not run.finished or hash_file(run.path / "model.safetensors") != known.models["new"]:
        found.append("the rerun made another model")
    if not _same(run.metrics, known.metrics["new"]):
        found.append("the rerun measured other figures")
    if production(root=root).name != "new":
        found.append("the rerun did not promote it")
    left = {file.name for file in run.path.iterdir()} - {
        "run.json", "model.safetensors", "curve.csv", "metrics.csv", "log.txt", ".lock"
    }  # fmt: skip
    # A training clears what killed ones left aside; after it, only a kill of evaluate or promote leaves something.
    if any("checkpoint" in name or "model" in name for name in left):
        found.append(f"left behind: {sorted(left)}")
    return found


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.equals(other)


def random_kills(folder: Path, known: Reference, kills: int, seed: int = 0, progress=None) -> pd.DataFrame:
    """Kill the work at random moments of its phases, up to three times on end, and do it again to its end.

    Returns:
        A row a kill: phase, step (of training), at_s (seconds after it, or after the phase began), alive (was still at
        work), trial, checkpoint (there was one to go on from), and wrong: a list, of the state right after it and, with
        a trial's last kill, after the rerun.
    """
    chance, rows, trial = random.Random(seed), [], 0
    while len(rows) < kills:
        root = folder / f"trial{trial:03d}"
        shutil.copytree(known.before, root)
        for _ in range(min(1 + trial % 3, kills - len(rows))):
            number = len(rows) % len(PHASES)
            child = Child(lambda tell, root=root: work(root, "new", CONFIG, tell)).start()
            # By the step, since a machine with other work to do takes longer at one time than at another.
            step = chance.randrange(CONFIG.iterations) if number == 0 else 0
            reached = child.wait_for(number + 1, step)
            at = chance.random() * (known.seconds[0] / CONFIG.iterations if number == 0 else known.seconds[number])
            time.sleep(at if reached else 0.0)
            alive = child.kill()
            checkpoint = (root / "new" / "checkpoint.safetensors").exists()
            row = {
                "phase": PHASES[number],
                "step": step,
                "at_s": at,
                "alive": alive,
                "trial": trial,
                "checkpoint": checkpoint,
            }
            rows.append(row | {"wrong": wrong_after_kill(root, known)})
            if progress:
                progress(1)
        again = Child(lambda tell, root=root: work(root, "new", CONFIG, tell)).start()
        wrong = wrong_after_rerun(root, known) if again.finish() else ["the rerun failed"]
        rows[-1]["wrong"] = rows[-1]["wrong"] + wrong
        shutil.rmtree(root)
        trial += 1
    return pd.DataFrame(rows)


def kill_at_write(number: int, below: Path) -> None:
    """Have this very process killed right before its n-th change to the files below a folder, counted from now."""
    count = 0

    def hook(event: str, values: tuple) -> None:
        nonlocal count
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod") or (
            event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not changes or not isinstance(values[0], str | bytes | os.PathLike):
            return
        if Path(os.fsdecode(values[0])).is_relative_to(below):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kills_at_every_write(
    job: Callable[[Path], None], prepare: Callable[[Path], None], wrong: Callable[[Path], list[str]], folder: Path
) -> list[list[str]]:
    """Kill a job before its first change to its folder, its second, and so on, until it gets through.

    Returns:
        What was wrong, a list a kill: right after it, and after the job was done again.
    """
    found = []
    while True:
        root = folder / f"write{len(found):03d}"
        prepare(root)

        def killed(tell: Callable[[int, int], None], root: Path = root) -> None:
            kill_at_write(len(found) + 1, root)
            job(root)

        if Child(killed).start().finish():
            return found
        before = wrong(root)
        again = Child(lambda tell, root=root: job(root)).start().finish()
        found.append(before + (wrong(root) if again else ["the rerun failed"]))
        shutil.rmtree(root)


def every_write(folder: Path, known: Reference, progress=None) -> list[list[str]]:
    """`kills_at_every_write` of train, evaluate and promote."""

    def prepare(root: Path) -> None:
        shutil.copytree(known.before, root)
        if progress:
            progress(1)

    def wrong(root: Path) -> list[str]:
        done = (root / "new" / "run.json").exists() and production(root=root).name == "new"
        return (wrong_after_rerun if done else wrong_after_kill)(root, known)

    return kills_at_every_write(
        lambda root: work(root, "new", CONFIG, lambda phase, steps: None), prepare, wrong, folder
    )


def every_write_of_promote(folder: Path, known: Reference) -> list[list[str]]:
    """`kills_at_every_write` of promote and rollback alone, which take milliseconds."""
    done = folder / "done"
    shutil.copytree(known.before, done)
    assert Child(lambda tell: work(done, "new", replace(CONFIG, iterations=10, seed=3), tell)).start().finish()
    shutil.copyfile(known.before / "production.json", done / "production.json")

    def wrong(root: Path) -> list[str]:
        try:
            current = production(root=root)
            names = {"old": 1, "new": 2}
            return [] if len(production_history(root=root)) == names[current.name] else ["a history that does not fit"]
        except fd.InputError as error:
            return [str(error)]

    def job(root: Path) -> None:
        promote(root / "new", root=root, force=True, reason="whatever it is worth")

    return kills_at_every_write(job, lambda root: shutil.copytree(done, root), wrong, folder)


def main() -> None:
    """Kill, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known = reference(options.folder)
    rows = random_kills(options.folder, known, options.kills, options.seed)
    writes = every_write_of_promote(options.folder / "promote", known)
    print(json.dumps({"kills": rows.to_dict("records"), "writes": writes}, default=str))


if __name__ == "__main__":
    main()
