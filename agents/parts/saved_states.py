"""Part of an agent: which states its files hold, and writing and reading them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv, TensorDict
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon import checkpoints
from polyathlon.agents.parts.devices import find_device
from polyathlon.envs.errors import UsageError, constructor_keywords, refuse_unknown_arguments

from . import hub
from .states import Stateful, load_state, refuse_other_names

SelfSaved = TypeVar("SelfSaved", bound="SavedStates")


class SavedStates(BaseAlgorithm):
    """An SB3 algorithm whose files hold `{name: state_dict}` of what was registered.

    There are two files. `save` writes an agent file, SB3's zip: the attributes that say how the agent was made, and the
    states that acting and going on to train from there take (networks, optimisers, normalisers). `checkpoint` writes an agent
    file and, beside it, the states that only a bit-equal resume of the same run takes (replay memory, environment stream,
    rollout, generators, counters).

    Attributes:
        fixed_words: what the networks in a file are made with, which `load` does not change.
        checkpoint_words: what a checkpoint brings with it, which `resume` does not change.
        refused_words: SB3's words that are not taken, with the reason.
    """

    fixed_words: ClassVar[tuple[str, ...]] = ("policy_class", "policy_kwargs", "observation_space", "action_space")
    checkpoint_words: ClassVar[tuple[str, ...]] = ("seed",)
    refused_words: ClassVar[Mapping[str, str]] = {}
    _states: dict[str, tuple[Stateful, bool]]

    def register_state(self, name: str, thing: Stateful, *, checkpoint_only: bool = False) -> None:
        """Put the state of an object into this agent's files. It is the only way in; "policy" is there from the start.

        Call it in `__init__` before `_setup_model`, or in `_setup_model`. States are loaded in the order in which they were
        registered. Where the agent has an attribute of this name (dots reach inside: "policy.optimizer") that has since
        been exchanged for another object with a state, the new one counts.

        Args:
            name: the state's name in the files.
            thing: anything with `state_dict()` and `load_state_dict(state)`; `agents.parts.states` has adapters for
                attributes, generators and the like. In `save` a state holds tensors, numbers, texts and lists and dicts of
                them alone, for such a file is read without unpickling.
            checkpoint_only: leave it out of `save`: for what acting does not take and what a new run starts anew.

        Raises:
            UsageError: the name is taken, or the thing lacks a method.
        """
        if name in self._states:
            raise UsageError(f"{type(self).__name__} has registered a state {name!r} already: choose another name")
        if not isinstance(thing, Stateful):
            lacking = [method for method in ("state_dict", "load_state_dict") if not hasattr(thing, method)]
            raise UsageError(
                f"the state {name!r} of {type(self).__name__} must have state_dict() and load_state_dict(state), but a "
                f"{type(thing).__name__} has no {' and no '.join(lacking)}; polyathlon.agents.parts.states has adapters"
            )
        self._states[name] = (thing, checkpoint_only)

    def _state_names(self, checkpoint_only: bool) -> list[str]:
        return [name for name, (_, is_apart) in self._states.items() if is_apart == checkpoint_only]

    def _state(self, name: str) -> Any:
        """The object registered under a name, or the one that has taken its place as the attribute of that name."""
        try:
            current = recursive_getattr(self, name)
        except AttributeError:
            current = None
        current = getattr(current, "_orig_mod", current)  # the module that torch.compile wrapped
        return current if isinstance(current, Stateful) else self._states[name][0]

    def checkpoint_states(self) -> dict[str, Any]:
        """Return {name: state_dict} of what stands in checkpoints alone."""
        return {name: self._state(name).state_dict() for name in self._state_names(True)}

    def load_checkpoint_states(self, states: dict[str, Any]) -> None:
        """Continue from what `checkpoint_states` returned.

        Raises:
            UsageError: a name is missing on either side.
        """
        names = self._state_names(True)
        refuse_other_names(set(states), set(names), f"this {type(self).__name__}")
        for name in names:
            load_state(self._state(name), states[name])

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return {name: state_dict} of what `save` writes, as SB3's."""
        return {name: self._state(name).state_dict() for name in self._state_names(False)}

    def set_parameters(
        self,
        load_path_or_dict: str | TensorDict,
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Load what `get_parameters` returned, or those of an agent file; see SB3.

        Args:
            load_path_or_dict: {name: state_dict}, or the file.
            exact_match: every state must be given, with all its parameters; otherwise some of them may be.
            device: where a file's tensors are read to.

        Raises:
            UsageError: a state is given that the agent has not registered, or one is missing.
        """
        given: dict[str, Any] = load_path_or_dict  # type: ignore[assignment]
        if not isinstance(load_path_or_dict, dict):
            given = checkpoints.read_states(load_path_or_dict, find_device(device))
        names = self._state_names(False)
        wanted = set(names) if exact_match else set(names) & set(given)
        refuse_other_names(set(given), wanted, f"this {type(self).__name__}")
        for name in names:
            if name in given:
                load_state(self._state(name), given[name], exact_match)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return self._state_names(False), []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_states"]

    @classmethod
    def class_names(cls) -> list[str]:
        """Return the name of this agent's class and those of the agents that it is made of, the nearest first."""
        return [one.__qualname__ for one in cls.__mro__ if issubclass(one, SavedStates) and one is not SavedStates]

    @classmethod
    def named_classes(cls) -> dict[str, type]:
        """Classes that stand in the files by a name: the agent's policies."""
        return dict(cls.policy_aliases)

    def settings(self, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the attributes that say how the agent was made, as SB3's `save` chooses them."""
        hidden = {*(exclude or ()), *self._excluded_save_params()} - set(include or ())
        hidden |= {name.split(".")[0] for name in self._state_names(False)}
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the agent into a zip with SB3's member names; see `polyathlon.checkpoints.save_agent`.

        Args:
            path: the file; ".zip" is added where it has no ending.
            exclude: attributes to leave out beside the usual ones.
            include: attributes that are usually left out.
        """
        checkpoints.save_agent(self, path, exclude, include)

    @classmethod
    def load(
        cls: type[SelfSaved],
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trust: bool = False,
        **kwargs: Any,
    ) -> SelfSaved:
        """Make the agent that `save` wrote; see SB3.

        Reading executes no code of the file unless `trust` is True. Then policy classes, callables and spaces of one's
        own are unpickled, and a pickle can run any program: trust files whose writer you trust.

        Args:
            path: the file, or an open one.
            env: the environment to go on with; None suffices for `predict`.
            device: where the agent goes.
            custom_objects: {attribute: value} that count instead of those in the file.
            print_system_info: print the versions that the file was written with, and this machine's.
            force_reset: as SB3's; episodes start anew in any case.
            trust: also read what was pickled.
            **kwargs: words of the constructor to change, such as `learning_rate`, or attributes. What the networks are made
                with cannot be changed, and a `seed` seeds the agent anew.

        Raises:
            FileNotFoundError: there is no such file.
            UsageError: the file is damaged, of another agent, has another format, other states or other spaces, or holds
                pickles and `trust` is False; or a keyword is unknown, changes nothing in an agent that is made already, or has
                a value that the constructor refuses.
        """
        if print_system_info:
            checkpoints.print_system_info(path)
        return cls._loaded(path, None, env, device, custom_objects, trust, kwargs)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str = "Push an agent of polyathlon",
        folder: str | Path | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> str:
        """Push the agent to the HuggingFace hub: its file, a card, and of a language agent the model for plain transformers.

        Args:
            name: user/name of the repository, which is made where there is none.
            private: whether a new repository is.
            token: of the hub; None takes the one that is stored (`hf auth login`).
            message: of the commit.
            folder: where the content is written first; None is to-push/NAME.
            card: facts for the card, such as "task".

        Returns:
            The address of the repository.

        Raises:
            UsageError: the name is none, or the hub refuses or cannot be reached; the message says where the content was kept.
        """
        hub.check_repository(name)
        place = Path(hub.KEPT) / name.replace("/", "-") if folder is None else Path(folder)
        return hub.push(self, name, place, dict(card or {}), private, token, message)

    @classmethod
    def load_from_hub(
        cls: type[SelfSaved],
        name: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> SelfSaved:
        """Load an agent that `push_to_hub` pushed.

        Args:
            name: user/name of the repository; a folder of this machine is none.
            revision: branch, tag or commit; None is the newest.
            token: of the hub; None takes the one that is stored.
            **options: of `load`.

        Raises:
            UsageError: there is no such repository, it holds another agent, or the hub cannot be reached.
        """
        file = hub.fetch(name, revision, token)
        found = hub.class_path(file).partition(":")[2]
        if found != cls.__qualname__:
            raise UsageError(f"{name} holds a {found}, not a {cls.__name__}: load it with {found}.load_from_hub")
        return cls.load(file, **options)

    @classmethod
    def _loaded(
        cls: type[SelfSaved],
        path: str | Path | io.BufferedIOBase,
        name: Any,
        env: Any,
        device: torch.device | str,
        custom_objects: dict[str, Any] | None,
        trust: bool,
        changes: dict[str, Any],
    ) -> SelfSaved:
        if changes.get("n_envs") is not None and env is None:
            raise UsageError("n_envs is the number of environments to make of env: give env=, or leave n_envs out")
        env = None if env is None else cls._make_rows(env, changes.get("n_envs"), find_device(device))
        settings, states = checkpoints.read_agent(
            path,
            name=name,
            agent=cls,
            device=find_device(device),
            trust=trust,
            named=cls.named_classes(),
            given=custom_objects,
            known_spaces=() if env is None else (env.observation_space, env.action_space),
        )
        name = name or (path if isinstance(path, str | Path) else "this file")
        untaken = {*cls.refused_words, *getattr(cls, "unread", ())}
        refuse_unknown_arguments(cls, set(changes) - (set(settings) - untaken), hidden=("_init_setup_model",))
        for key in set(cls.fixed_words) & set(changes):
            if changes[key] != settings[key]:
                raise UsageError(f"{key} cannot be changed: {name} has {settings[key]}, given {changes[key]}")
        if env is not None:
            _refuse_other_spaces(env, settings, name)
            settings["n_envs"] = env.num_envs
        agent = cls(settings["policy_class"], env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        vars(agent).update(settings)
        _refuse_bad_changes(agent, settings, changes)
        agent.take_changes({name: value for name, value in changes.items() if name != "n_envs"})  # made above
        agent._setup_model()
        agent.set_parameters(states, exact_match=True, device=device)
        return agent

    @classmethod
    def _make_rows(cls, env: Any, n_envs: int | None, device: torch.device) -> VecEnv:
        """Make the vector environment that `load` was given, of `n_envs` environments."""
        raise NotImplementedError

    def take_changes(self, changes: dict[str, Any]) -> None:
        """Set what `load` was given beside what the file has, before the model is made.

        A class that keeps a word of its constructor elsewhere than in the attribute of its name takes it out of `changes` and
        puts it there.

        Args:
            changes: words of the constructor, or attributes, and their values.

        Raises:
            UsageError: naming a word that changes nothing in an agent which is made already.
        """
        for name in changes:
            if name not in vars(self) or isinstance(getattr(type(self), name, None), property):
                raise UsageError(
                    f"{type(self).__name__}.load does not take {name}, with which the agent in the file was made already: "
                    f"leave it out, or make a new {type(self).__name__} with {name}="
                )
        vars(self).update(changes)

    def checkpoint(self, path: str | Path, run: dict[str, Any] | None = None) -> Path:
        """Write the agent with everything that a bit-equal resume needs into one file, atomically.

        A crash or a full disk while writing leaves the previous file as it was.

        Args:
            path: the file to write.
            run: the call that the checkpoint belongs to, as JSON.

        Returns:
            The path written.
        """
        return checkpoints.checkpoint(self, path, run)

    @classmethod
    def resume(cls: type[SelfSaved], path: str | Path, env: GymEnv, trust: bool = False, **kwargs: Any) -> SelfSaved:
        """Continue from a checkpoint: `learn(..., reset_num_timesteps=False)` then gives the numbers of an unbroken run.

        Args:
            path: a file written by `checkpoint`.
            env: an environment made with the same settings; its state is restored.
            trust: also read what was pickled, which can run any program that the file's writer put there; see `load`.
            **kwargs: passed to `load`.

        Raises:
            UsageError: the file is missing, corrupted, of another agent, of another format, or holds other states.
        """
        return cls.resume_content(checkpoints.read_checkpoint(path, trust), path, env, trust, **kwargs)

    @classmethod
    def resume_content(
        cls: type[SelfSaved], content: dict[str, Any], path: str | Path, env: GymEnv, trust: bool = False, **kwargs: Any
    ) -> SelfSaved:
        """Continue from what `polyathlon.checkpoints.read_checkpoint` returned of `path`; see `resume`."""
        if content["agent"] != cls.__name__:
            raise UsageError(
                f"{path} holds a {content['agent']}, not a {cls.__name__}; resume it with {content['agent']}.resume"
            )
        for word in set(cls.checkpoint_words) & set(kwargs):
            raise UsageError(f"a resumed run goes on with the {word} of its checkpoint: leave {word} out")
        device, given = kwargs.pop("device", "auto"), kwargs.pop("custom_objects", None)
        agent = cls._loaded(io.BytesIO(content["zip"]), path, env, device, given, trust, kwargs)
        try:
            agent.load_checkpoint_states(content["states"])
        except UsageError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise UsageError(
                f"{path} was written by an agent or an environment made in another way: {type(error).__name__}: {error}"
            ) from error
        return agent


def _refuse_bad_changes(agent: Any, settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Refuse changed values that the constructor refuses: they would be set without being looked at.

    What the constructor takes only beside other words, as the saved value shows, is left to what reads it.

    Raises:
        UsageError: as the constructor words it.
    """
    cls = type(agent)

    def try_out(name: str, value: Any) -> None:
        cls(settings["policy_class"], None, _init_setup_model=False, **{name: value})

    for name in constructor_keywords(cls) & set(changes) & {*settings, *vars(agent)}:
        try:
            try_out(name, changes[name])
        except UsageError:
            try:
                try_out(name, getattr(agent, name))
            except UsageError:
                continue
            raise


def _refuse_other_spaces(env: Any, settings: dict[str, Any], name: Any) -> None:
    for key in ("observation_space", "action_space"):
        given, stored = getattr(env, key), settings[key]
        if given != stored:
            raise UsageError(
                f"{name} is of an agent for another environment: its {key} is {stored}, the environment's is {given}"
            )
