"""A model trained on outcomes alone tells right tokens from wrong ones (B7, experiment A)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, TOKENS, STEPS = 1, 16, 12, 100


def train(seed: int, task: str, steps: int = STEPS) -> Run:
    """A chain whose next token is right with .82 to .98; the policy stays, the process model learns. Score the AUC of its rewards."""
    import torch
    from _tables import learner

    from polyathlon.agents.language.episodes import collate
    from polyathlon.envs.probes import TableTask

    draws = torch.Generator().manual_seed(seed)
    following = torch.randint(TOKENS, (PLACES, TOKENS), generator=draws)
    p = 0.82 + 0.16 * torch.rand(PLACES, TOKENS, generator=draws)

    def right_of(tokens: list[int]) -> list[bool]:
        return [token == int(following[t, tokens[t - 1] if t else 0]) for t, token in enumerate(tokens)]

    def start(model, _) -> None:
        logit = (p / (1 - p)).log() + torch.tensor(TOKENS - 1.0).log()
        model.z.zero_()
        model.z[0].scatter_(2, following[..., None], logit[..., None])

    problem = TableTask(PROMPTS, PLACES, TOKENS, score=lambda prompt, tokens: float(all(right_of(tokens))))
    words = {"process_learning_rate": 0.05, "dynamic_sampling": 0}
    agent = learner(
        seed,
        "prime",
        f"table:{PROMPTS},{PLACES},{TOKENS}",
        problem,
        1e-9,
        64,
        start=torch.no_grad()(start),
        group_size=4,
        recipe_kwargs=words,
    )
    curve = []
    for k in range(steps + 1):
        if k:
            agent.learn(1, log_interval=None, reset_num_timesteps=False)
        if k in (0, 1, steps):
            episodes = agent.collect_episodes()
            fields = collate(episodes, agent.token_env.rules.pad, agent.device)
            agent.side_models.start(agent.policy.language_model, ("process", "reference"))
            q = agent.read_role("process", fields).logp - agent.read_role("reference", fields).logp
            right = torch.tensor([right_of(e.ids[1 : 1 + PLACES]) for e in episodes])
            curve.append((float(k), auc(q[:, :PLACES][right], q[:, :PLACES][~right])))
    return Run(curve[-1][1], curve)


def auc(high, low) -> float:
    """Return the probability that one of `high` exceeds one of `low`, a tie counting half."""
    gap = high[:2000, None] - low[None, :500]
    return float(((gap > 0).float() + 0.5 * (gap == 0).float()).mean())


CLAIM = Claim(
    name="prime_credit",
    statement="The log-ratio of a model trained by outcomes alone ranks right tokens above wrong ones.",
    source="Cui et al. 2025, PRIME, arXiv 2502.01456",
    metric="AUC of the implicit reward for right against wrong tokens",
    arms={"process model": train, "untrained": partial(train, steps=0)},
    comparisons=[Comparison("process model", "untrained", "higher", margin=0.3)],
    controls=[Control("untrained", ("process model",))],
    tasks=("a chain",),
    seeds=8,
    curve="AUC",
    step_label="updates of the process model",
    setting=f"{PLACES} places, {TOKENS} tokens, 256 answers a batch, Adam .05 for the process model, a policy that stays.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
