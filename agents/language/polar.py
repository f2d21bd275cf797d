"""POLAR: a reward model that tells by how much an answer is like a reference, learnt from which answers are of one policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polyathlon.envs.models.reward_models import spoken
from polyathlon.registration import register_agent

from .reward_model import BRADLEY_TERRY, RewardModel

TRIPLES = replace(
    BRADLEY_TERRY,
    name="polar",
    summary="a number for each answer beside a reference: answers of the reference's policy, or better ones, above others",
    source="Dou et al. 2025, arXiv 2507.05197",
    collect=replace(BRADLEY_TERRY.collect, path="collectors:Triples"),
)


@register_agent(
    "polar",
    family="language",
    summary="a reward model that compares answers with a reference (POLAR, data with `reference`)",
)
class POLAR(RewardModel):
    """Learn how close an answer is to a reference, as a policy discriminator does (Dou et al. 2025, arXiv 2507.05197).

    One causal model reads prompt, reference, end token, the prompt once more, answer, end token; the score is a linear map of the last hidden
    state. The loss is that of `RewardModel` on the two answers of a record beside its reference: -log sigmoid(r(p, ref, chosen) - r(p, ref,
    rejected)). Pre-training: the chosen answer is another one of the reference's policy, the rejected one of another policy
    (`polyathlon.records.policy_triples`). Fine-tuning, from the folder of the first stage: the reference is the best of three ranked answers
    (`ranked_triples`). In reinforcement learning it judges `polyathlon/Prompts-v0`, whose records have a reference each
    (`reference_rows` makes such records of any task with solutions). What stands in `<think>` tags is left out. It is not symmetric in
    reference and answer.

    Args:
        policy: see `RewardModel`; the folder of the first stage for the second.
        env: see `RewardModel`; `max_length` holds the prompt twice, reference and answer.
        data: pairs, or lists of scored answers (their best and worst), with the column `reference`.
        learning_rate: see `RewardModel`.
        num_prompts: see `RewardModel`.
        lora: see `RewardModel`.
        recipe_kwargs: see `RewardModel`; `too_long="cut-prompt"` cuts both copies of the prompt at their beginning.
        policy_kwargs: see `RewardModel`.
        micro_batch: see `RewardModel`.
        fast_forward: see `RewardModel`.
        holdout: see `RewardModel`.
        **kwargs: see `RewardModel`.

    Raises:
        UsageError: as of `RewardModel`; a record has no reference.
    """

    own_recipe = TRIPLES
    reads_references = True

    def _row(
        self, prompt: str | Sequence[dict[str, Any]], answer: str, reference: str | None = None
    ) -> tuple[list[int], int]:
        """Return the ids of a triple, and where the answer begins."""
        return super()._row(prompt, spoken(answer), None if reference is None else spoken(reference))
