"""Moved to `pifr.facemesh`; kept for importers that have not followed yet."""

from pifr.facemesh import EYE_CORNERS, LIPS, FaceMesh, FaceMeshLandmarks

__all__ = ["EYE_CORNERS", "LIPS", "FaceMesh", "FaceMeshLandmarks"]
