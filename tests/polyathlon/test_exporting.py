"""Policies that leave the house: files that answer as the agent does, language models in plain transformers, the hub, the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import polyathlon
from polyathlon import exporting
from polyathlon.agents import PPO, SAC, LanguageAgent
from polyathlon.agents.parts import hub
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_tokenizer, render_prompt
from polyathlon.exporting import export_policy

from . import hub_stub

ROOT = Path(__file__).parents[2]
SMALL = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
TEXTS = ["What is 2 + 2?", "Schreib ein Wort: äöü", "x"]


def agent_of(kind):
    if kind == "sac":
        return SAC("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [16]})
    if kind == "masked":
        return polyathlon.train("ppo", "polyathlon/TicTacToe-v0", 8, tuned=False, agent_kwargs=SMALL, opponent="random")
    return PPO("MlpPolicy", "CartPole-v1", seed=0, normalize_observations=True)


def observations(agent, number):
    rng = np.random.default_rng(7)
    space = agent.observation_space
    return rng.normal(size=(number, *space.shape)).astype(np.float32).clip(space.low, space.high)


@pytest.mark.parametrize("kind", ["ppo", "sac", "masked"])
def test_a_torchscript_file_answers_as_the_agent_does(kind, tmp_path):
    agent = agent_of(kind)
    path = export_policy(agent, tmp_path / "policy.pt", "torchscript")
    loaded, obs = torch.jit.load(str(path)), observations(agent, 9)
    given = [torch.as_tensor(obs)]
    words = json.loads(path.with_suffix(".json").read_text())
    if kind == "masked":
        masks = np.random.default_rng(1).random((9, 9)) < 0.4
        masks[:, 4] = True
        given.append(torch.as_tensor(masks))
        expected = agent.predict(obs, deterministic=True, action_masks=masks)[0]
        assert list(words["inputs"]) == ["observation", "action_mask"]
    else:
        expected = agent.predict(obs, deterministic=True)[0]
        assert words["inputs"]["observation"] == {"shape": ["batch", *obs.shape[1:]], "dtype": "float32"}
    assert loaded(*given).numpy() == pytest.approx(expected, abs=1e-5)


def test_an_onnx_file_answers_as_the_agent_does(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    agent = agent_of("sac")
    path = export_policy(agent, tmp_path / "policy.onnx", "onnx")
    obs = observations(agent, 5)
    (found,) = runtime.InferenceSession(str(path)).run(None, {"observation": obs})
    assert found == pytest.approx(agent.predict(obs, deterministic=True)[0], abs=1e-5)


def test_a_file_that_would_answer_otherwise_is_refused(tmp_path, monkeypatch):
    agent = agent_of("ppo")
    written = exporting._write_torchscript
    monkeypatch.setattr(exporting, "_write_torchscript", lambda *words: lambda *given: 1 - written(*words)(*given))
    with pytest.raises(UsageError, match=r"answers otherwise than the agent \(by 1\)"):
        export_policy(agent, tmp_path / "policy.pt", "torchscript")
    with pytest.raises(UsageError, match="exported as torchscript or onnx, got 'keras'"):
        export_policy(agent, tmp_path / "policy.pt", "keras")


def test_without_the_exporter_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'polyathlon\[onnx\]'"):
        export_policy(agent_of("sac"), tmp_path / "policy.onnx", "onnx")


# ------------------------------------------------------------------------------------------------------------ language models


def speaker(**words):
    env = polyathlon.adapt("polyathlon/Reasoning-v0", "language", max_new_tokens=5)
    agent = LanguageAgent("tiny", env, temperature=0.8, seed=0, **words)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if it had learnt something, adapters too
        for weight in agent.policy.language_model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draws))
    return agent


def log_probabilities(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.float().log_softmax(-1)


@pytest.mark.parametrize("adapters", [None, "merged", "apart"])
def test_a_saved_model_has_the_same_log_probabilities_in_plain_transformers(adapters, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    agent = speaker() if adapters is None else speaker(lora=2)
    capsys.readouterr()
    folder = agent.save_pretrained(tmp_path / "model", adapters or "merged", {"task": "sums"})
    assert "Writing" not in capsys.readouterr().err  # a small model is written at once: no bar of transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert (folder / "adapter_config.json").exists() == (adapters == "apart")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == load_tokenizer("tiny")(text)["input_ids"]
        gap = log_probabilities(model, ids) - log_probabilities(agent.policy.language_model, ids)
        assert float(gap.abs().max()) < 1e-5
    if adapters is None:
        config = transformers.GenerationConfig.from_pretrained(folder)
        assert (config.temperature, config.max_new_tokens, config.eos_token_id) == (0.8, 5, [2])
        card = (folder / "README.md").read_text()
        assert (
            "- task: sums" in card
            and "recipe: grpo" in card
            and "polyathlon 0." in card
            and "library_name: transformers" in card
        )


def test_the_chat_template_of_a_saved_tokenizer_reads_as_the_agent_does(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = speaker().save_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert found == render_prompt(load_tokenizer("tiny"), messages)
    assert speaker().save_pretrained(folder) == folder  # it may be written again


def test_the_agent_goes_on_after_its_adapters_were_merged_for_a_file(tmp_path):
    agent = speaker(lora=2)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.save_pretrained(tmp_path / "model")
    after = agent.policy.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'merged' into the weights or kept 'apart', got 'mixed'"):
        speaker().save_pretrained(tmp_path / "model", "mixed")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="holds something else than a saved model"):
        speaker().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"leaves as a folder of transformers: save_pretrained"):
        export_policy(speaker(), tmp_path / "policy.pt", "torchscript")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a language agent and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    words = {"env_kwargs": {"task": "chain_sum"}, "agent_kwargs": {"num_prompts": 2, "group_size": 2}}
    more = {"wrapper_kwargs": {"max_new_tokens": 4}, "completions": 4}
    polyathlon.train("grpo", "polyathlon/Reasoning-v0", out=folder / "words", **words, **more)
    polyathlon.train("ppo", "CartPole-v1", 8, tuned=False, agent_kwargs=SMALL, out=folder / "pole")
    return folder


def test_the_command_exports_what_fits_the_agent(runs, tmp_path, capsys):
    assert main(["export", str(runs / "words"), "--pretrained", "--out", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'task: polyathlon/Reasoning-v0 with {"task": "chain_sum"}' in card and "![" in card
    assert (tmp_path / "model" / "curve.png").exists()
    assert main(["export", str(runs / "pole"), "--torchscript"]) == 0
    assert (runs / "pole" / "policy.pt").exists()
    capsys.readouterr()
    assert main(["export", str(runs / "pole"), "--pretrained"]) == 2
    assert "PPO is no language model" in capsys.readouterr().err
    assert main(["export", str(runs / "words"), "--onnx"]) == 2
    assert "leaves as a folder of transformers" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ talking


def test_chat_sees_the_conversation_so_far(runs, capsys):
    from polyathlon.agents.language import saving
    from polyathlon.serving import chat

    asked = []
    real = saving.conversation_answer
    said = iter(["one", "", "two", "/new", "three", "/end"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            saving,
            "conversation_answer",
            lambda agent, messages, *rest: (asked.append(messages), real(agent, messages, *rest))[1],
        )
        answers = []
        assert chat(runs / "words", lambda: next(said), answers.append) == 3
    roles = [[m["role"] for m in messages] for messages in asked]
    assert roles == [["user"], ["user", "assistant", "user"], ["user"]]
    assert asked[1][1]["content"] == answers[0] and asked[2][0]["content"] == "three"
    assert main(["chat", str(runs / "pole")]) == 2
    assert "PPO does not speak" in capsys.readouterr().err


def test_a_conversation_longer_than_the_model_reads_is_told(runs):
    from polyathlon.serving import chat

    said, answers = iter(["x" * 5000]), []
    assert chat(runs / "words", lambda: next(said, "/end"), answers.append) == 0
    assert "leaves room for at most" in answers[0] and "/new" in answers[0]


def test_a_port_in_use_is_refused_before_anything_is_loaded(runs, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(runs / "words"), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be used" in capsys.readouterr().err
    assert main(["serve", str(runs / "words"), "--port", "0"]) == 2
    assert "a port is a number from 1 to 65535" in capsys.readouterr().err


@pytest.fixture
def ask(runs):
    """Return a function that serves a run, batched or not, and asks it with temperatures; it returns the answers."""
    openai, psutil = pytest.importorskip("openai"), pytest.importorskip("psutil")
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed)
    import socket
    import time

    from polyathlon.serving import served

    def asked(temperatures, **words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        answers = []
        with served(runs / "words", port=port, device="cpu", **words) as process:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
            question = {
                "model": str((runs / "words" / "pretrained").resolve()),
                "messages": [{"role": "user", "content": "1 + 1"}],
            }
            server = psutil.Process(process.pid)
            latest = time.monotonic() + 1200
            for temperature in temperatures:
                while True:
                    # ten seconds of work until it listens: on a loaded machine minutes, which mean nothing
                    assert process.poll() is None and time.monotonic() < latest
                    assert sum(server.cpu_times()[:2]) < 100
                    try:
                        found = client.chat.completions.create(**question, max_tokens=4, temperature=temperature)
                        break
                    except openai.APIConnectionError:
                        time.sleep(0.5)
                assert found.choices[0].message.role == "assistant"
                answers.append(found.choices[0].message.content)
        assert process.poll() is not None
        return answers

    return asked


@pytest.mark.slow
def test_the_endpoint_is_called_by_openai_s_client(ask):
    (answer,) = ask([1.0])
    assert isinstance(answer, str)


@pytest.mark.slow
def test_a_batched_endpoint_draws_with_the_numbers_of_the_first_request(ask):
    # as its documentation says; where this fails, transformers has learnt better and batching can be the default
    greedy = ask([0.0])
    assert ask([0.0, 2.0, 2.0], batched=True) == 3 * greedy


def test_batching_is_asked_of_transformers_and_its_limits_are_told(runs, capsys, monkeypatch):
    from polyathlon import serving

    for needed in serving.NEEDED:
        pytest.importorskip(needed)
    started = []

    class Process:
        def __init__(self, command, env):
            started.append(command)

        def wait(self):
            return 0

        poll = wait

    monkeypatch.setattr(serving.subprocess, "Popen", Process)
    for words in ([], ["--continuous-batching"]):
        assert main(["serve", str(runs / "words"), "--port", "18765", *words]) == 0
    assert ["--continuous-batching" in command for command in started] == [False, True]
    assert capsys.readouterr().err.count("of the first request hold for all") == 1


# ------------------------------------------------------------------------------------------------------------ the hub

PUSH = """
import sys
import polyathlon.agents as agents
from polyathlon.envs.errors import UsageError
name, run, here = sys.argv[1:]
from polyathlon.evaluation import load_run
agent, env = load_run(run)
print(agent.push_to_hub(name, folder=here + "/kept", card={"task": "CartPole-v1"}))
again = agents.PPO.load_from_hub(name)
obs = env.reset(seed=0)[0]
assert again.predict(obs, deterministic=True)[0] == agent.predict(obs, deterministic=True)[0]
assert all((a == b).all() for a, b in zip(agent.policy.parameters(), again.policy.parameters()))
for act, said in (
    (lambda: agents.SAC.load_from_hub(name), "holds a PPO, not a SAC"),
    (lambda: agents.PPO.load_from_hub("someone/nothing"), "no agent could be loaded from someone/nothing"),
    (lambda: agents.PPO.load_from_hub(run), "is a file or folder of this machine"),
    (lambda: agents.PPO.load_from_hub("noslash"), "is no name of a repository"),
):
    try:
        act()
    except UsageError as error:
        assert said in str(error) and chr(10) not in str(error), error
    else:
        raise AssertionError(said)
print("done")
"""


def child_environment(tmp_path, endpoint):
    hidden = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    words = {key: value for key, value in os.environ.items() if key not in hidden}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_stub", "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    return {**words, **own, "PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}


def test_an_agent_goes_to_the_hub_and_comes_back(runs, tmp_path):
    with hub_stub.running() as stub:
        words = [sys.executable, "-c", PUSH, "someone/pole", str(runs / "pole"), str(tmp_path)]
        done = subprocess.run(
            words,
            env=child_environment(tmp_path, stub.address),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "done", done.stderr[-3000:]
        files = stub.repositories["someone/pole"]
        assert {"agent.zip", "polyathlon.json", "README.md"} <= set(files)
        assert b"- task: CartPole-v1" in files["README.md"] and b"reinforcement-learning" in files["README.md"]


def test_a_hub_that_is_away_is_one_line_and_the_content_is_kept(tmp_path, monkeypatch):
    class Away:
        def __init__(self, token):
            pass

        def create_repo(self, *words, **more):
            raise ConnectionError("no route to host\nmore")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Away)
    with pytest.raises(
        UsageError, match=r"ConnectionError: no route to host\); everything is kept in .*kept: push again later"
    ) as told:
        agent_of("ppo").push_to_hub("someone/pole", folder=tmp_path / "kept")
    assert "\n" not in str(told.value)
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"agent.zip", "polyathlon.json", "README.md"} <= kept
    assert hub.class_path(tmp_path / "kept" / "agent.zip").endswith(":PPO")
    with pytest.raises(UsageError, match="does not say which agent it is"):
        hub.class_path(tmp_path / "agent.zip")


def test_a_language_agent_s_repository_holds_the_model_too(tmp_path):
    folder = hub.write_package(speaker(), tmp_path / "package", {"task": "sums"})
    names = {path.name for path in folder.iterdir()}
    assert {"agent.zip", "polyathlon.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
