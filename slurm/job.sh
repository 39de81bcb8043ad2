# What every template shares; sourced by it, on the first node of the job.
#
# Signals. Slurm sends USR1 to this script before the time limit (--signal=B:USR1@300), and, where
# the site set it up, before a preemption; TERM when the job is cancelled or its time is over. Both
# only leave a note, which the driver hands on: the ranks write a checkpoint, and the job requeues
# itself. This script signals nobody: TERM would have mpirun kill its ranks a second later.
# USR2 (scancel --batch --signal=USR2 JOB) stops the run with a checkpoint, without a requeue.

if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "error: this is a batch script; give it to sbatch, or to python -m megdet_hvd.submit" >&2
    return 2
fi

MEGDET_ROOT=${MEGDET_ROOT:-$SLURM_SUBMIT_DIR}
if [ ! -f "$MEGDET_ROOT/megdet_hvd/__init__.py" ]; then
    echo "error: $MEGDET_ROOT is not the folder of megdet_hvd; submit from there, with" \
        "python -m megdet_hvd.submit, or set MEGDET_ROOT" >&2
    return 2
fi
cd "$MEGDET_ROOT" || return 2
export MEGDET_ROOT PYTHONPATH="$MEGDET_ROOT${PYTHONPATH:+:$PYTHONPATH}"

megdet_notes=$(mktemp -d "${TMPDIR:-/tmp}/megdet-$SLURM_JOB_ID-XXXXXX") || return 2
trap 'rm -rf "$megdet_notes"' EXIT
export MEGDET_NOTE="$megdet_notes/note"
megdet_stop() { # WHY: the first reason stands, unless the user wants the end
    [ -e "$MEGDET_NOTE" ] && [ "${1%%:*}" != USR2 ] && return
    echo "$1" > "$MEGDET_NOTE.new" && mv -f "$MEGDET_NOTE.new" "$MEGDET_NOTE"
}
trap 'megdet_stop "Slurm sent USR1: the time limit or a preemption is near"' USR1
trap 'megdet_stop "Slurm sent TERM: the job is cancelled, preempted or out of time"' TERM
trap 'megdet_stop "USR2: stop without a requeue"' USR2

# What sbatch was told of variables and cores is not meant for the job's own steps.
unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK

if ! command -v module > /dev/null; then # this shell is no login shell
    for megdet_name in "${LMOD_PKG:-/none}/init/bash" "${MODULESHOME:-/none}/init/bash" \
        /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
        [ -f "$megdet_name" ] && source "$megdet_name" && break
    done
fi

megdet_before=" $(compgen -e | tr '\n' ' ') "
megdet_site=${MEGDET_SITE:-slurm/site.sh}
if [ -f "$megdet_site" ]; then
    bash -n "$megdet_site" || { echo "error: $megdet_site can't be read; see above" >&2; return 2; }
    set -a
    # shellcheck source=slurm/site.example.sh
    source "$megdet_site"
    set +aeu # options of the site file end here: a trap's status must not end this script
    if declare -F site_setup > /dev/null; then
        site_setup || { echo "error: site_setup of $megdet_site failed" >&2; return 2; }
        set +eu
    fi
elif [ -n "${MEGDET_SITE:-}" ]; then
    echo "error: MEGDET_SITE=$MEGDET_SITE: no such file" >&2
    return 2
fi

MEGDET_SITE_EXPORTS=
for megdet_name in $(compgen -e); do
    case $megdet_before in
        *" $megdet_name "*) ;;
        *) MEGDET_SITE_EXPORTS+="$megdet_name " ;;
    esac
done
export MEGDET_SITE_EXPORTS

megdet_venv=${MEGDET_VENV:-.venv}
case $megdet_venv in
    /*) ;;
    "~/"*) megdet_venv=$HOME/${megdet_venv#"~/"} ;;
    *) megdet_venv=$MEGDET_ROOT/$megdet_venv ;;
esac
megdet_python=$megdet_venv/bin/python
if [ -x "$megdet_python" ]; then
    export VIRTUAL_ENV="$megdet_venv" PATH="$megdet_venv/bin:$PATH"
elif [ -n "${SITE_CONTAINER:-}" ]; then # the ranks' Python is the container's; the driver's is not
    megdet_python=$(command -v python3)
    if ! "$megdet_python" -c 'import sys, filelock, pydantic, yaml; assert sys.version_info >= (3, 11)'; then
        echo "error: the job's driver needs a Python >= 3.11 with pydantic, PyYAML and filelock on the node" \
            "itself: make setup, or MEGDET_VENV=/path/to/one" >&2
        return 2
    fi
else
    echo "error: $megdet_venv has no Python; make the environment first: make setup, or" \
        "sbatch slurm/environment.sbatch" >&2
    return 2
fi
if [ "$(id -u)" = 0 ]; then # Open MPI asks for this before it lets root run anything
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# train WORDS…: runs megdet_hvd.train on all nodes of the job, and ends the script with its code.
train() {
    (
        trap '' USR1 USR2 TERM # the driver reads the note
        exec "$megdet_python" -m megdet_hvd.slurm_job "$@"
    ) &
    megdet_driver=$!
    while :; do
        wait "$megdet_driver"
        megdet_code=$?
        [ "$megdet_code" -le 128 ] && break
        kill -0 "$megdet_driver" 2> /dev/null && continue # a trap interrupted the wait
        wait "$megdet_driver" 2> /dev/null # where it ended during the trap, this is its code
        megdet_again=$?
        [ "$megdet_again" -ne 127 ] && megdet_code=$megdet_again
        break
    done
    exit "$megdet_code"
}
