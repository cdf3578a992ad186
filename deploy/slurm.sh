#!/usr/bin/env bash
# INPUT=/data/faces OUTPUT=/data/out sbatch deploy/slurm.sh, in a clone of the repository that every node sees, after
#   uv sync --locked --no-default-groups --extra cluster && .venv/bin/segface-batch checkpoints fetch convnext_celeba_512
# Arguments after slurm.sh are options of `segface-batch annotate`.
#SBATCH --job-name=segface
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=segface-%j.log
set -euo pipefail
# shellcheck source=/dev/null
source .venv/bin/activate

# Ray's ports are open to everybody on the network; the token keeps others out.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Starts Ray on every node and the command on the first, and ends both.
srun --cpus-per-task "$SLURM_CPUS_ON_NODE" ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_ON_NODE" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --metrics-export-port 8080 \
  -- env RAY_ADDRESS="$head:6379" segface-batch annotate "$INPUT" "$OUTPUT" "$@"

# symmetric-run exits with 0 even if Ray did not start.
segface-batch verify --quick "$OUTPUT"
