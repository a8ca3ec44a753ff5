"""Statistical face shape: ICT Face Model Light's modes, as a head mesh and in the template's UV topology.

It takes the role that BFM and Deep3DFace have in the paper, under an MIT licence. `pifr train assets` makes the shipped
file from the published model (`pifr.training.geometry_assets`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pifr.assets import ASSETS
from pifr.geometry.template import Template, load_template


class FaceModel:
    """Mean head plus linear identity and expression modes.

    Attributes:
        mean: float32 V x 3, millimetres, the template's frame.
        triangles: int32 T x 3: face, head and neck, sockets, eyeballs.
        identity: float32 K x V x 3, mm per unit; coefficients are distributed as N(0, 1).
        expression: float32 57 x V x 3, mm per unit; coefficients lie in [0, 1] (ARKit blend shapes).
        expression_names: their ARKit names.
        mirror: int32 V, vertex on the other side of the head.
        landmarks68: int32 (68,), vertices of Multi-PIE's landmarks.
        face_end, eyeball_begin: vertices below / from these belong to the face / to the eyeballs.
    """

    def __init__(self, arrays: dict[str, np.ndarray], template: Template):
        count = len(arrays["mean"])
        for key in ("identity", "expression"):
            if arrays[key].ndim != 3 or arrays[key].shape[1:] != (count, 3):
                raise ValueError(f"{key} has shape {arrays[key].shape}, expected (modes, {count}, 3)")
            if arrays[f"{key}_scale"].shape != arrays[key].shape[:1]:
                raise ValueError(f"{key}_scale has shape {arrays[f'{key}_scale'].shape}, expected one value a mode")
        if len(template.head_inside) != count:
            raise ValueError(f"the template was made for {len(template.head_inside)} head vertices, not {count}")
        self.template = template
        self.mean: np.ndarray = arrays["mean"]
        self.triangles: np.ndarray = arrays["triangles"]
        self.mirror: np.ndarray = arrays["mirror"]
        self.landmarks68: np.ndarray = arrays["landmarks68"]
        self.face_end, self.eyeball_begin = int(arrays["face_end"]), int(arrays["eyeball_begin"])
        self.expression_names: tuple[str, ...] = tuple(map(str, arrays["expression_names"]))
        self.identity, self.expression = (
            arrays[key].astype(np.float32) * arrays[f"{key}_scale"][:, None, None] for key in ("identity", "expression")
        )

    def vertices(self, identity: np.ndarray, expression: np.ndarray | None = None) -> np.ndarray:
        """Head meshes float32 ... x V x 3 from coefficients ... x K (leading modes) and ... x 57."""
        identity = np.asarray(identity, np.float32)
        modes = self.identity[: identity.shape[-1]]
        result = self.mean + np.tensordot(identity, modes, 1)
        if expression is not None:
            result = result + np.tensordot(np.asarray(expression, np.float32), self.expression, 1)
        return result

    def offset(self, identity: np.ndarray, expression: np.ndarray, expressions: np.ndarray) -> np.ndarray:
        """What changes of coefficients do to a head mesh: float32 V x 3 mm.

        Args:
            identity: K changes of the leading identity modes.
            expression: E changes of the expressions whose indices are `expressions`.
        """
        modes = self.identity[: len(identity)].reshape(len(identity), -1)
        moved = np.asarray(identity, np.float32) @ modes
        for change, index in zip(expression, expressions, strict=True):
            moved += np.float32(change) * self.expression[index].ravel()
        return moved.reshape(-1, 3)

    def at_template(self, head_values: np.ndarray) -> np.ndarray:
        """Values at head vertices (..., V, C) to the template's vertices (..., V_template, C)."""
        template = self.template
        return sum(
            head_values[..., template.link_vertices[:, k], :] * template.link_weights[:, k, None] for k in range(3)
        )

    def position_map(self, head_vertices: np.ndarray, size: int) -> Tensor:
        """UV position maps float32 ... x 3 x size x size, mm, of head meshes ... x V x 3."""
        return torch.from_numpy(self.template.to_uv_map(self.at_template(head_vertices), size))

    @lru_cache(maxsize=4)  # noqa: B019 - the model itself is a process-wide singleton
    def identity_maps(self, count: int, size: int) -> Tensor:
        """Leading identity modes as UV maps: float32 count x 3 x size x size, mm per unit."""
        if not 0 < count <= len(self.identity):
            raise ValueError(f"the shipped model has {len(self.identity)} identity modes, {count} were asked for")
        return self.position_map(self.identity[:count], size)

    @lru_cache(maxsize=4)  # noqa: B019
    def expression_maps(self, size: int) -> Tensor:
        """Expression modes as UV maps: float32 57 x 3 x size x size, mm per unit."""
        return self.position_map(self.expression, size)


def read_face_model(path: Path, template: Template) -> FaceModel:
    """Read a face model file.

    Raises:
        ValueError: if keys are missing or shapes disagree; the message names the file.
    """
    try:
        with np.load(path) as archive:
            return FaceModel({key: archive[key] for key in archive}, template)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a face model of this package: {error}") from error


@lru_cache(maxsize=1)
def load_face_model() -> FaceModel:
    """The shipped face model (`pifr/assets/face_model.npz`)."""
    return read_face_model(ASSETS / "face_model.npz", load_template())
