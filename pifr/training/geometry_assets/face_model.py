"""The face model: ICT Face Model Light, reduced to what rendering needs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pifr.errors import DataError
from pifr.support.files import write_arrays

log = logging.getLogger(__name__)

MILLIMETRES_PER_CENTIMETRE = 10.0
IDENTITY_MODES = 50
HEAD_RANGES = ((0, 14062), (21451, 24591))
"""ICT vertices kept: face, head and neck, mouth socket, eye sockets; eyeballs. Gums, tongue and teeth are left out."""
FACE_END, EYEBALL_BEGIN = 9409, 21451

MIRROR = np.array([-1.0, 1.0, 1.0])
"""Times this, a point lies on the other side of the face."""


def build_face_model(ict: Path, out: Path) -> None:
    """Reduce `ict_face.npz` (see the data folder's README for its keys) to the shipped face model.

    Raises:
        DataError: if a key is missing or the shapes disagree.
    """
    source = read_arrays(ict)
    missing = {"mean", "identity", "expression", "expression_names", "quads", "landmarks68"} - set(source)
    if missing:
        raise DataError(f"{ict}: not a packed ICT face model, missing {sorted(missing)}")
    count = len(source["mean"])
    for key in ("identity", "expression"):
        if source[key].shape[1:] != (count, 3):
            raise DataError(f"{ict}: {key} has shape {source[key].shape}, expected (modes, {count}, 3)")

    kept = np.concatenate([np.arange(*bounds) for bounds in HEAD_RANGES])
    renumber = np.full(count, -1)
    renumber[kept] = np.arange(len(kept))
    quads = source["quads"]
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
    triangles = renumber[triangles]
    triangles = triangles[(triangles >= 0).all(1)]

    mean = source["mean"][kept].astype(np.float64) * MILLIMETRES_PER_CENTIMETRE
    mean -= mean[:FACE_END].mean(0)
    mirror = cKDTree(mean).query(mean * MIRROR)[1]
    mean = (mean + mean[mirror] * MIRROR) / 2

    arrays = {
        "mean": mean.astype(np.float32),
        "triangles": triangles.astype(np.int32),
        "mirror": mirror.astype(np.int32),
        "landmarks68": renumber[source["landmarks68"]].astype(np.int32),
        "face_end": np.int32(FACE_END),
        "eyeball_begin": np.int32(renumber[EYEBALL_BEGIN]),
        "expression_names": source["expression_names"],
    }
    for key, modes in (("identity", source["identity"][:IDENTITY_MODES]), ("expression", source["expression"])):
        deltas = modes[:, kept].astype(np.float32) * MILLIMETRES_PER_CENTIMETRE
        scale = np.abs(deltas).max((1, 2)) / 127
        arrays[key] = np.round(deltas / scale[:, None, None]).astype(np.int8)
        arrays[f"{key}_scale"] = scale.astype(np.float32)
    write_arrays(out, arrays)
    log.info("face model: %d vertices, %d triangles, %s", len(mean), len(triangles), out)


def read_arrays(archive: Path) -> dict[str, np.ndarray]:
    """All arrays of a NumPy archive, by name."""
    with np.load(archive) as arrays:
        return dict(arrays)
