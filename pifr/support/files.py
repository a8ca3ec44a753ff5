"""Files that others read: each appears whole or not at all, and a folder holds what was made in one way."""

import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pifr.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside `target`, then give it that name.

    Args:
        target: replaced if it exists; its folder must.
        write: writes the content to the path that it is given.

    Raises:
        OSError: as `write` does, or the folder cannot be written; `target` is then as it was.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")  # `target` may have the longest name there is
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)  # as the user's umask has it
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # safetensors puts a file of its own there, which nobody else may read
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_table(file: Path, remedy: str = "") -> "pd.DataFrame":
    """A Parquet table.

    Args:
        file: which exists.
        remedy: what to do where it is damaged, for the message.

    Raises:
        DataError: it is damaged.
    """
    import pandas as pd
    from pyarrow import ArrowException

    try:
        return pd.read_parquet(file)
    except (OSError, ArrowException, ValueError) as error:
        hint = f": {remedy}" if remedy else ""
        raise DataError(f"'{file}' is not a Parquet table ({error}){hint}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(target: Path, arrays: dict[str, Any]) -> None:
    """Writes a compressed NumPy archive of arrays by name, as `write_whole` writes files."""
    import numpy as np

    def write(whole: Path) -> None:
        with whole.open("wb") as file:  # to a path without .npz numpy would add it
            np.savez_compressed(file, **arrays)

    write_whole(target, write)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to be filled beside `target`, which takes that name when all went well; one writer at a time.

    What killed writers of `target` left behind is removed first.

    Args:
        target: does not exist; its folder does.

    Raises:
        OSError: the folder cannot be written; there is no `target` then.
    """
    mark = f".{target.name}.part-"
    for stale in target.parent.iterdir():
        if stale.name.startswith(mark) and stale.is_dir():
            shutil.rmtree(stale)
    temporary = target.with_name(mark + secrets.token_hex(8))
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_writable(folder: str | Path) -> None:
    """Sees whether results can be written to a folder, or whether it can be made, before anything is computed.

    Raises:
        DataError: no.
    """
    there = next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise DataError(f"nothing can be written to '{folder}': {error.strerror or error}") from error


def read_manifest(file: Path) -> dict[str, Any]:
    """What `claim_folder` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(f"'{file}' is damaged ({error}): choose another folder") from error


def claim_folder(manifest_file: Path, manifest: dict[str, Any]) -> None:
    """Write down how the files in a folder are made, or check that those which are there were made in this way.

    Work that is resumed by the names of finished files needs it.

    Args:
        manifest_file: in the folder, which exists.
        manifest: whatever JSON holds.

    Raises:
        DataError: the folder holds what was made differently, names how; or the manifest is damaged.
    """
    if not manifest_file.exists():
        write_whole(manifest_file, lambda whole: whole.write_text(json.dumps(manifest, indent=1)))
        return
    found = read_manifest(manifest_file)
    differing = sorted(key for key in manifest if found.get(key) != manifest[key])
    if differing:
        raise DataError(
            f"'{manifest_file.parent}' holds what was made with other {', '.join(differing)}: choose another folder"
        )
