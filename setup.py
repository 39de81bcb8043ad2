"""What setup.cfg can't say: configs/ and slurm/ go into the wheel, below megdet_hvd/project.

They lie at the project's top level, where its users find them, and nowhere twice. Files are named
by pattern, so that a site file of one's own (slurm/site.sh) stays at home; megdet_hvd/init.py has
the same patterns, and a test compares the two.
"""

from setuptools import find_packages, setup

FILES = {
    "configs": ["*.yaml"],
    "slurm": ["megdet_*gpu.sbatch", "job.sh", "site.example.sh"],
}
PLACE = "megdet_hvd.project"

setup(
    packages=[*find_packages(include=["megdet_hvd*"]), *(f"{PLACE}.{name}" for name in FILES)],
    package_dir={f"{PLACE}.{name}": name for name in FILES},
    package_data={
        "megdet_hvd": ["py.typed"],
        "megdet_hvd.plan": ["data/*.json", "data/*.toml"],
        **{f"{PLACE}.{name}": patterns for name, patterns in FILES.items()},
    },
)
