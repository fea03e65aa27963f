#!/bin/bash
# A bucket in parts, as an array job of AWS Batch:
#
#   deploy/aws-batch.sh QUEUE PARTS s3://bucket/photos s3://bucket/depth -f gray --encoder tiny
#
# Further options are those of `depth dir`; PARTS is 2 to 10000. It registers deploy/aws-batch-job.json, or the file in JOB, as a
# job definition, and submits the array. Put your image and a role that may read and write the buckets into that file first; with
# GPUs, {"type": "GPU", "value": "1"} among its resourceRequirements. An instance that is taken away (Spot) costs nothing: the part
# is started again, at most five times, and skips what is done. The same command again does only what is left.
#
# Checked by `make deploy-check`: both requests are built and validated by the AWS command line and not sent, and the variables of
# Batch are set for as many processes. Not shown: AWS.
set -eu

if (($# < 4)); then
    echo "usage: $0 QUEUE PARTS SOURCE OUTPUT [OPTIONS OF depth dir]" >&2
    exit 2
fi
queue=$1 parts=$2 source=$3 output=$4
shift 4

# The words of the command as a list in JSON.
words=''
for word in dir "$source" -o "$output" --shard auto --quiet "$@"; do
    word=${word//\\/\\\\}
    words+=", \"${word//\"/\\\"}\""
done

definition=${JOB:-$(dirname "$0")/aws-batch-job.json}
aws batch register-job-definition --cli-input-json "file://$definition" > /dev/null
aws batch submit-job --job-name depth --job-queue "$queue" --job-definition depthcli \
    --array-properties "size=$parts" --container-overrides "{\"command\": [${words:2}]}"
