"""The texture model: principal components of the textures of many people."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pifr.errors import DataError
from pifr.support.files import write_arrays

log = logging.getLogger(__name__)

TEXTURE_COMPONENTS = 80
MAX_TEXTURE_YAW = 20.0
"""Photos turned further show too little of one side to count as complete."""


def build_texture_model(shards: Path, out: Path) -> None:
    """Principal components of the near-frontal textures in `shards` and their mirror images.

    Statistics over all people: no texture of a photo is stored. Components are quantised to int8.

    Raises:
        DataError: if there are no shards, or fewer textures than components.
    """
    from sklearn.decomposition import PCA

    from pifr.training.dataset import Shards

    source = Shards(shards, "textures", "all")
    frontal = np.flatnonzero(source.rows["yaw"].abs() < MAX_TEXTURE_YAW)
    if len(frontal) < TEXTURE_COMPONENTS:
        raise DataError(f"{shards}: {len(frontal)} near-frontal textures, {TEXTURE_COMPONENTS} or more are needed")
    textures = np.stack([source.read("texture", index) for index in frontal])
    both = np.concatenate([textures, textures[:, :, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    analysis = PCA(TEXTURE_COMPONENTS, svd_solver="randomized", random_state=0).fit(both.reshape(len(both), -1))
    deviations = np.sqrt(analysis.explained_variance_)
    components = (analysis.components_ * deviations[:, None]).reshape(-1, *both.shape[1:])
    scale = np.abs(components).max((1, 2, 3)) / 127
    arrays = {
        "mean": analysis.mean_.reshape(both.shape[1:]).astype(np.float32),
        "components": np.round(components / scale[:, None, None, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    write_arrays(out, arrays)
    log.info(
        "texture model: %d textures, %d components carry %.1f %% of the variance",
        len(textures),
        TEXTURE_COMPONENTS,
        100 * analysis.explained_variance_ratio_.sum(),
    )
