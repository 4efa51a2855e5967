"""A model as one float32 array: what travels between server and clients, and what is averaged.

The array holds every floating-point parameter and buffer (batch normalisation's running statistics
among them) in state_dict order, each flattened row by row whatever its memory format. Integer
buffers stay out: averaging batch counters means nothing and turned them into float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

Flat = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Running:
    """Positions of batch normalisation's running statistics in the array: int64 [channels] each.

    `means[i]` and `variances[i]` are positions of the same channel.
    """

    means: npt.NDArray[np.int64]
    variances: npt.NDArray[np.int64]


def to_flat(model: nn.Module) -> Flat:
    """Copy the model's P numbers to an array of shape (P,)."""
    return _concatenate(_tensors(model))


def from_flat(model: nn.Module, flat: Flat) -> None:
    """Overwrite the model's numbers, in place, with an array of shape (P,).

    Raises:
        ValueError: the array has another length or type than the model's.
    """
    for tensor, values in zip(_tensors(model).values(), _split(flat, model).values(), strict=True):
        tensor.copy_(values)


def running(model: nn.Module) -> Running:
    """Return the positions of the model's running statistics in its array."""
    places: dict[str, list[npt.NDArray[np.int64]]] = {"running_mean": [], "running_var": []}
    first = 0
    for name, tensor in _tensors(model).items():
        last = first + tensor.numel()
        kind = name.rpartition(".")[2]
        if kind in places:
            places[kind].append(np.arange(first, last))
        first = last
    none = np.empty(0, np.int64)
    return Running(*(np.concatenate([none, *ranges]) for ranges in places.values()))


def to_state(flat: Flat, model: nn.Module) -> dict[str, Tensor]:
    """Cut the array into named CPU tensors, for `model.load_state_dict(state, strict=False)`.

    Raises:
        ValueError: the array has another length or type than the model's.
    """
    return {name: values.clone() for name, values in _split(flat, model).items()}


def dump(flat: Flat, model: nn.Module) -> bytes:
    """Return the array as a safetensors file with the model's names.

    Anybody loads it with `model.load_state_dict(load_file(path), strict=False)`.

    Raises:
        ValueError: the array has another length or type than the model's.
    """
    content: bytes = save(to_state(flat, model), metadata={"format": "pt"})
    return content


def load(path: Path, model: nn.Module) -> Flat:
    """Read weights for the model from safetensors: an array of shape (P,); the model is only read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors, or not this model's.
    """
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from None
    expected = _tensors(model)
    unknown = sorted(state.keys() - model.state_dict().keys())
    if unknown:
        raise ValueError(f"{path}: {unknown[0]} is not in the model")
    for name, tensor in expected.items():
        if name not in state:
            raise ValueError(f"{path}: {name} is missing")
        if state[name].shape != tensor.shape:
            shape, wanted = list(state[name].shape), list(tensor.shape)
            raise ValueError(f"{path}: {name} has shape {shape}, expected {wanted}")
    return _concatenate({name: state[name] for name in expected})


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def _concatenate(tensors: dict[str, Tensor]) -> Flat:
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors.values()])
    return flat.cpu().numpy()


def _split(flat: Flat, model: nn.Module) -> dict[str, Tensor]:
    tensors = _tensors(model)
    sizes = [tensor.numel() for tensor in tensors.values()]
    expected = (sum(sizes),)
    if flat.dtype != np.float32 or flat.shape != expected:
        raise ValueError(
            f"expected a float32 array of shape {expected}, found {flat.dtype} {flat.shape}"
        )
    # What comes off the wire is read-only, which from_numpy warns of; nothing here writes to it.
    whole = torch.from_numpy(np.require(flat, requirements="W"))
    chunks = torch.split(whole, sizes)
    return {
        name: chunk.view(tensor.shape)
        for (name, tensor), chunk in zip(tensors.items(), chunks, strict=True)
    }
