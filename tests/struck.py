"""Runs commands of the command line in children that are killed, or find the disk full, at a chosen moment.

A step is a call that changes a file. The server imports what is slow to import once and forks a child for each command,
so that hundreds of commands take seconds.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import own_process

STEPS = ("write", "fsync", "replace", "unlink", "mkdir", "ftruncate")
TAKE_ROOM = ("write", "mkdir")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, negative for a signal; its stderr; and its number of steps, unless killed."""

    code: int
    err: str
    steps: int


class Server:
    """The process that forks. ``folder`` is for temporary files; ``stamp`` is drawn for all signatures, if given."""

    def __init__(self, folder: Path, stamp: bytes | None = None) -> None:
        self.folder = folder
        environment = own_process() | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._stamp = folder.with_suffix(".stamp")
        if stamp is not None:
            self._stamp.write_bytes(stamp)

    def run(self, *arguments: object, **strike: Any) -> Ended:
        """Run a command. ``strike``: one of kill_at=STEP, full_at=STEP, seconds=UNTIL_KILLED, largest=BYTES_OF_A_FILE.

        ``env`` are further variables; None takes one away.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"argv": [str(argument) for argument in arguments], "stamp": str(self._stamp), **strike}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def serve() -> None:
    """Answer the orders on standard input."""
    import explainvad.pipeline
    import explainvad.report.parquet
    import explainvad.reporting
    import explainvad.signing  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        log = Path(os.environ["TMPDIR"]).with_suffix(".log")
        with log.open("w+b") as err, log.with_suffix(".steps").open("w+b") as steps:
            child = os.fork()
            if child == 0:
                run(order, err.fileno(), steps.fileno())
            if "seconds" in order:
                time.sleep(order["seconds"])
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            err.seek(0)
            steps.seek(0)
            answer = {"code": code, "err": err.read().decode(), "steps": int(steps.read() or 0)}
        print(json.dumps(answer), flush=True)


def run(order: dict[str, Any], err: int, steps: int) -> None:
    """Be the command, and end with it."""
    from explainvad import cli
    from explainvad.report import pdf_signing

    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    for name, value in order.get("env", {}).items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    if Path(order["stamp"]).exists():
        pdf_signing.stamp_pdf = lambda *_: Path(order["stamp"]).read_bytes()
    if "largest" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], resource.RLIM_INFINITY))
    counted = Counted(order.get("kill_at"), order.get("full_at"))
    sys.argv = ["explainvad", *order["argv"]]
    code = 0
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    sys.stderr.flush()
    os.pwrite(steps, str(counted.number).encode(), 0)
    os._exit(code)


class Counted:
    """Counts the steps of this process, and strikes at one; of a write, half is done."""

    def __init__(self, kill_at: int | None, full_at: int | None) -> None:
        self.number = 0
        self._kill_at, self._full_at = kill_at, full_at
        for name in STEPS if full_at is None else TAKE_ROOM:
            setattr(os, name, self._step(name, getattr(os, name)))

    def _step(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], int) and stat.S_ISFIFO(os.fstat(arguments[0]).st_mode):
                return call(*arguments, **options)
            self.number += 1
            if self.number == self._kill_at:
                if name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if self._full_at is not None and self.number >= self._full_at:
                if name == "write" and self.number == self._full_at and len(arguments[1]) > 1:
                    return call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return step


if __name__ == "__main__":
    serve()
