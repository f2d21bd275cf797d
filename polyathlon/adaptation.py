"""The right wrappers for an agent, and agents by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError, is_integer, refuse_unknown_arguments, unknown_name
from polyathlon.envs.tensor.rewards import make_unchecked, num_objectives
from polyathlon.wrappers.action_kinds import action_form, is_picture_space, refusal
from polyathlon.wrappers.browser_gym import is_browser_gym
from polyathlon.wrappers.candidate_action import offers_candidates
from polyathlon.wrappers.node_action import is_table

from .own_tasks import call
from .registration import algorithms, recipes

FLAT_POLICIES = ("MlpPolicy",)
HIDDEN_ARGUMENTS = ("env", "policy", "_init_setup_model")  # which make_agent gives itself


# agents that users of Stable-Baselines3 ask for by name and that are theirs alone
ELSEWHERE = {
    **{name.lower(): f"stable_baselines3.{name}" for name in ("A2C", "DDPG", "DQN")},
    **{
        name.lower(): f"sb3_contrib.{name}"
        for name in ("ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TQC", "TRPO")
    },
}


def resolve_agent(agent: str | type[BaseAlgorithm]) -> tuple[type[BaseAlgorithm], dict[str, Any]]:
    """Find an agent by name.

    Args:
        agent: a class, the name of an agent ("sac"), of a recipe ("grpo"), or "language:RECIPE", or "module:NAME" for a
            recipe that a module of one's own holds. Where an agent and a recipe share a name, the agent is meant.

    Returns:
        The class, and the keyword arguments that the name stands for (a recipe's name).

    Raises:
        UsageError: there is no such agent or recipe.
        TypeError: something else was given.
    """
    if isinstance(agent, type) and issubclass(agent, BaseAlgorithm):
        return agent, {}
    if not isinstance(agent, str):
        kind = "the environment " if hasattr(agent, "step") and hasattr(agent, "action_space") else ""
        made = f": give the class, {type(agent).__name__}" if isinstance(agent, BaseAlgorithm) else ""
        raise TypeError(
            f"an agent is a class or a name, got {kind}{agent!r}{made}; polyathlon.algorithms() lists the names"
        )
    table = {record.name: record for record in algorithms()}
    if agent in table:
        return table[agent].load(), {}
    prefix, colon, recipe = agent.partition(":")
    known = recipes()
    if colon and prefix == "language":
        if recipe not in known:
            raise unknown_name("recipe", recipe, known)
    elif agent in known:
        recipe = agent
    elif colon:  # a row of the user's own, module:NAME
        find_recipe(agent)
        recipe = agent
    elif agent.lower() in ELSEWHERE:
        module, _, name = ELSEWHERE[agent.lower()].rpartition(".")
        raise UsageError(
            f"{agent!r} is no agent of polyathlon, but {name} of {module}, which trains on these environments too: "
            f"from {module} import {name}. Known here: {', '.join(sorted(table))}"
        )
    elif agent in gym.registry:
        raise UsageError(
            f"{agent!r} is an environment, given in the place of the agent: train(agent, env), make_agent(agent, env), adapt(env, agent)"
        )
    else:
        raise unknown_name("agent or recipe", agent, [*table, *known])
    return table["language"].load(), {"recipe": recipe}


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a scalar environment from its id.

    Raises:
        UsageError: there is no such id, it does not take an option (the message names the nearest), or the time limit is none.
    """
    spec = find_spec(env_id)
    made = entry_point(spec)
    refuse_texts_for_numbers(made, kwargs)
    limit = kwargs.get("max_episode_steps")
    if not (limit in (None, -1) or is_integer(limit, 1)):
        raise UsageError(f"max_episode_steps must be a positive integer, or -1 for no limit, got {limit!r}")
    if ":" in spec.id and callable(made):
        return call(made, spec.id, **kwargs)
    try:
        return make_unchecked(spec, **kwargs)
    except gym.error.DependencyNotInstalled as error:
        raise ImportError(f"{env_id} needs a package that is not installed: {error}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"{env_id} does not take these options: {error}") from error


def entry_point(spec: gym.envs.registration.EnvSpec) -> Any:
    """Return what makes the environments of a spec, for its signature; None where it cannot be found."""
    made = spec.kwargs.get("tensor_env") or spec.entry_point
    try:
        return load_env_creator(made) if isinstance(made, str) else made
    except (ImportError, AttributeError):
        return None


def refuse_texts_for_numbers(function: Any, options: dict[str, Any]) -> None:
    """Refuse texts where the default is a number.

    Args:
        function: a class or function with defaults; None refuses nothing.
        options: keyword arguments for it.

    Raises:
        UsageError: naming the option.
    """
    try:
        parameters = {} if function is None else inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    for name, value in options.items():
        default = getattr(parameters.get(name), "default", None)
        if isinstance(value, str) and isinstance(default, int | float):
            kind = "true or false" if isinstance(default, bool) else "a number"
            raise UsageError(f"{name} must be {kind} (such as {default!r}), got the text {value!r}")


def adapt(
    env: gym.Env[Any, Any] | str,
    Agent: type[BaseAlgorithm] | str,
    model: str | None = None,
    *,
    policy: Any = "MlpPolicy",
    candidates: bool | None = None,
    by_features: bool | None = None,
    **options: Any,
) -> gym.Env[Any, Any]:
    """Put the wrappers on an environment that an agent needs to act in it; one that fits is returned as it is.

    | environment | language agent | continuous agent | agent with Discrete actions |
    |---|---|---|---|
    | Box actions | Verbalize, TokenAction | - | - |
    | Discrete actions | Verbalize, TokenAction | ContinuousAction | - |
    | Discrete actions that are rows of an observed table of fewer features | Verbalize, TokenAction | NodeAction | - |
    | MultiDiscrete, MultiBinary | Verbalize, TokenAction | ContinuousAction | - |
    | text | TokenAction | TokenAction, ContinuousAction | TokenAction |
    | text with candidates | TokenAction | CandidateAction, ContinuousAction | CandidateAction |

    Environments of BrowserGym (`browsergym/...`) come in words through `BrowserGymWords` first, with candidates.

    A classic agent sees an observation that is no Box, or a picture, through `VectorObservation`, unless it reads any observation by
    itself (`reads_any_observation`, as `PPO` does, but for a Tuple) or is given a policy that does. Who acts in either form and sees
    vectors alone (`CMORL`) chooses rows of a table through `NodeAction` too, and so does `PPO` where an option of it is given; who takes several objectives is given a second one by `cost=`
    (`CostObjective`). A reward for several objectives
    becomes a number through `LinearReward` for every agent that maximises one.

    Args:
        env: a scalar environment or an id.
        Agent: the class or the name of an agent.
        model: language model whose tokens are meant, where `TokenAction` is needed; None is "tiny".
        policy: policy of a classic agent; one other than "MlpPolicy" sees the observation as it is.
        candidates: whether a classic agent answers a text task by choosing among the answers that it offers (`True`) or
            token by token (`False`). None: it chooses where the task offers answers, unless `model` or an option of
            `TokenAction` is given.
        by_features: whether an agent that acts in a Box chooses the rows of a table by their features (`NodeAction`) or by their
            numbers. None: by features where these are fewer than the rows, as the two of a city are, or where an option of `NodeAction`
            is given.
        **options: arguments of the wrappers that are put on, such as `max_new_tokens`.

    Returns:
        The environment, wrapped.

    Raises:
        UsageError: no chain of wrappers makes it fit, two models are meant, or a wrapper for an option is not in it.
    """
    agent_class, _ = resolve_agent(Agent)
    env = make_env(env) if isinstance(env, str) else env
    forms = getattr(agent_class, "action_forms", None)
    if forms is None:
        raise UsageError(
            f"adapt knows the forms of polyathlon's agents; {agent_class.__name__} has no action_forms: put the wrappers on by hand"
        )
    if isinstance(env, gym.vector.VectorEnv | VecEnv):
        raise UsageError(
            "adapt wraps a scalar environment, got a vector environment; adapt the scalar one and give the agent n_envs=n"
        )
    chain = _Chain(env, model, options, candidates, by_features)
    if getattr(agent_class, "environments", None) is not None:
        agent_class.refuse_wrong_form(env.observation_space, env.action_space)  # type: ignore[attr-defined]
        chain.finish()
        return env
    if is_browser_gym(env):
        chain.add("BrowserGymWords")
    if num_objectives(env) is not None and not getattr(agent_class, "takes_objectives", False):
        chain.add("LinearReward")
    reads_any = is_language_agent(forms) or policy not in FLAT_POLICIES
    reads_any = reads_any or getattr(agent_class, "reads_any_observation", False)
    _fit_actions(chain, agent_class.__name__, tuple(forms), reads_any)
    seen = chain.env.observation_space
    needs_vector = not reads_any and (not isinstance(seen, spaces.Box) or is_picture_space(seen))
    if needs_vector or (not is_language_agent(forms) and _has_parts(seen)):
        chain.add("VectorObservation")
    if "cost" in options and getattr(agent_class, "takes_objectives", False):
        chain.add("CostObjective")
    chain.finish()
    return chain.env


def _has_parts(space: spaces.Space[Any]) -> bool:
    """Return whether a space is a Tuple, or a Dict of a Tuple or a Dict, which no network reads as they are."""
    if isinstance(space, spaces.Dict):
        return any(isinstance(part, spaces.Tuple | spaces.Dict) for part in space.spaces.values())
    return isinstance(space, spaces.Tuple)


class _Chain:
    """An environment that grows wrappers; every option goes to the wrappers that know it.

    Args:
        env: the bare environment.
        model: name of the language model; None is "tiny".
        options: arguments for the wrappers to come.
        candidates: whether answers are chosen; None leaves it to the rule of `adapt`.
        by_features: whether rows are chosen by their features; None leaves it to the rule of `adapt`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: str | None,
        options: dict[str, Any],
        candidates: bool | None = None,
        by_features: bool | None = None,
    ) -> None:
        self.env, self.model, self.options, self.candidates = env, model, options, candidates
        self.by_features = by_features
        self.used: set[str] = set()
        self.known: set[str] = set()
        if model is not None:
            _refuse_other_model(env, model)

    @property
    def form(self) -> str:
        """Form of the actions that the outermost environment takes."""
        return action_form(self.env.observation_space, self.env.action_space)

    def chooses(self) -> bool:
        """Return whether the text task is answered by choosing among candidates."""
        if self.candidates is None:
            writes = self.model is not None or bool(_options_of("TokenAction") & set(self.options))
            return offers_candidates(self.env) and not writes
        return self.candidates

    def chooses_rows(self) -> bool:
        """Return whether rows of an observed table are chosen by their features."""
        if not is_table(self.env.observation_space, self.env.action_space):
            return False
        if self.by_features is not None or self.asks_for_rows():
            return self.by_features is not False
        rows, features = self.env.observation_space["nodes"].shape  # type: ignore[index]
        return bool(features < rows) and not _options_of("ContinuousAction") & set(self.options)

    def asks_for_rows(self) -> bool:
        """Return whether it was said that rows are chosen by their features, by `by_features=True` or an option of `NodeAction`."""
        return bool(self.by_features or _options_of("NodeAction") & set(self.options))

    def add(self, name: str) -> None:
        """Wrap the environment in the wrapper called `name`."""
        from polyathlon import wrappers

        wrapper, names = getattr(wrappers, name), _options_of(name)
        self.known |= names
        mine = {key: value for key, value in self.options.items() if key in names}
        self.used |= set(mine)
        if name == "TokenAction":
            mine["model"] = self.model or "tiny"
        if name == "CandidateAction" and self.env.has_wrapper_attr("max_candidates"):  # the task has more than usual
            mine.setdefault("num_candidates", self.env.get_wrapper_attr("max_candidates"))
        self.env = wrapper(self.env, **mine)

    def finish(self) -> None:
        """Refuse options that no wrapper of the chain took, and a model that nothing asks for."""
        if self.model is not None and token_model(self.env) is None:
            raise UsageError(
                f"the model {self.model!r} has no meaning here: no language model acts, and the environment takes no tokens; leave it out"
            )
        for key in self.options:
            if key not in self.used and self.known:
                raise unknown_name("option of the wrappers", key, self.known)
            if key not in self.used:
                raise UsageError(f"the environment fits without wrappers, so the option {key!r} has no meaning here")


def _options_of(name: str) -> set[str]:
    """Return the names of the arguments of a wrapper that an option can set."""
    from polyathlon import wrappers

    return set(inspect.signature(getattr(wrappers, name).__init__).parameters) - {"self", "env", "model"}


def is_language_agent(forms: Sequence[str]) -> bool:
    """Return whether an agent that acts in `forms` has words alone, so that any other task must be put in words for it."""
    return bool({"tokens", "text"} & set(forms)) and not {"box", "discrete"} & set(forms)


def _fit_actions(chain: _Chain, agent: str, forms: tuple[str, ...], reads_any: bool) -> None:
    if chain.form in forms and not chain.chooses_rows():
        return
    speaks_words = is_language_agent(forms)
    if speaks_words and chain.form not in ("text", "tokens"):
        chain.add("Verbalize")
    if chain.form == "text" and "text" not in forms:
        chain.add("CandidateAction" if not speaks_words and chain.chooses() else "TokenAction")
    takes_points = "box" in forms and (not reads_any or chain.asks_for_rows())
    if chain.form == "discrete" and takes_points and chain.chooses_rows():
        chain.add("NodeAction")  # in a vector the rows of a table lose which of them an action means
        return
    if chain.form in forms or (chain.form == "tokens" and "discrete" in forms):
        return
    if chain.form in ("discrete", "tokens", "multidiscrete") and "box" in forms:
        chain.add("NodeAction" if chain.chooses_rows() else "ContinuousAction")
        return
    raise UsageError(refusal(agent, forms, chain.form))


def token_model(env: Any) -> str | None:
    """Return the name of the model whose tokens an environment takes, or None where it takes no tokens."""
    inner = env
    while isinstance(inner, gym.Wrapper):
        if type(inner).__name__ == "TokenAction":
            return str(inner.model)  # type: ignore[attr-defined]
        inner = inner.env
    return None


def _shows_pictures(env: Any) -> bool:
    space = getattr(env, "observation_space", None)
    return space is not None and is_image_space(space)


def _refuse_other_model(env: gym.Env[Any, Any], model: str) -> None:
    found = token_model(env)
    if found is not None and model != found:
        raise UsageError(
            f"the environment takes the tokens of {found!r}, but the model {model!r} was asked for: "
            f"make it with TokenAction(env, model={model!r}), or leave the model out"
        )


def make_agent(Agent: type[BaseAlgorithm] | str, env: Any, **kwargs: Any) -> Any:
    """Make an agent for an environment that fits it (see `adapt`).

    Args:
        Agent: a class, or the name of an agent or recipe.
        env: whatever the agent takes: an id, a scalar or a vector environment.
        **kwargs: arguments of the agent. `policy` is "MlpPolicy" when left out ("MultiInputPolicy" for a Dict
            observation, "CnnPolicy" for pictures); a language agent takes its model from the environment.

    Returns:
        The agent.

    Raises:
        UsageError: an argument is not known, the environment has the wrong form, or two models are meant.
    """
    agent_class, implied = resolve_agent(Agent)
    clash = sorted(set(implied) & set(kwargs))
    if clash and any(kwargs[key] != implied[key] for key in clash):
        raise UsageError(f"{Agent!r} means {implied}, but {kwargs} was given as well; leave one of them out")
    kwargs = {**kwargs, **implied}
    if is_language_agent(getattr(agent_class, "action_forms", ())):
        first = kwargs.pop("model", None) or kwargs.pop("policy", None) or token_model(env) or "tiny"
        _refuse_other_model(env, str(first))
    else:
        dictionary = isinstance(getattr(env, "observation_space", None), spaces.Dict)
        usual = "MultiInputPolicy" if dictionary else "MlpPolicy"
        if "CnnPolicy" in getattr(agent_class, "policy_aliases", {}) and _shows_pictures(env):
            usual = "CnnPolicy"
        first = kwargs.pop("policy", getattr(agent_class, "default_policy", None) or usual)
    refuse_unknown_arguments(agent_class, kwargs, HIDDEN_ARGUMENTS)
    refuse_texts_for_numbers(agent_class, kwargs)
    return agent_class(first, env, **kwargs)
