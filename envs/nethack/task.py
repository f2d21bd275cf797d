"""NetHack as a Gymnasium environment, and the entry points of its id."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError

from .game import GAME_OVER, HUNGER, IN_QUESTION, IN_TEXT, ON_STAIRS, WAITS_FOR_SPACE
from .keys import buffers
from .rules import ABORTED, DEATH, DEPTH, GOLD, RUNNING, SCORE, SUCCESS, TIME, Explored, Seen, X, Y, count_glyphs
from .seeds import check_seed, fresh_seed, game_seeds, refuse_seed
from .settings import RENDER_MODES, Settings, check_options, make_settings, start_game
from .views import crop_round, ending, named, new_frame, screen_text

Observation = Any


class NetHack(gym.Env[Any, np.int64]):
    """NetHack, one game.

    Description:
        The tasks of the NetHack Learning Environment (Kuettler et al. 2020), on its game library: menus, --More-- and questions
        are skipped as its class does, rewards and observations are equal to its. Three things differ: seeds decide
        episodes, limits truncate, and the last observation of an episode that a limit or the task ends is what the hero saw
        (NLE's class quits the game first and returns an empty map).
    Action space:
        `Discrete`: 23 keys (`actions="task"`) or all 121 (`actions="full"`, and always for the challenge); `keys` has them
        by action, `polyathlon.envs.nethack.keys.WORDS` their words.
    Observation space:
        `Dict` of NLE's arrays: `"glyphs"` is short for glyphs (21, 79) int16, blstats (27,) int64 and message (256,) uint8; a
        tuple names any of them. `"pixels"`: (16 crop, 16 crop, 3) uint8, tiles round the hero.
    Rewards:
        score: points gained (challenge too); gold: pieces; eat: hunger points, if any were gained; scout: glyphs seen;
        staircase: 1 on stairs down; staircase_pet: with the pet beside; oracle: 1 beside the Oracle. To each
        `penalty_step` (-0.01) is added where the game's clock stood still, and `penalty_time` a turn.
    Starting state:
        The game of (core, disp) seeds drawn from (seed, episode). The challenge takes no seeds.
    Episode end:
        Terminated by death (or any other end of the game), ascension, or success. Truncated by `max_episode_steps`; in the
        challenge also after 10,000 steps without a turn.

    `info` has "end_status" (NLE's: 0 running, 1 over, 2 successful, -1 cut), "depth", "turns" and "caption", the message (256,)
    uint8; where the game is over also "how_done" (`"DIED"` ...), "is_ascended", "death" and "achievements".

    Args:
        task: score, staircase, staircase_pet, oracle, gold, eat, scout, challenge, or "minihack:LEVEL".
        actions: "task" or "full".
        observation: "glyphs", "pixels" or a tuple of NLE's keys; "words" is `NetHackWords`, which `gym.make` chooses.
        max_episode_steps: steps after which an episode is truncated; None: 5,000, of the challenge a million. The argument of
            this name of `gym.make` does the same, longer limits included.
        character: role-race-alignment-gender, such as "mon-hum-neu-mal" (the default), or "@" for any.
        options: NetHack's own options instead of NLE's.
        wizard: NetHack's debug mode.
        spawn_monsters: whether monsters appear during the game.
        allow_all_yn_questions: leave questions to the agent instead of declining them.
        allow_all_modes: leave menus and --More-- to the agent.
        penalty_mode: "constant", "exp", "square", "linear" or "always".
        penalty_step: what a step costs in which the clock stands still.
        penalty_time: what a turn costs.
        lgen: seed of the levels, the same in every episode; None goes with the episode.
        save_ttyrec_every: record each episode whose number this divides as a ttyrec; 0 records none.
        savedir: folder of the recordings; None is nle_data.
        crop: side of the square of tiles that pixels show, odd; None shows the level.
        render_mode: "rgb_array" (the level in tiles), "ansi" (the terminal with colours) or None.
        des_file: a MiniHack level: a des-file or its text.
        reward_manager: MiniHack's rewards for it.

    Raises:
        UsageError: an option is unknown or out of range.
        ImportError: NLE or MiniHack is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # type: ignore[misc]

    def __init__(self, task: str = "score", **options: Any) -> None:
        check_options(options, "NetHack")
        self._arguments = {"task": task, **options}
        self.settings = make_settings(task, **options)
        self.render_mode = self.settings.render_mode
        self.keys = self.settings.keys
        self.observation_space = self.settings.observation_space
        self.action_space = self.settings.action_space
        self._views = buffers(self.settings.filled)
        self._game, self._judge = start_game(self.settings, self._views)
        self._frame = new_frame() if self.settings.has_pixels or self.render_mode == "rgb_array" else None
        self._seed, self._episode = -1, -1
        self._actions: list[int] = []
        self._is_over = True
        self._limit = self.settings.limit
        self._is_closed = False

    # ------------------------------------------------------------------------------------------------ episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: begins the sequence of episodes anew; None goes on to the next episode.
            options: none are known.

        Raises:
            UsageError: the seed is no integer >= 0, the task takes none, an option is given, or the environment is closed.
        """
        self._refuse_closed()
        if options:
            raise UsageError(f"NetHack has no reset options, got {sorted(options)}")
        if seed is not None:
            if not self.settings.takes_seeds:
                raise refuse_seed(self.settings.rules.task)
            seed = check_seed(seed)
        super().reset(seed=seed)
        if seed is not None or self._seed < 0:
            self._seed, self._episode = fresh_seed() if seed is None else seed, -1
        self._episode += 1
        self._begin()
        return self._observation(), self._info(RUNNING)

    def _begin(self) -> None:
        self._game.begin(*game_seeds(self._seed, self._episode))
        self._actions, self._is_over = [], False
        self._frozen, self._idle, self._limit = 0, 0, self.settings.limit
        self._before = self._seen()
        self._explored = Explored()
        if self._judge is not None:
            self._judge.begin()

    def _seen(self) -> Seen:
        stats, task = self._views["blstats"], self.settings.rules.task
        if task == "eat":
            return Seen(int(stats[TIME]), int(self._game.internal[HUNGER]))
        return Seen(int(stats[TIME]), int(stats[GOLD if task == "gold" else SCORE]))

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Press the key of an action.

        Raises:
            TypeError: the action is no integer.
            UsageError: it is out of range, or there is no running episode.
        """
        index = self._check(action)
        self._actions.append(index)
        self._press(self.keys[index])
        reward, terminated, status = self._outcome()
        truncated = not terminated and self._is_cut()
        if truncated:
            status = ABORTED
        self._is_over = terminated or truncated
        return self._observation(), reward, terminated, truncated, self._info(status)

    def _press(self, key: int) -> None:
        game, self._key = self._game, key
        game.press(key)
        flags = game.internal
        over = game.program_state[GAME_OVER]
        if over or (not game.options.sees_menus and (flags[WAITS_FOR_SPACE] or flags[IN_TEXT] or flags[IN_QUESTION])):
            game.settle()

    def _outcome(self) -> tuple[float, bool, int]:
        """Return the reward of the key that was pressed, whether it ended the task, and NLE's status."""
        game, rules, before = self._game, self.settings.rules, self._before
        is_done = game.is_done()
        after = self._before = self._seen()
        stands_still = after.time == before.time
        self._frozen = self._frozen + 1 if stands_still else 0
        self._idle = self._idle + 1 if stands_still else 0
        if self._judge is not None:
            reward, success = self._judge.judge(self._key, is_done, len(self._actions) >= self._limit)
            return reward, is_done or success, DEATH if is_done else SUCCESS if success else RUNNING
        is_playing = bool(game.in_normal_game())
        success, found, stats = False, 0, self._views["blstats"]
        if rules.task in ("staircase", "staircase_pet", "oracle"):
            glyphs = self._views.get("glyphs", stats)  # staircase reads no map
            success = not is_done and rules.is_near(
                bool(game.internal[ON_STAIRS]),
                glyphs,
                int(stats[X]),
                int(stats[Y]),
            )
        elif rules.task == "scout" and is_playing:
            found = self._explored.find(stats, int(count_glyphs(self._views["glyphs"])))
        reward = float(rules.reward(before, after, self._frozen, is_playing, success, found))
        return reward, is_done or success, DEATH if is_done else SUCCESS if success else RUNNING

    def _is_cut(self) -> bool:
        patience = self.settings.patience
        if patience is not None and self._idle >= patience:
            return True
        if len(self._actions) < self._limit:
            return False
        wrapped = outer_limit(self)
        if wrapped is not None and wrapped > self._limit:
            self._limit = wrapped
            return False
        return True

    def _check(self, action: Any) -> int:
        self._refuse_closed()
        if self._is_over:
            raise UsageError(
                "the episode is over: call reset() before step()" if self._seed >= 0 else "call reset() before step()"
            )
        return check_action(action, len(self.keys))

    def _observation(self) -> Observation:
        if self.settings.has_pixels:
            assert self._frame is not None
            self._game.draw(self._frame)
            if self.settings.crop is None:
                return self._frame.copy()
            picture = np.empty(self.settings.pixel_shape, np.uint8)
            crop_round(self._frame, self._views["blstats"], self.settings.crop, picture)
            return picture
        return {key: self._views[key].copy() for key in self.settings.shown}

    def _info(self, status: int) -> dict[str, Any]:
        stats = self._views["blstats"]
        info: dict[str, Any] = {
            "end_status": status,
            "depth": int(stats[DEPTH]),
            "turns": int(stats[TIME]),
            "caption": self._views["message"].copy(),
        }
        return {**info, **named(ending(self._game))} if status == DEATH else info

    # ------------------------------------------------------------------------------------------------ looking on

    def render(self) -> Any:
        """Draw the level (336, 1264, 3) uint8, or write the terminal with its colours; None without a render mode.

        Raises:
            UsageError: there was no reset.
        """
        if self.render_mode is None:
            return None
        if self._seed < 0:
            raise UsageError("render() was called before reset(); call reset() first")
        self._refuse_closed()
        if self.render_mode == "rgb_array":
            assert self._frame is not None
            self._game.draw(self._frame)
            return self._frame.copy()
        return screen_text(self._views["tty_chars"], self._views["tty_colors"])

    def views(self) -> dict[str, np.ndarray]:
        """Return what the game shows now, of all keys that it fills; copy what is to last."""
        return self._views

    def close(self) -> None:
        """Give back the game and its temporary folder; a second call does nothing."""
        if not getattr(self, "_is_closed", True):
            self._is_closed = True
            self._game.close()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise UsageError("the environment is closed; make a new one")

    # ------------------------------------------------------------------------------------------------ saved states

    def get_state(self) -> dict[str, Any]:
        """Return (seed, episode, actions since the reset), which `set_state` plays again: a game cannot be copied."""
        if self._seed < 0:
            return {}
        return {
            "seed": self._seed,
            "episode": self._episode,
            "actions": np.array(self._actions, np.int16),
            "is_over": self._is_over,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave, by playing its actions again.

        Raises:
            UsageError: the task takes no seeds, or the episode ends earlier than it did.
        """
        self._refuse_closed()
        if not state:
            self._seed, self._episode, self._actions, self._is_over = -1, -1, [], True
            return
        refuse_replay(self.settings)
        self._seed, self._episode = int(state["seed"]), int(state["episode"])
        self._begin()
        for number, index in enumerate(state["actions"], 1):
            self._press(self.keys[int(index)])
            self._actions.append(int(index))
            _, terminated, _ = self._outcome()
            if terminated and number < len(state["actions"]):
                raise early_end(number, len(state["actions"]))
        self._is_over = bool(state["is_over"])

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.get_state(), self.spec)


def _rebuild(cls: type[NetHack], arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> NetHack:
    env = cls(**arguments)
    env.set_state(state)
    env.spec = spec
    return env


def refuse_replay(settings: Settings) -> None:
    """Refuse to replay episodes that no seed decides.

    Raises:
        UsageError: the task takes no seeds.
    """
    if not settings.takes_seeds:
        raise UsageError(
            f"an episode of task={settings.rules.task!r} cannot be entered again, because no seed decides it; "
            "start the run afresh, or train on task='score' with actions='full'"
        )


def early_end(played: int, wanted: int) -> UsageError:
    """Return the error for a replayed episode that ends before its last action."""
    return UsageError(
        f"the saved episode ended after {played} of its {wanted} actions when it was played again: the game is not the "
        "one that was saved (another version of NLE?), so the run cannot go on exactly; start it afresh"
    )


def check_action(action: Any, number: int) -> int:
    """Return an action as an int.

    Raises:
        TypeError: it is no single integer.
        UsageError: it is out of range.
    """
    if isinstance(action, bool | np.bool_) or np.ndim(action) != 0:
        raise TypeError(f"an action is one integer from 0 to {number - 1}, got {action!r}")
    if not np.issubdtype(getattr(action, "dtype", type(action)), np.integer):
        raise TypeError(f"an action is an integer from 0 to {number - 1}, got {type(action).__name__} {action!r}")
    index = int(action)
    if not 0 <= index < number:
        raise UsageError(f"actions go from 0 to {number - 1}, got {index}")
    return index


def outer_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the limit of Gymnasium's TimeLimit round `env` whose step is running, or None.

    `gym.make` keeps max_episode_steps from the class that it makes, so a longer limit than the task's own is looked up
    here, once an episode gets there.
    """
    for layer in _running(sys._getframe(1)):
        if isinstance(layer, gym.wrappers.TimeLimit) and layer.unwrapped is env:
            return int(layer._max_episode_steps)
    return None


def _running(frame: Any) -> Iterator[Any]:
    while frame is not None:
        yield frame.f_locals.get("self")
        frame = frame.f_back


def make_scalar(
    task: str = "score", observation: Any = "glyphs", render_mode: str | None = None, **options: Any
) -> gym.Env[Any, Any]:
    """Make the scalar environment of `polyathlon/NetHack-v0`: `NetHack`, or `NetHackWords` for observation="words"."""
    if isinstance(observation, str) and observation == "words":
        from .words_task import NetHackWords

        return NetHackWords(task, render_mode=render_mode, **options)
    return NetHack(task, observation=observation, render_mode=render_mode, **options)


def make_vector(task: str = "score", num_envs: int = 1, observation: Any = "glyphs", **options: Any) -> Any:
    """Make the vector environment of `polyathlon/NetHack-v0`; see `NetHackVector`.

    Raises:
        UsageError: `observation="words"`, whose rows are those of `task.batch(n)`.
    """
    if isinstance(observation, str) and observation == "words":
        raise UsageError(
            "observation='words' is a language task, whose rows are run at once by task.batch(n): "
            "gym.make('polyathlon/NetHack-v0', observation='words').unwrapped.batch(n)"
        )
    from .vector import NetHackVector

    return NetHackVector(num_envs, task=task, observation=observation, **options)
