"""``BACKENDS``: where the jobs of a sweep run. Each takes jobs and yields, in any order, their numbers and reasons of failure.

A backend that loses a process raises one of ``LOST``, and nobody knows which job was the culprit: ``run_all`` starts what is
left again, and at last each job by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments.sweeping.jobs import Job
from pyrovae.extras import import_extra

STARTS_TOGETHER = 2
# What the engines raise where a process of theirs has died, by name: they need not be installed.
LOST = ("TerminatedWorkerError", "BrokenProcessPool", "RayActorError", "ActorDiedError", "WorkerCrashedError", "KilledWorker")
# Of a SLURM job, where SBATCH_TIMELIMIT says nothing else: a day.
MINUTES = 24 * 60
PURPOSE = "for this backend"

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
    for _ in range(STARTS_TOGETHER):
        if not left or _run_some(jobs, list(left), left, backend, workers, folder, ended):
            return
    for number in list(left):
        # Two places: the one of a single worker is this process.
        if not _run_some(jobs, [number], left, backend, 2, folder, ended):
            ended(number, "its process died; where memory is short, fewer --workers help")


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
    except Exception as error:
        if type(error).__name__ not in LOST:
            raise
        logger.warning("a process of the sweep was lost (%s): what is left is started again", type(error).__name__)
        return False
    return True


def _processes(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """Processes of this machine."""
    return _by_joblib("loky", jobs, workers)


def _ray(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """A Ray cluster: that of $RAY_ADDRESS, else one that is started on this machine."""
    ray = import_extra("ray", "ray", PURPOSE)
    from ray.util.joblib import register_ray

    register_ray()
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    return _by_joblib("ray", jobs, workers, return_as="list")


def _dask(jobs: Sequence[Job], workers: int, folder: Path) -> Outcomes:
    """A Dask cluster: that of $DASK_SCHEDULER_ADDRESS, else one that is started on this machine."""
    import os

    distributed = import_extra("distributed", "dask", PURPOSE)
    distributed.Client(os.environ.get("DASK_SCHEDULER_ADDRESS"), set_as_default=True)
    return _by_joblib("dask", jobs, workers)


def _by_joblib(name: str, jobs: Sequence[Job], workers: int, return_as: str = "generator_unordered") -> Outcomes:
    from joblib import Parallel, delayed, parallel_config

    # One worker of joblib's is this process itself: where several are asked for, a job that dies must not take it down.
    with parallel_config(name, n_jobs=min(workers, max(2, len(jobs)))):
        yield from Parallel(return_as=return_as, batch_size=1)(
            delayed(_numbered)(number, job) for number, job in enumerate(jobs)
        )


def _numbered(number: int, job: Job) -> tuple[int, str]:
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
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[-200:]} (see {job.paths.stderr})"
        yield submitted.index(job), reason


BACKENDS: dict[str, Backend] = {"processes": _processes, "ray": _ray, "dask": _dask, "slurm": _slurm}
