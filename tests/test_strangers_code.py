"""Nothing that a stranger may have written is run: the calls that could are listed, with reasons.

Every import and every call of the package and of set-up is read from its source, those inside
functions too. SECURITY.md says the same in words.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PICKLERS = (
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"),
    *("joblib", "jsonpickle", "multiprocessing.connection", "multiprocessing.managers"),
)
"""Modules that unpickle, or run byte code."""

HOROVODS = ("read_data_from_kvstore", "put_data_into_kvstore", "loads_base64", "dumps_base64")
"""Of its launcher's store; by any import path."""

OBJECTS = ("broadcast_object", "allgather_object", "broadcast_optimizer_state")
"""Horovod's calls that pickle."""

DOWNLOADS = ("load_state_dict_from_url", "get_state_dict")
"""torchvision's and torch's, which unpickle what lies in a cache."""

LOWER_CASE = (
    *("bcast", "gather", "allgather", "scatter", "alltoall", "reduce", "allreduce", "scan"),
    *("exscan", "send", "recv", "isend", "irecv", "ssend", "bsend", "issend", "sendrecv"),
    *("mprobe", "improbe"),
)
"""mpi4py's calls that pickle. Other things have methods of such names."""

RUNS_TEXT = ("eval", "exec", "compile", "__import__")
LISTENS = ("create_server", "bind", "RendezvousServer", "HTTPServer", "TCPServer", "TCPStore")

ALLOWED: dict[tuple[str, str], str] = {
    ("megdet_hvd/__init__.py", "importlib.import_module"): "a module of a fixed name",
    ("megdet_hvd/config/named_code.py", "importlib.import_module"): (
        "what the run's own configuration or the command line names; SECURITY.md"
    ),
    ("megdet_hvd/bench/__main__.py", "importlib.import_module"): "of a list of our own",
    ("megdet_hvd/moved.py", "importlib.import_module"): "a former name of a fixed module",
    ("megdet_hvd/scripts.py", "importlib.import_module"): "of a list of our own",
    ("megdet_hvd/bench/bn_ranks.py", "listens bind"): "of loopback, to find a free port",
    ("megdet_hvd/checkpoint/facts.py", "import pickle"): (
        "the base of an unpickler that finds no class and no function"
    ),
    ("megdet_hvd/checkpoint/file.py", "import pickle"): "the name of the error",
    ("megdet_hvd/model/weights_file.py", "import pickle"): "the name of the error",
    ("megdet_hvd/model/pretrained.py", "import pickle"): "the name of the error",
    ("megdet_hvd/config/yaml_text.py", "yaml.load"): "its loader is a SafeLoader",
    ("megdet_hvd/serialize.py", "importlib.import_module"): (
        "modules of this package alone, whose import does nothing"
    ),
    ("megdet_hvd/data/formats.py", "PIL.Image.open"): "the formats that we name",
    ("megdet_hvd/job/own_store.py", "listens RendezvousServer"): (
        "Horovod's store, while it starts; SECURITY.md"
    ),
    ("megdet_hvd/job/watch/channel.py", "listens create_server"): "the watchdog; SECURITY.md",
    ("megdet_hvd/job/watch/channel.py", "self.socket.send"): "bytes of a socket",
    ("megdet_hvd/job/watch/channel.py", "self.socket.recv"): "bytes of a socket",
    ("megdet_hvd/job/watch/member.py", "self._alarm[1].send"): "a byte of a socket pair",
    ("megdet_hvd/job/stopping.py", "_bell[0].recv"): "bytes of a socket pair",
    (
        "megdet_hvd/data/loader_process.py",
        "import pickle",
    ): "a pipe between a process and its own loaders",
    (
        "megdet_hvd/data/loader_process.py",
        "import multiprocessing.connection",
    ): "the type of that pipe",
    ("megdet_hvd/data/loader_process.py", "self._wanted.send"): "that pipe",
    ("megdet_hvd/data/loader_process.py", "wanted.recv"): "that pipe",
    ("megdet_hvd/data/shared_memory.py", "import pickle"): "that pipe",
    (
        "megdet_hvd/data/shared_memory.py",
        "import multiprocessing.connection",
    ): "the type of that pipe",
}
"""What may stand where, and why."""

OURS = {
    "meeting.gather": "megdet_hvd.job.meeting: JSON and raw numbers",
    "link.send": "megdet_hvd.job.watch.channel: JSON",
    "peer.link.send": "the same",
    "self._link.send": "the same",
    "image.reduce": "Pillow's",
    "message.send": "megdet_hvd.engine.step.status: a tensor",
}
"""Methods of other classes that are called as mpi4py's."""


def full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, wherever in the file it is imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                short = alias.asname or alias.name.split(".")[0]
                found[short] = alias.name if alias.asname else short
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def spelled(node: ast.expr, names: dict[str, str]) -> str:
    """``hvd.allgather_object`` as ``horovod.torch.allgather_object``; ``getattr`` is seen through.

    What is no name (``a[0].b``) stays as it is written.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{spelled(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        key = node.args[1]
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return f"{spelled(node.args[0], names)}.{key.value}"
    return ast.unparse(node)


def says(call: ast.Call, name: str, value: object) -> bool:
    """Whether an argument is given, as this very value."""
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is value
        for word in call.keywords
    )


def findings(text: str) -> Iterator[tuple[int, str]]:
    """Line, and what stands there."""
    tree = ast.parse(text)
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from of_import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield from of_import(node.lineno, f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Call):
            yield from of_call(node, spelled(node.func, names), names)


def of_import(line: int, name: str) -> Iterator[tuple[int, str]]:
    for pickler in PICKLERS:
        if name == pickler or name.startswith(f"{pickler}."):
            yield line, f"import {pickler}"
    last = name.rpartition(".")[2]
    if last in HOROVODS or (name.startswith("horovod") and last in OBJECTS):
        yield line, f"import {last}"


def of_call(call: ast.Call, name: str, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    line, (package, _, _), last = call.lineno, name.partition("."), name.rpartition(".")[2]
    if name == "torch.load" and not says(call, "weights_only", True):
        yield line, "torch.load without weights_only=True"
    if last in DOWNLOADS and not says(call, "weights_only", True):
        yield line, f"{last} without weights_only=True"
    if name in ("torch.jit.load", "torch.hub.load", "torch.export.load"):
        yield line, name
    if name == "numpy.load" and not (says(call, "allow_pickle", False) or len(call.args) > 2):
        yield line, "numpy.load without allow_pickle=False"
    if (package == "horovod" and last in OBJECTS) or last in HOROVODS:
        yield line, last
    if package == "torch" and ("_object" in last or last.startswith("rpc_")):
        yield line, name
    known = ("megdet_hvd", "horovod", "torch", "numpy")
    if last in LOWER_CASE and "." in name and package not in known:
        written = ast.unparse(call.func)
        if written not in OURS:
            yield line, written
    if name in (
        *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
        *("yaml.unsafe_load_all", "yaml.full_load_all", "importlib.import_module"),
        *("os.system", "os.popen", "runpy.run_path", "PIL.Image.open"),
    ):
        yield line, name
    if isinstance(call.func, ast.Name) and name in RUNS_TEXT:
        yield line, name
    if says(call, "shell", True):
        yield line, "shell=True"
    if last in LISTENS:
        yield line, f"listens {last}"


def of_tree() -> dict[tuple[str, str], list[int]]:
    """Lines by file and finding."""
    found: dict[tuple[str, str], list[int]] = {}
    for part in ("megdet_hvd", "install"):
        for file in sorted((ROOT / part).rglob("*.py")):
            for line, what in findings(file.read_text(encoding="utf-8")):
                found.setdefault((str(file.relative_to(ROOT)), what), []).append(line)
    return found


def test_all_that_could_run_a_strangers_code_is_known() -> None:
    found = of_tree()
    unknown = [
        f"{file}:{lines}: {what}"
        for (file, what), lines in found.items()
        if (file, what) not in ALLOWED
    ]
    assert unknown == []
    assert [key for key in ALLOWED if key not in found] == [], "these have gone: take them out"


PLANTED = {
    "import pickle": "import pickle",
    "import pickle as p": "import pickle",
    "from pickle import loads": "import pickle",
    "def f():\n    import cPickle": "import cPickle",
    "import dill": "import dill",
    "from cloudpickle import loads": "import cloudpickle",
    "import marshal": "import marshal",
    "import shelve": "import shelve",
    "from multiprocessing.connection import Client": "import multiprocessing.connection",
    "import torch\ntorch.load(x)": "torch.load without weights_only=True",
    "import torch as t\nt.load(x, weights_only=False)": "torch.load without weights_only=True",
    "from torch import load\nload(x)": "torch.load without weights_only=True",
    "import torch\ngetattr(torch, 'load')(x)": "torch.load without weights_only=True",
    "import torch\ntorch.jit.load(x)": "torch.jit.load",
    "entry.get_state_dict(check_hash=True)": "get_state_dict without weights_only=True",
    "from torch.hub import load_state_dict_from_url\nload_state_dict_from_url(x)": (
        "load_state_dict_from_url without weights_only=True"
    ),
    "import numpy as np\nnp.load(x, allow_pickle=True)": "numpy.load without allow_pickle=False",
    "from horovod.runner.http.http_client import read_data_from_kvstore as r": (
        "import read_data_from_kvstore"
    ),
    "from horovod.runner.http import http_client\nhttp_client.read_data_from_kvstore(x)": (
        "read_data_from_kvstore"
    ),
    "from horovod.runner.common.util import codec\ncodec.loads_base64(x)": "loads_base64",
    "from horovod.runner.common.util import codec\ncodec.dumps_base64(x)": "dumps_base64",
    "import horovod.torch as hvd\nhvd.allgather_object(x)": "allgather_object",
    "import horovod.torch as hvd\nhvd.broadcast_object(x)": "broadcast_object",
    "from horovod.torch import broadcast_object": "import broadcast_object",
    "import torch.distributed as d\nd.all_gather_object(x)": "torch.distributed.all_gather_object",
    **{
        f"from mpi4py import MPI\nMPI.COMM_WORLD.{name}(x)": f"MPI.COMM_WORLD.{name}"
        for name in ("bcast", "gather", "allgather", "scatter", "send", "recv", "isend", "irecv")
    },
    "def f(communicator):\n    communicator.bcast(1)": "communicator.bcast",
    "import yaml\nyaml.load(x, L)": "yaml.load",
    "import yaml\nyaml.unsafe_load(x)": "yaml.unsafe_load",
    "eval(x)": "eval",
    "exec(x)": "exec",
    "import os\nos.system(x)": "os.system",
    "import subprocess\nsubprocess.run(x, shell=True)": "shell=True",
    "import importlib\nimportlib.import_module(x)": "importlib.import_module",
    "from PIL import Image\nImage.open(x)": "PIL.Image.open",
    "import socket\nsocket.create_server(x)": "listens create_server",
}


@pytest.mark.parametrize("code", PLANTED, ids=repr)
def test_a_planted_one_is_found(code: str) -> None:
    found = [what for _, what in findings(code)]
    assert found == [PLANTED[code]]
    assert ("megdet_hvd/planted.py", found[0]) not in ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(x, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(x, allow_pickle=False)",
        "import horovod.torch as hvd\nhvd.allgather(x)\nhvd.broadcast_(x, 0)",
        "from megdet_hvd.job.exchange import broadcast_object\nbroadcast_object(1, w, 'x')",
        "model.eval()",
        "import re\nre.compile('x')",
        "import yaml\nyaml.safe_load(x)",
        "communicator.Allgather(a, b)",
        "meeting.gather(1, 'x')",
    ],
)
def test_what_runs_nothing_is_not(code: str) -> None:
    assert [*findings(code)] == []


def test_the_yaml_loader_is_a_safe_one() -> None:
    import yaml

    from megdet_hvd.config import yaml_text

    assert issubclass(yaml_text._UniqueKeyLoader, yaml.SafeLoader)
    assert not issubclass(yaml_text._UniqueKeyLoader, yaml.UnsafeLoader | yaml.FullLoader)
