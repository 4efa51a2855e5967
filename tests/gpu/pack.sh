#!/usr/bin/env bash
# Collects in .gpu-pack what a machine with a GPU and no network lacks, and prints what to do there.
#
#   tests/gpu/pack.sh
#
#   DATA=folder      CIFAR-10 as train*.parquet and test*.parquet [data/cifar10]
#   PACK=folder      where it is collected [.gpu-pack]
#   RESULTS=folder   what earlier sessions left [runs/gpu]
#
# Packed are wheels of Flower, of what it and fedbench import (for CPython 3.12 on x86-64 Linux), the
# data, and what the next session has to know of the earlier ones.
set -euo pipefail
data=${DATA:+$(realpath "$DATA")}
cd "$(dirname "$0")/../.."
data=${data:-data/cifar10}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
pack=${PACK:-.gpu-pack}
results=${RESULTS:-runs/gpu}
most=60  # MiB

# Large, and with torch on any such machine (the first line), or imported by nothing that runs there.
left_out="numpy pillow pyarrow
  uv sqlalchemy greenlet alembic mako uvloop watchfiles httptools websockets python_dotenv"

if ! ls "$data"/train*.parquet "$data"/test*.parquet >/dev/null 2>&1; then
  echo "error: $data has no CIFAR-10 as Parquet" >&2
  echo "hint: DATA=<folder with train*.parquet and test*.parquet> tests/gpu/pack.sh" >&2
  exit 2
fi

rm -rf "$pack"
mkdir -p "$pack/wheels" "$pack/data"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# What pyproject.toml says, but for torch (it is there) and what only other commands import.
"$python" - >"$temporary/requirements.txt" <<'PYTHON'
import re
import tomllib

OTHERS = {"torch", "torchvision", "pyroute2", "matplotlib", "plotly", "textual", "huggingface-hub"}
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["node"]]:
    if re.match(r"[\w.-]+", requirement)[0] not in OTHERS:
        print(requirement)
PYTHON
platforms=$(for minor in 5 12 17 24 26 27 28 31 34 35 38 39; do
  echo --platform "manylinux_2_${minor}_x86_64"
done)
"$python" -m pip download --quiet --quiet --disable-pip-version-check --only-binary=:all: \
  --implementation cp --python-version 3.12 $platforms --platform manylinux1_x86_64 \
  --platform manylinux2010_x86_64 --platform manylinux2014_x86_64 \
  --dest "$temporary/wheels" --requirement "$temporary/requirements.txt"
for name in $left_out; do rm -f "$temporary/wheels/$name"-*.whl; done
mv "$temporary"/wheels/*.whl "$pack/wheels"

cp -L "$data"/train*.parquet "$data"/test*.parquet "$pack/data"
"$python" tests/gpu/results.py pack "$results" "$pack/results"

size=$(du --apparent-size --block-size=1 --summarize "$pack" | cut -f1)
du --apparent-size --block-size=1K "$pack"/*
echo "$pack has $((size / 1048576)) MiB, of at most $most"
if [ "$size" -ge $((most * 1048576)) ]; then
  echo "error: that is too much to carry; what is largest is listed above" >&2
  exit 1
fi
echo "take the checkout and $pack to the machine with the GPU, and run there:"
echo "  OUT=<empty folder> tests/gpu/run.sh 420"
echo "then here, with what came back:"
echo "  tests/gpu/keep.sh <folder>"
