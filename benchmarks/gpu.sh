#!/usr/bin/env bash
# The figures that need a GPU, in at most 8 minutes: training, answering and serving at flan-t5-xl's size against the usual
# way, a step with 4-bit weights, T5 in fp16, and two processes on one card. Nothing is downloaded: weights are random, and
# the rows are those of the shipped sample.
#
#   benchmarks/gpu.sh                     # on a machine with a GPU
#   SIZE=small DEVICE=cpu benchmarks/gpu.sh     # the same parts at tiny size, to see that they run; four times the time
#
# PARTS names some of them; a part that is done is not repeated; one is begun only if its time is left. Results go to $OUT, or
# to benchmarks/results/gpu.
set -u
cd "$(dirname "$0")/.."
SIZE=${SIZE:-xl} DEVICE=${DEVICE:-cuda} LIMIT=${LIMIT:-480}
[ -x .venv/bin/python ] && PYTHON=${PYTHON:-.venv/bin/python}
PYTHON=${PYTHON:-python}
PARTS=${PARTS:-"train fp16 answer serve qlora two"}
export BENCHMARK_RESULTS=${OUT:-benchmarks/results/gpu} HF_HUB_OFFLINE=1 PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
HUB=${HUB:-${TMPDIR:-/tmp}/medical-vqa-gpu}
SLOWER=1
[ "$DEVICE" = cpu ] && SLOWER=4
LIMIT=$((LIMIT * SLOWER))
"$PYTHON" -c 'import torch, transformers, peft, accelerate' || {
  echo "$PYTHON lacks a package: name an interpreter with the extras train and hub in PYTHON" >&2
  exit 2
}
mkdir -p "$BENCHMARK_RESULTS" "$HUB"
began=$(date +%s) failed=0

part() { # NAME SECONDS COMMAND...
  local name=$1 seconds=$(($2 * SLOWER)) spent
  shift 2
  [[ " $PARTS " == *" $name "* ]] || return 0
  [ -f "$BENCHMARK_RESULTS/$name.done" ] && { echo "$name: done before"; return 0; }
  spent=$(($(date +%s) - began))
  [ $((spent + seconds)) -le "$LIMIT" ] || { echo "$name: left out, $((LIMIT - spent)) s remain of $seconds"; return 0; }
  if timeout "$seconds" "$@" >"$BENCHMARK_RESULTS/$name.log" 2>&1; then
    touch "$BENCHMARK_RESULTS/$name.done"
    echo "$name: done"
  else
    echo "$name: failed or out of time: $(tail -n 1 "$BENCHMARK_RESULTS/$name.log")"
    failed=1
  fi
}

common=(--size "$SIZE" --device "$DEVICE" --hub "$HUB")
part train 170 "$PYTHON" benchmarks/train_throughput.py "${common[@]}" --rounds 3
part fp16 60 "$PYTHON" benchmarks/gpu_steps.py fp16 "${common[@]}"
part answer 90 "$PYTHON" benchmarks/answer_throughput.py "${common[@]}" --questions 512 --images 64 --sample 32
part serve 110 "$PYTHON" benchmarks/serve_throughput.py "${common[@]}" --model blip2 --seconds 3 --turns 1
part qlora 60 "$PYTHON" benchmarks/gpu_steps.py qlora "${common[@]}"
part two 60 "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node 2 benchmarks/gpu_steps.py two "${common[@]}"
echo "$(($(date +%s) - began)) s; results in $BENCHMARK_RESULTS"
exit "$failed"
