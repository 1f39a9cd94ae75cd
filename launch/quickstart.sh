#!/usr/bin/env bash
# Sets up .venv and runs the quickstart; options go to the run, such as --config.steps=300.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment -r requirements.txt
"$python" launch/train.py --config configs/quickstart.py --workdir "${WORKDIR:-runs/quickstart}" "$@"
