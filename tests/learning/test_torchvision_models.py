"""What a client imports, tried in one new process: the order of its imports is what counts."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
import sys
import torch
from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.train import evaluate, train

images = ImageSet(torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.arange(4), tuple("abcd"))
model = models.build("mobilenet_v3_small", 4)
train(model, images, epochs=1, batch_size=4, learning_rate=0.001, seed=0)
evaluate(model, images)
imported = [n for n in ("torch._dynamo", "torch._dynamo.utils", "sympy") if n in sys.modules]

from torchvision.ops.roi_align import is_compile_supported
answer = is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported as real
print(json.dumps({"imported": imported, "answer": answer, "real": real("cpu")}))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, object]:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answers: dict[str, object] = json.loads(done.stdout)
    return answers


def test_training_needs_no_compiler(told: dict[str, object]) -> None:
    """It would cost a second of CPU and 70 MB in each client."""
    assert told["imported"] == []


def test_roi_align_still_learns_whether_it_can_be_compiled(told: dict[str, object]) -> None:
    assert told["answer"] is told["real"] is not None
