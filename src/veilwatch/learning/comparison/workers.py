"""Trainings of a comparison, one after the other or in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from veilwatch.corpus.cache import leave_quietly
from veilwatch.errors import TrainingError, VeilwatchError
from veilwatch.learning.comparison.jobs import Job, run_job
from veilwatch.progress import Progress


def run_jobs(work: Sequence[tuple[Job, Path]], workers: int, progress: Progress) -> dict[Path, str]:
    """Run the jobs whose results are missing; return by result file why the others failed."""
    missing = [(job, path) for job, path in work if not path.is_file()]
    progress.start(f"{len(missing)} of {len(work)} trainings to do", len(missing))
    failed: dict[Path, str] = {}

    def settle(path: Path, outcome: VeilwatchError | None) -> None:
        if outcome is not None:
            failed[path] = f"{outcome.what} ({outcome.hint})" if outcome.hint else outcome.what
        progress.advance()

    for path, error in _each(missing, min(workers, len(missing))):
        settle(path, error)
    return failed


def _each(
    work: Sequence[tuple[Job, Path]], workers: int
) -> Iterator[tuple[Path, VeilwatchError | None]]:
    if workers <= 1:
        for job, path in work:
            yield path, _attempt(job, path)
        return
    # Spawned, not forked: threads of Polars and of the learners do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=leave_quietly) as pool:
        futures = {pool.submit(_attempt, job, path): path for job, path in work}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker was ended from outside, most likely for want of memory",
                hint="run again with --workers 1: what is done is kept",
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _attempt(job: Job, path: Path) -> VeilwatchError | None:
    try:
        run_job(job, path)
    except VeilwatchError as error:
        return error
    except MemoryError:
        return TrainingError("not enough memory", hint="use fewer workers")
    return None
