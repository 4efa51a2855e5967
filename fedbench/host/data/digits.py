"""The embedded data set: 1,797 real handwritten digits, no download.

Source: E. Alpaydin & C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licensed CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). `digits.csv.gz` is scikit-learn's unmodified copy
of the test part (sklearn/datasets/data/digits.csv.gz): 64 values from 0 to 16 and the digit.
Changed here: scaled to 0-255, enlarged from 8x8 to 32x32, grey repeated for the three channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fedbench.host.data.division import draw, generator
from fedbench.host.data.image_folders import SIDE, Images, Split

FILE = Path(__file__).with_name("digits.csv.gz")
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
CLASSES = tuple(str(digit) for digit in range(10))
_TEST_SHARE = 0.2


def load() -> tuple[Split, Split]:
    """Return training and test images (1,438 and 359), the same whatever the experiment's seed."""
    table = np.loadtxt(FILE, delimiter=",", dtype=np.uint8)
    images = np.stack([_enlarge(row) for row in table[:, :64]])
    labels = table[:, 64].astype(np.int64)
    test = draw(labels, round(_TEST_SHARE * len(labels)), generator(0, "digits"))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _enlarge(row: Images) -> Images:
    grey = np.round(row.reshape(8, 8) * (255 / 16)).astype(np.uint8)
    large = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(large.convert("RGB"))
