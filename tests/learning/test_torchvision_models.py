import subprocess
import sys

TRAINS = """
import sys
import torch
from fedbench.learning import models
from fedbench.learning.data import ImageSet
from fedbench.learning.train import evaluate, train

images = ImageSet(torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.arange(4), tuple("abcd"))
model = models.build("mobilenet_v3_small", 4)
train(model, images, epochs=1, batch_size=4, learning_rate=0.001, seed=0)
evaluate(model, images)
print(*(name for name in ("torch._dynamo", "torch._dynamo.utils", "sympy") if name in sys.modules))
"""
ASKS = """
from fedbench.learning import torchvision_models
from torchvision.ops.roi_align import is_compile_supported
print(is_compile_supported("cpu"))
"""


def test_training_needs_no_compiler() -> None:
    """It would cost a second of CPU and 70 MB in each client."""
    assert python(TRAINS) == ""


def test_roi_align_still_learns_whether_it_can_be_compiled() -> None:
    real = (
        "from torch._dynamo.utils import is_compile_supported; print(is_compile_supported('cpu'))"
    )

    assert python(ASKS) == python(real)


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
