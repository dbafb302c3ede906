"""Processes that render parts of a PDF side by side: each long-lived, capped in memory and time, and replaceable.

A job is a file; a worker (:mod:`explainvad.report.pdf_worker`) reads its path from standard input and answers with one
line of JSON. A worker that dies, runs out of memory or is late is replaced and its job tried once more; what
is wrong with the job itself is an answer, and final.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from explainvad.errors import ExplainVADError, IntegrityError, RenderError, StorageError, UsageError
from explainvad.report.render_process import command, environment

_FINAL: Mapping[str, type[ExplainVADError]] = {
    "render": RenderError,
    "integrity": IntegrityError,
    "storage": StorageError,
    "usage": UsageError,
}
_REPLY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Job:
    """A job file, what it is in words ("images img-00001 to img-00050"), and the seconds it may take."""

    file: Path
    words: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker. ``data_bytes`` caps its own memory; above ``recycle_bytes`` resident it is replaced."""

    data_bytes: int = 1 << 30
    recycle_bytes: int = 350 << 20


class WorkerLostError(Exception):
    """A worker gave no answer; the message says why."""


class WorkerPool:
    """``count`` places for workers, filled when a job needs one. Use as a context manager: the end stops them all."""

    def __init__(self, folder: Path, count: int, issued: float, limits: Limits | None = None) -> None:
        self._folder, self._issued, self._limits = folder, issued, limits or Limits()
        self._executor = ThreadPoolExecutor(count)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._stopped, self._starting = False, Lock()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._starting:
            self._stopped = True
        for worker in self._workers:
            worker.kill()
        self._executor.shutdown(cancel_futures=True)  # threads that wait for a worker see that it is gone
        for worker in self._workers:
            worker.close()

    def run(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return the answers in the order of the jobs.

        Raises the first error in that order: RenderError where a job failed twice or its part cannot be rendered,
        IntegrityError where a picture of the record was altered.
        """
        return [future.result() for future in [self._executor.submit(self._answer, job) for job in jobs]]

    def _answer(self, job: Job) -> dict[str, Any]:
        reasons: list[str] = []
        while not self._stopped and len(reasons) < 2:
            worker = self._idle.get() if not self._idle.empty() else self._start()
            try:
                answer = worker.ask(job)
            except WorkerLostError as lost:
                reasons.append(str(lost))
                worker.close()
                continue
            if answer["resident_bytes"] > self._limits.recycle_bytes:
                worker.close()
            else:
                self._idle.put(worker)
            if "failure" in answer:
                raise _FINAL[answer["failure"]](answer["message"])
            return answer
        raise RenderError(
            f"the PDF could not be rendered: a worker process was lost twice at {job.words} "
            f"({'; then '.join(reasons)}). Free memory, or render html, csv and json instead"
        )

    def _start(self) -> _Worker:
        with self._starting:
            if self._stopped:
                raise RenderError("the PDF was given up")
            worker = _Worker(self._folder, self._issued, self._limits, len(self._workers))
            self._workers.append(worker)
            return worker


class _Worker:
    """One process, and the pipes to it."""

    def __init__(self, folder: Path, issued: float, limits: Limits, number: int) -> None:
        self._log = folder / f"worker-{number}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command("explainvad.report.pdf_worker", folder, limits.data_bytes),
                cwd=folder,
                env=environment(
                    PYTHONHASHSEED="0",
                    SOURCE_DATE_EPOCH=str(int(issued)),  # font subsets carry a date
                    TZ="UTC",
                    OMP_NUM_THREADS="1",  # the processes are the parallelism; thread pools would only reserve memory
                    OPENBLAS_NUM_THREADS="1",
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ask(self, job: Job) -> dict[str, Any]:
        """Hand the job over and wait for the answer. Raises :class:`WorkerLostError`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{job.file}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerLostError(self._last_words()) from error
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(job.seconds):
                    raise WorkerLostError(f"not ready after {job.seconds:.0f} s")
                piece = os.read(self._process.stdout.fileno(), _REPLY_BYTES)
                if not piece:
                    raise WorkerLostError(self._last_words())
                received += piece
        answer: dict[str, Any] = json.loads(received)
        if answer.get("failure") == "memory":
            raise WorkerLostError("out of memory")
        return answer

    def kill(self) -> None:
        """End the process; who waits for its answer goes on."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of its pipes, which nobody may be waiting for any more."""
        self._process.kill()
        self._process.communicate()

    def _last_words(self) -> str:
        code = self._process.wait()
        words = " | ".join(self._log.read_text("utf-8", "replace").strip().splitlines()[-3:])
        return f"{f'killed by signal {-code}' if code < 0 else f'exit code {code}'}{f': {words}' if words else ''}"
