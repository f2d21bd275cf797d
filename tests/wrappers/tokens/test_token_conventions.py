"""Tokenizers and chat templates of other conventions than tiny's: ends, special tokens, gaps in ids, roles, variables."""

from __future__ import annotations

import time

import gymnasium as gym
import pytest

pytest.importorskip("transformers")
import tokenizers
import transformers

import polyathlon
from polyathlon.agents.language.imitation import find_solver, like, solved
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import continue_prompt, load_tokenizer, render_prompt
from polyathlon.envs.models.model_tokens import without_reasoning
from polyathlon.wrappers import TokenAction
from polyathlon.wrappers.tokens.token_rules import TokenRules

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if no_think is defined and no_think %}<think></think>{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + CHATML.split("%}", 1)[1]
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<answer>", "</answer>", "<think>", "</think>"]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Save a tokenizer on bytes with its config, and return the folder."""

    def made(template=None, first_special=256, **generation):
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        ids = {c: i for i, c in enumerate(alphabet)} | {t: first_special + k for k, t in enumerate(SPECIAL)}
        core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=[]))
        core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = tokenizers.decoders.ByteLevel()
        core.add_special_tokens(SPECIAL)
        tok = transformers.PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        )
        tok.chat_template = template
        size = first_special + len(SPECIAL)
        config = transformers.LlamaConfig(
            vocab_size=size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=512, eos_token_id=tok.eos_token_id,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("model")
        config.save_pretrained(folder)
        tok.save_pretrained(folder)
        if generation:
            transformers.GenerationConfig(**generation).save_pretrained(folder)
        return str(folder)

    return made


def task(**options):
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    return gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=small, **options)


def env_of(folder, **options):
    return TokenAction(task(), model=folder, **{"max_new_tokens": 60, "max_length": 400, **options})


def ids_of(env, text):
    return env.tokenizer.encode(text, add_special_tokens=False)


def prompt_of(env):
    observation, info = env.reset(seed=0)
    return env.tokenizer.decode(observation["tokens"][: observation["length"]]), info


def test_every_end_token_of_the_generation_config_ends_an_utterance(make):
    end = 256 + SPECIAL.index("<|im_end|>")
    folder = make(CHATML, eos_token_id=[258, end, 9999])
    env = env_of(folder)
    assert env.rules.ends == (258, end)  # the tokenizer's own first; ids that no token has are left out
    for last in (258, end):
        env.reset(seed=0)
        info = env.step_utterance([*ids_of(env, "7"), last])[4]
        assert info["end"] == "eos" and info["text"] == "7"
    rows = env.batch(1)
    rows.reset(seed=0)
    assert rows.step_utterance([[*ids_of(env, "7"), end]]).infos[0]["text"] == "7"
    vector = env.vector(1)
    vector.reset(seed=0)
    import torch

    vector.step(torch.tensor(ids_of(env, "7")))
    assert bool(vector.step(torch.tensor([end]))[2][0])
    # imitation and the next turn close with the token that the template writes
    episode = solved(env.batch(1), find_solver(env), 1)[0]
    assert episode.ids[-1] == end == env.rules.eos
    tokenizer = load_tokenizer(folder)
    closed = continue_prompt(tokenizer, "No.", True, env.rules.ends)
    assert [end, *closed] == continue_prompt(tokenizer, "No.", False, env.rules.ends)


def test_without_a_generation_config_the_config_names_them(make):
    assert env_of(make()).rules.ends == (258,)


def test_stop_texts_that_are_special_tokens_end_an_utterance(make):
    env = env_of(make(CHATML), stop=("<|im_start|>", "stop"))
    env.reset(seed=0)
    info = env.step_utterance([*ids_of(env, "7"), 256 + SPECIAL.index("<|im_start|>")])[4]
    assert info["end"] == "stop" and info["text"] == "7"
    env.reset(seed=0)
    info = env.step_utterance(ids_of(env, "8stop"))[4]
    assert info["end"] == "stop" and info["text"] == "8"


def test_special_tags_are_read_and_frames_are_not(make):
    env = env_of(make(CHATML))
    said = "<think>the sum</think><answer>7</answer>"
    assert len(ids_of(env, said)) < len(said)
    _, info = prompt_of(env)
    said = f"<think>the sum</think><answer>{task().unwrapped.solution(info['task'])}</answer>"
    info = env.step_utterance([*ids_of(env, said), *ids_of(env, "<|im_start|>"), 258])[4]
    assert info["text"] == said and info["verdict"]["correct"]


def test_ids_with_a_gap_are_in_the_spaces(make):
    env = env_of(make(first_special=300))
    assert env.rules.vocabulary == 309 and env.action_space.contains(302)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.step_utterance([*ids_of(env, "7"), 302])[4]["end"] == "eos"


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_text_is_folded_where_the_template_has_no_place_for_it(make, template):
    tokenizer = load_tokenizer(make(template))
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}
    folded = tokenizer.decode(render_prompt(tokenizer, [system, user]))
    assert folded == "<|im_start|>user\nBe brief.\n\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    known = load_tokenizer(make(CHATML))
    assert known.decode(render_prompt(known, [system, user])).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_template_that_refuses_is_quoted(make):
    tokenizer = load_tokenizer(make("{{ raise_exception('only on Sundays') }}"))
    with pytest.raises(UsageError, match="roles user: only on Sundays"):
        render_prompt(tokenizer, [{"role": "user", "content": "x"}])


def test_variables_reach_the_template(make):
    folder = make(CHATML)
    assert prompt_of(env_of(folder, chat_template_kwargs={"no_think": True}))[0].endswith("<think></think>")
    assert prompt_of(env_of(folder, chat_template_kwargs={"no_think": False}))[0].endswith("assistant\n")
    with pytest.raises(UsageError, match="'no_thnk'. Did you mean 'no_think'"):
        env_of(folder, chat_template_kwargs={"no_thnk": True})
    with pytest.raises(UsageError, match="'tokenize' is given by TokenAction"):
        env_of(folder, chat_template_kwargs={"tokenize": True})
    with pytest.raises(UsageError, match="does not read the variable 'x'"):
        TokenAction(task(), chat_template_kwargs={"x": 1})
    with pytest.raises(UsageError, match="a dict of variables"):
        TokenAction(task(), chat_template_kwargs=3)


def test_system_and_instruction_stand_in_the_prompt(make):
    for model in ("tiny", make(CHATML)):
        env = env_of(model, system="You add.", instruction="Use <answer>.")
        text, info = prompt_of(env)
        question = info["messages"][0]["content"]
        assert "You add." in text.split(question)[0] and text.split(question)[1].startswith("\nUse <answer>.")
        assert env.tokenizer.decode(env.batch(1).reset(seed=0)[0]) == text
    rules = TokenRules("tiny", 4, 64, (), system="First.")
    both = rules.prompt([{"role": "system", "content": "Second."}, {"role": "user", "content": "x"}])
    assert rules.decode(both) == "First.\n\nSecond.\nx\n"
    for name in ("system", "instruction"):
        with pytest.raises(UsageError, match=f"{name} must be a text that is not empty"):
            TokenAction(task(), **{name: ""})


def test_options_go_through_adapt_and_to_tasks_to_imitate():
    env = polyathlon.adapt(task(), "grpo", model="tiny", instruction="Be brief.", strip_reasoning=True)
    assert "Be brief." in prompt_of(env)[0] and env.rules.strip_reasoning
    assert like(task(), env).rules.options == env.rules.options


def test_reasoning_is_taken_off_before_judging():
    env = TokenAction(task(), strip_reasoning=True, max_new_tokens=200, max_length=500)
    _, info = prompt_of(env)
    answer = task().unwrapped.solution(info["task"])
    said = ids_of(env, f"<think>is it {int(answer) + 1}?</think>\n{answer}")
    observation, _, _, _, info = env.step_utterance([*said, 2])
    assert info["text"] == answer and info["verdict"]["correct"]
    assert "is it" in env.tokenizer.decode(observation["tokens"])
    with pytest.raises(UsageError, match="strip_reasoning must be True or False"):
        TokenAction(task(), strip_reasoning="yes")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("7", "7"),
        ("<think>a</think>7", "7"),
        ("a</think> 7 ", "7"),
        ("<think>a", ""),
        ("8<think>a</think>7<think>b</think>", "87"),
        ("<think>a<think>b</think>7", "7"),
        ("a</think>7</think>", "7</think>"),
    ],
)
def test_reasoning(said, kept):
    assert without_reasoning(said) == kept


def test_reasoning_is_found_in_linear_time():
    for text in ("<think>" * 20_000, "</think>" * 20_000, "<think></think>" * 10_000, "</think><think>" * 10_000):
        begin = time.process_time()
        without_reasoning(text)
        assert time.process_time() - begin < 0.05
