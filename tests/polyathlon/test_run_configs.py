"""Runs in files, several seeds, and trackers."""

from __future__ import annotations

import json
import sys
import types

import pytest

from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.run_configs import known_words, parse_seeds, read_config
from polyathlon.tracking import MAKERS, flat

RUN = """
agent: ppo
env: CartPole-v1
total_timesteps: 1e2
seed: 3
tuned: false
n_envs: 1
agent_kwargs: {n_steps: 25, batch_size: 25, n_epochs: 1, learning_rate: 3e-4}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yml"
    path.write_text(RUN)
    return path


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_file_says_the_run_and_the_command_line_goes_before_it(config, tmp_path):
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "a")]) == 0
    kept = config_of(tmp_path / "a")
    assert (kept["agent"], kept["env"], kept["total_timesteps"], kept["seed"]) == ("ppo", "CartPole-v1", 100, 3)
    assert kept["agent_kwargs"]["learning_rate"] == 3e-4
    words = ["train", "--config", str(config), "--seed", "5", "--steps", "50", "--agent", "n_epochs=2"]
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    changed = config_of(tmp_path / "b")
    assert (changed["seed"], changed["total_timesteps"]) == (5, 50)
    assert changed["agent_kwargs"] == {**kept["agent_kwargs"], "n_epochs": 2}


def test_the_config_of_a_run_folder_repeats_the_run(config, tmp_path):
    for source, out in ((config, "a"), (tmp_path / "a", "b"), (tmp_path / "b" / "config.json", "c")):
        assert main(["train", "--config", str(source), "--out", str(tmp_path / out)]) == 0
    logs = [(tmp_path / name / "progress.csv").read_text().splitlines() for name in "abc"]
    clock = [i for i, key in enumerate(logs[0][0].split(",")) if key in ("time/fps", "time/time_elapsed")]
    records = [[[c for i, c in enumerate(line.split(",")) if i not in clock] for line in log] for log in logs]
    assert records[0] == records[1] == records[2]


def test_what_a_run_folder_took_from_a_file_of_hyper_parameters_is_in_its_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {"agent": "sac", "env": "Pendulum-v1", "tuned": {"gamma": 0.9, "tau": 0.1}, "agent_kwargs": {"tau": 0.2}}
        )
    )
    words = read_config(path)
    assert words["agent_kwargs"] == {"gamma": 0.9, "tau": 0.2} and words["tuned"] is False
    path.write_text(json.dumps({"agent": "grpo", "unit": "completions", "total_timesteps": 64}))
    assert read_config(path) == {"agent": "grpo", "completions": 64}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agnt: ppo", "unknown word of a run 'agnt'. Did you mean 'agent'"),
        ("steps: 64", "unknown word of a run 'steps': what --steps says is called total_timesteps here"),
        ("- ppo", "must map the words of train to values"),
        ("agent: [", "line 1 is no YAML"),
        ("agent: ppo\nenv_kwargs: 3", "env_kwargs must be a mapping of options, got 3"),
        ("agent: ppo\nseed: 2020-01-01", "no number, text, list or mapping"),
        ("agent: ppo\nseeds: 4-x", "seeds are numbers such as 0-4"),
        ("agent: ppo\nenv_lost: an object", "keeps no way to make its environment .an object"),
        ("agent: ppo", "ENV must be given"),
        ("env: CartPole-v1", "AGENT and ENV must be given"),
    ],
)
def test_a_file_that_means_nothing_is_refused(text, message, tmp_path, capsys):
    path = tmp_path / "run.yml"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err.replace("(", ".")


def test_a_missing_file_and_no_names_are_refused(capsys, tmp_path):
    assert main(["train", "--config", str(tmp_path / "none.yml")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "--config run.yml" in capsys.readouterr().err
    assert {"agent", "env", "seeds", "track", "out"} <= set(known_words()) and "callback" not in known_words()


@pytest.mark.parametrize(
    ("given", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("0,2, 5-6", [0, 2, 5, 6]), (3, [3]), ([1, 4], [1, 4]), ("7", [7])]
)
def test_seeds_are_read(given, seeds):
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", ["", "4-2", "1,1", "a", "-1", [-1], True, 1.5])
def test_what_is_no_seeds_is_refused(given):
    with pytest.raises(UsageError, match="seed"):
        parse_seeds(given)


def test_a_run_for_each_seed_with_the_mean_over_them(config, tmp_path, capsys):
    words = ["train", "--config", str(config), "--seeds", "0-1", "--out", str(tmp_path / "runs")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "mean return over 2 seeds: " in out and (tmp_path / "runs" / "curve.png").exists()
    assert [config_of(tmp_path / "runs" / f"seed{n}")["seed"] for n in (0, 1)] == [0, 1]
    assert main(words) == 2  # nothing is overwritten
    assert "add --resume" in capsys.readouterr().err
    before = (tmp_path / "runs" / "seed0" / "progress.csv").read_text()
    assert main([*words[:-3], "0-2", *words[-2:], "--resume"]) == 0
    assert (tmp_path / "runs" / "seed0" / "progress.csv").read_text() == before
    assert config_of(tmp_path / "runs" / "seed2")["seed"] == 2
    assert main([*words, "--seed", "1"]) == 2 and "give --seed or --seeds" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ trackers


class Recorded:
    """What a tracker was told."""

    def __init__(self):
        self.begun, self.logged, self.finished, self.params = [], [], 0, {}
        self.id = self.name = None

    def begin(self, name, identity, config):
        self.id = self.name = identity or name
        self.begun.append(self.id)
        self.params |= config
        return self

    def log(self, values, step=None):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def fake_wandb(told):
    module = types.ModuleType("wandb")
    module.init = lambda project, name, id, resume, config, dir: told.begin(name, id, config)
    return module


def fake_trackio(told):
    module = types.ModuleType("trackio")
    module.init = lambda project, name, resume, config: told.begin(name, None, config)
    return module


def fake_mlflow(told):
    class Client:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return "1"

        def create_run(self, experiment, run_name):
            told.begin(run_name, None, {})
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name))

        def log_param(self, run, key, value):
            told.params[key] = value

        def log_metric(self, run, key, value, step):
            told.log({key: value}, step)

        def set_terminated(self, run):
            told.finish()

    module = types.ModuleType("mlflow")
    module.tracking = types.SimpleNamespace(MlflowClient=Client)
    return module


FAKES = {"wandb": fake_wandb, "trackio": fake_trackio, "mlflow": fake_mlflow}


@pytest.mark.parametrize("name", MAKERS)
def test_the_log_is_sent_to_a_tracker_and_a_resumed_run_goes_on_there(name, config, tmp_path, monkeypatch):
    told = Recorded()
    monkeypatch.setitem(sys.modules, name, FAKES[name](told))
    out = tmp_path / "tracked"
    words = ["train", "--config", str(config), "--track", name, "--out", str(out)]
    assert main(words) == 0
    steps = [step for step, values in told.logged if "time/iterations" in values]
    assert steps == [25, 50, 75, 100] and told.finished == 1
    assert {"seed": 3}.items() <= flat(told.params).items()
    assert flat(told.params)["agent_kwargs.n_steps"] == 25
    assert json.loads((out / "track.json").read_text()) == {name: "tracked"}
    assert main([*words, "--resume", "--steps", "150"]) == 0
    assert {step for step, _ in told.logged} == {25, 50, 75, 100, 125, 150}
    assert set(told.begun) == {"tracked"} and told.finished == 2


def test_a_tracker_that_fails_is_one_warning(config, tmp_path, monkeypatch):
    told = Recorded()
    told.log = lambda values, step=None: (_ for _ in ()).throw(ConnectionError("no route"))
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(told))
    with pytest.warns(UserWarning, match=r"did not take a record \(no route\)") as said:
        assert main(["train", "--config", str(config), "--track", "wandb", "--out", str(tmp_path / "run")]) == 0
    assert sum("did not take" in str(each.message) for each in said) == 1


def test_trackers_are_refused_before_anything_trains(config, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "run")
    assert main(["train", "--config", str(config), "--track", "wandbb", "--out", out]) == 2
    assert "Did you mean 'wandb'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["train", "--config", str(config), "--track", "wandb", "--out", out]) == 2
    assert "pip install 'polyathlon[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
