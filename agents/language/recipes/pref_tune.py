"""The choices of preference tuning as one record: who writes answers and how often, how they are compared, what is pushed down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from polyathlon.agents.parts.wiring import Part, part
from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

from .records import Penalty, Recipe

Sampler = Literal["records", "policy"]
Label = Literal["best", "best_worst", "all", "reward"]
Loss = Literal["nll", "weighted", "dpo", "ipo", "reinforce", "ppo"]
SOURCE = "Tajwar et al. 2024, arXiv 2404.14367"
_LABELS: dict[str, tuple[str, ...]] = {  # what each loss is told of answers
    "nll": ("best", "best_worst", "all"),
    "weighted": ("reward",),
    "dpo": ("best_worst", "all"),
    "ipo": ("best_worst", "all"),
    "reinforce": ("reward",),
    "ppo": ("reward",),
}
_NEGATIVE: dict[str, tuple[bool, ...]] = {"weighted": (False,), "dpo": (True,), "ipo": (True,), "ppo": (True,)}


@dataclass(frozen=True)
class PrefTune:
    """A cell of the table of Tajwar et al. 2024, "Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data" (arXiv 2404.14367).

    `row()` is a recipe like any other. Where a cell is a method of its own its row is that method's: with answers of the policy that are written
    anew for each update (`every=1`, `batch=None`), "nll" of the best is `best_of_n`, "reinforce" and "ppo" are `reinforce` and `rlhf_ppo`; with
    records "nll" of the best is `pref_ft`, "dpo" and "ipo" of the best and the worst are `dpo` and `ipo`.

    Attributes:
        sampler: who wrote the answers: "records" of `data=`, or the "policy".
        every: updates between two refreshments of the policy's answers; None never refreshes them. Of records None.
        batch: problems that are answered at a refreshment, None as many as an update learns from (`num_prompts`); of records, how many an
            update learns from.
        n: answers of the policy to each problem. Of records None: as many as there are.
        label: what is told of the answers to a problem: the "best" one, the "best_worst" pair, "all" (pairs, or the best against all others), or their
            "reward".
        loss: "nll" (imitation), "weighted" (imitation weighed by exp(reward / beta)), "dpo", "ipo", "reinforce", "ppo".
        negative: whether log-probabilities of sampled answers are pushed down too.
        beta: of "dpo" as there; of "ipo" the margin that is aimed at; of "weighted" the temperature; of "nll" the weight of what is pushed down;
            of "reinforce" and "ppo" the coefficient of the divergence from the reference. None is the method's own.

    Raises:
        UsageError: a word means nothing, or words exclude each other.
    """

    sampler: Sampler = "policy"
    every: int | None = 1
    batch: int | None = None
    n: int | None = 4
    label: Label = "best_worst"
    loss: Loss = "dpo"
    negative: bool = True
    beta: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("sampler", Sampler), ("label", Label), ("loss", Loss)):
            if getattr(self, name) not in get_args(kind):
                raise unknown_name(f"{name} of PrefTune", str(getattr(self, name)), get_args(kind))
        for name in ("every", "batch", "n"):
            if getattr(self, name) is not None:
                check_positive_int(**{name: getattr(self, name)})
        is_number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        if self.beta is not None and not (is_number and self.beta > 0):
            raise UsageError(f"beta of PrefTune is a number above 0, or None, got {self.beta!r}")
        if not isinstance(self.negative, bool):
            raise UsageError(f"negative of PrefTune is True or False, got {self.negative!r}")
        self._refuse_samplers()
        self._refuse_losses()

    def _refuse_samplers(self) -> None:
        if self.sampler == "records":
            if self.every is not None or self.n is not None:
                raise UsageError(
                    f"records are neither refreshed nor sampled: leave every and n of PrefTune at None, got every={self.every} and n={self.n}"
                )
            if self.loss in ("reinforce", "ppo"):
                raise UsageError(
                    f"loss={self.loss!r} is a policy gradient on answers of the policy, which records are not: take sampler='policy', or "
                    "loss='weighted' or 'dpo'"
                )
        elif self.n is None:
            raise UsageError("the policy answers each problem n times: give n of PrefTune")
        elif self.n < 2 and self.loss not in ("reinforce", "ppo"):
            raise UsageError(f"label={self.label!r} compares the answers to a problem, but n is 1: take at least 2")

    def _refuse_losses(self) -> None:
        if self.label not in _LABELS[self.loss]:
            raise UsageError(
                f"loss={self.loss!r} of PrefTune is told {' or '.join(_LABELS[self.loss])} of answers, got label={self.label!r}"
            )
        allowed = _NEGATIVE.get(self.loss, (False, True))
        if self.negative not in allowed:
            why = "weighs answers and pushes none down" if self.loss == "weighted" else "pushes the worse answers down"
            raise UsageError(
                f"loss={self.loss!r} {why}, so negative={self.negative} means nothing: take negative={allowed[0]}, or another loss"
            )
        if self.loss == "nll" and self.negative == (self.label == "best"):
            raise UsageError(
                f"imitation with label={self.label!r} and negative={self.negative}: label='best' says of no answer that it is to be pushed down "
                "(negative=False), 'best_worst' and 'all' say which are (negative=True)"
            )
        if self.beta is not None and not self.negative and self.loss != "weighted":
            raise UsageError(
                f"beta={self.beta} with loss={self.loss!r} and negative=False: it is the weight of what pushes answers down, of which there is none; "
                "leave it out"
            )

    def row(self) -> Recipe:
        """Return the recipe of the cell."""
        made: Recipe = getattr(self, f"_{self.loss}")()
        words = f"{self.loss} of {self.label}, negative gradient {'on' if self.negative else 'off'}"
        who = (
            "records"
            if self.sampler == "records"
            else f"answers of the policy, {f'anew every {self.every} updates' if self.every else 'never anew'}"
        )
        return replace(made, name=f"pref_tune_{self.loss}", summary=f"{words}; {who}", source=SOURCE)

    def _collect(self, is_paired: bool = False) -> Part:
        """Return where answers come from: with their rewards, or as pairs of the best and the worst with sides."""
        take = "pairs" if is_paired else "all"
        if self.sampler == "records":
            return part("collectors:Records", batch=self.batch or 16, take=take)
        if self.every == 1 and self.batch is None and not is_paired:
            return part("collectors:Groups", group_size=self.n, dynamic_sampling=0)
        return part("collectors:Refreshed", every=self.every, group_size=self.n, problems=self.batch, take=take)

    def _nll(self) -> Recipe:
        if self.negative:
            against = "worst" if self.label == "best_worst" else "rest"
            beta = 0.5 if self.beta is None else self.beta
            return self._of(part("preference_tuning:best_against", beta=beta, against=against))
        if self.sampler == "records":
            chosen = part("collectors:Records", batch=self.batch or 16, take="chosen")
            return self._of(part("preferences:chosen_nll", reduce="token-mean"), collect=chosen)
        return replace(
            self._of(part("surrogates:negative_logp")), keep=part("answer_selection:best_of_n"), denominator="kept"
        )

    def _weighted(self) -> Recipe:
        weigh = part("preference_tuning:reward_weights", beta=0.1 if self.beta is None else self.beta)
        return replace(self._of(part("surrogates:negative_logp")), keep=weigh, aggregation="seq-mean-token-sum")

    def _dpo(self) -> Recipe:
        beta = 0.1 if self.beta is None else self.beta
        if self.label == "all":
            return self._of(part("preference_tuning:ranked_pairs", kind="sigmoid", beta=beta, pairs="all"))
        return self._named("dpo", self._collect(True), beta=beta)

    def _ipo(self) -> Recipe:
        if self.label == "all":
            beta = 5.0 if self.beta is None else self.beta
            return self._of(part("preference_tuning:ranked_pairs", kind="ipo", beta=beta, pairs="all"))
        if self.beta is None:
            return self._named("ipo", self._collect(True))
        return self._named("ipo", self._collect(True), tau=1 / (2 * self.beta), length_norm=False)

    def _reinforce(self) -> Recipe:
        found = self._named("reinforce", self._collect())
        if not self.negative:
            return replace(found, advantage=part("preference_tuning:positive_advantage"))
        return found if self.beta is None else replace(found, penalties=(_with(found.penalties[0], self.beta),))

    def _ppo(self) -> Recipe:
        words = {} if self.beta is None else {"rewards.1.beta": self.beta}
        return self._named("rlhf_ppo", self._collect(), **words)

    def _of(self, loss: Part, collect: Part | None = None) -> Recipe:
        return Recipe("pref_tune", "a cell", SOURCE, loss=loss, collect=collect or self._collect())

    def _named(self, name: str, collect: Part, **words: object) -> Recipe:
        from . import find_recipe

        return replace(find_recipe(name, **words), collect=collect)


def _with(penalty: Penalty, coefficient: float) -> Penalty:
    return replace(penalty, coefficient=coefficient)
