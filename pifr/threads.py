"""Threads of the processes of a pool."""


def limit_threads() -> None:
    """One thread a process: the pool is the parallelism."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # An environment variable would come too late: numpy has been imported before a worker's first line runs.
    threadpool_limits(1)
