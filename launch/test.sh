#!/usr/bin/env bash
# Sets up .venv with the test extras; lint, format check, tests. Options go to pytest: -m slow.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment -r requirements.txt -e '.[test]'
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest -n 2 --dist loadfile "$@"
