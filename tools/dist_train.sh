#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [options of train.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment, for several machines.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n "2,3s/^# //p" "$0"; [ "${1:-}" = --help ] && exit 0; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
	--master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" --nproc_per_node="$2" \
	"$here/train.py" "$1" --launcher pytorch "${@:3}"
