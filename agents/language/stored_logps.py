"""Log-probabilities of a reference, read once and kept beside the data, so that no second model stays in memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polyathlon.envs.errors import UsageError

from .episodes import Episode, collate
from .record_rows import RecordRows

if TYPE_CHECKING:
    from .agent import LanguageAgent

ROWS = 32
PARTS = ("model", "tokenizer", "template", "rows")


class StoredLogps:
    """The log-probabilities of every answer of some data, in a folder, mapped into memory.

    Args:
        folder: where `write_logps` put them.
        sizes: [units] answers of each record.
    """

    def __init__(self, folder: Path, sizes: Any) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = read_hashes(folder)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._offsets = np.load(folder / "offsets.npy")
        self._logps = np.load(folder / "logps.npy", mmap_mode="r")

    def attach(self, episode: Episode, unit: int, answer: int) -> None:
        """Give an episode the field `reference_logp`: what is stored on the ids that were written, 0 elsewhere.

        Raises:
            UsageError: another number of tokens is stored.
        """
        place = int(self._first[unit]) + answer
        values = self._logps[int(self._offsets[place]) : int(self._offsets[place + 1])].tolist()
        if len(values) != episode.length:
            raise UsageError(
                f"{len(values)} stored log-probabilities in {str(self.folder)!r} for an answer of {episode.length} tokens ({episode.task}): "
                "delete the folder, and they are read anew"
            )
        own = iter(values)
        episode.extra["reference_logp"] = [next(own) if is_own else 0.0 for is_own in episode.written]


def folder_beside(path: str) -> Path:
    """Return the folder beside a data file that holds what is stored of it."""
    file = Path(path).expanduser()
    return file.with_name(file.name + ".reference")


def read_hashes(folder: Path) -> dict[str, str]:
    """Return of what the stored numbers are, by part.

    Raises:
        UsageError: the folder is damaged.
    """
    try:
        found: dict[str, str] = json.loads((folder / "hashes.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{str(folder)!r} holds no whole log-probabilities of a reference: delete it, and they are read anew"
        ) from error
    return found


def refuse_other_hashes(stored: dict[str, str], wanted: dict[str, str], folder: Path) -> None:
    """Refuse numbers that are of another model, tokenizer, template or data.

    Raises:
        UsageError: naming what differs.
    """
    changed = [part for part in PARTS if stored.get(part) != wanted[part]]
    if changed:
        raise UsageError(
            f"the log-probabilities in {str(folder)!r} are of another reference: {' and '.join(changed)} differ (stored "
            f"{str(stored.get(changed[0]))[:12]}, now {wanted[changed[0]][:12]}). Delete the folder to read them anew, or train with "
            "reference_logps='computed'"
        )


def hashes_of(agent: LanguageAgent, options: dict[str, Any]) -> dict[str, str]:
    """Return hashes of what reference log-probabilities depend on: the reference's weights, the tokenizer, how prompts are rendered, rows.

    The reference is the model that is given in this role, else the policy as it is now.
    """
    rules, data = agent.token_env.rules, agent.opened_data
    assert data is not None
    weights = hashlib.sha256()
    for name, value in sorted(_reference(agent).state_dict().items()):
        weights.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    vocabulary = json.dumps(sorted(rules.tokenizer.get_vocab().items()), ensure_ascii=False)
    words = ("max_length", "system", "instruction", "chat_template_kwargs")
    template = [
        str(getattr(rules.tokenizer, "chat_template", None)),
        {word: rules.options[word] for word in words},
        options,
        agent.temperature,
    ]
    return {
        "model": weights.hexdigest(),
        "tokenizer": hashlib.sha256(vocabulary.encode("utf-8", "replace")).hexdigest(),
        "template": hashlib.sha256(json.dumps(template, sort_keys=True, default=str).encode()).hexdigest(),
        "rows": data.records.digest,
    }


def _reference(agent: LanguageAgent) -> Any:
    return agent.side_models.given.get("reference", agent.policy.language_model)


def write_logps(agent: LanguageAgent, folder: Path, hashes: dict[str, str], options: dict[str, Any]) -> None:
    """Read every answer with the reference as it is now, and write the log-probabilities of its tokens into a folder, atomically.

    Args:
        agent: the agent, with open data.
        folder: it must not be there.
        hashes: what `hashes_of` said.
        options: of `RecordRows`.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    offsets, total = [0], 0
    raw = partial / "raw"
    with raw.open("wb") as file:
        for values in _values(agent, options):
            file.write(np.asarray(values, dtype=np.float32).tobytes())
            total += len(values)
            offsets.append(total)
    mapped = np.lib.format.open_memmap(partial / "logps.npy", mode="w+", dtype=np.float32, shape=(total,))
    if total:
        mapped[:] = np.memmap(raw, dtype=np.float32, mode="r")
        mapped.flush()
    del mapped
    raw.unlink()
    np.save(partial / "offsets.npy", np.array(offsets, dtype=np.int64))
    (partial / "hashes.json").write_text(json.dumps(hashes, indent=1), "utf-8")
    partial.rename(folder)


def _values(agent: LanguageAgent, options: dict[str, Any]) -> Iterator[list[float]]:
    """Yield the log-probabilities of the written ids of every answer of every record, in order; none where a record is left out."""
    data, rows = agent.opened_data, RecordRows(agent.token_env.rules, **options)
    assert data is not None
    waiting: list[tuple[int, list[Episode]]] = []
    for unit in range(len(data.records)):
        waiting.append((int(data.records.sizes[unit]), rows.episodes(data.records[unit], unit)))
        if sum(len(own) for _, own in waiting) >= ROWS:
            yield from _read(agent, waiting)
            waiting = []
    yield from _read(agent, waiting)


@torch.no_grad()
def _read(agent: LanguageAgent, waiting: Sequence[tuple[int, list[Episode]]]) -> Iterator[list[float]]:
    episodes = [episode for _, own in waiting for episode in own]
    read: Iterator[list[float]] = iter(())
    if episodes:
        fields = collate(episodes, agent.token_env.rules.pad, agent.device)
        is_given = "reference" in agent.side_models.given
        reading = agent.read_role("reference", fields) if is_given else agent._read(fields)
        logp, mask = reading.logp.cpu(), fields["mask"].cpu() > 0
        read = iter([row[own].tolist() for row, own in zip(logp, mask)])
    for size, own in waiting:
        for _ in range(size):
            yield next(read) if own else []
