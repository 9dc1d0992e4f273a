#!/usr/bin/env bash
# All measurements on one GPU, in one call, on a machine that has Python, torch and nothing else of what is needed:
#
#   benchmarks/gpu.sh [OUT_DIR]        # results as JSON and a figure; default: $OUT, else benchmarks/results
#
# The data are synthetic, so no files are needed. In the environment:
#   WHEELS           a folder of wheels of all that is missing, for a machine without a network; else pip fetches it
#   PYTHON           default python3
#   DEVICE           default cuda; cpu tries the script out
#   BENCH_OPTIONS    more options of `cawr bench`, such as '--iterations 2000'
#   SCALING_OPTIONS  more options of scaling.py
#
# What is installed goes to a temporary folder, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} device=${DEVICE:-cuda}
out=$(realpath -m "${1:-${OUT:-benchmarks/results}}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export PYTHONPATH=$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONWARNINGS=ignore

install() {
  if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "$WHEELS"/*.whl
  elif ! "$python" -c 'import ding, gymnasium, mujoco, h5py' 2>/dev/null; then
    "$python" -m pip install -q --target "$work/site" .
  fi
  "$python" -c 'import ding.entry, ding_cawr' 2>"$work/imports" || { cat "$work/imports" >&2; return 1; }
}

# bench NAME [OPTION...]: `cawr bench` into NAME.json, with options of its own.
bench() {
  local name=$1
  shift
  printf '\n== %s %s\n' "$name" "$*"
  # shellcheck disable=SC2086
  "$python" -m ding_cawr bench --device "$device" --json "$@" ${BENCH_OPTIONS:-} \
    >"$work/$name.json" 2>"$work/log" || { tail -n 20 "$work/log" >&2; return 1; }
  mv "$work/$name.json" "$out/"
  "$python" - "$out/$name.json" 2>"$work/imports" <<'PY'
import json
import sys
from ding_cawr.bench.report import text
print(text(json.load(open(sys.argv[1]))))
PY
}

scaling() {
  printf '\n== scaling\n'
  # shellcheck disable=SC2086
  "$python" benchmarks/scaling.py --device "$device" --out "$out/scaling_$device.json" \
    --figure "$out/scaling_$device.png" ${SCALING_OPTIONS:-} 2>"$work/log" || { tail -n 20 "$work/log" >&2; return 1; }
}

install
failed=0  # one that fails must not cost the results of the others
bench "bench_$device" || failed=1
bench "bench_${device}_eager" --learn cuda_graph=False || failed=1
for preset in a2pr_mask a2pr; do
  bench "bench_${device}_$preset" --algorithm $preset --batch-size 256 || failed=1
done
scaling || failed=1
exit $failed
