"""How far a call of `learn` is, in the units that it was asked for."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from polyathlon.envs.data.progress import Progress


def units_done(agent: Any) -> int:
    """Return how far an agent is: answers where it learns for a number of them, steps otherwise."""
    return int(agent.num_timesteps if getattr(agent, "completions", None) is None else agent._episode_num)


class LearnProgress(BaseCallback):
    """A progress bar with the remaining time, which starts where the agent stands.

    SB3's own counts calls of the callbacks, of which an agent that writes whole answers makes one for many steps.
    """

    def _on_training_start(self) -> None:
        completions = getattr(self.model, "completions", None)
        total, unit = (self.model._total_timesteps, "step") if completions is None else (completions, "answer")
        self.bar = Progress(total, unit, units_done(self.model), shown=True)

    def _on_step(self) -> bool:
        self.bar.reach(units_done(self.model))
        rewards = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if rewards:
            self.bar.note(f"return {sum(rewards) / len(rewards):.4g}")
        return True

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if hasattr(self, "bar"):
            self.bar.reach(units_done(self.model))
            self.bar.close()


def with_progress(callback: BaseCallback, agent: Any) -> BaseCallback:
    """Return callbacks of an agent, made ready for it, with a bar behind them."""
    both = CallbackList([callback, LearnProgress()])
    both.init_callback(agent)
    return both
