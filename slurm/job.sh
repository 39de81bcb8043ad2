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

set +o posix # a shell that has it on takes other words below
megdet_root=${MEGDET_ROOT:-$SLURM_SUBMIT_DIR}
if [ ! -f "$megdet_root/slurm/job.sh" ]; then # a checkout, or a folder that megdet-init has made
    echo "error: $megdet_root has no slurm/job.sh; submit from the folder that has it, with" \
        "python -m megdet_hvd.submit, or set MEGDET_ROOT" >&2
    return 2
fi
megdet_root=$(CDPATH='' builtin cd -- "$megdet_root" && pwd) || return 2
builtin cd -- "$megdet_root" || return 2
export MEGDET_ROOT=$megdet_root
# For a job that follows this one, where Slurm does not requeue: its script and the user's words.
export MEGDET_SCRIPT=$0 MEGDET_WORDS
MEGDET_WORDS=$(IFS=$'\x1f' && printf '%s' "$*")

# Notes are empty files, made beforehand and only renamed by a signal, so that a full disk loses none:
# note.USR1, note.TERM, note.USR2. Where that fails all the same, the next folder is made and tried.
megdet_notes=()
megdet_places=("${TMPDIR:-/tmp}" /dev/shm /tmp "$megdet_root")
for megdet_name in "${megdet_places[@]}"; do
    megdet_place=$(mktemp -d "$megdet_name/megdet-$SLURM_JOB_ID-XXXXXX") || continue
    if : > "$megdet_place/armed.USR1" && : > "$megdet_place/armed.TERM" &&
        : > "$megdet_place/armed.USR2"; then
        megdet_notes=("$megdet_place" "${megdet_places[@]/%//${megdet_place##*/}}")
        break
    fi
    rm -rf "$megdet_place"
done 2> /dev/null
if [ "${#megdet_notes[@]}" -eq 0 ]; then
    echo "error: neither ${TMPDIR:-/tmp} nor /dev/shm nor $megdet_root takes an empty file" >&2
    return 2
fi
MEGDET_NOTE=$(printf '%s\n' "${megdet_notes[@]}")
export MEGDET_NOTE
megdet_told=
megdet_stop() { # USR1, TERM or USR2: the first reason stands, unless the user wants the end
    [ -n "$megdet_told" ] && [ "$1" != USR2 ] && return
    megdet_told=$1
    local place
    for place in "${megdet_notes[@]}"; do
        command -p mv -f "$place/armed.$1" "$place/note.$1" && return
        [ -d "$place" ] || command -p mkdir -m 700 "$place"
        : > "$place/note.$1" && return
    done 2> /dev/null
}
megdet_in_site= # the site file, while it is read
megdet_bye() {
    local code=$?
    command -p rm -rf "${megdet_notes[@]}"
    if [ -n "$megdet_in_site" ]; then
        echo "error: $megdet_in_site ends the job's script (exit code $code): exit, exec and" \
            "set -u have no place in it" >&2
        builtin exit 2
    fi
}
trap megdet_bye EXIT
trap 'megdet_stop USR1' USR1
trap 'megdet_stop TERM' TERM
trap 'megdet_stop USR2' USR2

# What sbatch was told of variables and cores is not meant for the job's own steps.
unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK

if ! command -v module > /dev/null; then # this shell is no login shell
    for megdet_name in "${LMOD_PKG:-/none}/init/bash" "${MODULESHOME:-/none}/init/bash" \
        /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
        [ -f "$megdet_name" ] && source "$megdet_name" && break
    done
fi

declare -A megdet_had=()
for megdet_name in $(compgen -e); do
    megdet_had[$megdet_name]=${!megdet_name}
done
megdet_path=$PATH megdet_umask=$(umask)
megdet_site=${MEGDET_SITE:-slurm/site.sh}
if [ -f "$megdet_site" ]; then
    bash -n "$megdet_site" || { echo "error: $megdet_site can't be read; see above" >&2; return 2; }
    # Nothing in the file may take this script's place, its signals or its log.
    trap() { [ "$BASH_SUBSHELL" -eq 0 ] || builtin trap "$@"; }
    exec() {
        [ "$BASH_SUBSHELL" -eq 0 ] || builtin exec "$@"
        [ "$#" -eq 0 ] || builtin exit 1 # exec > file is passed over
    }
    megdet_in_site=$megdet_site
    set -a
    # shellcheck source=slurm/site.example.sh
    source "$megdet_site"
    set +aefuC # options of the site file end here: a trap's status must not end this script
    set +o pipefail
    if declare -F site_setup > /dev/null; then
        site_setup
        megdet_code=$?
        set +aefuC
        set +o pipefail
    else
        megdet_code=0
    fi
    megdet_in_site=
    unset -f trap exec
    unalias -a
    unset -f builtin command kill wait 2> /dev/null
    IFS=$' \t\n'
    MEGDET_ROOT=$megdet_root
    if [ "$megdet_code" -ne 0 ]; then
        echo "error: site_setup of $megdet_site failed (it returned $megdet_code, as its last" \
            "command did, or one behind || return); a last line : lets commands before it fail" >&2
        return 2
    fi
    builtin cd -- "$megdet_root" || return 2 # wherever it went
    if ! type -P srun > /dev/null && [ -n "$(PATH=$megdet_path type -P srun)" ]; then
        echo "job: $megdet_site has taken srun off PATH: the former PATH is put behind it"
        PATH=${PATH:+$PATH:}$megdet_path
    fi
    if ((8#$(umask) & 0700)); then
        echo "job: $megdet_site sets umask $(umask), with which the job could not use its own" \
            "files: $megdet_umask is kept"
        umask "$megdet_umask"
    fi
elif [ -n "${MEGDET_SITE:-}" ]; then
    echo "error: MEGDET_SITE=$MEGDET_SITE: no such file" >&2
    return 2
fi

MEGDET_SITE_EXPORTS=
for megdet_name in $(compgen -e); do # what the site file has set, or set otherwise
    case $megdet_name in
        _ | PWD | OLDPWD | SHLVL | MEGDET_*) continue ;;
    esac
    if [ -z "${megdet_had[$megdet_name]+there}" ] ||
        [ "${megdet_had[$megdet_name]}" != "${!megdet_name}" ]; then
        MEGDET_SITE_EXPORTS+="$megdet_name "
    fi
done
export MEGDET_SITE_EXPORTS

# What modules and conda leave behind for another Python: the environment has all that it needs.
if [ -n "${PYTHONHOME:-}" ]; then
    echo "job: left out: PYTHONHOME=$PYTHONHOME, another Python's folder"
fi
if [ -n "${PYTHONPATH:-}" ] && [ "$PYTHONPATH" = "${megdet_had[PYTHONPATH]:-}" ]; then
    [ "$PYTHONPATH" = "$megdet_root" ] ||
        echo "job: left out: PYTHONPATH=$PYTHONPATH, which stands before the environment's own" \
            "packages; site_setup may export it"
    PYTHONPATH=
fi
unset PYTHONHOME PYTHONPLATLIBDIR PYTHONEXECUTABLE PYTHONINSPECT PYTHONOPTIMIZE PYTHONIOENCODING
export PYTHONUTF8=1

megdet_without_mpi() { # PATHS OWN: those that hold no MPI's libraries, and OWN
    local IFS=: kept='' folder
    set -f
    for folder in $1; do
        if ! [ "$folder" -ef "$2" ] && { [ -e "$folder/libmpi.so" ] ||
            [ -e "$folder/libmpi.so.40" ] || [ -e "$folder/libopen-pal.so.40" ]; }; then
            continue
        fi
        kept+=${kept:+:}$folder
    done
    set +f
    printf '%s' "$kept"
}

megdet_venv=${MEGDET_VENV:-.venv}
case $megdet_venv in
    /*) ;;
    "~/"*) megdet_venv=$HOME/${megdet_venv#"~/"} ;;
    *) megdet_venv=$megdet_root/$megdet_venv ;;
esac
megdet_python=$megdet_venv/bin/python
if [ -x "$megdet_python" ]; then
    export VIRTUAL_ENV="$megdet_venv" PATH="$megdet_venv/bin:$PATH"
    if [ -x "$megdet_venv/bin/orted" ]; then # the environment has an Open MPI of its own
        if [ -n "${OPAL_PREFIX:-}" ] && ! [ "$OPAL_PREFIX" -ef "$megdet_venv" ]; then
            echo "job: left out: OPAL_PREFIX=$OPAL_PREFIX, another Open MPI's folder"
        fi
        megdet_kept=$(megdet_without_mpi "${LD_LIBRARY_PATH:-}" "$megdet_venv/lib")
        if [ "$megdet_kept" != "${LD_LIBRARY_PATH:-}" ]; then
            echo "job: left out of LD_LIBRARY_PATH, another MPI's folders:" \
                "$LD_LIBRARY_PATH is now ${megdet_kept:-empty}"
            LD_LIBRARY_PATH=$megdet_kept
        fi
        unset OPAL_PREFIX OPAL_LIBDIR OPAL_BINDIR OPAL_DATADIR OPAL_PKGDATADIR PMIX_INSTALL_PREFIX
    fi
elif [ -n "${SITE_CONTAINER:-}" ] || [[ " ${SITE_SRUN_OPTIONS:-}" == *" --container"* ]]; then # the ranks' Python is the container's; the driver's is not
    megdet_python=$(command -v python3)
    if ! "$megdet_python" -c 'import sys, filelock, pydantic, yaml; assert sys.version_info >= (3, 11)'; then
        echo "error: the job's driver needs a Python >= 3.11 with pydantic, PyYAML and filelock on the node" \
            "itself: make setup, or MEGDET_VENV=/path/to/one" >&2
        return 2
    fi
elif [ -f "$megdet_root/install/setup" ]; then
    echo "error: $megdet_venv has no Python; make the environment first: make setup, or" \
        "sbatch slurm/environment.sbatch" >&2
    return 2
else
    echo "error: $megdet_venv has no Python: ln -s /path/to/environment $megdet_root/.venv, or set" \
        "MEGDET_VENV" >&2
    return 2
fi
megdet_source=$megdet_root # the checkout; empty: the package is installed
if [ ! -f "$megdet_root/megdet_hvd/__init__.py" ]; then
    [ -n "${PYTHONPATH:-}" ] || unset PYTHONPATH
    if ! megdet_source=$("$megdet_python" -c \
        'from megdet_hvd.job_folder import checkout; print(checkout() or "")'); then
        echo "error: $megdet_python lacks megdet_hvd, or has one that is too old for" \
            "$megdet_root/slurm/job.sh; install its wheel there, or set MEGDET_VENV" >&2
        return 2
    fi
fi
if [ -n "$megdet_source" ]; then
    export PYTHONPATH="$megdet_source${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ "$(id -u)" = 0 ]; then # Open MPI asks for this before it lets root run anything
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# train WORDS…: runs megdet_hvd.train (with --evaluators N: megdet_hvd.pipeline) on all nodes of the
# job, and ends the script with its code.
train() {
    (
        trap '' USR1 USR2 TERM # the driver reads the note
        exec "$megdet_python" -m megdet_hvd.slurm_job "$@"
    ) &
    megdet_driver=$!
    while :; do
        builtin wait "$megdet_driver"
        megdet_code=$?
        [ "$megdet_code" -le 128 ] && break
        builtin kill -0 "$megdet_driver" 2> /dev/null && continue # a trap interrupted the wait
        builtin wait "$megdet_driver" 2> /dev/null # where it ended during the trap, this is its code
        megdet_again=$?
        [ "$megdet_again" -ne 127 ] && megdet_code=$megdet_again
        break
    done
    exit "$megdet_code"
}
