"""Stochastic gradient descent with Nesterov's momentum, in torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fedbench.learning.optimizer import Optimizer, Rate

MOMENTUM = 0.9


class SGD(Optimizer):
    """As `torch.optim.SGD(momentum=0.9, nesterov=True, fused=True)`.

    The momentum begins at zero with each instance: FedAvg's clients keep nothing between rounds.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: Rate, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._momenta = self._zeros()

    @torch.no_grad()
    def step(self) -> None:
        """One update; a parameter that has no gradient stays as it is."""
        pairs = zip(self._parameters, self._momenta, strict=True)
        active = [(p, p.grad, momentum) for p, momentum in pairs if p.grad is not None]
        parameters, gradients, momenta = map(list, zip(*active, strict=True))
        torch._fused_sgd_(
            parameters,
            gradients,
            momenta,
            lr=self._learning_rate,
            momentum=MOMENTUM,
            weight_decay=self._weight_decay,
            dampening=0.0,
            nesterov=True,
            maximize=False,
            # The first step differs only where there is dampening, or no zeros to begin with.
            is_first_step=False,
        )
