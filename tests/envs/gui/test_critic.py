"""The pre-operative critic: exact labels, the three terms of its reward, and operations replaced before they are carried out.

Modules: polyathlon.wrappers.pre_operative_critic.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.agents import LanguageAgent
from polyathlon.envs.errors import UsageError
from polyathlon.envs.gui.critic import WebCritic, critic_prompt, read_judgement, same_operation
from polyathlon.envs.gui.learned_critic import LearnedCritic
from polyathlon.envs.gui.web import WebTask
from polyathlon.wrappers import PreOperativeCritic, TokenAction

LOOK = {"elements": [{"ref": 3, "box": [10, 60, 40, 20], "text": "a", "tag": "button"}]}


def test_an_answer_is_read_by_its_tags():
    right = "<thinking>it is</thinking> <score>Incorrect</score>\n<suggestion>click(3)</suggestion>"
    assert read_judgement(right) == (True, False, "click(3)")
    assert read_judgement("<score>Correct</score>") == (False, True, None)
    assert read_judgement(right.replace("Incorrect", "Perhaps")) == (False, None, "click(3)")
    assert read_judgement(right + right) == (False, None, None)
    swapped = "<score>Correct</score><thinking></thinking><suggestion>noop()</suggestion>"
    assert read_judgement(swapped) == (False, True, "noop()")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("click(3)", "click(3)", True),
        ("click(4)", "click(3)", False),
        ("dblclick(3)", "click(3)", False),
        ("click_at(11, 79)", "click(3)", True),
        ("click_at(11, 81)", "click(3)", False),
        ('fill(3, "Ann  B")', 'fill(3, "ann b")', True),
        ('fill(3, "ann")', 'fill(3, "anna")', False),
        ("nonsense", "click(3)", False),
    ],
)
def test_operations_are_compared(one, other, is_same):
    assert same_operation(one, other, LOOK) is is_same


@pytest.mark.slow
@pytest.mark.browser
def test_labels_are_those_of_carrying_the_operation_out():
    """Independent of the task's own forks: a fresh environment plays history, proposal and, where it ended, the reward."""
    task = WebCritic(pages=("click-test-2", "click-button", "enter-text"))
    fresh = {page: WebTask(page, max_steps=60) for page in task.pages}
    labels, checked = [], 0
    for seed in range(24):
        found = task.situation(seed)
        labels.append(found.is_correct)
        env = fresh[found.page]
        env.reset(options={"task": found.seed})
        for call in (*found.history, found.proposal):
            _, reward, terminated, _, _ = env.step(call)
        if terminated:
            checked += 1
            assert found.is_correct == (reward > 0)
    assert checked >= 8 and 7 <= sum(labels) <= 17
    task.close(), [env.close() for env in fresh.values()]


@pytest.mark.browser
def test_rewards_by_hand():
    task = WebCritic(pages="click-test-2")
    seeds = {task.situation(seed).is_correct: seed for seed in range(12)}
    for is_correct, seed in seeds.items():
        found = task.situation(seed)
        text, _ = task.reset(options={"task": seed})
        assert f"Proposed operation: {found.proposal}" in text and text.startswith("Instruction: Click button ONE.")
        right = task.solution(seed)
        score = "Correct" if is_correct else "Incorrect"
        other = "Incorrect" if is_correct else "Correct"
        rewards = {
            right: 1.0,
            right.replace(score, other): 0.4,
            right.replace(found.reference, "noop()"): 0.7,
            f"<score>{score}</score>": 0.6,
            "<thinking></thinking><score>" + other + "</score><suggestion>noop()</suggestion>": 0.1,
            "no": 0.0,
        }
        for answer, expected in rewards.items():
            task.reset(options={"task": seed})
            _, reward, terminated, _, info = task.step(answer)
            assert reward == pytest.approx(expected) and terminated, (answer, info["verdict"])
        task.reset(options={"task": seed})
        assert right in task.current_candidates()
    assert set(seeds) == {True, False}
    task.close()
    with pytest.raises(UsageError, match="oracle"):
        WebCritic(pages="draw-line")


@pytest.mark.browser
def test_a_critic_turns_wrong_operations_into_right_ones():
    def critic(prompt: str) -> str:
        asked.append(prompt)
        one = next(line for line in prompt.splitlines() if '"ONE"' in line)
        right = f"click({one[1 : one.index(']')]})"
        score = "Correct" if f"Proposed operation: {right}\n" in prompt else "Incorrect"
        return f"<thinking></thinking><score>{score}</score><suggestion>{right}</suggestion>"

    asked: list[str] = []
    env = PreOperativeCritic(WebTask("click-test-2"), critic)
    for seed in range(3):
        env.reset(seed=seed)
        _, reward, _, _, info = env.step("click(2)")
        assert (
            reward == 1
            and info["operation"] == "click(1)"
            and [one["score"] for one in info["critic"]] == [False, True]
        )
    stubborn = PreOperativeCritic(WebTask("click-test-2"), lambda text: "<score>Incorrect</score>", max_revisions=1)
    stubborn.reset(seed=0)
    _, reward, _, _, info = stubborn.step("click(2)")
    assert reward == -1 and len(info["critic"]) == 2
    env.close(), stubborn.close()
    with pytest.raises(UsageError, match="Web-v0"):
        PreOperativeCritic(gym.make("CartPole-v1"), critic)


@pytest.mark.browser
def test_a_critic_that_learned_from_labels_raises_the_success_of_a_random_policy():
    def success(critic) -> int:
        page, rng = WebTask("click-test-2", max_steps=1), np.random.default_rng(0)
        env = page if critic is None else PreOperativeCritic(page, critic)
        found = 0.0
        for seed in range(10):
            env.reset(seed=seed)
            found += max(env.step(str(rng.choice(page.current_candidates())))[1], 0.0)
        env.close()
        return int(found)

    task = WebCritic("click-test-2")
    learned = LearnedCritic().fit_task(task, range(8))
    for seed in range(20, 26):
        found = task.situation(seed)
        said = read_judgement(learned(critic_prompt(found.look["goal"], found.history, found.look, found.proposal)))
        assert said.is_formatted and said.is_correct == found.is_correct
        assert same_operation(said.suggestion, found.reference, found.look)
    task.close()
    assert success(learned) == 10 and success(LearnedCritic()) == success(None) < 8
    with pytest.raises(UsageError, match="critic_prompt"):
        learned("judge this")


def test_what_a_critic_learns_is_how_often_operations_alike_were_right():
    def prompt(goal: str, proposal: str) -> str:
        look = {"elements": [{"ref": 1, "tag": "button", "text": "ok"}, {"ref": 2, "tag": "button", "text": "no"}]}
        return critic_prompt(goal, (), look, proposal)

    critic = LearnedCritic()
    assert critic.probability(prompt("Click ok.", "click(1)")) == 0.5
    for is_correct in (True, True, False):
        critic.learn(prompt("Click ok.", "click(1)"), is_correct)
    critic.learn(prompt("Click ok.", "click(2)"), False)
    assert critic.probability(prompt("Click no.", "click(2)")) == 3 / 5  # what the goal names
    assert critic.probability(prompt("Click no.", "click(1)")) == 1 / 3
    assert critic.probability(prompt("Click no.", "dblclick(9)")) == 0.5
    assert critic(prompt("Click no.", "click(1)")).endswith("<score>Incorrect</score><suggestion>click(2)</suggestion>")


@pytest.mark.browser
def test_a_language_model_learns_as_a_critic_and_judges_before_operations():
    task = TokenAction(WebCritic("click-test-2"), model="tiny", max_new_tokens=4, max_length=512)
    agent = LanguageAgent("tiny", task, recipe="s_grpo", num_prompts=1, group_size=2, seed=0)
    agent.learn(2)
    env = PreOperativeCritic(WebTask("click-test-2"), agent)
    env.reset(seed=0)
    *_, info = env.step("click(1)")
    assert len(info["critic"]) == 1 and info["critic"][0]["operation"] == "click(1)"
    env.close(), task.close()
