#!/bin/bash
# A folder in parts, as an array of SLURM:
#
#   sbatch deploy/slurm-array.sh photos depth -f gray --encoder vits        further options are those of `depth dir`
#   sbatch --array=1-64 --gres=gpu:1 deploy/slurm-array.sh photos depth     other parts, a GPU each
#   DEPTH='apptainer run --nv depthcli.sif' sbatch deploy/slurm-array.sh photos depth
#
# More parts than MaxArraySize admits, 2000 in two arrays of 1000:
#
#   sbatch --array=1-1000 deploy/slurm-array.sh photos depth --shard-count 2000
#   sbatch --array=1-1000 deploy/slurm-array.sh photos depth --shard-count 2000 --shard-offset 1000
#
# Both folders lie on a disk that all nodes share, or are s3:// addresses. A task that is preempted, or reaches its time limit, goes
# back to the queue and continues. Afterwards: depth manifest missing depth photos
#
# Checked by `make deploy-check`: bash -n, and a stand-in for srun that sets the variables of an array. Not shown: a cluster.
#SBATCH --job-name=depth
#SBATCH --array=1-256%64
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --output=depth-%A_%a.log
set -u

if (($# < 2)); then
    echo "usage: sbatch $0 FOLDER OUTPUT [OPTIONS OF depth dir]" >&2
    exit 2
fi
source=$1 output=$2
shift 2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-4}

# As a step, for TERM@60 goes to steps: depth finishes its picture, and leaves with 130. DEPTH may be several words.
# shellcheck disable=SC2086
srun ${DEPTH:-depth} dir "$source" -o "$output" --shard auto --quiet "$@"
code=$?

# 130: stopped in time; 5: the device was lost, another node may have a better one. At most 20 starts, in case it never gets far.
if ((code == 130 || code == 5)) && ((${SLURM_RESTART_COUNT:-0} < 20)); then
    echo "part $SLURM_ARRAY_TASK_ID ended with $code and goes back to the queue" >&2
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
