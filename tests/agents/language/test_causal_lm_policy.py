"""A language model as an SB3 policy."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy

from polyathlon.agents.language.policy import CausalLMPolicy, left_padded
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.models import load_model
from polyathlon.envs.text.reasoning import Reasoning
from polyathlon.wrappers.tokens.token_action import TokenAction

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


class Even(LanguageTask):
    """Pays the share of answer characters with an even code point."""

    def draw(self, rng):
        return int(rng.integers(10))

    def begin(self, task_id):
        return TaskEpisode(task_id, "even" * (1 + task_id % 3))

    def judge(self, episode, text):
        share = sum(ord(c) % 2 == 0 for c in text) / max(len(text), 1)
        return TaskReply("", share, True, Verdict(share == 1, share, False, "counted"))


def even_env(max_new_tokens=4):
    return TokenAction(Even(), max_new_tokens=max_new_tokens, max_length=32)


def token_env(max_turns=1, max_length=128, max_new_tokens=4):
    return TokenAction(
        Reasoning("chain_sum", SMALL, max_turns=max_turns), max_new_tokens=max_new_tokens, max_length=max_length
    )


def policy_for(env, **options):
    return CausalLMPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **options)


def contexts(env, n=5, seed=0):
    """Contexts of different lengths, from random walks."""
    rng = np.random.default_rng(seed)
    seen = []
    observation, _ = env.reset(seed=seed)
    for _ in range(n):
        seen.append(observation)
        observation, _, terminated, truncated, _ = env.step(int(rng.integers(3, 259)))
        if terminated or truncated:
            observation, _ = env.reset()
    return {
        "tokens": torch.tensor(np.stack([one["tokens"] for one in seen])),
        "length": torch.tensor([int(one["length"]) for one in seen]),
    }


def plain_logps(model, tokens, length):
    """Log-probabilities of the next token from a forward of one unpadded row."""
    return model(input_ids=tokens[None, :length]).logits[0, -1].float().log_softmax(-1)


def test_left_padding_keeps_every_context_and_its_positions():
    tokens = torch.tensor([[5, 6, 7, 0, 0], [8, 0, 0, 0, 0]])
    moved, mask, positions = left_padded(tokens, torch.tensor([[3.0], [1.0]]))
    assert moved[0].tolist() == [5, 6, 7] and moved[1, -1] == 8
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("attn", [None, "eager"])
def test_log_probabilities_equal_a_plain_forward_of_each_context(attn):
    env = token_env()
    policy, model, seen = policy_for(env, attn=attn), load_model("tiny", attn=attn), contexts(env)
    assert len(set(seen["length"].tolist())) > 2
    actions = torch.arange(5) * 17 + 3
    with torch.no_grad():
        _, logps, entropy = policy.evaluate_actions(seen, actions)
        expected = torch.stack([plain_logps(model, t, int(n)) for t, n in zip(seen["tokens"], seen["length"])])
    torch.testing.assert_close(logps, expected.gather(1, actions[:, None])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, -(expected.exp() * expected).sum(1), atol=1e-5, rtol=0)


def test_all_ways_to_read_agree_also_from_the_float_buffers_of_sb3():
    env = token_env()
    policy, seen = policy_for(env), contexts(env)
    torch.nn.init.normal_(policy.value_net.weight)
    buffered = {"tokens": seen["tokens"].float(), "length": seen["length"].float()[:, None]}
    with torch.no_grad():
        torch.manual_seed(0)
        actions, values, logps = policy(seen)
        again_values, again_logps, _ = policy.evaluate_actions(buffered, actions)
        distribution = policy.get_distribution(seen)
    assert actions.shape == (5,) and values.shape == (5, 1) and values.abs().min() > 0
    torch.testing.assert_close(again_values, values)
    torch.testing.assert_close(again_logps, logps)
    torch.testing.assert_close(distribution.log_prob(actions), logps)
    torch.testing.assert_close(policy.predict_values(seen), values)


def test_what_stands_behind_the_end_of_a_context_is_not_read():
    env = token_env()
    policy, seen = policy_for(env), contexts(env)
    noisy = seen["tokens"].clone()
    for row, length in zip(noisy, seen["length"]):
        row[int(length) :] = 77
    with torch.no_grad():
        torch.testing.assert_close(policy.read({**seen, "tokens": noisy}), policy.read(seen), atol=0, rtol=0)


def test_values_are_a_linear_map_of_the_last_hidden_state():
    env = token_env()
    policy, seen = policy_for(env), contexts(env, n=1)
    assert policy.predict_values(seen).item() == 0.0
    torch.nn.init.normal_(policy.value_net.weight)
    n = int(seen["length"][0])
    with torch.no_grad():
        hidden = load_model("tiny").model(input_ids=seen["tokens"][:, :n]).last_hidden_state[:, -1]
        torch.testing.assert_close(policy.predict_values(seen), policy.value_net(hidden), atol=1e-5, rtol=0)


def test_sb3_ppo_takes_steps_and_its_first_ratio_is_one():
    # one epoch over one batch: the parameters have not moved when the ratio is formed
    agent = PPO(CausalLMPolicy, even_env(), n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = {name: weight.clone() for name, weight in agent.policy.state_dict().items()}
    agent.learn(64)
    logged = agent.logger.name_to_value
    assert abs(logged["train/approx_kl"]) < 1e-6 and logged["train/clip_fraction"] == 0
    moved = {name for name, weight in agent.policy.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == set(before)


def test_there_is_one_copy_of_the_weights():
    policy = policy_for(token_env())
    weights = sum(weight.numel() for weight in load_model("tiny").parameters())
    assert sum(weight.numel() for weight in policy.parameters()) == weights + 64 + 1
    assert sum(weight.numel() for group in policy.optimizer.param_groups for weight in group["params"]) == weights + 65


def test_a2c_trains_it_too():
    agent = A2C(CausalLMPolicy, token_env(), n_steps=8, device="cpu", policy_kwargs={"model": "tiny"}).learn(8)
    assert agent.num_timesteps == 8


def test_lora_trains_the_adapters_and_the_value_head_alone():
    agent = PPO(
        CausalLMPolicy, even_env(), n_steps=16, batch_size=16, n_epochs=1, policy_kwargs={"lora": 2}, device="cpu"
    )
    before = {name: weight.clone() for name, weight in agent.policy.state_dict().items()}
    agent.learn(32)
    moved = {name for name, weight in agent.policy.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all("lora_" in name or name.startswith("value_net") for name in moved)


@pytest.mark.parametrize("lora", [None, 2])
def test_save_and_load_give_the_same_agent_and_training_goes_on_alike(tmp_path, lora):
    agent = PPO(
        CausalLMPolicy,
        even_env(),
        n_steps=16,
        batch_size=8,
        n_epochs=1,
        policy_kwargs={"model": "tiny", "lora": lora},
        seed=1,
        device="cpu",
    ).learn(16)
    agent.save(tmp_path / "agent.zip")
    loaded = PPO.load(tmp_path / "agent.zip", env=even_env(), device="cpu")
    for name, weight in agent.policy.state_dict().items():
        torch.testing.assert_close(loaded.policy.state_dict()[name], weight, atol=0, rtol=0)
    rollouts = []
    for one in (agent, loaded):
        one.set_env(even_env())
        one.set_random_seed(5)
        one.learn(16)
        rollouts.append(one.policy.state_dict())
    for name, weight in rollouts[0].items():
        torch.testing.assert_close(rollouts[1][name], weight, atol=0, rtol=0)


def test_the_policy_alone_saves_and_loads(tmp_path):
    env = token_env()
    policy, seen = policy_for(env), contexts(env)
    torch.nn.init.normal_(policy.value_net.weight)
    policy.save(tmp_path / "policy.pt")
    loaded = CausalLMPolicy.load(tmp_path / "policy.pt", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded.read(seen), policy.read(seen), atol=0, rtol=0)


def test_predict_and_evaluate_policy_know_the_tokens():
    env = token_env()
    agent = PPO(CausalLMPolicy, env, n_steps=16, batch_size=16, device="cpu")
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, deterministic=True)
    expected = plain_logps(load_model("tiny"), torch.tensor(observation["tokens"]), int(observation["length"])).argmax()
    assert action.shape == () and int(action) == int(expected)
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2)
    assert 0.0 <= mean <= 1.0


def test_training_mode_leaves_the_language_model_in_evaluation_mode():
    policy = policy_for(token_env())
    policy.set_training_mode(True)
    assert policy.training and not any(module.training for module in policy.language_model.modules())


def test_making_a_policy_leaves_the_global_generator_alone():
    env = token_env()
    state = torch.get_rng_state()
    policy_for(env)
    policy_for(env, lora=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_refusals_say_what_to_do():
    cartpole = gym.make("CartPole-v1")
    with pytest.raises(UsageError, match="TokenAction"):
        PPO(CausalLMPolicy, cartpole, device="cpu")
    env = token_env()
    with pytest.raises(UsageError, match="use_sde=False"):
        policy_for(env, use_sde=True)
    wide = gym.spaces.Discrete(300)
    with pytest.raises(UsageError, match="300 tokens, the model 'tiny' knows 259"):
        CausalLMPolicy(env.observation_space, wide, lambda _: 1e-3)
    long = gym.spaces.Dict(tokens=gym.spaces.Box(0, 258, (2048,), np.int64), length=gym.spaces.Discrete(2049))
    with pytest.raises(UsageError, match="2048 tokens, the model 'tiny' reads 1024"):
        CausalLMPolicy(long, env.action_space, lambda _: 1e-3)


@pytest.mark.slow
def test_sb3_ppo_learns_which_token_is_paid():
    agent = PPO(
        CausalLMPolicy,
        even_env(max_new_tokens=1),
        n_steps=128,
        batch_size=64,
        n_epochs=4,
        learning_rate=1e-3,
        seed=0,
        device="cpu",
    )

    def share():
        return evaluate_policy(agent, agent.get_env(), n_eval_episodes=100, deterministic=False)[0]

    before = share()
    agent.learn(2048)
    assert before < 0.65 and share() > 0.9
