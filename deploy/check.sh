#!/bin/bash
# Checks the files of this folder as far as one machine can, without Docker, a cluster or a cloud: `make deploy-check`.
#
# PATH has the checkers of requirements/deploy.txt; DEPTH is the command. Of what it needs beyond them, systemd-analyze, buildah and
# debootstrap are Debian's; parts whose program is not here are named and left out. The image takes 10 minutes and 10 GB:
# IMAGE=no leaves it out, BASE=IMAGE builds on another than a Debian 12 made here.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
DEPTH=${DEPTH:-depth}
work=$(mktemp -d "${TMPDIR:-/tmp}/deploy-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
export DEPTH work
passed=0 failed=() left_out=()

part() { # NAME COMMAND...
    local start=$SECONDS code
    (set -e; "${@:2}") > "$work/log" 2>&1 # not as the condition of an if, where -e counts for nothing
    code=$?
    if ((code == 0)); then
        printf 'passed    %s, %d s\n' "$1" $((SECONDS - start))
        passed=$((passed + 1))
        grep '^  [a-zA-Z0-9]' "$work/log" # what a part wants to say
    else
        printf 'FAILED    %s\n' "$1"
        tail -n 30 "$work/log"
        failed+=("$1")
    fi
}

needs() { # NAME PROGRAM...: whether the programs are here
    local program
    for program in "${@:2}"; do
        command -v "$program" > /dev/null || { printf 'left out  %s: no %s here\n' "$1" "$program"; left_out+=("$1"); return 1; }
    done
}

kubernetes() {
    local file
    for file in deploy/k8s-*.yaml; do kubernetes-validate --strict "$file"; done
}

ray_job() { # its pods, as Kubernetes has them, and its command, which only says what it would do
    mkdir "$work/ray"
    python3 - "$work/ray" << 'END'
import pathlib, sys, yaml
spec = yaml.safe_load(open("deploy/ray-job.yaml"))["spec"]
groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
for number, group in enumerate(groups):
    pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
    pod["metadata"] = {"name": "depthcli", **pod["metadata"]}
    pathlib.Path(sys.argv[1], f"{number}.yaml").write_text(yaml.safe_dump(pod))
pathlib.Path(sys.argv[1], "words").write_text("\n".join(spec["entrypoint"].split()[1:]))
END
    kubernetes-validate --strict "$work/ray/0.yaml"
    kubernetes-validate --strict "$work/ray/1.yaml"
    sed -i -e "s#s3://bucket/photos#$work/photos#; s#s3://bucket/depth#$work/ray/out#" "$work/ray/words"
    mapfile -t words < "$work/ray/words"
    [ "$($DEPTH "${words[@]}" --dry-run | grep -c ^write)" = "$(find "$work/photos" -name '*.jpg' | wc -l)" ]
}

unit() { # with and without the drop-in; the program is not installed here
    local found
    mkdir "$work/unit"
    sed 's#/opt/depthcli/bin/depth#/bin/true#' deploy/depthcli.service > "$work/unit/depthcli.service"
    for _ in plain with-drop-in; do
        ! systemd-analyze verify --man=no "$work/unit/depthcli.service" 2>&1 | grep . || return 1
        found=$(systemd-analyze security --offline=true --no-pager "$work/unit/depthcli.service" |
            sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
        echo "  exposure $found of at most 2.0"
        awk -v found="$found" 'BEGIN {exit !(found != "" && found <= 2.0)}' || return 1
        cp -r deploy/depthcli.service.d "$work/unit"
    done
}

scripts() {
    local file
    for file in deploy/*.sh; do bash -n "$file"; done
}

requests() { # built and validated by the AWS command line, and not sent
    local aws
    aws=$(command -v aws)
    mkdir "$work/aws"
    printf '#!/bin/sh\nexec %s "$@" --region us-east-1 --generate-cli-skeleton output\n' "$aws" > "$work/aws/aws"
    chmod +x "$work/aws/aws"
    PATH=$work/aws:$PATH deploy/aws-batch.sh queue 4 's3://bucket/in "put' s3://bucket/depth -f gray | grep jobId
    # it would notice: a word where the number of parts belongs, a field that is misspelt
    ! PATH=$work/aws:$PATH deploy/aws-batch.sh queue four s3://bucket/photos s3://bucket/depth || return 1
    sed s/evaluateOnExit/evaluateOnExits/ deploy/aws-batch-job.json > "$work/aws/job.json"
    ! JOB=$work/aws/job.json PATH=$work/aws:$PATH deploy/aws-batch.sh queue 4 s3://bucket/photos s3://bucket/depth || return 1
}

# A small folder with a file that is not a picture, and its results in one run.
one_run() {
    local number
    for number in 1 2 3 4; do
        mkdir -p "$work/photos/$number"
        cp input_images/*.jpg "$work/photos/$number"
    done
    echo nonsense > "$work/photos/2/bad.jpg"
    ended_with 3 $DEPTH dir "$work/photos" -o "$work/one" --encoder tiny -f gray,npz --quiet
}

ended_with() { # CODE COMMAND...
    local code=0
    "${@:2}" || code=$?
    ((code == $1)) || { echo "${*:2} ended with $code, not $1"; return 1; }
}

# Results of several processes are those of one, and every manifest has one writer.
same_as_one() { # FOLDER PARTS
    local parts
    diff -r -x 'manifest*.jsonl' -x run.json "$work/one" "$1"
    parts=$(find "$1" -name 'manifest-*-of-*.jsonl' | wc -l)
    ((parts == $2)) || { echo "$parts manifests, not $2"; return 1; }
    [ "$($DEPTH manifest missing "$1" "$work/photos")" = 2/bad.jpg ]
    echo "  $2 processes: $(find "$1" -name '*.npz' -o -name '*.png' | wc -l) files, equal to one run's"
}

# Runs "$@" once for each of four parts, two at a time; `number` is 0 to 3. One part has the bad file: one code of 3.
four_times() {
    export -f each_part
    printf '%s\n' 0 1 2 3 | xargs -P 2 -I{} bash -c 'code=0; number={} each_part || code=$?; echo $code >> "$work/codes"'
    [ "$(sort "$work/codes" | tr '\n' ' ')" = '0 0 0 3 ' ] || { echo "exit codes: $(tr '\n' ' ' < "$work/codes")"; return 1; }
    rm "$work/codes"
}

slurm() { # the whole script, as the controller starts it
    mkdir "$work/slurm"
    printf '#!/bin/sh\nexec "$@"\n' > "$work/slurm/srun"
    chmod +x "$work/slurm/srun"
    each_part() {
        PATH=$work/slurm:$PATH SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$((number + 1)) SLURM_ARRAY_TASK_MIN=1 \
            SLURM_ARRAY_TASK_COUNT=4 SLURM_CPUS_PER_TASK=1 SLURM_PROCID=0 SLURM_NTASKS=1 \
            bash deploy/slurm-array.sh "$work/photos" "$work/slurm/out" --encoder tiny -f gray,npz
    }
    four_times
    same_as_one "$work/slurm/out" 4
}

batch() { # the command that Batch is asked to run
    mkdir "$work/batch"
    printf '%s\n' '#!/bin/bash' 'while (($# > 1)); do [ "$1" != --container-overrides ] || echo "$2"; shift; done' > "$work/batch/aws"
    chmod +x "$work/batch/aws"
    PATH=$work/batch:$PATH deploy/aws-batch.sh queue 4 "$work/photos" "$work/batch/out" --encoder tiny -f gray,npz > "$work/batch/command"
    python3 -c 'import json, sys; print("\n".join(json.load(sys.stdin)["command"]))' < "$work/batch/command" > "$work/batch/words"
    each_part() {
        mapfile -t words < "$work/batch/words"
        AWS_BATCH_JOB_ARRAY_INDEX=$number AWS_BATCH_JOB_ARRAY_SIZE=4 OMP_NUM_THREADS=1 $DEPTH "${words[@]}"
    }
    four_times
    same_as_one "$work/batch/out" 4
}

indexed_job() { # the arguments in k8s-job.yaml, with our folders and four parts
    mkdir "$work/k8s"
    sed -n '/^          args:/,/^          resources:/ s/^            - //p' deploy/k8s-job.yaml |
        sed -e "s#s3://bucket/photos#$work/photos#; s#s3://bucket/depth#$work/k8s/out#; s#count=64#count=4#; s#format=gray#format=gray,npz#" \
            > "$work/k8s/words"
    each_part() {
        mapfile -t words < "$work/k8s/words"
        JOB_COMPLETION_INDEX=$number OMP_NUM_THREADS=1 $DEPTH "${words[@]}"
    }
    four_times
    same_as_one "$work/k8s/out" 4
}

storage="--root $work/store --runroot $work/run --storage-driver vfs"

image_base() { # the same Python as the image that the Dockerfile names
    local container
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base"
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/ca-certificates.crt" # and the same certificates as here
    rm -rf "$work/base/var/cache/apt" "$work/base/var/lib/apt/lists" "$work/base/usr/share/doc" "$work/base/usr/share/locale"
    container=$(buildah $storage from scratch)
    buildah $storage copy -q "$container" "$work/base" /
    rm -rf "$work/base"
    buildah $storage commit -q --rm "$container" localhost/bookworm
}

image_build() {
    local links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} given=()
    if [ -d "$links" ]; then given=(--build-arg "UV_FIND_LINKS=$links" --volume "$links:$links:ro"); fi
    if [ -n "${UV_DEFAULT_INDEX:-}" ]; then given+=(--build-arg "UV_DEFAULT_INDEX=$UV_DEFAULT_INDEX"); fi
    TMPDIR=$work buildah $storage bud --isolation chroot --format docker -f deploy/Dockerfile --ignorefile deploy/Dockerfile.dockerignore \
        --build-arg "BASE=${BASE:-localhost/bookworm}" "${given[@]}" -t localhost/depthcli .
    container=$(buildah $storage from localhost/depthcli)
    echo "$container" > "$work/container"
    buildah $storage mount "$container" > "$work/root"
    echo "  $(du -sm "$(cat "$work/root")" | cut -f 1) MB, of it $(du -sm "$(cat "$work/root")/opt/depthcli" | cut -f 1) MB packages"
}

inside() { # COMMAND...: as the image's user, with its variables
    buildah $storage run --isolation chroot "$(cat "$work/container")" -- "$@"
}

image_runs() {
    local root
    root=$(cat "$work/root")
    [ "$(inside id -u)" = 10001 ]
    cp input_images/coffee.jpg "$root/data/coffee.jpg"
    inside depth image coffee.jpg --encoder tiny -f gray,npz -o maps
    inside depth info maps/coffee_depth.npz | grep -i disparity
    inside depth image coffee.jpg --encoder tiny -f gray -o - > "$work/one.png"
    ended_with 5 inside depth serve --check http://127.0.0.1:17373
    buildah $storage inspect --format '{{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.User}}' "$(cat "$work/container")" | grep -F '[depth] 10001'
}

# A file system that cannot be written to but for /tmp, /cache and /data, a process 1, no rights, and the command as compose has it.
as_process_1() { # COMMAND...
    local root
    root=$(cat "$work/root")
    # shellcheck disable=SC2016
    exec unshare --mount --pid --fork --kill-child bash -c '
        root=$1; shift
        mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
        for place in tmp cache data; do mount -t tmpfs -o mode=1777 tmpfs "$root/$place"; done
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys"
        mkdir -p "$root/tmp/secret"; echo not-a-secret-token > "$root/tmp/secret/token"; cp input_images/coffee.jpg "$root/data"
        cd /
        exec chroot "$root" setpriv --reuid 10001 --regid 0 --clear-groups --no-new-privs --bounding-set=-all env -i \
            PATH=/opt/depthcli/bin:/usr/bin:/bin HOME=/cache HF_HOME=/cache/huggingface DEPTHCLI_CACHE=/cache/graphs \
            PYTHONDONTWRITEBYTECODE=1 "$@"' _ "$root" "$@"
}

image_serves() {
    local number code=0 server client
    (as_process_1 depth serve --host 0.0.0.0 --port 17373 --models tiny --token-file /tmp/secret/token --allow-host depthcli \
        --clips /data/clips) > "$work/served" 2>&1 &
    server=$!
    # --kill-child does not outlast the change of the user.
    # shellcheck disable=SC2064
    trap "kill -9 \$(cat /proc/$server/task/$server/children 2> /dev/null) 2> /dev/null || :; cat '$work/served'" EXIT
    for number in $(seq 120); do
        if inside depth serve --check http://127.0.0.1:17373 2> /dev/null; then break; fi
        sleep 1
    done
    curl -sf -H 'Authorization: Bearer not-a-secret-token' -H 'Host: depthcli:17373' --data-binary @input_images/coffee.jpg \
        'http://127.0.0.1:17373/v1/depth?format=gray&name=coffee.jpg' -o "$work/coffee.png"
    cmp "$work/coffee.png" "$work/one.png"
    [ "$(curl -s -o /dev/null -w '%{http_code}' --data-binary @input_images/coffee.jpg http://127.0.0.1:17373/v1/depth)" = 401 ]
    # SIGTERM to process 1, with a picture in work: it is answered, and the code is 0
    curl -s -w '%{http_code}' -H 'Authorization: Bearer not-a-secret-token' --data-binary @input_images/rocket.jpg \
        'http://127.0.0.1:17373/v1/depth?format=npz&input_size=1036' -o /dev/null > "$work/last" &
    client=$!
    sleep 0.5
    number=$SECONDS
    kill -TERM "$(cat "/proc/$server/task/$server/children")"
    wait "$server" || code=$?
    wait "$client"
    echo "  SIGTERM: the picture in work got $(cat "$work/last"), exit code $code after $((SECONDS - number)) s"
    [ "$(cat "$work/last")" = 200 ] && ((code == 0))
}

needs 'Dockerfile (hadolint)' hadolint && part 'Dockerfile (hadolint)' hadolint deploy/Dockerfile
needs 'compose.yaml (schema)' check-jsonschema &&
    part 'compose.yaml (schema)' check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
needs 'k8s-*.yaml (schemas)' kubernetes-validate && part 'k8s-*.yaml (schemas)' kubernetes
needs 'depthcli.service (systemd-analyze)' systemd-analyze && part 'depthcli.service (systemd-analyze)' unit
part 'scripts (bash -n)' scripts
needs 'aws-batch.sh (requests)' aws && part 'aws-batch.sh (requests)' requests
part 'a folder in one run' one_run
part 'slurm-array.sh (four parts)' slurm
part 'aws-batch.sh (four parts)' batch
part 'k8s-job.yaml (four parts)' indexed_job
needs 'ray-job.yaml (pods, options)' kubernetes-validate && part 'ray-job.yaml (pods, options)' ray_job
if [ "${IMAGE:-yes}" = no ]; then
    echo 'left out  image: IMAGE=no'
    left_out+=(image)
elif ((EUID != 0)); then
    echo 'left out  image: it is built as root'
    left_out+=(image)
elif needs image buildah unshare setpriv curl && { [ -n "${BASE:-}" ] || needs image debootstrap; }; then
    [ -n "${BASE:-}" ] || part 'image: a Debian 12 (debootstrap)' image_base
    part 'image: built (buildah)' image_build
    part 'image: depth image, user 10001' image_runs
    part 'image: depth serve, read-only, as process 1, SIGTERM' image_serves
fi
printf '%d passed, %d failed, %d left out\n' "$passed" "${#failed[@]}" "${#left_out[@]}"
exit $((${#failed[@]} > 0))
