"""What the optimizers have in common: torch's fused kernels, called without torch.optim."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

Rate = float | Tensor
"""A learning rate; as a scalar on the parameters' device where it changes between steps."""


class Optimizer(ABC):
    """Updates the parameters in place, from their gradients."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: Rate, weight_decay: float = 0.0
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay

    def zero_grad(self) -> None:
        """Drops the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @abstractmethod
    def step(self) -> None:
        """One update; a parameter that has no gradient stays as it is."""

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(parameter) for parameter in self._parameters]
