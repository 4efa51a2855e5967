"""An experiment: what is learned, from which images, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedbench.config.fields import Model, ModelName, Name
from fedbench.config.partitions import Iid, Partition


class Data(Model):
    """Which images, and how they are divided among the clients.

    `image_column` and `label_column` say which columns of Parquet files are meant, where their
    types leave it open.
    """

    name: Literal["digits", "cifar10", "folder"] = "digits"
    partition: Partition = Iid()
    image_column: str | None = None
    label_column: str | None = None
    train_samples: Annotated[int, Field(ge=1)] | None = None
    test_samples: Annotated[int, Field(ge=1)] | None = None


class Experiment(Model):
    """What is learned: FedAvg's C, B and E (McMahan et al. 2017, Algorithm 1) and the rest."""

    name: Name
    description: str = ""
    task: Literal["train", "noop"] = "train"
    model: ModelName = "mobilenet_v2"
    initial_weights: str | None = None
    # What clients return under `task: noop`, instead of the model's own weights; 1 MB is 10^6 B.
    noop_megabytes: Annotated[float, Field(ge=0.001, le=1000, strict=False)] | None = None
    data: Data = Data()
    rounds: Annotated[int, Field(ge=1)] = 5
    # Who takes part; all by default.
    clients: Annotated[tuple[Name, ...], Field(strict=False)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 32  # batch normalisation needs two images
    local_epochs: Annotated[int, Field(ge=1)] = 1
    # A client goes on with further epochs until this many wall seconds of training have passed.
    local_seconds: Annotated[float, Field(ge=0, strict=False)] = 0.0
    learning_rate: Annotated[float, Field(gt=0, strict=False)] = 0.001
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    # From here to `server_momentum`: what the study did not do. `sgd` has Nesterov's momentum of
    # 0.9, `adam` with a weight decay is AdamW; `cosine` falls from `learning_rate` to 0 over all
    # rounds together.
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0, strict=False)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    augmentation: Literal["none", "flip-crop"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    # The largest norm of a step's gradient, all parameters together; 0 is as it comes.
    gradient_clipping: Annotated[float, Field(ge=0, strict=False)] = 0.0
    # The first convolution's. 1 is 1.7 to 3.7 times the work, and devices' speeds are of 2.
    stem_stride: Literal[1, 2] = 2
    # How the clients' running variances are averaged: `pooled` counts how far their means differ.
    batch_norm: Literal["mean", "pooled"] = "mean"
    server_momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    # How long clients may take to train, and again to evaluate, in seconds of their devices. By
    # default so many times what the slowest should take (`records/deadline.py`).
    round_timeout_seconds: Annotated[float, Field(gt=0, le=43_200, strict=False)] | None = None
    deadline_factor: Annotated[float, Field(gt=1, strict=False)] = 5.0
    # Clients invited beyond those that `fraction` wants, as a share of them: the round closes when
    # the wanted number has trained (Bonawitz et al. 2019, arXiv:1902.01046).
    over_selection: Annotated[float, Field(ge=0, le=10, strict=False)] = 0.0
    # Fewer clients than this, and the round does not count: the global model stays as it was.
    min_clients: Annotated[int, Field(ge=1)] = 1
    below_minimum: Literal["repeat", "stop"] = "repeat"
    # A run fails after so many attempts at a round in which too few clients trained.
    failing_rounds: Annotated[int, Field(ge=1)] = 3
    # `stale` adds an update to the round in which it comes, with a weight that falls with the
    # rounds that it is late (Xie et al. 2019, FedAsync, arXiv:1903.03934).
    late_results: Literal["drop", "stale"] = "drop"
    # A client of which nothing was heard for so long is lost: frozen, or without a network.
    silence_seconds: Annotated[float, Field(ge=6, strict=False)] = 12.0
    wait_for_clients_seconds: Annotated[float, Field(gt=0, strict=False)] = 86_400.0
