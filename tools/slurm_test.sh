#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS in the environment.
set -euo pipefail
if [ $# -lt 4 ]; then sed -n "2,3s/^# //p" "$0"; [ "${1:-}" = --help ] && exit 0; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086  several options
exec srun -p "$1" --job-name="$2" --gres=gpu:"$per_node" --ntasks="${GPUS:-8}" --ntasks-per-node="$per_node" \
	--cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
	python -u "$here/test.py" "$3" "$4" --launcher slurm "${@:5}"
