#!/bin/sh
# Depth maps of a folder on an AWS Inf1 machine, for cron or a queue: start it again and it goes on where it stopped.
#
#   scripts/inf1-folder.sh PICTURES MAPS [options of depth dir ...]
#
# The compiled networks are looked for in $ARTIFACTS (checkpoints/compiled); $DEPTH is the command (depth). Leaves with 0
# where every picture has its maps, 3 where some cannot have any (they are named in MAPS/manifest.jsonl), and with what
# `depth` said where it makes no sense to go on.
set -u

pictures=${1:?the folder of pictures} maps=${2:?the folder for the maps}
shift 2
tries=3

while :; do
    ${DEPTH:-depth} dir "$pictures" -o "$maps" --backend "${BACKEND:-neuron}" \
        --artifacts "${ARTIFACTS:-checkpoints/compiled}" --format gray,npz --quiet "$@"
    code=$?
    case $code in
        0) exit 0 ;;
        3) echo "some pictures failed; see $maps/manifest.jsonl" >&2; exit 3 ;;
        5) # the device or its driver: cores that another process holds come free, a device that is gone may not
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || { echo "the device still fails; see neuron-ls and dmesg" >&2; exit 5; }
            echo "the device failed, another try in ${PAUSE:-30} s" >&2
            sleep "${PAUSE:-30}" ;;
        130) exit 130 ;; # interrupted: what is done is done
        *) exit "$code" ;; # wrong usage, no model: the next try would say the same
    esac
done
