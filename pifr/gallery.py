"""Galleries: embeddings of many faces in one Parquet file, which says what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from pifr.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_MADE_BY = b"pifr"
"""Key of the file's metadata under which a JSON object says what made the embeddings."""


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """What `pifr extract` wrote.

    Attributes:
        faces: B rows: `path`, `box` (left, top, right, bottom in pixels of the photo), `status` and `reason`.
        templates: B x D float32 of unit length; NaN where `status` is "failed".
        made_by: fingerprints of recognizer, frontalizer and finder, the fusion, and the version of pifr.
    """

    faces: pd.DataFrame
    templates: Tensor
    made_by: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.faces)


def read_gallery(*files: str | Path) -> Gallery:
    """The faces of one file of `pifr extract`, or of several that were made alike.

    Raises:
        ValueError: no file is named.
        DataError: a file is missing, damaged, or no gallery; or two were made in different ways, of which no similarity
            means anything: says in which.
    """
    import pandas as pd

    if not files:
        raise ValueError("read_gallery needs one file or more")
    tables, made_by = [], None
    for file in map(Path, files):
        table, made = _read(file)
        if made_by is not None and made != made_by:
            differing = ", ".join(sorted(key for key in {*made, *made_by} if made.get(key) != made_by.get(key)))
            raise DataError(f"'{file}' was made with another {differing} than '{files[0]}': extract both in one way")
        tables.append(table)
        made_by = made
    table = pd.concat(tables, ignore_index=True)
    known = table["embedding"].notna().to_numpy()
    lengths = {len(embedding) for embedding in table["embedding"][known]}
    if len(lengths) > 1:
        raise DataError(f"'{files[0]}': embeddings have {' and '.join(map(str, sorted(lengths)))} numbers")
    templates = np.full((len(table), next(iter(lengths), 0)), np.nan, np.float32)
    templates[known] = np.stack(table["embedding"][known]) if known.any() else 0
    return Gallery(table.drop(columns="embedding"), torch.from_numpy(templates), made_by or {})


def _read(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        made_by = json.loads((table.schema.metadata or {}).get(_MADE_BY, b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"'{file}' cannot be read as a gallery ({error}): 'pifr extract' writes one") from error
    if not isinstance(made_by, dict) or not {"path", "status", "embedding"} <= set(table.column_names):
        raise DataError(f"'{file}' is no gallery: 'pifr extract' writes one")
    return table.to_pandas(), made_by


class GalleryWriter:
    """Writes a gallery as its faces come; memory does not grow with them.

    What is written lies in `partial`, beside `file`, and takes its name when all is done: an earlier gallery stays
    until then. Where writing ends early, `partial` can be read, and holds what was done; it goes if that is nothing.

    Args:
        file: replaced if it exists; its folder must.
        made_by: what made the embeddings.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, file: Path, made_by: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file, self.partial, self.rows = file, file.with_suffix(".partial.parquet"), 0
        numbers = pa.list_(pa.float32())
        # The same whatever the faces are, so that files can be read together.
        fields = {"path": pa.string(), "box": numbers, "status": pa.string(), "reason": pa.string()}
        schema = pa.schema(fields | {"embedding": numbers}, {_MADE_BY: json.dumps(dict(made_by)).encode()})
        self._writer = pq.ParquetWriter(self.partial, schema)
        self._schema = schema

    def __enter__(self) -> Self:
        return self

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Adds faces: `path`, `box`, `status`, `reason` and `embedding` of each; None where there is none."""
        import pyarrow as pa

        table = pa.Table.from_pylist([dict(row) for row in rows], self._schema)
        self._writer.write_table(table)
        self.rows += len(table)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            self.partial.replace(self.file)
        elif not self.rows:
            self.partial.unlink(missing_ok=True)
