#!/usr/bin/env bash
# All that only a GPU can tell, in at most ten minutes: benchmarks/gpu_report.sh [FOLDER]
#
# Runs from a checkout, which it leaves as it is, with an installed Python ($PYTHON, or python3), and needs no network.
# Each step has a time limit and a log of its own in FOLDER (or $OUT); one that fails does not stop the next. $STEPS
# names the steps to run, $LIMIT the seconds for all. The exit code is 0 where none failed; what cannot be run for lack
# of a tool is said to be skipped.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-${OUT:-$here/benchmarks/results/gpu}}
python=${PYTHON:-python3}
steps=${STEPS:-doctor smoke tests equality memcheck racecheck initcheck synccheck bench}
mkdir -p "$out/logs" || exit 2
out=$(cd "$out" && pwd)
begin=$SECONDS
limit=${LIMIT:-590}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$work/numba} CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-$work/cupy}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$work/triton} TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$work/inductor}
export MPLCONFIGDIR=${MPLCONFIGDIR:-$work/matplotlib}
export PATH="$PATH:/usr/local/cuda/bin"
cd "$work" || exit 2

doctor() {
    nvidia-smi || echo "nvidia-smi does not run"
    "$python" -c "
from importlib.metadata import distributions
print(*sorted(f'{d.name} {d.version}' for d in distributions()), sep='\n')"
    if "$python" -m minidl doctor --help >/dev/null 2>&1; then "$python" -m minidl doctor; fi
}
smoke() { "$python" "$here/benchmarks/gpu_smoke.py" --seconds $((seconds - 8)); }
tests() {
    if ! "$python" -c "import pytest, hypothesis"; then
        echo "needs packages that are not installed: pip install pytest hypothesis"
        return 77
    fi
    # without a GPU all tests would be skipped, and pass
    "$python" -c "from minidl.devices import gpu_problem; raise SystemExit(gpu_problem())" &&
        "$python" -m pytest -q -m gpu -W default -p no:cacheprovider -c "$here/pyproject.toml" --rootdir "$here" \
            "$here/tests/test_contract.py"
}
equality() { "$python" "$here/benchmarks/gpu_equality.py" --seconds $((seconds - 15)); } # without Numba, fewer steps
sanitized() {
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not installed: it comes with the CUDA toolkit"
        return 77
    fi
    compute-sanitizer --tool "$1" --error-exitcode 1 "$python" "$here/benchmarks/gpu_smoke.py" \
        --dtype float32 --dtype float16 --seconds $((seconds - 12)) # of which Python's start takes some
    local code=$?
    return $((code == 124 ? 0 : code)) # here some of the checks are a sample
}
memcheck() { sanitized memcheck; }
racecheck() { sanitized racecheck; }
initcheck() { sanitized initcheck; }
synccheck() { sanitized synccheck; }
bench() { "$python" "$here/benchmarks/run.py" --gpu --seconds $((seconds - 5)) "$out"; } # which end by themselves

export -f doctor smoke tests equality sanitized memcheck racecheck initcheck synccheck bench
export here out python seconds
declare -A most=([doctor]=25 [smoke]=70 [tests]=110 [equality]=50)
most+=([memcheck]=25 [racecheck]=25 [initcheck]=25 [synccheck]=25)

failed=0
table=""
for step in $steps; do
    left=$((limit - SECONDS + begin))
    seconds=${most[$step]:-$left}
    ((seconds > left)) && seconds=$left
    started=$SECONDS
    if ((seconds > 0)); then
        timeout --kill-after=5 "$seconds" bash -c "$step" >"$out/logs/$step.log" 2>&1
        code=$?
    else
        echo "no time was left" >"$out/logs/$step.log"
        code=124
    fi
    case $code in
    0) said=passed ;;
    77) said="skipped: $(tail -n 1 "$out/logs/$step.log")" ;;
    124 | 137) said="FAILED: out of time" failed=1 ;;
    *) said="FAILED: see logs/$step.log" failed=1 ;;
    esac
    line=$(printf '%-10s %4d s  %s' "$step" $((SECONDS - started)) "$said")
    echo "$line"
    table+="$line"$'\n'
done
printf '%s' "$table" >"$out/steps.txt"

echo
if [ -f "$out/logs/bench.log" ]; then grep -E 'images/s|benchmarks; ' "$out/logs/bench.log"; fi
echo "logs and report are in $out"
exit $failed
