"""One shape of a person from all pictures of the person."""

import torch
from torch import Tensor

from pifr.faces import FaceCrops
from pifr.locator import FaceLocator
from pifr.support.devices import inference
from pifr.support.rows import in_batches


class PersonShapeReader:
    """All pictures of one person to one pose-free position map: the face model fitted to all of them at once.

    A fit to one picture stays near the mean face, as it must, and so does the mean of many such fits. Here the evidence
    of all pictures is summed first, whatever camera and expression each of them has, and weighed against one prior. The
    map shows no expression.

    Args:
        locator: locates the faces.
    """

    def __init__(self, locator: FaceLocator) -> None:
        self._locator = locator
        self.fingerprint = f"{locator.fingerprint}|person"

    @inference()
    def __call__(self, faces: FaceCrops, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """One person's position map.

        Args:
            faces: B pictures of the person.
            batch_size: pictures at a time, 1 or more.

        Returns:
            3 x M x M mm, NaN if no picture is reliably located; and B bool: the pictures that it rests on.

        Raises:
            ValueError: `batch_size` is less than 1.
        """
        correspondence, deviation = self._locator.correspondence, self._locator.config.pncc_deviation
        matrix, vector, used = 0.0, 0.0, [torch.zeros(0, dtype=torch.bool, device=self._locator.device)]
        for part in in_batches(faces, batch_size):
            located = self._locator(part)
            observed = correspondence.splat_to_uv(located.pncc, located.mask)
            fit = correspondence.fit_shape(observed, deviation)
            matrices, vectors = correspondence.identity_evidence(observed, fit, deviation)
            reliable = located.reliable
            matrix, vector = matrix + matrices[reliable].sum(0), vector + vectors[reliable].sum(0)
            used.append(reliable)
        rests_on = torch.cat(used)
        if not rests_on.any():
            return torch.full_like(correspondence.mean[0], torch.nan), rests_on
        return correspondence.positions(correspondence.identity_from(matrix, vector))[0], rests_on
