"""Lightning modules: one network's loss, validation metrics and pictures; the optimisation that they share.

What a checkpoint resumes exactly: weights, averaged weights, optimiser, step, and by the step the data, the noise and
the learning rate of a schedule in steps. On the CPU of one machine, with one number of threads, the result is
bit-identical to an undisturbed run; on a GPU as far as its kernels are deterministic (torch warns of others). A
schedule in minutes follows the clock, so no two such runs are the same.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pifr.completion import WASHED, blend, certain, mirrored
from pifr.geometry.correspondence import Correspondence
from pifr.geometry.framing import bounding_squares
from pifr.geometry.lighting import fit_albedo, fit_light, shading, surface_normals
from pifr.geometry.similarity import brought_onto
from pifr.geometry.texture_model import load_texture_model
from pifr.geometry.warp import resized
from pifr.locator import LocatorConfig
from pifr.networks.discriminator import Discriminator
from pifr.networks.pretrained import uses_bfloat16
from pifr.networks.shape import INPUT_SIZE
from pifr.training import losses
from pifr.training.config import (
    CoarseShapeTask,
    FineShapeTask,
    InpaintingTask,
    Optimisation,
    PnccTask,
    SegmentationTask,
)
from pifr.training.dataset import Batch, images_of, mask_of, pncc_of, predicted_mask_of
from pifr.training.echo import seen_anew
from pifr.training.identity import TextureCritics, as_photographed

_YAW_BINS = (0, 30, 60, 75, 90)
_PAINT_CONTRAST = 0.08
"""Difference to the smooth irradiance beyond which a pixel shows colour of the skin rather than its shape."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up, then a cosine to 2 % of the peak, over a number of steps or of minutes (exactly one is set)."""

    warm_up_steps: int
    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the schedule that is done, 0 to 1."""
        done = step / self.steps if self.steps is not None else seconds / (60 * self.minutes)
        return min(1.0, done)

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate at the beginning of a step, in units of the peak."""
        warm_up = min(1.0, (step + 1) / self.warm_up_steps) if self.warm_up_steps else 1.0
        return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress(step, seconds))))


class NetworkTraining(L.LightningModule):
    """Trains one network; subclasses say what a training step, a validation step and a picture are.

    Args:
        network: the network to train, in place.
        optimisation: its settings.
        schedule: of the learning rate.
        echoes: how often each batch is trained on (`echoed`).

    Attributes:
        average: the network with exponentially averaged weights; validated and exported.
        completed_steps: batches trained on so far, over all resumptions.
        elapsed: seconds of training so far, over all resumptions.
        in_step: a step has begun and is not counted yet: weights, statistics and optimisers may be half a step ahead.
        stop_asked: end the training, as Ctrl-C does, when this step is counted.
        origin: what a checkpoint can only be resumed with: network, data, and what decides the order of the data.
        made_by: what else weights files say of their training: settings, version, the weights that it began with.
    """

    def __init__(self, network: nn.Module, optimisation: Optimisation, schedule: Schedule, echoes: int = 1) -> None:
        super().__init__()
        self.echoes = echoes
        self.network = network
        self.optimisation = optimisation
        self.schedule = schedule
        self.average = AveragedModel(network, multi_avg_fn=self._update_average, use_buffers=True)
        self.average.requires_grad_(False)
        self.completed_steps = 0
        self.elapsed = 0.0
        self.in_step = self.stop_asked = False
        self.origin: dict[str, str] = {}
        self.made_by: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self._clock = 0.0
        self._rows: defaultdict[str, list[Tensor]] = defaultdict(list)

    @torch.no_grad()
    def _update_average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        if not averaged[0].is_floating_point():
            for target, source in zip(averaged, current, strict=True):
                target.copy_(source)
            return
        # A young average would remember the random start for a thousand steps.
        decay = min(self.optimisation.average_decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    def configure_optimizers(self) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
        return self.optimizer_for(self.network)

    def optimizer_for(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW that leaves biases, norms and scales undecayed."""
        weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1 and p.shape[0] > 1]
        chosen = {id(p) for p in weights}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
        return torch.optim.AdamW(
            [{"params": weights}, {"params": others, "weight_decay": 0.0}],
            lr=self.optimisation.learning_rate,
            weight_decay=self.optimisation.weight_decay,
            fused=True,
        )

    def on_train_start(self) -> None:
        self._clock = time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        if self.stop_asked:
            raise KeyboardInterrupt
        now = time.monotonic()
        self.elapsed, self._clock = self.elapsed + now - self._clock, now
        if self.schedule.progress(self.completed_steps, self.elapsed) >= 1:
            self.trainer.should_stop = True
            return -1
        # Noise, like the data, is a function of seed and step: a resumed run draws what it would have drawn.
        torch.manual_seed(self.optimisation.seed * 1_000_003 + self.completed_steps)
        rate = self.optimisation.learning_rate * self.schedule.rate(self.completed_steps, self.elapsed)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.in_step = True
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.optimisation.gradient_clip)

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        self.completed_steps += 1
        self.average.update_parameters(self.network)
        self.in_step = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pifr"] = {
            "completed_steps": self.completed_steps,
            "elapsed": self.elapsed,
            "metrics": self.metrics,
            "origin": self.origin,
            "made_by": self.made_by,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["pifr"]
        self.completed_steps, self.elapsed, self.metrics = (
            state["completed_steps"],
            state["elapsed"],
            state["metrics"],
        )
        self.made_by = state.get("made_by", {}) | self.made_by

    def run(self, network: Callable[..., Any], *inputs: Tensor) -> Any:
        """What a network makes of its inputs. Only this runs in bfloat16; geometry and losses need float32."""
        bfloat16 = uses_bfloat16(self.optimisation.precision, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            result = network(*inputs)
        return result.float() if isinstance(result, Tensor) else result

    def echoed(self, batch: Batch) -> Batch:
        """The batch of the loader, or what is seen of it when it comes again."""
        return seen_anew(batch) if self.completed_steps % self.echoes else batch

    def log_losses(self, **values: Tensor) -> None:
        """Logs training losses and the learning rate."""
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, batch_size=1)
        self.log("train/rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)

    def record(self, **values: Tensor) -> None:
        """Collects one value a validation sample; NaN: not measurable on this sample."""
        for name, value in values.items():
            self._rows[name].append(value.float().cpu())

    def on_validation_epoch_end(self) -> None:
        rows = {name: torch.cat(parts).numpy() for name, parts in self._rows.items()}
        self._rows.clear()
        if rows:
            self.metrics = summarise(rows)
            self.log_dict({f"validation/{name}": value for name, value in self.metrics.items()}, batch_size=1)

    def pictures(self, batch: Batch) -> Tensor:
        """A picture of the averaged network's predictions: 3 x H x W float in [0, 1]."""
        raise NotImplementedError


def summarise(rows: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over samples, of all and by |yaw| where `rows` holds a yaw; bins are named after 0, 30, 60, 75, 90.

    Args:
        rows: name -> one value a sample; NaN values are left out.
    """
    rows = dict(rows)
    yaw = rows.pop("yaw", None)
    groups = {"": np.ones(len(next(iter(rows.values()))), bool)}
    if yaw is not None:
        nearest = np.abs(np.abs(yaw)[:, None] - np.array(_YAW_BINS)).argmin(1)
        groups |= {f"@{angle}": nearest == number for number, angle in enumerate(_YAW_BINS)}
    return {
        f"{name}{suffix}": float(values[chosen & np.isfinite(values)].mean())
        for suffix, chosen in groups.items()
        for name, values in rows.items()
        if (chosen & np.isfinite(values)).any()
    }


def intersection_over_union(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU of boolean masks, B x 1 x N x N -> B; NaN where both are empty."""
    both = (predicted & target).sum((1, 2, 3)).float()
    return both / (predicted | target).sum((1, 2, 3))


def pncc_errors(predicted: Tensor, target: Tensor, mask: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
    """Mean error of PNCC over the mask, on the template's surface and in the image.

    The error in the image is how far the predicted point lies from the pixel that shows it, by the affine camera
    that maps the true codes to their pixels best.

    Args:
        predicted, target: B x 3 x N x N.
        mask: B x 1 x N x N, 0 or 1.
        extent: 3, millimetres of the NCC's unit cube.

    Returns:
        B float32 millimetres, B float32 pixels; NaN where fewer than 16 pixels are masked.
    """
    size = target.shape[-1]
    weight = mask.flatten(2).movedim(1, 2)
    axis = torch.arange(size, dtype=torch.float32, device=target.device)
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    points = (target * extent[:, None, None]).flatten(2).movedim(1, 2)
    difference = ((predicted - target) * extent[:, None, None]).flatten(2).movedim(1, 2)
    count = weight.sum((1, 2))
    centred, shifted = (
        value - (value * weight).sum(1, keepdim=True) / count.clamp_min(1)[:, None, None]
        for value in (points, pixels.expand(len(target), -1, -1))
    )
    spread = (centred * weight).mT @ centred
    # A profile's points are almost a plane: the direction across it is damped.
    ridge = 0.01 * spread.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    normal = spread + ridge[:, None, None] * torch.eye(3, device=target.device)
    camera = torch.linalg.solve(normal, (centred * weight).mT @ shifted)
    millimetres = (difference.norm(dim=-1) * weight[..., 0]).sum(1) / count
    displaced = ((difference @ camera).norm(dim=-1) * weight[..., 0]).sum(1) / count
    enough = count >= 16
    return millimetres.where(enough, torch.nan), displaced.where(enough, torch.nan)


class SegmentationTraining(NetworkTraining):
    """Eq. (1)."""

    def __init__(self, network: nn.Module, task: SegmentationTask, schedule: Schedule) -> None:
        super().__init__(network, task.optimisation, schedule, task.echoes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.echoed(batch)
        loss = losses.segmentation_loss(self.run(self.network, images_of(batch)), mask_of(batch))
        self.log_losses(loss=loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, mask = self.run(self.average, images_of(batch)), mask_of(batch)
        self.record(
            iou=intersection_over_union(logits > 0, mask > 0),
            square=_square_error(logits > 0, mask > 0),
            yaw=batch["yaw"],
        )

    def pictures(self, batch: Batch) -> Tensor:
        images = images_of(batch)
        return _sheet(
            [images, mask_of(batch).expand_as(images), self.run(self.average, images).sigmoid().expand_as(images)]
        )


def _square_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Largest error of centre or side of the masks' squares, over the true side: B float32; NaN where one is empty."""
    centre, side, found = bounding_squares(predicted.float())
    true_centre, true_side, exists = bounding_squares(target.float())
    error = torch.cat([centre - true_centre, (side - true_side)[:, None]], 1).abs().amax(1) / true_side
    return error.masked_fill(~(found & exists), torch.nan)


class PnccTraining(NetworkTraining):
    """Eq. (2), and Eq. (1) for the refined mask of networks that predict one.

    Args:
        network: a `PnccNetwork`.
        task: its settings.
        schedule: of the learning rate.
        extent: 3, millimetres of the NCC's unit cube.
    """

    def __init__(self, network: nn.Module, task: PnccTask, schedule: Schedule, extent: Tensor) -> None:
        super().__init__(network, task.optimisation, schedule, task.echoes)
        self.task = task
        self.register_buffer("extent", extent, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.echoed(batch)
        mask, target = mask_of(batch), pncc_of(batch)
        prediction = self.run(self.network, images_of(batch), predicted_mask_of(batch))
        pncc = losses.pncc_loss(prediction.pncc, target, mask if self.task.masked_loss else None)
        loss = self.task.pncc_weight * pncc
        logged = {"pncc": pncc}
        if prediction.mask_logits is not None:
            logged["mask"] = losses.segmentation_loss(prediction.mask_logits, mask)
            loss = loss + self.task.mask_weight * logged["mask"]
        self.log_losses(loss=loss, **logged)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        mask, target = mask_of(batch), pncc_of(batch)
        prediction = self.run(self.average, images_of(batch), predicted_mask_of(batch))
        millimetres, pixels = pncc_errors(prediction.pncc, target, mask, self.extent)
        self.record(mm=millimetres, px=pixels, yaw=batch["yaw"])
        if prediction.mask_logits is not None:
            self.record(iou=intersection_over_union(prediction.mask_logits > 0, mask > 0))

    def pictures(self, batch: Batch) -> Tensor:
        images, mask, target = images_of(batch), mask_of(batch), pncc_of(batch)
        prediction = self.run(self.average, images, predicted_mask_of(batch))
        shown = mask if prediction.mask_logits is None else (prediction.mask_logits > 0).float()
        error = ((prediction.pncc - target).abs() * mask * 10).clamp(0, 1)
        return _sheet([images, target, prediction.pncc * shown, error])


class InpaintingTraining(NetworkTraining):
    """Eq. (8): reconstruction, perceptual and adversarial losses with the gradient penalty; and the person is kept.

    The reconstruction is weighted by the trust in the ground truth: where the photo itself did not show the texture, a
    filled-in pixel counts for a quarter. So does what is kept of the photo, whatever the network makes of it.

    Args:
        network: an `InpaintingNetwork`.
        task: its settings.
        schedule: of the learning rate of both networks.
        critics: recognizers that the textures are shown to; None: to nobody.
    """

    def __init__(
        self,
        network: nn.Module,
        task: InpaintingTask,
        schedule: Schedule,
        critics: TextureCritics | None = None,
    ) -> None:
        super().__init__(network, task.optimisation, schedule)
        self.task = task
        self.critics = critics or TextureCritics()
        self.automatic_optimization = False
        self.discriminator = Discriminator(task.discriminator) if task.adversarial else None

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = [self.network] if self.discriminator is None else [self.network, self.discriminator]
        return [self.optimizer_for(network) for network in networks]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        target, seen, optimizers = batch["texture"], batch["visibility"], self.trainer.optimizers
        generated = self.run(self.network, batch["shown"], seen)
        logged = {"reconstruction": losses.reconstruction_loss(generated, target, _pixel_weight(batch))}
        total = logged["reconstruction"]
        if self.critics.features is not None:
            logged["perceptual"] = losses.perceptual_loss(generated, target, partial(self.run, self.critics.features))
            total = total + self.task.perceptual_weight * logged["perceptual"]
        if self.critics.identity is not None:
            # What the photo shows stays as it is, as in the blend that people get to see.
            shown = torch.lerp(generated, target, certain(seen, WASHED))
            shown, true = as_photographed(torch.cat([shown, target], 1)).chunk(2, 1)
            with torch.no_grad():
                wanted = self.run(self.critics.identity, true)
            logged["identity"] = losses.identity_loss(self.run(self.critics.identity, shown), wanted)
            total = total + self.task.identity_weight * logged["identity"]
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            logged["generator"] = losses.generator_loss(self.run(self.discriminator, generated))
            total = total + self.task.generator_weight * logged["generator"]
        self._descend(optimizers[0], total)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            logged["discriminator"] = losses.discriminator_loss(
                self.run(self.discriminator, target), self.run(self.discriminator, generated.detach())
            )
            objective = self.task.discriminator_weight * logged["discriminator"]
            if self.completed_steps % self.task.penalty_every == 0:
                # A second derivative: sixteen bits are too few for it.
                logged["penalty"] = losses.gradient_penalty(self.discriminator, target)
                objective = objective + self.task.penalty_weight * self.task.penalty_every * logged["penalty"]
            self._descend(optimizers[1], objective)
        self.log_losses(loss=total, **logged)

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.on_before_optimizer_step(optimizer)
        optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        target, seen = batch["texture"], batch["visibility"]
        completed = self.run(self.average, target, seen)
        # Judged where the photo shows the truth and the network did not see it.
        unseen = (1 - seen) * batch["trust"]
        other_side = mirrored(target, seen)
        mean = resized(load_texture_model().mean[None], target.shape[-1]).to(target)
        self.record(
            unseen=_weighted_l1(completed, target, unseen),
            mirrored=_weighted_l1(other_side, target, unseen),
            mean_face=_weighted_l1(mean.expand_as(target), target, unseen),
            seen=_weighted_l1(completed, target, seen),
            stained=_weighted_l1(batch["shown"], target, seen),
            washed=_weighted_l1(self.run(self.average, batch["shown"], seen), target, seen),
        )
        if self.critics.judge is not None:
            shown = {
                "identity": blend(target, seen, completed.float()),
                "identity_mirrored": other_side,
                "identity_mean_face": blend(target, seen, mean.expand_as(target)),
            }
            person = self.run(self.critics.judge, target)
            self.record(
                **{name: (self.run(self.critics.judge, texture) * person).sum(1) for name, texture in shown.items()}
            )

    def pictures(self, batch: Batch) -> Tensor:
        target, seen = batch["texture"], batch["visibility"]
        return _sheet([target, batch["shown"] * seen, self.run(self.average, batch["shown"], seen)])


def _pixel_weight(batch: Batch) -> Tensor:
    return (0.25 + 0.75 * batch["trust"]) * (1 - 0.75 * certain(batch["visibility"], WASHED))


def _weighted_l1(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 distance of each sample; as `_per_sample`."""
    return _per_sample((predicted - target).abs(), weight)


def _per_sample(errors: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over pixels and channels of each sample, B; NaN where less than 16 pixels' weight is left."""
    total = weight.sum((1, 2, 3))
    value = (errors.mean(1, keepdim=True) * weight).sum((1, 2, 3)) / total
    return value.where(total >= 16, torch.nan)


class CoarseShapeTraining(NetworkTraining):
    """Eq. (9), in units of the network's scale.

    Args:
        network: a `CoarseShapeNetwork` with the mean shape.
        task: its settings.
        schedule: of the learning rate.
        cnet: a trained `PnccNetwork`, for networks that correct the fit; it is not trained.
    """

    def __init__(
        self, network: nn.Module, task: CoarseShapeTask, schedule: Schedule, cnet: nn.Module | None = None
    ) -> None:
        super().__init__(network, task.optimisation, schedule)
        self.task = task
        self._deviation = LocatorConfig().pncc_deviation
        # In a list, a module is no part of this one's state: it is not trained, averaged or saved.
        self._located_by = [] if cnet is None else [cnet.requires_grad_(False), Correspondence()]

    def _target(self, batch: Batch) -> Tensor:
        return resized(batch["position"], self.network.config.resolution)

    @torch.no_grad()
    def _seen(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the network is given of a batch."""
        images = images_of(batch)
        if not self._located_by:
            return (self.network.photo(images, predicted_mask_of(batch)),)
        cnet, correspondence = (module.to(self.device) for module in self._located_by)
        prediction = self.run(cnet, images, mask_of(batch))
        mask = mask_of(batch) if prediction.mask_logits is None else prediction.mask_logits.sigmoid()
        seen = correspondence.unwrap(images, prediction.pncc.clamp(0, 1), mask, INPUT_SIZE, deviation=self._deviation)
        evidence = correspondence.evidence(
            seen.fit.camera, seen.image_map, seen.positions, seen.visibility, seen.texture
        )
        return evidence, seen.positions

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        predicted, target = self.run(self.network, *self._seen(batch)), self._target(batch)
        share, logged = self.task.aligned_share, {"surface": losses.surface_loss(predicted, target)}
        loss = (1 - share) * logged["surface"]
        if share:
            logged["aligned"] = losses.surface_loss(predicted, brought_onto(target, predicted))
            loss = loss + share * logged["aligned"]
        loss = loss / self.network.config.scale
        self.log_losses(loss=loss, **logged)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        target, seen = self._target(batch), self._seen(batch)
        shapes = {"": self.run(self.average, *seen), "_mean_face": self.average.module.mean.expand_as(target)}
        if len(seen) > 1:
            shapes["_fit"] = resized(seen[1], target.shape[-1])
        for name, shape in shapes.items():
            self.record(
                **{
                    f"rmse{name}": _rms_distance(shape, target),
                    f"aligned{name}": _rms_distance(brought_onto(shape, target), target),
                }
            )
        self.record(yaw=batch["yaw"])

    def pictures(self, batch: Batch) -> Tensor:
        target, predicted = self._target(batch), self.run(self.average, *self._seen(batch))
        light = target.new_tensor([0.3, 0.3, 0.9]).view(3, 1, 1)
        shades = [
            (surface_normals(positions) * light).sum(1, keepdim=True).expand(-1, 3, -1, -1)
            for positions in (target, predicted)
        ]
        side = batch["image"].shape[1]
        return _sheet(
            [images_of(batch), *(functional.interpolate(shade, (side, side), mode="nearest") for shade in shades)]
        )


def _rms_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Root mean square distance (mm) of position maps, a value a sample, without any alignment."""
    return (predicted - target).square().sum(1).mean((1, 2)).sqrt()


class FineShapeTraining(NetworkTraining):
    """Eq. (10) and (11): the displaced surface, lit by the light that was fitted without it, is the texture.

    Albedo and light come from a linear spherical-harmonic fit in place of SfSNet. The albedo is smoothed, so that fine
    detail is left to the shape; detail of high contrast (brows, lashes, lips) is paint rather than shape, and counts
    for little.

    Args:
        network: a `FineShapeNetwork`.
        task: its settings.
        schedule: of the learning rate.
    """

    def __init__(self, network: nn.Module, task: FineShapeTask, schedule: Schedule) -> None:
        super().__init__(network, task.optimisation, schedule)
        self.task = task

    def _terms(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Displacement, reflected irradiance with and without it, and weight of the shading loss."""
        texture, position, trust = batch["texture"], batch["position"], batch["trust"]
        with torch.no_grad():
            normals = surface_normals(position)
            light = fit_light(texture, normals, trust)
            albedo = _smooth(fit_albedo(texture, shading(normals, light), trust))
            flat = albedo * shading(normals, light)
            contrast = (texture - flat).abs().mean(1, keepdim=True)
            weight = trust * torch.exp(-((contrast / _PAINT_CONTRAST) ** 2))
        displacement = self.run(network, texture)
        displaced = torch.cat([position[:, :2], position[:, 2:] + displacement], 1)
        reflected = albedo * shading(surface_normals(displaced), light)
        return displacement, reflected, flat, weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        displacement, reflected, _, weight = self._terms(self.network, batch)
        shade = losses.shading_loss(reflected, batch["texture"], weight)
        penalty = losses.displacement_penalty(displacement)
        loss = self.task.shading_weight * shade + self.task.penalty_weight * penalty
        self.log_losses(loss=loss, shading=shade, penalty=penalty)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        displacement, reflected, flat, weight = self._terms(self.average, batch)
        penalty = displacement.square().mean((1, 2, 3))
        without = self.task.shading_weight * _per_sample((flat - batch["texture"]).square(), weight)
        shade = self.task.shading_weight * _per_sample((reflected - batch["texture"]).square(), weight)
        self.record(
            objective=shade + self.task.penalty_weight * penalty,
            objective_without=without,
            displacement=penalty.sqrt(),
        )

    def pictures(self, batch: Batch) -> Tensor:
        displacement, reflected, flat, _ = self._terms(self.average, batch)
        shown = (0.5 + displacement / 4).expand(-1, 3, -1, -1)
        return _sheet([batch["texture"], flat, reflected, shown])


def _smooth(maps: Tensor) -> Tensor:
    """Low-pass of UV maps: an eighth of the resolution, brought back smoothly."""
    side = maps.shape[-1]
    coarse = functional.adaptive_avg_pool2d(maps, max(4, side // 8))
    return functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False).clamp(0, None)


def _sheet(rows: Iterable[Tensor], columns: int = 12) -> Tensor:
    """Rows of B x 3 x N x N images side by side: 3 x H x W in [0, 1]."""
    return torch.cat([torch.cat(list(row[:columns].clamp(0, 1)), 2) for row in rows], 1)
