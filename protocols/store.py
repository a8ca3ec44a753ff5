"""Features kept by content: what was computed once from the same bytes by the same models is never computed again."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pifr.errors import DataError

RECIPE_VERSION = 1
"""Part of every key: raise it when this project's code changes what a face's features are."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    key BLOB PRIMARY KEY,
    views INTEGER NOT NULL,
    features BLOB NOT NULL,
    weights BLOB NOT NULL,
    yaw REAL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL
)
"""
_COLUMNS = "key, views, features, weights, yaw, status, reason"
_BUSY_SECONDS = 60
_LOOKUP = 500  # keys in one SELECT, below every build's limit of bound variables


@dataclass(frozen=True, slots=True, eq=False)
class FaceFeatures:
    """What one recognizer saw of one face.

    Attributes:
        features: V x D float32; 0 x 0 where the face failed.
        weights: V float32.
        yaw: degrees, NaN where unknown.
        status: "ok", "fallback" or "failed".
        reason: "" or a word.
    """

    features: np.ndarray
    weights: np.ndarray
    yaw: float
    status: str
    reason: str

    @staticmethod
    def failed(reason: str) -> "FaceFeatures":
        return FaceFeatures(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), float("nan"), "failed", reason)


class FeatureStore:
    """Features in one SQLite file, safe for several processes on one machine and for a kill at any moment.

    A batch is written in one transaction: it is there whole or not at all. The first writer of a key wins.

    Args:
        path: the file; made, with its folders, if it does not exist. It must be on a local disk (SQLite's write-ahead
            log does not work over network file systems).

    Raises:
        DataError: the file is not a feature store, or cannot be written; later, also that it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)
            self._connection.execute(f"SELECT {_COLUMNS} FROM features LIMIT 0")
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"'{self.path}' cannot be used as a feature store ({error}): give another file by --store"
            ) from error

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def __len__(self) -> int:
        return self._connection.execute("SELECT count(*) FROM features").fetchone()[0]

    def present(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that are stored."""
        return {row[0] for row in self._select("key", list(keys))}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, FaceFeatures]:
        """What is stored under the keys; a key that is not is left out.

        Raises:
            DataError: a row is damaged: features of no whole number of views, or not finite.
        """
        found = {}
        for key, views, *content in self._select(_COLUMNS, keys):
            try:
                found[key] = _face(views, *content)
            except (TypeError, ValueError) as error:
                raise self._unreadable(error) from error
        return found

    def put(self, faces: Mapping[bytes, FaceFeatures]) -> None:
        """Add a batch in one transaction; keys that are there already are left as they are.

        Raises:
            DataError: the disk is full, the file is read-only, or another process holds it for over a minute.
        """
        rows = [
            (
                key,
                len(face.features),
                face.features.astype("<f4", copy=False).tobytes(),
                face.weights.astype("<f4", copy=False).tobytes(),
                None if np.isnan(face.yaw) else float(face.yaw),
                face.status,
                face.reason,
            )
            for key, face in faces.items()
        ]
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise DataError(f"'{self.path}' cannot be written ({error}); what was stored before is intact") from error

    def _select(self, columns: str, keys: Sequence[bytes]) -> Iterable[tuple]:
        for start in range(0, len(keys), _LOOKUP):
            some = keys[start : start + _LOOKUP]
            query = f"SELECT {columns} FROM features WHERE key IN ({', '.join('?' * len(some))})"
            try:
                with closing(self._connection.execute(query, some)) as cursor:
                    yield from cursor
            except sqlite3.Error as error:
                raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"'{self.path}' cannot be read as a feature store ({error}): move it away, or give another by --store"
        )


def _face(views: int, features: bytes, weights: bytes, yaw: float | None, status: str, reason: str) -> FaceFeatures:
    """A row of the store. Raises ValueError or TypeError where it cannot be what `FeatureStore.put` wrote."""
    vectors, shares = np.frombuffer(features, "<f4"), np.frombuffer(weights, "<f4")
    if len(shares) != views or bool(len(vectors)) != bool(views):
        raise ValueError(f"a row has {len(vectors)} numbers and {len(shares)} weights for {views} views")
    vectors = vectors.reshape(views, -1) if views else np.zeros((0, 0), np.float32)
    if not (np.isfinite(shares).all() and np.isfinite(vectors[shares > 0]).all()):
        raise ValueError("a row has features that are no numbers")
    return FaceFeatures(vectors, shares, float("nan") if yaw is None else yaw, status, reason)


def content_digest(content: bytes) -> bytes:
    """SHA-256 of an image file's bytes."""
    return hashlib.sha256(content).digest()


def feature_key(content: bytes, *fingerprints: str) -> bytes:
    """Key of one face's features: SHA-256 over the image's digest, every fingerprint, and the recipe version.

    Args:
        content: `content_digest` of the image.
        fingerprints: of the finder, the view maker, the recognizer and its alignment, in this order.
    """
    context = json.dumps([RECIPE_VERSION, *fingerprints]).encode()
    return hashlib.sha256(content + context).digest()
