#!/usr/bin/env bash
# Adds results that came back from a GPU to runs/gpu: records, and the study's runs and checkpoints.
#
#   tests/gpu/keep.sh FOLDER     RESULTS=folder adds them elsewhere
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")/../.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
"$python" tests/gpu/results.py keep "$folder" "${RESULTS:-runs/gpu}"
