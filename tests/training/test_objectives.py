"""What each training minimises and measures, with networks whose answers are known."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pifr.networks.pncc import PnccPrediction
from pifr.training import losses
from pifr.training.config import load_training_config
from pifr.training.modules import (
    CoarseShapeTraining,
    FineShapeTraining,
    InpaintingTraining,
    NetworkTraining,
    PnccTraining,
    Schedule,
)

LITE = load_training_config("lite")
SCHEDULE = Schedule(0, steps=10)


class Answers(nn.Module):
    """A network that answers what it is told to."""

    def __init__(self, answer: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.answer = answer
        self.weight = nn.Parameter(torch.zeros(1))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *seen: Tensor) -> Any:
        return self.answer(*seen)


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    monkeypatch.setattr(NetworkTraining, "log_losses", lambda module, **found: values.update(found))
    return values


def rows_of(module: NetworkTraining) -> dict[str, Tensor]:
    return {name: torch.cat(parts) for name, parts in module._rows.items()}


def pairs(count: int = 2, size: int = 128, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator),
        "mask": torch.rand(count, size, size, generator=generator) > 0.5,
        "pncc": torch.rand(count, size, size, 3, generator=generator),
        "position": 50 * torch.randn(count, 3, 64, 64, generator=generator),
        "yaw": torch.tensor([0.0, 60.0])[:count],
    }


def test_averaged_weights_follow_slowly_and_at_first_faster() -> None:
    module = PnccTraining(Answers(lambda *_: None), LITE.pncc, SCHEDULE, torch.ones(3))
    for count, share in ((0, 0.9), (10**6, 1 - LITE.pncc.optimisation.average_decay)):
        averaged = [torch.zeros(3)]
        module._update_average(averaged, [torch.ones(3)], torch.tensor(count))
        torch.testing.assert_close(averaged[0], torch.full((3,), share))


def test_pncc_and_mask_are_learned_with_their_weights(logged: dict[str, Tensor]) -> None:
    batch = pairs()
    true = batch["pncc"].permute(0, 3, 1, 2)
    network = Answers(lambda images, mask: PnccPrediction(true + 0.1, torch.zeros(2, 1, 128, 128)))
    module = PnccTraining(network, LITE.pncc, SCHEDULE, torch.ones(3))
    loss = module.training_step(batch, 0)
    mask = batch["mask"][:, None].float()
    inside = losses.pncc_loss(true + 0.1, true, mask if LITE.pncc.masked_loss else None)
    undecided = losses.segmentation_loss(torch.zeros(2, 1, 128, 128), mask)
    assert (logged["pncc"], logged["mask"]) == (inside, undecided)
    torch.testing.assert_close(loss, LITE.pncc.pncc_weight * inside + LITE.pncc.mask_weight * undecided)


def test_pncc_is_validated_by_averaged_weights_in_millimetres() -> None:
    batch = pairs()
    batch["mask"][:] = True
    true, extent = batch["pncc"].permute(0, 3, 1, 2), torch.tensor([100.0, 200.0, 50.0])
    shift = torch.tensor([0.03, 0.02, 0.0])[:, None, None]  # 3 and 4 mm
    module = PnccTraining(Answers(lambda *_: None), LITE.pncc, SCHEDULE, extent)
    module.average.module = Answers(lambda images, mask: PnccPrediction(true + shift, torch.ones(2, 1, 128, 128)))
    module.validation_step(batch, 0)
    torch.testing.assert_close(rows_of(module)["mm"], torch.full((2,), 5.0))
    assert rows_of(module)["iou"].tolist() == [1, 1]


def shape_training(answer: Callable[..., Tensor]) -> CoarseShapeTraining:
    config = SimpleNamespace(resolution=64, scale=20.0)
    network = Answers(answer, config=config, mean=torch.zeros(3, 64, 64), photo=lambda pixels, mask: pixels)
    return CoarseShapeTraining(network, LITE.shape_coarse, SCHEDULE)


def test_a_shape_that_is_only_moved_costs_the_share_of_the_loss_without_alignment(logged: dict[str, Tensor]) -> None:
    batch = pairs()
    moved = batch["position"] + 3
    module = shape_training(lambda pixels: moved)
    loss = module.training_step(batch, 0)
    assert logged["aligned"] == pytest.approx(0, abs=1e-3)
    whole = losses.surface_loss(moved, batch["position"])
    torch.testing.assert_close(loss, (1 - LITE.shape_coarse.aligned_share) * whole / 20, atol=1e-4, rtol=1e-4)


def test_shapes_are_measured_with_and_without_alignment_and_beside_the_mean_face() -> None:
    batch = pairs()
    module = shape_training(lambda pixels: torch.zeros(2, 3, 64, 64))
    module.average.module.answer = lambda pixels: 1.1 * batch["position"] + torch.tensor([3.0, 0, 0])[:, None, None]
    module.validation_step(batch, 0)
    rows = rows_of(module)
    torch.testing.assert_close(rows["aligned"], torch.zeros(2), atol=1e-2, rtol=0)
    assert (rows["rmse"] > 8).all()
    size = batch["position"].square().sum(1).mean((1, 2)).sqrt()
    torch.testing.assert_close(rows["rmse_mean_face"], size)
    assert "rmse_fit" not in rows  # this network corrects none


def test_a_fit_that_is_corrected_is_measured_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pairs()
    fitted = batch["position"] + torch.tensor([0.0, 2.0, 0.0])[:, None, None]
    module = shape_training(lambda evidence, fitted: fitted - 1)
    monkeypatch.setattr(module, "_seen", lambda batch: (torch.zeros(2, 13, 128, 128), fitted))
    module.validation_step(batch, 0)
    torch.testing.assert_close(rows_of(module)["rmse_fit"], torch.full((2,), 2.0))
    torch.testing.assert_close(rows_of(module)["rmse"], torch.full((2,), 3.0).sqrt())


def textures() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    visibility = torch.ones(2, 1, 128, 128)
    visibility[..., 64:] = 0
    texture = torch.rand(2, 3, 128, 128, generator=generator) / 2
    return {"texture": texture, "shown": texture, "visibility": visibility, "trust": torch.ones(2, 1, 128, 128)}


def test_inet_is_judged_where_it_did_not_see() -> None:
    batch = textures()
    module = InpaintingTraining(Answers(lambda *_: None), LITE.inpainting, SCHEDULE)
    module.average.module = Answers(lambda texture, visibility: texture + 0.3 * (1 - visibility) + 0.1 * visibility)
    module.validation_step(batch, 0)
    rows = rows_of(module)
    torch.testing.assert_close(rows["unseen"], torch.full((2,), 0.3))
    torch.testing.assert_close(rows["seen"], torch.full((2,), 0.1))


def test_fine_detail_is_learned_from_shading_and_kept_small(
    logged: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "shading_loss", lambda *_: torch.tensor(2.0))
    monkeypatch.setattr(losses, "displacement_penalty", lambda displacement: displacement.mean())
    module = FineShapeTraining(Answers(lambda texture: texture[:, :1] * 0 + 3), LITE.shape_fine, SCHEDULE)
    batch = textures() | {"position": 50 * torch.randn(2, 3, 128, 128)}
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(2 * LITE.shape_fine.shading_weight + 3 * LITE.shape_fine.penalty_weight)
