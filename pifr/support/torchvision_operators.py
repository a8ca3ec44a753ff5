"""Lets torchvision be imported where its compiled operators cannot be loaded.

The torchvision wheel of the Python package index is built against the CUDA build of torch. Beside a CPU-only torch its
library does not load, and then already `import torchvision` fails with "operator torchvision::nms does not exist",
although facenet-pytorch needs nothing of it but this one operator. It is defined here, in plain torch, in that case
only.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

_LIBRARY: list[torch.library.Library] = []  # definitions live as long as their library object


def ensure_operators() -> None:
    """Make `import torchvision` and its non-maximum suppression work; call it before importing facenet_pytorch.

    Does nothing where the compiled operators load.
    """
    if _LIBRARY or _compiled_operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", nms, "CompositeExplicitAutograd")
    # torchvision describes this one's output shape while it is imported; nothing here calls it.
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARY.append(library)
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True  # asked by torchvision.ops before each call


def _compiled_operators_load() -> bool:
    """Try to load torchvision's library as torchvision itself does, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return True
    return False


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, as torchvision.ops.nms.

    Args:
        boxes: N x 4 float: left, top, right, bottom.
        scores: N float.
        iou_threshold: a box that overlaps a better one by more than this intersection over union is dropped.

    Returns:
        int64, positions of the kept boxes by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order]
    area = (ranked[:, 2:] - ranked[:, :2]).prod(1)
    corner = torch.minimum(ranked[:, None, 2:], ranked[None, :, 2:])
    overlap = (corner - torch.maximum(ranked[:, None, :2], ranked[None, :, :2])).clamp_min(0).prod(2)
    suppresses = overlap > iou_threshold * (area[:, None] + area[None, :] - overlap)
    kept = torch.ones(len(boxes), dtype=torch.bool, device="cpu")
    # Only the greedy choice is sequential; it runs on the CPU over rows that are ready.
    for rank, row in enumerate(suppresses.cpu()):
        if kept[rank]:
            kept[rank + 1 :] &= ~row[rank + 1 :]
    return order[kept.to(order.device)]
