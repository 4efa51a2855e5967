"""Random changes of training images that leave visible what is on them."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = 4


def flip_crop(images: Tensor) -> Tensor:
    """Mirror each image with a chance of a half, and move it by up to 4 pixels either way.

    The usual augmentation of CIFAR-10 (He et al. 2016, arXiv:1512.03385, section 4.2), but what
    moves in from beyond an edge is the image's reflection. uint8 [N, H, W, 3] -> the same shape;
    drawn from the device's default generator, which a captured step advances, too.
    """
    count, height, width, channels = images.shape
    draw = torch.randint(2 * PADDING + 1, (2, count, 1), device=images.device) - PADDING
    mirrored = torch.randint(2, (count, 1), device=images.device) == 1
    rows = _reflected(torch.arange(height, device=images.device) + draw[0], height)
    columns = _reflected(torch.arange(width, device=images.device) + draw[1], width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    # One gather of whole pixels from all images: no padded copy, no loop.
    first = torch.arange(0, count * height, height, device=images.device)
    pixels = ((first[:, None] + rows) * width)[:, :, None] + columns[:, None, :]
    chosen = images.reshape(-1, channels).index_select(0, pixels.flatten())
    return chosen.view(images.shape)


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Mirror positions up to `length` - 1 beyond either end; an edge is not repeated."""
    return length - 1 - (length - 1 - positions.abs()).abs()
