"""What Slurm's refusals mean, and what mends them."""

import re

_HINTS = (
    (
        r"invalid account|account or (account/)?partition|account.*not permitted|InvalidAccount",
        "SITE_ACCOUNT or SITE_PARTITION in slurm/site.sh: `sacctmgr show assoc user=$USER "
        "format=account%30,partition,qos%40` lists yours",
    ),
    (
        r"invalid partition|partition.*not available|does not exist in.*partition",
        "SITE_PARTITION in slurm/site.sh: `sinfo -s` lists the partitions",
    ),
    (
        r"invalid qos|QOS.*(limit|permission)",
        "SITE_QOS in slurm/site.sh: `sacctmgr show assoc user=$USER format=account%30,qos%40` "
        "lists yours, with their limits",
    ),
    (
        r"time limit",
        "a shorter --time before the template, or another partition: `sinfo -o '%P %l'` lists "
        "limits. A job requeues itself before its time is over, so a short one serves too",
    ),
    (
        r"node count|more (nodes|processors) requested|too many nodes|PartitionNodeLimit",
        "fewer --nodes before the template (the images of each process follow), or another "
        "partition: `sinfo -o '%P %D %l'` lists nodes and time limits",
    ),
    (
        r"generic resource|gres|invalid.*gpu|gpu.*not (available|found)",
        "GPUs are named otherwise here: `sinfo -o '%P %G'` lists them; give --gpus-per-node=NAME:8 "
        'in SITE_SBATCH_OPTIONS, or a partition that has 8 a node (with fewer, see "When your '
        'nodes differ" in docs/cluster.md)',
    ),
    (
        r"requested node configuration is not available|nodes? required for job",
        "the partition has not as many nodes of that kind: compare `sinfo -o '%P %D %c %m %G'` "
        "(nodes; cores, MB, GPUs of each) with --nodes, --ntasks-per-node × --cpus-per-task, "
        "--mem and --gpus-per-node; what your nodes have less of goes into SITE_SBATCH_OPTIONS "
        '(docs/cluster.md, "When your nodes differ")',
    ),
    (
        r"memory specification|mem.*can not be satisfied",
        "less --mem before the template: `sinfo -o '%P %m'` lists MB a node",
    ),
)


def explained(message: str) -> str:
    """Slurm's words, with the remedy behind them where the case is a known one."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", s) for s in message.splitlines()]
    text = "; ".join(line.strip() for line in lines if line.strip()) or "no reason given"
    for pattern, hint in _HINTS:
        if re.search(pattern, message, re.IGNORECASE):
            return f"{text}\n    to do: {hint}"
    return text
