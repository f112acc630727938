#!/usr/bin/env bash
# The lowest versions that pyproject.toml allows, in an environment of their own (build/lowest): they
# install, traffic is emulated, learned from and judged, and tests of what their interfaces reach pass.
# Another environment is made for other versions; kernels are compiled anew once, by the lowest Numba.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=build/lowest
python="$environment/bin/python"
wanted=$("${PYTHON:-python3}" scripts/lowest.py)
if ! cmp -s - "$environment/installed" <<<"$wanted"; then
  "${PYTHON:-python3}" -m venv --clear "$environment"
  "$python" -m pip install --quiet --prefer-binary --requirement /dev/stdin <<<"$wanted"
  printf '%s\n' "$wanted" > "$environment/installed"
fi

export PYTHONPATH=src
"$python" -m veilwatch demo --out "$environment/demo" --scale 0.05 --no-comparison --quiet
"$python" -m pytest -n 0 tests/test_files.py tests/schema tests/export tests/learning/features \
  tests/learning/detectors/test_lightgbm.py tests/learning/evaluation tests/detection tests/sinks/test_eve.py \
  tests/report/test_console.py tests/report/test_document.py tests/report/test_html.py
