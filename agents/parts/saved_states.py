"""Part of an agent: which states its files hold, and writing and reading them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv, TensorDict

from polyathlon import checkpoints
from polyathlon.envs.errors import UsageError

from .states import Stateful, load_state, refuse_other_names

SelfSaved = TypeVar("SelfSaved", bound="SavedStates")


class SavedStates(BaseAlgorithm):
    """An SB3 algorithm whose files hold `{name: state_dict}` of what was registered.

    There are two files. `save` writes an agent file, SB3's zip: the attributes that say how the agent was made, and the
    states that acting and going on to train from there take (networks, optimisers, normalisers). `checkpoint` writes an agent
    file and, beside it, the states that only a bit-equal resume of the same run takes (replay memory, environment stream,
    rollout, generators, counters).
    """

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
            checkpoints.refuse_other_agent_file(load_path_or_dict)
            _, given, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
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
    def load(
        cls: type[SelfSaved],
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfSaved:
        """Make the agent that `save` wrote; see SB3.

        Raises:
            UsageError: the file has another format, or other states than this agent.
        """
        checkpoints.refuse_other_agent_file(path)
        try:
            return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        except (KeyError, AttributeError) as error:
            # SB3 takes every ValueError here for the sign of an old DQN and looks for that one's optimiser
            if isinstance(error.__context__, UsageError):
                raise error.__context__ from None
            raise

    def checkpoint(self, path: str | Path) -> Path:
        """Write the agent with everything that a bit-equal resume needs into one file, atomically.

        A crash while writing leaves the previous file as it was.

        Args:
            path: the file to write.

        Returns:
            The path written.
        """
        return checkpoints.checkpoint(self, path)

    @classmethod
    def resume(cls: type[SelfSaved], path: str | Path, env: GymEnv, **kwargs: Any) -> SelfSaved:
        """Continue from a checkpoint: `learn(..., reset_num_timesteps=False)` then gives the numbers of an unbroken run.

        Args:
            path: a file written by `checkpoint`.
            env: an environment made with the same settings; its state is restored.
            **kwargs: passed to `load`.

        Raises:
            UsageError: the file is missing, corrupted, of another agent, of another format, or holds other states.
        """
        content = checkpoints.read_checkpoint(path)
        if content["agent"] != cls.__name__:
            raise UsageError(
                f"{path} holds a {content['agent']}, not a {cls.__name__}; resume it with {content['agent']}.resume"
            )
        agent = cls.load(io.BytesIO(content["zip"]), env=env, **kwargs)
        agent.load_checkpoint_states(content["states"])
        return agent
