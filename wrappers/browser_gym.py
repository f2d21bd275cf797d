"""The environments of BrowserGym as text tasks."""

from __future__ import annotations

import importlib
import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from polyathlon.envs.errors import UsageError, check_finite, check_int
from polyathlon.envs.language import Verdict
from polyathlon.envs.language.utterance import Utterance

_QUOTED = re.compile(r'"([^"\n]{1,60})"')
_WRITABLE = frozenset({"textbox", "searchbox", "spinbutton", "combobox"})
_MOST_PHRASES = 6


def is_browser_gym(env: gym.Env[Any, Any]) -> bool:
    """Tell whether an environment is one of BrowserGym's, with its Dict observation, and not yet in words."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, BrowserGymWords):
            return False
        layer = layer.env
    kinds = [(kind.__module__.split(".")[0], kind.__name__) for kind in type(layer).__mro__]
    return ("browsergym", "BrowserEnv") in kinds


class BrowserGymWords(gym.Wrapper[str, str, Any, Any], RecordConstructorArgs):
    """Puts an environment of BrowserGym (Chezelles et al. 2024) in words: text in, text out.

    The text is the goal, the accessibility tree as BrowserGym writes it (an element a line, its `[bid]` in front), the tabs
    where there are several, what was said in the chat, and the last action's error. The answer is given to BrowserGym, whose
    action set reads it as calls such as `click('12')` or `fill('7', 'abc')`; what it cannot read or do is a verdict and
    `penalty`. Choices for agents with numbered actions are clicks on the elements that can be clicked, and the goal's
    quoted phrases written into fields.

    An error of the browser is no reward: truncated, reward 0, and `info["failure"]` = {"kind", "message"}.

    Args:
        env: an environment `browsergym/...`.
        penalty: reward of an answer that cannot be carried out.
        max_text: most characters of the page; what is longer is cut, and says so.
        max_candidates: most choices.
        max_answer: the longest answer that is read, in characters.

    Raises:
        UsageError: the environment is none of BrowserGym's, gives raw pages, or runs answers as Python (an `action_mapping` other
            than a `HighLevelActionSet`'s), or a number is out of range.
    """

    has_candidates = True

    def __init__(
        self,
        env: gym.Env[Any, Any],
        penalty: float = 0.0,
        max_text: int = 20_000,
        max_candidates: int = 32,
        max_answer: int = 4096,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, penalty=penalty, max_text=max_text, max_candidates=max_candidates, max_answer=max_answer
        )
        gym.Wrapper.__init__(self, env)
        if not is_browser_gym(env):
            raise UsageError(f"BrowserGymWords puts environments of BrowserGym in words, got {env}")
        check_finite(penalty=penalty)
        check_int(1, max_text=max_text, max_answer=max_answer)
        check_int(2, max_candidates=max_candidates)
        if "axtree_object" not in env.observation_space.spaces:  # type: ignore[attr-defined]
            raise UsageError(
                "this environment observes raw pages (use_raw_page_output=True), which have no words: leave that out"
            )
        actions = getattr(getattr(env.unwrapped, "action_mapping", None), "__self__", None)
        if type(actions).__name__ != "HighLevelActionSet":
            raise UsageError(
                "this environment runs answers as Python code (action_mapping), and what a model writes is never run: leave it out, "
                "or give action_mapping=HighLevelActionSet(...).to_python_code"
            )
        self._flatten = importlib.import_module("browsergym.utils.obs").flatten_axtree_to_str
        self.penalty, self.max_text, self.max_answer = float(penalty), int(max_text), int(max_answer)
        self.max_candidates = int(max_candidates)
        self.observation_space = Utterance(4 * (self.max_text + self.max_answer) + 4096)
        self.action_space = Utterance(4 * self.max_answer)
        self._seen: dict[str, Any] = {}
        self._messages: list[dict[str, str]] = []
        self._is_over = True
        self._starts = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; BrowserGym starts a browser for it."""
        if seed is None:  # BrowserGym takes None for a seed as it is, and its tasks begin alike
            seed = int(self._starts.integers(1 << 31))
        else:
            self._starts = np.random.default_rng(seed)
        self._seen, info = self.env.reset(seed=seed, options=options)
        text = self._text(self._seen["goal"])
        self._messages, self._is_over = [{"role": "user", "content": text}], False
        return text, {**info, "messages": list(self._messages)}

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Answer.

        Raises:
            UsageError: there is no running episode.
        """
        if self._is_over:
            raise UsageError("there is no running episode: call reset before step")
        fault, info = "", {}
        reward, terminated, truncated = 0.0, False, False
        if not isinstance(action, str) or len(action) > self.max_answer:
            fault = f"an answer is a text of at most {self.max_answer} characters"
        else:
            try:
                self._seen, reward, terminated, truncated, info = self.env.step(_writable(action))
                fault = str(self._seen["last_action_error"]).strip()
            except Exception as error:
                if not type(error).__module__.startswith("playwright"):
                    raise
                lines = str(error).strip().splitlines() or [type(error).__name__]
                info = {"failure": {"kind": "browser", "message": lines[0][:300]}}
                truncated = True
        text = self._text(f"error: {fault}" if fault else "")
        self._messages += [
            {"role": "assistant", "content": _writable(str(action)[: self.max_answer])},
            {"role": "user", "content": text},
        ]
        self._is_over = bool(terminated or truncated)
        raw = float(reward)
        verdict = Verdict(
            raw > 0, min(max(raw, 0.0), 1.0), bool(fault), fault or ("reached" if raw > 0 else "done"), {"raw": raw}
        )
        told = {**info, "verdict": verdict.as_dict(), "messages": list(self._messages)}
        return text, raw + (self.penalty if fault else 0.0), bool(terminated), bool(truncated), told

    def _text(self, before: str) -> str:
        """Write what is seen: the page, the tabs, the chat."""
        seen = self._seen
        tree = self._flatten(
            seen["axtree_object"], extra_properties=seen["extra_element_properties"], filter_visible_only=True
        )
        if len(tree) > self.max_text:
            tree = f"{tree[: self.max_text]}\n({len(tree) - self.max_text} more characters)"
        lines = [before, tree]
        if len(seen["open_pages_titles"]) > 1:
            at = int(seen["active_page_index"][0])
            tabs = (f"{'*' if i == at else ''}{i} {title}" for i, title in enumerate(seen["open_pages_titles"]))
            lines.append("tabs: " + ", ".join(tabs)[:1000])
        goal = seen["goal"]
        said = [one["message"] for one in seen["chat_messages"] if one["role"] == "user" and one["message"] != goal]
        lines += [f"user: {one[:500]}" for one in said[-2:]]
        return _writable("\n".join(line for line in lines if line))

    def current_candidates(self) -> list[str]:
        """Return calls to choose from, in the order of the page."""
        phrases = list(dict.fromkeys(_QUOTED.findall(self._seen["goal"])))[:_MOST_PHRASES]
        found: list[str] = []
        for node in self._seen["axtree_object"]["nodes"]:
            bid = node.get("browsergym_id")
            known = self._seen["extra_element_properties"].get(bid, {})
            if bid is None or known.get("visibility", 0) < 0.5:
                continue
            is_field = node["role"]["value"] in _WRITABLE
            if known.get("clickable") or is_field:
                found.append(f"click({bid!r})")
            if is_field:
                found += [f"fill({bid!r}, {phrase!r})" for phrase in phrases]
        return [*found[: self.max_candidates - 1], "noop()"]


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
