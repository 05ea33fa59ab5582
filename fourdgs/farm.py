"""Many runs in many processes, on dask.distributed: jobs handed out one a worker, watched, and reported one by one.

dask schedules, notices a worker that died and starts its job again elsewhere. What is here: processes on this machine
with the right number of threads and one GPU each, one bar over all steps, and a job that fails without taking the
others along. That two processes never train in one folder at a time is seen to by `train` itself (`sessions.hold`):
its lock is the system's, and ends with its process however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from .errors import InputError, MissingDependency, OutputError
from .files import write_text

if TYPE_CHECKING:
    from distributed import Client, Future

Work = Callable[[dict, Path, Callable[[int], None]], Any]
"""What a worker does: from a job's task, its folder, and a function to be told of steps as they are taken.

A function of a module, not a lambda or a closure: workers import it.
"""

LOOK_S = 0.5  # between looks at workers and bar, and between a worker's reports
MARK = ".shared"  # in the output folder: tells a worker whether it sees the same folder as the one who asks
_ALONE = threading.Lock()  # one job at a time in a process, also where a worker has many threads


@dataclass(frozen=True)
class Job:
    """One run to be made.

    Attributes:
        folder: its folder, absolute.
        steps: how many it will report, for the bar.
        task: what the work function is given; JSON values.
    """

    folder: Path
    steps: int
    task: dict = field(repr=False)

    @property
    def failure(self) -> Path:
        """Where the traceback goes: beside the folder, which may hold another run that is none of this job's."""
        return self.folder.with_name(f"{self.folder.name}.failure.txt")


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: "finished" or "failed".
        error: the kind of error and its text, on one line; "" where there is none.
        worker: the address of the worker that ended it.
        attempts: how often it was begun; more than once where workers died.
    """

    state: str
    error: str = ""
    worker: str = ""
    attempts: int = 1


class Abandoned(BaseException):
    """Nobody waits for this job any more. No `Exception`, so that no handler takes it for a failure of the run."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; [] without CUDA."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name.strip() for name in named.split(",")] if named else [str(i) for i in range(torch.cuda.device_count())]


def slots(jobs: int) -> int:
    """How many of so many jobs run at once by default: one a GPU, else one a core."""
    return max(1, min(len(gpus()) or cores(), jobs))


def work_through(
    jobs: Sequence[Job],
    work: Work,
    out: str | Path,
    *,
    scheduler: str | Client | None = None,
    workers: int | None = None,
    progress: bool = True,
    desc: str = "runs",
) -> list[Outcome]:
    """Do jobs on dask workers, in their order, each when a worker is free; return when all have ended.

    Args:
        out: a folder that all job folders lie in, seen by every worker under the same path.
        scheduler: see `sweep.sweep`; by default processes on this machine.
        workers: how many processes; only without a scheduler of one's own.
        progress: one bar over the steps of all jobs; failures are told as they happen.

    Raises:
        InputError: the scheduler cannot be reached. MissingDependency: no dask.distributed.
        RuntimeError: no worker process could be started here.
    """
    if not jobs:
        return []
    mark = _mark(Path(out))
    with _connected(scheduler, workers or slots(len(jobs))) as (client, settings):
        return _Watch(client, jobs, progress, desc).run(work, {"out": str(out), "mark": mark, **settings})


def raise_first(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
    """Raise the first failure there was, as what it was where the user can act on it, else as a RuntimeError."""
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.state == "failed":
            kind, _, text = outcome.error.partition(": ")
            known = {error.__name__: error for error in (InputError, OutputError, MissingDependency)}
            raise known.get(kind, RuntimeError)(f"{job.folder.name}: {text or kind} (traceback: {job.failure})")


class _Watch:
    """The client's side: hands out jobs, hears of their steps, gathers their ends."""

    def __init__(self, client: Client, jobs: Sequence[Job], progress: bool, desc: str):
        self.client, self.jobs = client, jobs
        self.topic = f"fourdgs-{uuid.uuid4().hex[:12]}"
        self.steps = [0] * len(jobs)
        self.attempts = [0] * len(jobs)
        self.outcomes: dict[int, Outcome] = {}
        self.workers = 0
        total = sum(job.steps for job in jobs)
        self.bar = tqdm(total=total, desc=desc, unit="step", mininterval=1, disable=not progress)
        self.progress, self.shown = progress, ""

    def run(self, work: Work, settings: dict) -> list[Outcome]:
        waiting, running, ended = list(range(len(self.jobs))), {}, threading.Event()
        self.client.subscribe_topic(self.topic, self._hear)
        try:
            while waiting or running:
                # No more than there are workers: a job that lies with a busy worker would have to be stolen from it
                # when another one joins, and shares the blame when that worker dies.
                for index in waiting[: max(0, self._count_workers() - len(running))]:
                    running[index] = self._submit(work, index, settings)
                    running[index].add_done_callback(lambda _: ended.set())
                    waiting.remove(index)
                ended.wait(LOOK_S)
                ended.clear()
                for index in [index for index, future in running.items() if future.done()]:
                    self._end(index, running.pop(index))
                self._show()
                if self.client.status == "closed":
                    self._give_up([*running, *waiting])
                    waiting, running = [], {}
        finally:
            if running:  # we were interrupted: each worker notices and stops, its checkpoint stays
                with contextlib.suppress(Exception):
                    self.client.cancel(list(running.values()), force=True)
            with contextlib.suppress(Exception):  # the client may be closed by now
                self.client.unsubscribe_topic(self.topic)
            self.bar.close()
        return [self.outcomes[index] for index in range(len(self.jobs))]

    def _submit(self, work: Work, index: int, settings: dict) -> Future:
        job = self.jobs[index]
        told = {"topic": self.topic, "index": index, **settings}
        key = f"{job.folder.name}-{self.topic}-{index}"
        return self.client.submit(_attempt, work, job.task, str(job.folder), told, key=key, pure=False)

    def _count_workers(self) -> int:
        with contextlib.suppress(OSError, TimeoutError):  # a scheduler that is away for a moment
            self.workers = len(self.client.nthreads())
        return self.workers

    def _hear(self, event: tuple[float, dict]) -> None:
        _, told = event
        self.steps[told["index"]] = told["step"]
        self.attempts[told["index"]] += told["begun"]

    def _end(self, index: int, future: Future) -> None:
        job, attempts = self.jobs[index], max(1, self.attempts[index])
        if future.status == "finished":
            outcome = Outcome(**future.result(), attempts=attempts)
        elif future.status == "error":
            error = future.exception()
            text = _one_line(error)
            if type(error).__name__ == "KilledWorker":
                text = f"its worker died {attempts} times (memory? a crash?), the last time at step {self.steps[index]}"
            with contextlib.suppress(OSError):
                write_text(job.failure, "".join(traceback.format_exception(error)))
            outcome = Outcome("failed", text, attempts=attempts)
        else:
            outcome = Outcome("failed", "the scheduler lost it; run the sweep again", attempts=attempts)
        self.outcomes[index] = outcome
        if outcome.state == "finished":
            self.steps[index] = job.steps
        elif self.progress:
            tqdm.write(f"{job.folder.name} failed: {outcome.error}")

    def _give_up(self, left: list[int]) -> None:
        for index in left:
            self.outcomes[index] = Outcome("failed", "the scheduler is gone; run the sweep again")

    def _show(self) -> None:
        failed = sum(outcome.state == "failed" for outcome in self.outcomes.values())
        text = f"{len(self.outcomes)}/{len(self.jobs)} runs" + (f", {failed} failed" if failed else "")
        text += "" if self.workers else ", waiting for workers"
        changed, self.shown = text != self.shown, text
        self.bar.set_postfix_str(text, refresh=changed)
        self.bar.update(sum(self.steps) - self.bar.n)  # less than 0 where a run goes on from a checkpoint


# --- the cluster ---


@contextlib.contextmanager
def _connected(scheduler: str | Client | None, workers: int) -> Iterator[tuple[Client, dict]]:
    """A client, and what jobs are to know of its workers."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        remedy = "pip install 'fourdgs-lab[sweep]'"
        raise MissingDependency(f"dask.distributed is needed to train side by side ({remedy})") from error
    if isinstance(scheduler, Client):
        yield scheduler, {}
        return
    if scheduler is not None:
        try:
            client = Client(scheduler, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            remedy = "start one with `dask scheduler`, or leave it out for processes on this machine"
            raise InputError(f"{scheduler!r} is not reached: {error}", field="scheduler", remedy=remedy) from error
        with client:
            yield client, {}
        return
    threads = max(1, cores() // workers)
    # Without the profiler, which samples the running thread a hundred times a second, and without dask's own setting
    # for malloc, which gives memory back to the system after every training step only to ask for it again.
    spawn = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    quiet = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "500ms",  # default 20 ms
        # dask writes a worker off for good that is not there 15 s after it died, and a worker takes seconds to start:
        # two deaths in a row, or a busy machine, and the sweep would wait for ever.
        "distributed.deploy.lost-worker-timeout": "30 days",
        "distributed.nanny.pre-spawn-environ": spawn,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with _environment_kept([*spawn, "PYTHONHASHSEED", "__DASK_PARENT_PID"]), dask.config.set(quiet):
        try:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                silence_logs=logging.CRITICAL,
                # Not None: that means port 8787, and a warning where it is taken.
                dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
            )  # fmt: skip
        except Exception as error:  # of many kinds, by what comes first when the processes end
            remedy = "a script must call it below `if __name__ == '__main__':`, since each process imports the script"
            raise RuntimeError(f"no worker process could be started; {remedy}") from error
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client, {"threads": threads, "gpus": gpus()}


@contextlib.contextmanager
def _environment_kept(names: Sequence[str]) -> Iterator[None]:
    """Undo what dask leaves in this process's environment for the sake of its children."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _mark(out: Path) -> str:
    """The content of a file in the output folder by which a worker knows that it sees the same folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), open(out / MARK, "x", encoding="utf-8") as handle:
            handle.write(uuid.uuid4().hex)
        return (out / MARK).read_text(encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error} (choose another folder)") from error


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# --- in a worker ---


class _Meter:
    """Told of steps in a worker; tells the client now and then, and finds out whether the job is still wanted."""

    def __init__(self, topic: str, index: int):
        from distributed import get_worker

        self.worker, self.topic, self.index = get_worker(), topic, index
        self.key = self.worker.get_current_task()
        self.step, self.next = 0, 0.0

    def __call__(self, steps: int) -> None:
        self.step += steps
        if time.monotonic() >= self.next:
            self.tell()

    def tell(self, begun: bool = False) -> None:
        self.check()
        self.next = time.monotonic() + LOOK_S
        self.worker.log_event(self.topic, {"index": self.index, "step": self.step, "begun": begun})

    def check(self) -> None:
        """Raise Abandoned when the scheduler took the job back: a thread cannot be stopped from outside."""
        task = self.worker.state.tasks.get(self.key)
        if task is None or task.state == "cancelled":
            raise Abandoned(self.key)


def _attempt(work: Work, task: dict, folder: str, told: dict) -> dict:
    """Do one job in a worker; its end as the fields of an `Outcome`."""
    job, meter = Job(Path(folder), 0, task), _Meter(told["topic"], told["index"])
    ended = {"state": "finished", "error": "", "worker": meter.worker.address}
    try:
        while not _ALONE.acquire(timeout=LOOK_S):
            meter.check()
        try:
            _prepare(told, meter.worker)
            meter.tell(begun=True)
            work(task, job.folder, meter)
            job.failure.unlink(missing_ok=True)
        finally:
            _ALONE.release()
    except Abandoned:
        return ended | {"state": "failed", "error": "abandoned"}
    except Exception as error:  # whatever it is: reported, and the other jobs go on
        with contextlib.suppress(OSError):
            write_text(job.failure, traceback.format_exc())
        return ended | {"state": "failed", "error": _one_line(error)}
    return ended


def _prepare(told: dict, worker: Any) -> None:
    """Threads, GPU and folder of a job."""
    if told.get("gpus"):
        # Read when CUDA starts, with the first job. A worker that was started again has the name of the old one.
        os.environ["CUDA_VISIBLE_DEVICES"] = told["gpus"][int(worker.name) % len(told["gpus"])]
    torch.set_num_threads(told.get("threads") or worker.state.nthreads)
    mark = Path(told["out"]) / MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != told["mark"]:
        remedy = "give a folder that all workers share, under the same path"
        raise InputError(f"is another folder on worker {worker.address}", file=told["out"], field="out", remedy=remedy)
