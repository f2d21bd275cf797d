"""What a language agent does with answers that are given, without a model: imitation, data, stored references, what is held out."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch

from polyathlon.agents.language import offline_agent as module
from polyathlon.agents.language.offline_agent import OfflineAgent
from polyathlon.agents.language.recipes import SideModel, find_recipe
from polyathlon.envs.errors import UsageError

PAIRS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(8)]


class Bare(OfflineAgent):
    """The part of an agent that learns from what is given, and nothing else."""

    collect = train = None

    def __new__(cls, **words):
        return object.__new__(cls)

    def __init__(self, **words):
        self.calls = []
        self.seed, self._initial_seed = None, 2**31 + 5
        self.recipe = find_recipe("dpo")
        vars(self).update(words)

    token_env = None

    def _make_or_start_rows(self):
        self.calls.append("rows")

    def update(self, episodes, recipe):
        self.calls.append((list(episodes), recipe.name))
        return {}


def exactly(said):
    return pytest.raises(UsageError, match=f"^{re.escape(said)}$")


def with_data(data=None, holdout=None, reference_logps="computed", **words):
    agent = Bare(**words)
    agent._set_data(data, holdout, reference_logps)
    return agent


class Collector:
    """A collector of records."""

    can_store = True
    rows_options = {"equal": "drop"}
    log_as = "data"

    def __init__(self):
        self.seen = []

    def check_data(self, row, found):
        self.seen.append(("check", row, found))

    def refuse_other_data(self, found):
        self.seen.append(("other", found))

    def metrics(self):
        return {"epoch": 1.5}

    def held_out(self, data, rules, most):
        self.seen.append(("held", data, rules, most))
        return ["episode"]


def wiring(collector=None, needs=("reference_logp",)):
    return SimpleNamespace(collector=collector or Collector(), needs=frozenset(needs), roles=("reference", "teacher"))


# ---------------------------------------------------------------------------------------------------------- imitation


def learner(**words):
    optimiser = SimpleNamespace(param_groups=[{"lr": 0.5}, {"lr": 0.5}], state={"moments": 1})
    modes, forgotten = [], []
    made = Bare(
        policy=SimpleNamespace(optimizer=optimiser, set_training_mode=modes.append),
        lr_schedule=lambda left: 0.25 * left,
        side_models=SimpleNamespace(forget=lambda: forgotten.append("models")),
        _wiring=SimpleNamespace(collector=SimpleNamespace(forget=lambda: forgotten.append("answers"))),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        modes=modes,
        forgotten=forgotten,
        **words,
    )
    made.solutions = lambda number, task, turns: made.calls.append((number, task, turns)) or list(range(number))
    return made


def test_imitation_reads_all_answers_so_many_times_in_an_order_of_the_seed():
    agent, task = learner(), gym.Env()
    assert agent.warm_start(task, n=5, epochs=2, batch_size=2, turns=3) is agent
    draws = torch.Generator().manual_seed(0)
    orders = [torch.randperm(5, generator=draws).tolist() for _ in range(2)]
    batches = [order[i : i + 2] for order in orders for i in (0, 2, 4)]
    assert agent.calls == [(5, task, 3), *((batch, "sft") for batch in batches)]
    assert [group["lr"] for group in agent.policy.optimizer.param_groups] == [0.5, 0.5] and agent.modes == [True]
    assert agent.policy.optimizer.state == {} and agent.forgotten == ["models", "answers"]


def test_imitation_by_default_and_at_a_rate_of_its_own():
    agent = learner()
    agent.warm_start()
    assert agent.calls[0] == (256, None, 1) and len(agent.calls) == 1 + 8 * 8
    assert all(len(episodes) == 32 for episodes, _ in agent.calls[1:])
    del agent._wiring.collector.forget
    agent.warm_start(n=1, learning_rate=0.125)
    assert [group["lr"] for group in agent.policy.optimizer.param_groups] == [0.125, 0.125]


def test_imitation_of_nothing_is_refused():
    for wrong in (0, -1, True, 2.0, "256"):
        with exactly(f"n must be a positive number of problems, got {wrong!r}"):
            learner().warm_start(n=wrong)
    with exactly("warm_start takes a task first, got 256; give the number of problems as n=: warm_start(n=256)"):
        learner().warm_start(256)
    for words in ({"epochs": 0}, {"batch_size": 0}, {"turns": 0}):
        with pytest.raises(UsageError, match=f"^{next(iter(words))} must be a positive integer"):
            learner().warm_start(**words)
    for rate in (0.0, -1.0):
        with pytest.raises(UsageError, match="^learning_rate must be"):
            learner().warm_start(learning_rate=rate)


def test_solutions_are_of_its_own_rows_or_of_another_task(monkeypatch):
    prompts = SimpleNamespace(reset=lambda seed: agent.calls.append(("reset", seed)))
    other = SimpleNamespace(batch=lambda n: agent.calls.append(("batch", n)) or prompts)
    monkeypatch.setattr(module, "find_solver", lambda env: ("solver", env))
    monkeypatch.setattr(module, "solved", lambda *words: words)
    monkeypatch.setattr(module, "like", lambda task, own: agent.calls.append((task, own)) or other)
    agent = Bare(_prompts="own rows")
    assert agent.solutions(3) == ("own rows", ("solver", None), 3, 1) and agent.calls == ["rows"]
    assert agent.solutions(3, turns=2)[3] == 2
    agent.calls.clear()
    assert agent.solutions(3, "task", 2) == (prompts, ("solver", other), 3, 2)
    assert agent.calls == [("task", None), ("batch", 3), ("reset", 5)]
    agent.seed = 9
    agent.solutions(100, "task")
    assert agent.calls[3:] == [("task", None), ("batch", 64), ("reset", 9)]


# ---------------------------------------------------------------------------------------------------------- data


def test_words_of_the_data():
    plain = with_data()
    assert (plain.data, plain.opened_data, plain.holdout, plain.reference_logps) == (None, None, 0.05, "computed")
    assert plain.reference_hashes is None and plain._held_episodes is None and plain.holdout_every == 10
    given = with_data(Path("a.jsonl"), 0.0, "stored")
    assert (given.data, given.holdout, given.reference_logps) == ("a.jsonl", 0.0, "stored")
    with pytest.raises(
        UsageError, match=r"^unknown reference_logps 'store'.*Did you mean 'stored'\?.*computed, stored"
    ):
        with_data(PAIRS, reference_logps="store")
    said = "holdout=0.1 is a share of data, and there is none: give data=, or leave holdout out"
    with exactly(said):
        with_data(None, 0.1)
    with_data(None, 0.0)
    agent, changes = with_data(PAIRS), {"data": Path("b.jsonl"), "holdout": 0.1}
    agent._change_data(changes)
    assert changes == {"data": "b.jsonl", "holdout": 0.1}
    agent._change_data({"holdout": 0.1})
    for changes in ({"data": None, "holdout": 0.1},):
        with exactly(said):
            agent._change_data(changes)
    with exactly(said):
        plain._change_data({"holdout": 0.1})
    plain._change_data({})


def test_data_is_opened_once_and_checked_each_time():
    agent = with_data(PAIRS, 0.25, _wiring=wiring())
    agent.open_data()
    opened = agent.opened_data
    assert len(opened.held) == 2 and opened.seed == agent._initial_seed
    agent.open_data()
    assert agent.opened_data is opened
    assert agent._wiring.collector.seen == [("check", "dpo", opened.records), ("other", opened.records)] * 2
    with pytest.raises(UsageError, match="^the recipe 'dpo' learns from records: give data="):
        with_data(_wiring=wiring()).open_data()
    with_data(_wiring=wiring(object())).open_data()
    with pytest.raises(UsageError, match="^the recipe 'dpo' samples its own answers and reads no data"):
        with_data(PAIRS, _wiring=wiring(object())).open_data()


def test_rows_in_memory_are_kept_by_no_file(monkeypatch):
    monkeypatch.setattr(module.TokenAgent, "_excluded_save_params", lambda self: ["env"])
    own = ["env", "opened_data", "_held_episodes"]
    for plain in (None, "a.jsonl", Path("a.jsonl"), {"source": "a.jsonl"}):
        assert with_data(plain)._excluded_save_params() == own
    for rows in (PAIRS, {"source": PAIRS}):
        assert with_data(rows)._excluded_save_params() == [*own, "data"]


# ---------------------------------------------------------------------------------------------------------- stored references


def test_stored_references_are_written_once_and_compared(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        module, "hashes_of", lambda agent, options: calls.append(("hashes", agent, options)) or {"model": "m"}
    )
    monkeypatch.setattr(module, "write_logps", lambda *words: calls.append(("write", *words)))
    monkeypatch.setattr(module, "read_hashes", lambda folder: ("read", folder))
    monkeypatch.setattr(module, "refuse_other_hashes", lambda *words: calls.append(("compare", *words)))
    monkeypatch.setattr(module, "StoredLogps", lambda folder, sizes: ("stored", folder, sizes))
    path, folder = str(tmp_path / "a.jsonl"), tmp_path / "a.jsonl.reference"

    def agent_of(**words):
        records = SimpleNamespace(sizes=[2, 2])
        agent = with_data(
            path, 0.0, "stored", _wiring=wiring(), side_models=SimpleNamespace(given={"reference": 1, "b": 2})
        )
        agent.opened_data = SimpleNamespace(stored=None, description={"source": path}, records=records)
        vars(agent).update(words)
        return agent

    agent, options = agent_of(), {"equal": "drop"}
    agent._store_reference()
    compared = ("compare", ("read", folder), {"model": "m"}, folder)
    assert calls == [("hashes", agent, options), ("write", agent, folder, {"model": "m"}, options), compared]
    assert agent.opened_data.stored == ("stored", folder, [2, 2]) and agent.side_models.given == {"b": 2}
    agent._store_reference()
    assert len(calls) == 3  # it is there
    folder.mkdir()
    calls.clear()
    again = agent_of()
    again._store_reference()
    assert calls == [("hashes", again, options), compared]
    calls.clear()
    agent_of(reference_hashes={"model": "m"})._store_reference()
    assert calls == [compared]  # of a run that goes on
    calls.clear()
    agent_of(reference_logps="computed")._store_reference()
    assert calls == []


def test_which_side_models_an_update_holds():
    assert with_data(PAIRS)._roles_in_memory(wiring()) == ("reference", "teacher")
    assert with_data(PAIRS, None, "stored")._roles_in_memory(wiring()) == ("teacher",)


def test_references_that_cannot_be_stored():
    head = "reference_logps='stored'"

    def agent(needs=("reference_logp",), models=(), can=True):
        collector = Collector()
        collector.can_store = can
        made = with_data(PAIRS, None, "stored", _wiring=wiring(collector, needs))
        made.recipe = SimpleNamespace(name="own", models=models)
        return made

    none = f"{head}: the recipe 'own' reads no log-probabilities of a reference that could be stored"
    for needs in ((), ("reference_logp", "reference_full_logp")):
        with exactly(none):
            agent(needs)._refuse_unstorable("a")
    with exactly(f"{head}: the reference of 'own' follows the policy, so its numbers cannot be kept"):
        agent(models=(SideModel("teacher", "given"), SideModel("reference")))._refuse_unstorable("a")
    agent(models=(SideModel("teacher"), SideModel("reference", "given")))._refuse_unstorable("a")
    with exactly(f"{head} keeps numbers beside the data: give data= as a file, not as rows in memory"):
        agent()._refuse_unstorable(None)
    fresh = f"{head}: the recipe 'own' also learns from fresh answers, whose reference must be computed"
    with exactly(fresh):
        agent(can=False)._refuse_unstorable("a")
    with exactly(fresh):
        made = agent()
        made._wiring.collector = object()
        made._refuse_unstorable("a")
    agent()._refuse_unstorable("a")
    for opened in (None, SimpleNamespace(stored=None, description=None)):
        made = agent()
        made.opened_data = opened
        with pytest.raises(UsageError, match="not as rows in memory"):
            made._store_reference()


# ---------------------------------------------------------------------------------------------------------- what is held out


def test_what_is_held_out_is_read_once_and_logged_at_times(monkeypatch):
    from polyathlon.agents.language import holdout

    logged, read = [], []
    monkeypatch.setattr(holdout, "read_held_out", lambda *words: read.append(words) or {"loss": 0.5})
    monkeypatch.setattr(Bare, "token_env", SimpleNamespace(rules="rules"))
    agent = with_data(PAIRS, 0.25, _wiring=wiring(), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Bare, "logger", SimpleNamespace(record=lambda *words: logged.append(words)), raising=False)
    agent.open_data()
    for agent._iterations in (9, 10, 20):
        agent._log_data()
    assert logged == [("data/epoch", 1.5), *[("data/epoch", 1.5), ("holdout/loss", 0.5)] * 2]
    assert read == [(agent, agent._wiring, ["episode"])] * 2
    held = [call for call in agent._wiring.collector.seen if call[0] == "held"]
    assert held == [("held", agent.opened_data, "rules", 64)]
    agent._held_episodes = []
    assert agent.held_out() == {} and len(read) == 2


def test_what_else_a_collector_counts_is_logged_by_its_name(monkeypatch):
    logged = []
    monkeypatch.setattr(Bare, "logger", SimpleNamespace(record=lambda *words: logged.append(words)), raising=False)
    counted = SimpleNamespace(metrics=lambda: {"unread": 0.5}, log_as="critic")
    with_data(_wiring=wiring(counted))._log_data()
    with_data(_wiring=wiring(SimpleNamespace(metrics=lambda: {"a": 1})))._log_data()
    with_data(_wiring=wiring(SimpleNamespace()))._log_data()
    whole = with_data(PAIRS, 0.0, _wiring=wiring(), _iterations=10)
    whole.open_data()
    whole._log_data()  # nothing is held out
    assert logged == [("critic/unread", 0.5), ("data/a", 1), ("data/epoch", 1.5)]


def test_holding_out_changes_no_number_of_the_run():
    agent = Bare(generator=torch.Generator().manual_seed(0))
    before = agent.generator.get_state()
    with agent._unchanged():
        torch.rand(3, generator=agent.generator)
        assert not torch.is_grad_enabled()
    assert torch.equal(agent.generator.get_state(), before) and torch.is_grad_enabled()
    with contextlib.suppress(RuntimeError), agent._unchanged():
        torch.rand(3, generator=agent.generator)
        raise RuntimeError("stop")
    assert torch.equal(agent.generator.get_state(), before)
