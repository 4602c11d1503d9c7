"""``BACKENDS``: where the jobs of a sweep run. Each takes jobs and yields, in any order, their numbers and reasons of failure.

Processes of this machine are joblib's; where one dies all are lost, and nobody knows which job was the culprit: ``run_all``
starts what is left again, and then each suspect by itself. Ray and Dask start a job whose process died again by themselves, on
another machine, and are asked directly: behind joblib Ray may put all workers on one machine, or wait for one that has left,
and Dask takes no number of workers and never says that it has given up a job.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.sweeping.jobs import Job
from pyrovae.extras import import_extra

# Starts of all jobs that are left in which none ended, before the suspects are started one by one.
STARTS_TOGETHER = 2
DIED = "its process died; where memory is short, fewer --workers help"
# Of a SLURM job, where SBATCH_TIMELIMIT says nothing else: a day.
MINUTES = 24 * 60
PURPOSE = "for this backend"
ALONE = threading.Lock()

logger = logging.getLogger(__name__)

Outcomes = Iterator[tuple[int, str]]
Backend = Callable[[Sequence[Job], int, Path], Outcomes]


def run_all(jobs: Sequence[Job], backend: str, workers: int, folder: Path, ended: Callable[[int, str], Any]) -> None:
    """Run all jobs that are not done; one that fails or dies does not stop the others.

    Args:
        jobs: of the sweep.
        backend: one of ``BACKENDS``.
        workers: jobs at a time.
        folder: of the sweep.
        ended: called with the number of each job and the reason of its failure, empty where there was none.

    Raises:
        InputError: for another backend, and one that is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"expected a backend out of {', '.join(BACKENDS)}; got {backend!r}")
    left = list(range(len(jobs)))
    starts = STARTS_TOGETHER
    while left:
        before = len(left)
        if _run_some(jobs, list(left), left, backend, workers, folder, ended):
            return
        starts = STARTS_TOGETHER if len(left) < before else starts - 1
        # Those that were running are the first that are left.
        for number in left[:workers] if not starts else []:
            # Two places: the one of a single worker is this process.
            if not _run_some(jobs, [number], left, backend, 2, folder, ended):
                left.remove(number)
                ended(number, DIED)
        starts = starts or STARTS_TOGETHER


def _run_some(
    jobs: Sequence[Job],
    numbers: list[int],
    left: list[int],
    backend: str,
    workers: int,
    folder: Path,
    ended: Callable[[int, str], Any],
) -> bool:
    """Run some jobs and strike those that end off what is left; False where a process was lost."""
    try:
        for place, reason in BACKENDS[backend]([jobs[number] for number in numbers], workers, folder):
            number = numbers[place]
            left.remove(number)
            missing = "" if reason or jobs[number].is_done else f"its run is not in {folder} of this machine: share the folder"
            ended(number, reason or missing)
    except BrokenProcessPool as error:
        logger.warning("a process of the sweep was lost (%s): what is left is started again", type(error).__name__)
        return False
    return True


def _processes(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """Processes of this machine."""
    from joblib import Parallel, delayed

    # One worker of joblib's is this process itself: where several are asked for, a job that dies must not take it down.
    start = Parallel(min(workers, max(2, len(jobs))), "loky", return_as="generator_unordered", batch_size=1)
    return start(delayed(_numbered)(*each) for each in enumerate(jobs))


def _ray(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """A Ray cluster: that of $RAY_ADDRESS, else one that is started on this machine."""
    ray = import_extra("ray", "ray", PURPOSE)
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False)
    except ConnectionError as error:
        raise InputError(_no_cluster("Ray", "RAY_ADDRESS")) from error
    start = ray.remote(num_cpus=jobs[0].threads, num_gpus=_gpus_of_a_job(ray, jobs[0], workers))(_numbered).remote
    waiting = enumerate(jobs)
    running = {start(*each): each[0] for each in itertools.islice(waiting, workers)}
    while running:
        (first,), _ = ray.wait(list(running))
        number = running.pop(first)
        running.update({start(*each): each[0] for each in itertools.islice(waiting, 1)})
        yield _outcome(number, partial(ray.get, first))


def _gpus_of_a_job(ray: Any, job: Job, workers: int) -> float:
    """The share of a GPU that each job asks Ray for, without which Ray hides all GPUs from it."""
    gpus = ray.cluster_resources().get("GPU", 0)
    return min(1.0, gpus / workers) if gpus and job.device != "cpu" else 0.0


def _dask(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """A Dask cluster: that of $DASK_SCHEDULER_ADDRESS, else one that is started on this machine."""
    distributed = import_extra("distributed", "dask", PURPOSE)
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    here = {} if address else {"n_workers": min(workers, len(jobs)), "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = distributed.Client(address, **here)
    except OSError as error:
        raise InputError(_no_cluster("Dask", "DASK_SCHEDULER_ADDRESS")) from error
    with client:
        waiting = enumerate(jobs)
        start = partial(client.submit, _numbered, pure=False)
        numbers = {start(*each): each[0] for each in itertools.islice(waiting, workers)}
        running = distributed.as_completed(list(numbers))
        for first in running:
            following = {start(*each): each[0] for each in itertools.islice(waiting, 1)}
            numbers.update(following)
            running.update(list(following))
            yield _outcome(numbers.pop(first), first.result)


def _outcome(number: int, result: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """The outcome of a job, or why its engine has none."""
    try:
        return result()
    except Exception as error:
        died = type(error).__name__ in ("KilledWorker", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
        return number, DIED if died else _in_one_line(error)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"


def _no_cluster(engine: str, variable: str) -> str:
    return f"expected a {engine} cluster at ${variable}; got no answer from {os.environ.get(variable)!r}: start it, or unset it"


def _numbered(number: int, job: Job) -> tuple[int, str]:
    # A worker of Dask may have several threads, and a training needs its process's random numbers for itself.
    with ALONE:
        return number, job()


def _slurm(jobs: Sequence[Job], workers: int, folder: Path, cluster: str = "slurm") -> Outcomes:
    """A SLURM array through submitit; partition, memory and time are those of sbatch's own $SBATCH_... variables."""
    submitit = import_extra("submitit", "slurm", PURPOSE)
    import shutil

    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError("expected a machine that submits to SLURM; this one has no sbatch: choose another backend")
    executor = submitit.AutoExecutor(folder=folder / ".submitit", cluster=cluster)
    executor.update_parameters(name=f"pyrovae-{folder.name}", timeout_min=MINUTES, cpus_per_task=jobs[0].threads)
    if cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=workers)
    with executor.batch():
        submitted = [executor.submit(job) for job in jobs]
    for job in submitit.helpers.as_completed(submitted):
        try:
            reason = job.result()
        except Exception as error:
            reason = f"{_in_one_line(error)} (see {job.paths.stderr})"
        yield submitted.index(job), reason


BACKENDS: dict[str, Backend] = {"processes": _processes, "ray": _ray, "dask": _dask, "slurm": _slurm}
