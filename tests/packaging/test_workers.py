"""Processes of pools end with the process that they work for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pifr.support.workers import start_worker

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), start_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())  # type: ignore[union-attr]
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not _runs(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker still runs ten seconds later")


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie, which waits for an init that containers may lack."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


COMMAND = """
import sys, time
import pifr.cli.main as cli

class Waiting:
    def main(self, *_, **__):
        try:
            print("begun", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("kept", flush=True)
            sys.exit(1)

cli.typer.main.get_command = lambda app: Waiting()
cli.main([])
"""


def test_what_terminates_a_command_does_what_ctrl_c_does(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)

    def listening() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores Ctrl-C

    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        assert process.stdout.readline() == "begun\n"  # type: ignore[union-attr]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == "kept\n"
        assert process.returncode == 1
