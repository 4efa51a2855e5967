"""How a model is trained beyond batch size and learning rate; by default as the study did it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fedbench.learning.augment import flip_crop
from fedbench.learning.optimizers import SGD, Adam, Optimizer, Rate

_AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "none": None,
    "flip-crop": flip_crop,
}
_OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}


class _Clipped(Optimizer):
    """Another optimizer, whose gradients are together no longer than a norm.

    Pascanu et al. 2013, arXiv:1211.5063, section 3.2. Nothing of it waits for the device.
    """

    def __init__(
        self, parameters: list[nn.Parameter], optimizer: Optimizer, max_norm: float
    ) -> None:
        super().__init__(parameters, 0.0)
        self._optimizer = optimizer
        self._max_norm = max_norm

    def step(self) -> None:
        """Update once; a gradient that is too long is made shorter, its direction kept."""
        clip_grad_norm_(self._parameters, self._max_norm)
        self._optimizer.step()


@dataclass(frozen=True)
class Recipe:
    """The options of a training; `run` is where in the whole run this part of it lies.

    `run` gives begin and end from 0 to 1: round 3 of 20 goes from 0.1 to 0.15. From it alone each
    client knows where the schedule is.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    augmentation: Literal["none", "flip-crop"] = "none"
    label_smoothing: float = 0.0
    gradient_clipping: float = 0.0
    run: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, options: Mapping[str, Any], number: int, rounds: int) -> Self:
        """Return the recipe of round `number` of `rounds`; `options` may have other keys as well.

        Each option has the name of a field of this class.
        """
        names = {field.name for field in fields(cls)} & options.keys()
        run = ((number - 1) / rounds, number / rounds)
        return cls(**{name: options[name] for name in names}, run=run)

    def optimize(self, model: nn.Module, learning_rate: Rate) -> Optimizer:
        """Make an optimizer of the model's parameters."""
        parameters = list(model.parameters())
        optimizer = _OPTIMIZERS[self.optimizer](parameters, learning_rate, self.weight_decay)
        if self.gradient_clipping:
            return _Clipped(parameters, optimizer, self.gradient_clipping)
        return optimizer

    def augment(self) -> Callable[[Tensor], Tensor] | None:
        """Return the function that changes images uint8 [N, H, W, 3]; None where none does."""
        return _AUGMENTATIONS[self.augmentation]

    def factor(self, done: float) -> float:
        """Return the part of the learning rate that is left when `done` (0 to 1) is trained.

        Cosine: from 1 at the run's first step to 0 after its last (Loshchilov & Hutter 2017,
        arXiv:1608.03983, equation 5, without restarts).
        """
        if self.schedule == "constant":
            return 1.0
        begin, end = self.run
        return (1 + math.cos(math.pi * (begin + (end - begin) * min(done, 1.0)))) / 2
