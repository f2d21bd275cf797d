"""Every agent that cannot act in an environment is told wrappers and `adapt`, and both let it act there."""

from __future__ import annotations

import re

import gymnasium as gym
import pytest

import polyathlon
from polyathlon import wrappers
from polyathlon.adaptation import resolve_agent
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.action_kinds import action_form, refusal, reward_refusal

TASKS = {
    "box": lambda: gym.make("Pendulum-v1"),
    "discrete": lambda: gym.make("CartPole-v1"),
    "multidiscrete": lambda: gym.wrappers.TransformAction(
        gym.make("CartPole-v1"), lambda action: int(action[0]), gym.spaces.MultiDiscrete([2])
    ),
    "text": lambda: gym.make("polyathlon/Reasoning-v0", task="chain_sum"),
    "tokens": lambda: wrappers.TokenAction(gym.make("polyathlon/Reasoning-v0", task="chain_sum")),
}
AGENTS = sorted(record.name for record in polyathlon.algorithms())
CASES = [
    (name, form)
    for name in AGENTS
    for form in TASKS
    if getattr(resolve_agent(name)[0], "action_forms", ()) and form not in resolve_agent(name)[0].action_forms
]


def refused(name: str, form: str) -> tuple[type, str]:
    """Return the class of an agent and the words in which it refuses a task."""
    agent, env = resolve_agent(name)[0], TASKS[form]()
    with pytest.raises(UsageError) as error:
        agent.refuse_wrong_form(env.observation_space, env.action_space)
    return agent, str(error.value)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_the_wrappers_that_a_refusal_names_give_a_form_that_the_agent_takes(name, form):
    """They are put on from the inside out, as the error lists them; a task of text was told tokens for agents of choices."""
    agent, said = refused(name, form)
    cure = re.search(r"wrap it with polyathlon\.wrappers\.(\w+)(?: and then (\w+))?", said)
    if cure is None:
        assert "use an environment of that form" in said or "register_problem" in said
        return
    env = TASKS[form]()
    for wrapper in filter(None, cure.groups()):
        env = getattr(wrappers, wrapper)(env)
    assert action_form(env.observation_space, env.action_space) in agent.action_forms


@pytest.mark.parametrize(("name", "form"), CASES)
def test_adapt_that_a_refusal_names_gives_a_form_that_the_agent_takes(name, form):
    agent, said = refused(name, form)
    if "let polyathlon.adapt" not in said:
        return
    env = polyathlon.adapt(TASKS[form](), name)
    assert action_form(env.observation_space, env.action_space) in agent.action_forms


def test_adapt_chooses_for_sac_what_sac_was_told_to_let_it_choose():
    """SAC refused choices with "let polyathlon.adapt(env, SAC) choose", which then refused them with the same words."""
    from polyathlon.agents import SAC

    words = {"device": "cpu", "learning_starts": 4, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}}
    for env_id in ("CartPole-v1", "Blackjack-v1"):
        with pytest.raises(UsageError, match=r"let polyathlon.adapt\(env, SAC\) choose the wrappers"):
            SAC("MlpPolicy", gym.make(env_id), **words)
        SAC("MlpPolicy", polyathlon.adapt(gym.make(env_id), SAC), **words).learn(8)


def test_several_objectives_are_weighed_as_the_refusal_says():
    from polyathlon.agents import PPO

    def made() -> gym.Env:
        return gym.make("polyathlon/MultiObjectiveTSP-v0", num_nodes=5, reward="vector")

    words = {"device": "cpu", "n_steps": 8, "batch_size": 8, "n_epochs": 1}
    said = re.escape(reward_refusal("PPO", 2).split(": ")[1].split(";")[0])
    with pytest.raises(UsageError, match=said):
        PPO("MultiInputPolicy", made(), **words)
    PPO("MultiInputPolicy", wrappers.LinearReward(made()), **words).learn(8)
    PPO("MultiInputPolicy", polyathlon.adapt(made(), PPO), **words).learn(8)


def test_an_agent_of_choices_alone_is_told_the_candidates_of_a_text():
    """It was told tokens, which it does not take."""
    said = refusal("Mine", ("discrete",), "text")
    assert "wrap it with polyathlon.wrappers.CandidateAction, or let" in said
    env = wrappers.CandidateAction(TASKS["text"]())
    assert action_form(env.observation_space, env.action_space) == "discrete"
    assert "TokenAction, or let" in refusal("Mine", ("box", "tokens"), "text")
