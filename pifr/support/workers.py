"""How many worker processes a pool may have, and what each begins with."""

import os
import threading
from multiprocessing import connection, parent_process


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has where a scheduler lends some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_worker() -> None:
    """One thread a process, for the pool is the parallelism; and none outlives the process that it works for.

    A parent that is killed cannot end its pool, and its workers would wait for work for good.
    """
    _limit_threads()
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _limit_threads() -> None:
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # An environment variable would come too late: numpy has been imported before a worker's first line runs.
    threadpool_limits(1)
