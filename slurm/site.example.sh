# The facts of your cluster, for all templates in this folder. Copy it and edit the copy:
#
#     cp slurm/site.example.sh slurm/site.sh
#     python -m megdet_hvd.submit --check slurm/megdet_8gpu.sbatch
#
# The second command names what is wrong or missing, before a job waits in a queue. An entry left
# empty has the default that its comment gives. bash reads this file, on the login node and in the
# job, so $HOME, $USER and the like may stand in values; values with spaces want quotes.

# --- sbatch. `python -m megdet_hvd.submit` hands these four to sbatch. Plain `sbatch` does not read
# this file: there they are SBATCH_PARTITION, SBATCH_ACCOUNT and SBATCH_QOS in your environment,
# options on its command line, or the site's defaults.

# Partition with the GPU nodes (`sinfo -s` lists them). Example: SITE_PARTITION=gpu
SITE_PARTITION=
# Account that pays (`sacctmgr show assoc user=$USER format=account%30`). Example: SITE_ACCOUNT=vision
SITE_ACCOUNT=
# Quality of service, where the site asks for one. Example: SITE_QOS=preemptible
SITE_QOS=
# More options for sbatch; they win over the templates, so what your nodes have less of stands here
# (docs/cluster.md, "When your nodes differ"). Example: SITE_SBATCH_OPTIONS="--cpus-per-task=6"
SITE_SBATCH_OPTIONS=

# --- Starting the ranks.

# srun, mpirun or horovodrun; auto: srun where Slurm and MPI share PMIx, else mpirun.
# horovodrun needs ssh between nodes, or a single node.
SITE_LAUNCHER=auto
# How srun and MPI find each other: a word of `srun --mpi=list`. Default: pmix
SITE_SRUN_MPI=
# More options of srun, for the step that starts the ranks, as --name=value (docs/cluster.md, "A
# container"). Example: SITE_SRUN_OPTIONS="--container-image=/images/megdet.sqsh --network=sn_all"
SITE_SRUN_OPTIONS=
# Cores: each process on cores of its own, near its GPU (cores), or wherever it likes (none).
SITE_BIND=cores
# Words that stand before python, where the environment lives in a container. They bind the project,
# data and runs, and the node itself keeps a Python for the job's driver (docs/cluster.md).
# Example: SITE_CONTAINER="apptainer exec --nv --bind /scratch /images/megdet.sif"
SITE_CONTAINER=

# Network cards, one for each process of a node in order, where NCCL and UCX shall not choose among all
# (`ls /sys/class/infiniband` on a node). Example, 4 cards for 8 GPUs:
# SITE_NETWORK_CARDS="mlx5_0 mlx5_0 mlx5_1 mlx5_1 mlx5_2 mlx5_2 mlx5_3 mlx5_3"
SITE_NETWORK_CARDS=

# --- Data and environment.

# Folder that holds annotations/, train2017/, val2017/, seen by the ranks as COCO_ROOT; or, with
# SITE_STAGING, a .tar or .tar.gz of it. Example: SITE_DATA_ROOT=/scratch/$USER/coco
SITE_DATA_ROOT=
# Folder on every node's own disk. Where it is set, each node copies data and packed environment
# there once, and finds them there the next time. Example: SITE_STAGING=/local/$USER
SITE_STAGING=
# Archive of the environment, made by `make pack`, which follows each `make setup`. Default:
# .venv.tar beside the project, if there.
# Example: SITE_ENVIRONMENT=/scratch/$USER/megdet.venv.tar
SITE_ENVIRONMENT=

# --- Failures.

# A job that fails (a rank dies or hangs) starts again by itself at most so often; never after a
# mistake in its settings. Where Slurm is the first to see that a node is lost, it requeues the job
# itself, which is not counted. Default: 2
SITE_REQUEUE_ON_FAILURE=2

# --- Modules and network. The job runs this before anything else, on the first node; what it
# exports reaches all ranks. A command behind || return ends the job, with exit code 2, if it fails;
# others may fail, so the last one is `:`. `set -u`, `exit` and `exec` have no place in this file; a
# `cd` ends with it. PYTHONPATH, OMPI_MCA_… and HOROVOD_… reach the ranks as you mean them when they
# are exported here; what your shell has of them is named in the log, or left out.
site_setup() {
    # module load cuda/12.4 || return           # only with an environment built on it
    # export NCCL_SOCKET_IFNAME=ib0             # network card for NCCL (`ip -br addr` on a node)
    # export NCCL_IB_HCA=mlx5                   # InfiniBand cards for NCCL
    # export HOROVOD_GLOO_IFACE=ib0             # the same for Horovod's Gloo
    # export OMPI_MCA_btl_tcp_if_include=ib0    # and for Open MPI over TCP
    # export FI_PROVIDER=efa                    # libfabric, on AWS
    :
}
