#!/usr/bin/env bash
# Does what is still missing with the GPU of this machine, in the SECONDS that there are.
#
#   tests/gpu/run.sh [SECONDS=420]
#
#   OUT=folder      gets the results: at most 8 files of less than 16 MiB [runs/gpu/out-<time>]
#   GPU=none        everything in small sizes on the CPU: tries the script itself
#   PARTS="tests"   only these of: tests speed truth study
#   DATA=folder     CIFAR-10 as Parquet [that of tests/gpu/pack.sh]
#   RESULTS=folder  what earlier sessions left, and this one will [runs/gpu]
#   PACK=folder     what tests/gpu/pack.sh collected [.gpu-pack]
#   PYTHON=program  [.venv/bin/python of this checkout, else python3]
#
# It needs no network and installs nothing: what tests/gpu/pack.sh carried here is unpacked into a
# temporary folder.
set -euo pipefail
limit=${1:-420}
cd "$(dirname "$0")/../.."
pack=$(realpath -m "${PACK:-.gpu-pack}")
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
export PYTHONPATH="$PWD:$PWD/tests/gpu${PYTHONPATH:+:$PYTHONPATH}"

complete() { "$python" -c 'import flwr.app, pydantic, torch, fastapi'; }

if [ -d "$pack/wheels" ] && ! complete 2>/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --target "$temporary/site" "$pack"/wheels/*.whl
  PYTHONPATH="$PYTHONPATH:$temporary/site"
elif [ "${GPU:-}" = none ] && [ -z "${PYTHON:-}" ] && ! complete 2>/dev/null; then
  make .venv/dev
  python=.venv/bin/python
  SECONDS=0  # bash counts them: setting up is no part of the session
fi
if ! complete; then
  echo "error: $python has no torch, or not what goes with it" >&2
  echo "hint: on a computer with a network, tests/gpu/pack.sh collects what is missing" >&2
  exit 2
fi

if [ "${GPU:-}" = none ]; then
  export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
  small=--small
  results=${RESULTS:-$temporary/results}
else
  small=
  results=${RESULTS:-runs/gpu}
  [ ! -d "$pack/results" ] || "$python" tests/gpu/results.py keep "$pack/results" "$results"
fi
if [ -z "${DATA:-}" ] && [ -d "$pack/data" ]; then DATA=$pack/data; fi
export DATA=${DATA:-}
out=${OUT:-runs/gpu/out-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$out"

# Whatever hangs, it is over in time: the session ends its parts, and this ends the session.
left=$((limit - SECONDS))
timeout --kill-after=2 $((left - 3)) "$python" tests/gpu/session.py \
  --seconds $((left - 5)) --out "$out" --results "$results" $small ${PARTS:-}
