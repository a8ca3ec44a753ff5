"""The networks of SRTC-Net (paper, section 3), each built from a validated configuration.

`paper` and `lite` are two configurations of the same classes; `pifr/training/configs` holds both.
"""

from importlib import import_module

_LAZY = {
    "CoarseShapeNetwork": "pifr.networks.shape",
    "Discriminator": "pifr.networks.discriminator",
    "FineShapeNetwork": "pifr.networks.shape",
    "InpaintingNetwork": "pifr.networks.inpainting",
    "PnccNetwork": "pifr.networks.pncc",
    "SegmentationNetwork": "pifr.networks.segmentation",
    "build_network": "pifr.networks.weights",
    "load_network": "pifr.networks.weights",
    "save_network": "pifr.networks.weights",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'pifr.networks' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
