#!/bin/sh
# Measures a GPU: checks the kernels on it, then times products, then whole models with profiles. What comes out lies
# under benches/results/ADAPTER-DATE/, with the adapter, its driver and the date in facts.txt.
#
#     benches/gpu.sh
#
# Variables, all optional:
#   KILN_GPU      part of the name of the GPU; by default the best one
#   KILN_RESULTS  folder for results (benches/results)
#   KILN_MODELS   shapes of models ("llama-1b llama-8b"), KILN_QUANTS their types of weights ("q4_0 q4_k q8_0")
#   KILN_PP, KILN_TG, KILN_REPS   length of the prompt (512), single tokens (128), runs of each (3)
#   KILN_KERNELS_FLAGS   more flags for the bench of products, such as "--types q4_0,q8_0"
#   KILN_KERNELS, KILN_BENCH, KILN_CHECKS   programs that are built already, so that nothing is built here: the bench
#                 `kernels`, the example `bench`, and the tests to check kernels with (a list; "none" leaves them out)
set -eu
cd "$(dirname "$0")/.."

kernels=${KILN_KERNELS:-} bench=${KILN_BENCH:-} checks=${KILN_CHECKS:-}
prompt=${KILN_PP:-512} tokens=${KILN_TG:-128} reps=${KILN_REPS:-3}
targets=${CARGO_TARGET_DIR:-target}/release

# Builds one test or bench, and says where it is.
built() {
    cargo "$@" --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))/\1/p' | grep .
}

[ -n "$kernels" ] || kernels=$(built bench --bench kernels)
if [ -z "$bench" ]; then
    cargo build --release --example bench
    bench=$targets/examples/bench
fi
if [ -z "$checks" ]; then
    for test in kernels layouts products attention; do
        check=$(built test --release --test "$test")
        checks="$checks $check"
    done
fi

adapter=$("$kernels" --name ${KILN_GPU:+--device "$KILN_GPU"})
# Where names are lists, a comma begins the next one.
name=$(echo "$adapter" | sed 's/[,(].*//; s/ *$//')
folder=$(echo "$adapter" | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9\n' '-' | sed 's/^-*//; s/-*$//')
out=${KILN_RESULTS:-benches/results}/$folder-$(date -u +%Y-%m-%d)
mkdir -p "$out"
echo "results: $out"
failed=
# Some drivers say on every start that this is not set.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

# Runs something, and keeps what it says; what fails is named at the end.
step() {
    file=$1
    shift
    echo "$*" >>"$out/$file"
    "$@" >>"$out/$file" 2>&1 || failed="$failed $file"
}

rm -f "$out"/*.txt
{
    echo "adapter: $adapter"
    echo "date: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    echo "system: $(uname -srm)"
    echo "commit: $(git describe --always --dirty 2>/dev/null || echo unknown)"
} >"$out/facts.txt"

if [ "$checks" != none ]; then
    for check in $checks; do
        KILN_TEST_GPU=$name step checks.txt "$check"
    done
fi

# JSON to one file, tables to the other.
json() {
    file=$1
    shift
    echo "$*" >"$out/$file.txt"
    "$@" --output json >"$out/$file.json" 2>>"$out/$file.txt" || failed="$failed $file"
    cat "$out/$file.txt"
}

# shellcheck disable=SC2086 # a list of flags
json kernels "$kernels" --device "$name" ${KILN_KERNELS_FLAGS:-}
grep 'plain WebGPU' "$out/kernels.txt" | sed 's/^/device: /' >>"$out/facts.txt" || true

for model in ${KILN_MODELS:-llama-1b llama-8b}; do
    for quant in ${KILN_QUANTS:-q4_0 q4_k q8_0}; do
        json "bench-$model-$quant" "$bench" --synthetic "$model:$quant" --device "gpu:$name" --gpu-layers all --profile \
            --pp "$prompt" --tg "$tokens" --reps "$reps"
    done
done

if [ -n "$failed" ]; then
    echo "failed, see $out:$failed" | tee -a "$out/facts.txt" >&2
    exit 1
fi
