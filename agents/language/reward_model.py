"""A reward model as an agent: a head on a language model that learns from pairs to tell better answers from worse ones."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn

from polyathlon.agents.parts.keywords import ScorerWords
from polyathlon.agents.parts.score_norm import ScoreNorm
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models.models import load_scorer, scores_answers
from polyathlon.envs.models.reward_models import checked_references, save_scorer
from polyathlon.envs.models.table_model import TableModel
from polyathlon.registration import register_agent

from .agent import LanguageAgent
from .episodes import Episode, Fields
from .policy import CausalLMPolicy
from .reading import Reading, read_scores
from .recipes import Recipe

BRADLEY_TERRY = Recipe(
    "reward",
    "a number for each answer, the chosen ones above the rejected ones",
    "Bradley and Terry 1952; Stiennon et al. 2020, arXiv 2009.01325",
    loss=part("reward_losses:reward_loss", centring=0.0, barrier=0.0, focal=0.0, smoothing=0.0),
    collect=part("collectors:Records", batch=16, take="pairs"),
)
_MEANINGLESS = "it means nothing to a reward model, which samples nothing and has one loss: leave it out, or set numbers of the loss by recipe_kwargs"


class RewardPolicy(CausalLMPolicy):
    """A language model with a head of one number, which is 0 everywhere at first or that of a reward model's folder."""

    def _critic(self, width: int) -> Any:
        if isinstance(self.language_model, TableModel):
            raise UsageError(
                "a table knows the prompt, the place and the token before alone, which is the end token where an answer is scored: take a "
                "language model for a reward model"
            )
        head = nn.utils.skip_init(nn.Linear, width, 1, bias=False)
        nn.init.zeros_(head.weight)
        name = str(self.model_options["model"])
        if scores_answers(name):
            head.weight.data.copy_(load_scorer(name).score.weight.data)
        return head


@register_agent(
    "reward", family="language", summary="a reward model that learns from pairs (--data), for any recipe and as a judge"
)
class RewardModel(LanguageAgent):
    """Learn a number for each answer from pairs of a chosen and a rejected one (Bradley and Terry 1952).

    The score is a linear map of the last hidden state at an answer's last token, its end token, found by lengths. Answers to one prompt share
    its computation. `save_scorer` writes what transformers and TRL load, `polyathlon/Prompts-v0` takes as `judge=` and `SideModel(head="score")`
    as a given model; the folder of another reward model may stand in the place of the model.

    Args:
        policy: name of the language model under the head, or the folder of a reward model to go on with.
        env: a `TokenAction` environment of that model, which renders prompts; its tasks are not played.
        data: pairs, or lists of scored answers (their best and worst): a file, a folder or rows (see `polyathlon.records.records`). A column
            "margin" is read, and "label", how likely the chosen answer is the better one.
        learning_rate: step size, or a schedule of the remaining progress; None is that of `LanguageAgent`.
        num_prompts: pairs in an update; None is 16.
        lora: rank of low-rank adapters; only these and the head are trained then.
        recipe_kwargs: numbers of the loss (`centring`, `barrier`, `focal`, `smoothing`; see
            `polyathlon.agents.parts.reward_losses.bradley_terry`) and of the data (`too_long`, `equal`).
        policy_kwargs: further keyword arguments of `CausalLMPolicy`.
        micro_batch: rows in memory at a time.
        fast_forward: see `LanguageAgent`.
        holdout: share of the data that is never learnt from, whole prompts; None is 0.05. Accuracy and margin on them are logged.
        **kwargs: `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: as of `LanguageAgent`; the data has no pairs.
    """

    gives_scores = True
    needs_records = True
    own_recipe = BRADLEY_TERRY
    reads_references = False
    refused_words: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("recipe", "group_size", "temperature", "max_logp_gap", "side_models", "reference_logps"), _MEANINGLESS
    )

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        data: Any = None,
        learning_rate: float | Schedule | None = None,
        num_prompts: int | None = None,
        lora: int | None = None,
        recipe_kwargs: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        micro_batch: int | None = None,
        fast_forward: bool = True,
        holdout: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[ScorerWords],
    ) -> None:
        words = dict(policy_kwargs or {})
        if isinstance(policy, str):
            words["model"], policy = policy, RewardPolicy
        self.norm = ScoreNorm()
        self._scores: list[Tensor] = []
        super().__init__(
            policy,
            env,
            recipe=self.own_recipe,
            learning_rate=learning_rate,
            num_prompts=num_prompts,
            lora=lora,
            recipe_kwargs=recipe_kwargs,
            policy_kwargs=words,
            micro_batch=micro_batch,
            fast_forward=fast_forward,
            data=data,
            holdout=holdout,
            _init_setup_model=_init_setup_model,
            **kwargs,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.register_state("score_norm", self.norm)

    def _read(
        self, fields: Fields, with_values: bool = False, with_full: bool = False, with_entropy_gradient: bool = False
    ) -> Reading:
        """Read scores; of tokens a reward model says nothing."""
        starts = fields["mask"].argmax(1) + 1
        score = self._scores_of(fields["tokens"], fields["attention"], starts)
        self._scores.append(score.detach())
        nothing = torch.zeros_like(fields["mask"])
        return Reading(nothing, nothing, nothing, None, score)

    def _scores_of(self, tokens: Tensor, attention: Tensor, starts: Tensor) -> Tensor:
        model, head = self.policy.language_model, self.policy.value_net
        with self.policy.precision():
            return read_scores(
                model, head, tokens, attention, starts, self.fast_forward, self.policy.gradient_checkpointing
            )

    def update(self, episodes: Sequence[Episode], recipe: Recipe) -> dict[str, float]:
        """Update the model on pairs, and the mean and deviation of its scores; see `LanguageAgent.update`."""
        self._scores.clear()
        report = super().update(episodes, recipe)
        self.norm.update(torch.cat(self._scores))
        return {name: value for name, value in report.items() if name != "entropy"}

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[str | Sequence[dict[str, Any]]],
        answers: Sequence[str],
        references: Sequence[str] | None = None,
        normalised: bool = False,
    ) -> list[float]:
        """Score each answer to its prompt.

        Args:
            prompts: texts, or conversations before the answer; rendered as the environment renders prompts.
            answers: one to each; closed with one end token.
            references: an answer to each that is compared with; of reward models that read some (`POLAR`).
            normalised: centre, scale and clamp by the scores of training.

        Raises:
            UsageError: there are more or fewer answers or references than prompts, references where none are read or none where they
                are, or one does not fit into `max_length`.
        """
        if len(prompts) != len(answers):
            raise UsageError(f"scores of {len(prompts)} prompts and {len(answers)} answers: give one answer to each")
        compared = checked_references(answers, references, self.reads_references)
        if not answers:
            return []
        rows = [self._row(*given) for given in zip(prompts, answers, compared, strict=True)]
        longest = max(len(ids) for ids, _ in rows)
        size, found = self.micro_batch or 64, []
        for first in range(0, len(rows), size):
            part_ = rows[first : first + size]
            tokens = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in part_], device=self.device)
            length = torch.tensor([len(ids) for ids, _ in part_], device=self.device)
            attention = (torch.arange(longest, device=self.device) < length[:, None]).long()
            starts = torch.tensor([start for _, start in part_], device=self.device)
            found.append(self._scores_of(tokens, attention, starts))
        scores = torch.cat(found)
        listed: list[float] = (self.norm(scores) if normalised else scores).tolist()
        return listed

    def _row(
        self, prompt: str | Sequence[dict[str, Any]], answer: str, reference: str | None = None
    ) -> tuple[list[int], int]:
        """Return the ids of a prompt and an answer, and where the answer begins."""
        rules = self._rules()
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        start = rules.prompt(messages)
        if reference is not None:
            start = [*start, *closed_ids(reference, rules), *start]
        ids = [*start, *closed_ids(answer, rules)]
        if len(ids) > rules.max_length:
            raise UsageError(
                f"the answer {answer[:60]!r} has {len(ids)} tokens with its prompt, more than max_length={rules.max_length} of TokenAction: "
                "raise it"
            )
        return ids, len(start)

    def save_scorer(self, folder: str | Path) -> Path:
        """Write the model as transformers and TRL read it: `AutoModelForSequenceClassification` with one label, and its tokenizer.

        Args:
            folder: where it goes.

        Returns:
            The folder.

        Raises:
            UsageError: transformers has no sequence classification model for this kind of model.
        """
        norm = {"mean": self.norm.mean, "std": self.norm.std, "clamp": self.norm.clamp}
        model, head = self.policy.language_model, self.policy.value_net.weight
        return save_scorer(folder, model, head, self._rules().tokenizer, norm, self.reads_references)

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the agent as every agent is written; into the run folder of `train` also the folder "reward_model" of `save_scorer`."""
        super().save(path, exclude, include)
        if isinstance(path, str | Path) and Path(path).name == "agent.zip":
            self.save_scorer(Path(path).parent / "reward_model")

    def warm_start(self, *_: Any, **__: Any) -> Any:
        """Refuse: a reward model writes nothing that could imitate.

        Raises:
            UsageError: always.
        """
        raise UsageError("a reward model learns from pairs and imitates nothing: leave warm_start (--warm-start) out")

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "norm", "_scores"]


def closed_ids(answer: str, rules: Any) -> list[int]:
    """Return the ids of an answer and one end token, whether or not it has one."""
    for end in rules.tokenizer.convert_ids_to_tokens(list(rules.ends)):
        answer = answer.removesuffix(end or "")
    return [*rules.tokenizer.encode(answer, add_special_tokens=False), rules.eos]
