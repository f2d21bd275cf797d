"""Episodes on disk in Minari's format: written whole or not at all, checked before they are used.

A dataset is written into a hidden folder beside its place and moved there when it is complete, so an interrupted
recording is never taken for a dataset. Minari reads what is written here, without this package.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, nearest
from polyathlon.envs.language.utterance import Utterance

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from minari import MinariDataset

AUTHOR = "polyathlon"
OWN_KEY = "polyathlon"  # our entry in a dataset's metadata
LONGEST_LIST = 12


class DamagedDataset(UsageError):
    """A dataset that is half-written or corrupted."""


class Trajectory(NamedTuple):
    """One recorded episode of T steps.

    Attributes:
        observations: T + 1 observations, each as the space says.
        actions: T actions.
        rewards: T rewards.
        terminated: T flags, the task ended the episode.
        truncated: T flags, a limit cut it.
        infos: name -> T + 1 numbers or arrays.
        seed: seed of its reset.
    """

    observations: list[Any]
    actions: list[Any]
    rewards: list[float]
    terminated: list[bool]
    truncated: list[bool]
    infos: dict[str, list[Any]]
    seed: int | None = None


def dataset_path(dataset_id: str) -> Path:
    """Return the folder of a dataset in Minari's own root (`MINARI_DATASETS_PATH`, else ~/.minari/datasets).

    Raises:
        UsageError: it is no id of Minari's form.
    """
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.storage import get_dataset_path

    found = DATASET_ID_RE.fullmatch(dataset_id) if isinstance(dataset_id, str) else None
    if found is None or found.group("version") is None:
        raise UsageError(
            f"a dataset is called 'namespace/name-v0', such as 'polyathlon/pendulum/random-v0', got {dataset_id!r}"
        )
    return Path(get_dataset_path(dataset_id))


def open_dataset(dataset: str | Path | MinariDataset) -> MinariDataset:
    """Find a dataset and check that it is whole; nothing is loaded into memory, and nothing downloaded.

    Args:
        dataset: an id in Minari's local root, a folder, or a dataset of Minari's.

    Returns:
        Minari's dataset.

    Raises:
        DamagedDataset: it is half-written or corrupted.
        UsageError: there is no such dataset.
    """
    from minari import MinariDataset

    if isinstance(dataset, MinariDataset):
        _check(dataset)
        return dataset
    if not isinstance(dataset, str | Path):
        raise UsageError(f"a dataset is an id, a folder or a MinariDataset, got {dataset!r}")
    folder = Path(dataset) if os.path.isdir(dataset) else _local_folder(str(dataset))
    data = folder / "data" if (folder / "data").is_dir() else folder
    try:
        found = MinariDataset(data)
    except (ValueError, KeyError, AssertionError, OSError, TypeError) as error:
        raise damaged(str(dataset), f"{type(error).__name__}: {error}") from error
    _check(found)
    return found


def _local_folder(dataset_id: str) -> Path:
    folder = dataset_path(dataset_id)
    if folder.is_dir():
        return folder
    from minari.storage import get_dataset_path

    root = Path(get_dataset_path())
    known = sorted(p.parent.relative_to(root).as_posix() for p in root.rglob("data") if p.is_dir())
    known = [name for name in known if not any(part.startswith(".") for part in Path(name).parts)]
    close = nearest(dataset_id, known)
    hint = f" Did you mean {close!r}?" if close else ""
    listed = ", ".join(known[:LONGEST_LIST]) or "none"
    if list(folder.parent.glob(f".{folder.name}.*.partial")):
        hint = " A recording of it was interrupted: run it again."
    raise UsageError(
        f"there is no dataset {dataset_id!r} in {root}.{hint} Local datasets: {listed}. Make one with "
        "polyathlon.datasets.record or scripts/make_datasets, or fetch one of Minari's with `minari download`."
    )


def damaged(name: str, what: str) -> DamagedDataset:
    """Return the error of a dataset that cannot be used."""
    return DamagedDataset(
        f"the dataset {name!r} is half-written or corrupted ({what}). Record or download it again: that replaces it."
    )


def _check(dataset: MinariDataset) -> None:
    """Compare a dataset with its own record of episodes, steps and file contents.

    Raises:
        DamagedDataset: they disagree.
    """
    storage, name = dataset.storage, dataset.id
    metadata = storage.metadata
    episodes, steps = metadata["total_episodes"], metadata["total_steps"]
    if not episodes:
        raise damaged(name, "it holds no episode")
    try:
        lengths = [int(m["total_steps"]) for m in storage.get_episode_metadata(range(episodes))]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(name, f"{type(error).__name__}: {error}") from error
    if sum(lengths) != steps:
        raise damaged(name, f"its episodes have {sum(lengths)} steps, its record says {steps}")
    own = metadata.get(OWN_KEY)
    # Minari may have appended episodes since: then the sums of the contents no longer apply
    if isinstance(own, dict) and own.get("total_steps") == steps and own.get("total_episodes") == episodes:
        for file, digest in own["sha256"].items():
            if _digest(Path(storage.data_path) / file) != digest:
                raise damaged(name, f"the contents of {file} have changed since it was written")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DatasetWriter:
    """Writes episodes into a new dataset, one after the other; used in a `with` block.

    An exception, or the end of the process, leaves nothing behind that looks like a dataset. A damaged dataset of the
    same id is replaced; a whole one only when `overwrite` says so.

    Args:
        dataset_id: id of the dataset, "namespace/name-v0".
        observation_space: space of the observations; texts may be `Utterance`.
        action_space: space of the actions.
        env_spec: spec of the environment, so that Minari can make it again; None when it has none.
        algorithm: name of what acted.
        description: in words.
        overwrite: replace a whole dataset of this id.
        notes: further entries of the metadata, such as `ref_min_score`.

    Raises:
        UsageError: the id is malformed or taken, or a space cannot be written.
    """

    def __init__(
        self,
        dataset_id: str,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        env_spec: EnvSpec | None = None,
        algorithm: str = "unknown",
        description: str = "",
        overwrite: bool = False,
        notes: dict[str, Any] | None = None,
    ) -> None:
        self.dataset_id, self.path = dataset_id, dataset_path(dataset_id)
        self.spaces = (observation_space, action_space)
        self._texts: dict[tuple[int, tuple[Any, ...]], tuple[set[str], int]] = {}
        written = [_minari_space(space) for space in self.spaces]
        if self.path.exists() and not overwrite:
            self._refuse_whole()
        self._env_spec, self._written = env_spec, written
        self._metadata = {
            "dataset_id": dataset_id,
            "algorithm_name": algorithm,
            "author": {AUTHOR},
            "author_email": {"none"},
            "code_permalink": "none",
            "description": description,
            **(notes or {}),
        }
        self.total_episodes = self.total_steps = 0

    def _refuse_whole(self) -> None:
        try:
            open_dataset(self.dataset_id)
        except DamagedDataset as error:
            warnings.warn(f"it is written anew: {error}", stacklevel=3)
            return
        raise UsageError(
            f"the dataset {self.dataset_id!r} exists already in {self.path}: choose another id, or overwrite=True"
        )

    def __enter__(self) -> DatasetWriter:
        import minari
        from minari.dataset.minari_storage import MinariStorage

        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f".{self.path.name}.*.partial"):
            if not _is_running(left.name.split(".")[-2]):
                shutil.rmtree(left)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir()
        self._storage = MinariStorage.new(
            self._partial / "data", *self._written, env_spec=self._env_spec, jpeg_encoding=False
        )
        self._storage.update_metadata({**self._metadata, "minari_version": minari.__version__})
        return self

    def write(self, episodes: Iterable[Trajectory]) -> None:
        """Write episodes as they come; none but the current one is held in memory."""
        self._storage.update_episodes(self._buffer(episode) for episode in episodes)

    def _buffer(self, episode: Trajectory) -> Any:
        from minari.data_collector import EpisodeBuffer

        length = len(episode.rewards)
        assert len(episode.observations) == length + 1 and len(episode.actions) == length > 0
        self.total_episodes, self.total_steps = self.total_episodes + 1, self.total_steps + length
        return EpisodeBuffer(
            seed=episode.seed,
            observations=self._columns(0, (), self.spaces[0], episode.observations),
            actions=self._columns(1, (), self.spaces[1], episode.actions),
            rewards=np.asarray(episode.rewards, np.float64),
            terminations=np.asarray(episode.terminated, bool),
            truncations=np.asarray(episode.truncated, bool),
            infos={key: np.asarray(value) for key, value in episode.infos.items()},
        )

    def _columns(self, which: int, place: tuple[Any, ...], space: spaces.Space[Any], items: list[Any]) -> Any:
        """Turn a list of elements into arrays (or lists of texts), in dicts and tuples where the space has them."""
        if isinstance(space, spaces.Dict):
            return {
                key: self._columns(which, (*place, key), sub, [item[key] for item in items])
                for key, sub in space.spaces.items()
            }
        if isinstance(space, spaces.Tuple):
            parts = enumerate(space.spaces)
            return tuple(self._columns(which, (*place, i), sub, [item[i] for item in items]) for i, sub in parts)
        if isinstance(space, Utterance | spaces.Text):
            texts = [storable(text) for text in items]
            seen, longest = self._texts.get((which, place), (set(), 1))
            self._texts[which, place] = (seen.union(*texts), max(longest, *map(len, texts)))
            return texts
        return np.asarray(items, dtype=space.dtype)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self.total_episodes:
            shutil.rmtree(self._partial, ignore_errors=True)
            if kind is None:
                raise UsageError(f"no episode was written to {self.dataset_id!r}, so there is no dataset")
            return
        self._seal()
        _make_namespaces(self.dataset_id)
        old = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
        if self.path.exists():
            os.replace(self.path, old)
        os.replace(self._partial, self.path)
        shutil.rmtree(old, ignore_errors=True)

    def _seal(self) -> None:
        """Write the final spaces of texts, the sums and the digests, and make sure that they are on the disk."""
        from minari.serialization import serialize_space

        data = self._partial / "data"
        path = data / "metadata.json"
        metadata = json.loads(path.read_text())
        for which, name in enumerate(("observation_space", "action_space")):
            texts = {place: found for (w, place), found in self._texts.items() if w == which}
            metadata[name] = serialize_space(_minari_space(self.spaces[which], texts))
        files = sorted(p for p in data.rglob("*") if p.is_file() and p != path)
        for file in files:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        metadata[OWN_KEY] = {
            "total_episodes": self.total_episodes,
            "total_steps": self.total_steps,
            "sha256": {file.relative_to(data).as_posix(): _digest(file) for file in files},
        }
        with path.open("w") as handle:
            json.dump(metadata, handle)
            handle.flush()
            os.fsync(handle.fileno())


def storable(text: str) -> str:
    """Return a text as HDF5 can hold it: NUL and lone surrogates become U+FFFD."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _minari_space(
    space: spaces.Space[Any],
    texts: dict[tuple[Any, ...], tuple[set[str], int]] | None = None,
    place: tuple[Any, ...] = (),
) -> spaces.Space[Any]:
    """Return a space that Minari can write; a space of texts becomes a `Text` of the characters found.

    Raises:
        UsageError: Minari has no form for it.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _minari_space(sub, texts, (*place, key)) for key, sub in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(_minari_space(sub, texts, (*place, i)) for i, sub in enumerate(space.spaces)))
    if isinstance(space, Utterance | spaces.Text):
        characters, longest = (texts or {}).get(place, ({" "}, 1))
        return spaces.Text(longest, min_length=0, charset="".join(sorted(characters or {" "})))
    allowed = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    if not isinstance(space, allowed):
        raise UsageError(
            f"Minari cannot store {space}; it knows Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple and texts: "
            "wrap the environment with polyathlon.wrappers.VectorObservation"
        )
    return space


def _is_running(process: str) -> bool:
    """Return whether a process of that number exists."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _make_namespaces(dataset_id: str) -> None:
    """Give every folder above a dataset Minari's mark of a namespace."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
