"""Writing files that others read: each appears whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside `target`, then give it that name.

    Args:
        target: replaced if it exists; its folder must.
        write: writes the content to the path that it is given.

    Raises:
        OSError: as `write` does, or the folder cannot be written; `target` is then as it was.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(Path(name))
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
