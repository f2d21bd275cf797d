"""Private fine-tuning as control: a step is some steps of DP-SGD, an action their clipping norms and their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import (
    UsageError,
    check_fraction,
    check_non_negative,
    check_positive,
    check_positive_int,
    unknown_name,
)

from .accounting import check_budget, dp_clip_noise, gdp_budget, gdp_eps, step_cost
from .problems import PrivateProblem, make_problem

CLIPPING = ("block", "flat")
UTILITIES = ("training", "public")
STATE_SIGMA = 4.0
QUANTILES = (0.25, 0.5, 0.75)
LOG_NORM = 8.0  # decades within which norms are shown


class PrivateFineTune(gym.Env[np.ndarray, np.ndarray]):
    """Choose the clipping norms and the noise of DP-SGD while a model is fine-tuned within a privacy budget.

    Description:
        Differentially private fine-tuning as a control problem (RLDP: "Efficient Differentially Private Fine-Tuning of LLMs via
        Reinforcement Learning"). A step of the environment is `steps_per_action` steps of Adam on Poisson samples: the gradient of
        each example is clipped to norm C_j in each of J blocks of parameters, Gaussian noise of sigma C_j sqrt(J) is added to the sum,
        which is divided by the expected size of the sample. The accountant (`polyathlon.envs.privacy.accounting`) is a filter: a
        step that would exceed the budget is not taken.
    Action space:
        Box(-1, 1, (J + 1,)): the C_j, then sigma, each on a logarithmic scale from the lower to the upper end of its range.
    Observation space:
        Box(5 J + 4,): for every block log10 of three quantiles of its gradients' norms (25, 50, 75 %); for every block the share of
        examples that were clipped; the moving average of the loss, cut to [0, `loss_bound`]; the shares of steps done and of the
        budget (of mu^2) left; the action before.
    Rewards:
        `reward_scale` times what the utility gained, the loss before minus the loss after, minus `privacy_cost` times the share of
        the budget (of mu^2) that was spent. Losses move by hundredths, which an entropy bonus of usual size would drown.
    Starting state:
        The problem's first parameters and an empty optimiser; zeros in the observation but for the public loss and the budget.
    Episode end:
        Terminated when all steps are done, or the budget does not allow the next one.
    Infos:
        "epsilon" spent at `delta`, "mu", "steps", "public_loss", "clip" [J], "sigma".
    Privacy:
        With `private_state=False` the observations and rewards are computed from private examples and NOT covered by the
        accountant: only the parameters of one episode are private, and only as long as nobody sees how they were controlled.
        `private_state=True` shows noisy shares instead (of examples above C_j, and above three fixed norms in place of quantiles) and a
        noisy loss, and charges them to the same budget. Many episodes on the same examples spend many budgets.

    Args:
        problem: "logistic" (two blocks of features, tenfold apart), "language" (low-rank adapters of a language model), or a
            `PrivateProblem`.
        problem_kwargs: options of a named problem.
        epsilon: budget.
        delta: probability with which the budget may be exceeded; well below 1 / number of examples.
        sample_rate: q, probability of each example to be in a step's sample.
        total_steps: steps of DP-SGD in an episode.
        steps_per_action: steps of DP-SGD for each action.
        learning_rate: of Adam.
        clip_range: log10 of the smallest and the largest C_j.
        sigma_range: smallest and largest noise multiplier.
        clipping: "block" clips each block, "flat" all parameters as one (J = 1).
        utility: "training" (moving average of the training loss) or "public" (mean loss of the public examples).
        reward_scale: multiplies the gain.
        privacy_cost: reward that the whole budget costs.
        loss_bound: largest loss that is shown, and that counts in the noisy loss.
        private_state: show noisy statistics, charged to the budget.
        state_sigma: noise multiplier of those statistics; None is 4. Only with `private_state`.

    Raises:
        UsageError: an option means nothing, or the budget does not allow one step at the largest noise.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(
        self,
        problem: str | PrivateProblem = "logistic",
        problem_kwargs: Mapping[str, Any] | None = None,
        epsilon: float = 8.0,
        delta: float = 1e-5,
        sample_rate: float = 0.05,
        total_steps: int = 600,
        steps_per_action: int = 20,
        learning_rate: float = 0.01,
        clip_range: tuple[float, float] = (-2.0, 1.0),
        sigma_range: tuple[float, float] = (0.5, 4.0),
        clipping: str = "block",
        utility: str = "training",
        reward_scale: float = 100.0,
        privacy_cost: float = 0.0,
        loss_bound: float = 10.0,
        private_state: bool = False,
        state_sigma: float | None = None,
    ) -> None:
        if state_sigma is not None and not private_state:
            raise UsageError("state_sigma is the noise of what private_state=True shows: give both, or leave it out")
        state_sigma = STATE_SIGMA if state_sigma is None else state_sigma
        check_budget(epsilon, delta)
        check_fraction(sample_rate=sample_rate)
        check_positive(
            reward_scale=reward_scale,
            sample_rate=sample_rate,
            learning_rate=learning_rate,
            loss_bound=loss_bound,
            state_sigma=state_sigma,
        )
        check_positive_int(total_steps=total_steps, steps_per_action=steps_per_action)
        check_non_negative(privacy_cost=privacy_cost)
        if clipping not in CLIPPING:
            raise unknown_name("clipping", str(clipping), CLIPPING)
        if utility not in UTILITIES:
            raise unknown_name("utility", str(utility), UTILITIES)
        self.clip_range, self.sigma_range = _range("clip_range", clip_range), _range("sigma_range", sigma_range)
        if self.sigma_range[0] <= 0:
            raise UsageError(f"sigma_range holds noise multipliers above 0, got {sigma_range!r}")
        self.problem = make_problem(problem, problem_kwargs or {})
        blocks = self.problem.blocks
        self.blocks = blocks if clipping == "block" else (tuple(name for block in blocks for name in block),)
        self.epsilon, self.delta, self.sample_rate = float(epsilon), float(delta), float(sample_rate)
        self.total_steps, self.steps_per_action = int(total_steps), int(steps_per_action)
        self.learning_rate, self.utility, self.privacy_cost = float(learning_rate), utility, float(privacy_cost)
        self.reward_scale = float(reward_scale)
        self.loss_bound, self.private_state, self.state_sigma = (
            float(loss_bound),
            bool(private_state),
            float(state_sigma),
        )
        self.most_mu2 = (gdp_budget(epsilon, delta) / self.sample_rate) ** 2  # of the sum of step costs
        if step_cost(self.sigma_range[1]) > self.most_mu2:
            raise UsageError(
                f"epsilon={epsilon} at delta={delta} allows not one step of sample_rate={sample_rate} at sigma={self.sigma_range[1]}: "
                "raise epsilon or sigma_range, or lower sample_rate"
            )
        number = len(self.blocks)
        self.action_space = spaces.Box(-1.0, 1.0, (number + 1,), np.float32)
        shown = [LOG_NORM] * (3 * number) + [1.0] * number + [self.loss_bound, 1.0, 1.0] + [1.0] * (number + 1)
        low = [-LOG_NORM] * (3 * number) + [0.0] * (number + 3) + [-1.0] * (number + 1)
        self._low, self._high = np.array(low, np.float32), np.array(shown, np.float32)
        self.observation_space = spaces.Box(self._low, self._high)
        self._is_running = False

    # ------------------------------------------------------------------------------------------------------ episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin with the problem's first parameters and an untouched budget."""
        super().reset(seed=seed)
        if options:
            raise UsageError(f"PrivateFineTune has no reset options, got {sorted(options)}")
        # one number for the episode: what it draws does not depend on how long the ones before it were
        self.generator = torch.Generator().manual_seed(int(self.np_random.integers(1 << 62)))
        self.parameters = {name: value.requires_grad_() for name, value in self.problem.start().items()}
        self.optimiser = torch.optim.Adam(list(self.parameters.values()), lr=self.learning_rate, foreach=False)
        self.mu2, self.steps, self._is_running = 0.0, 0, True
        self.public_loss = self.problem.public_loss(self.parameters)
        self.loss = min(self.public_loss, self.loss_bound)  # before a private example is read
        number = len(self.blocks)
        self._norms, self._clipped = np.zeros(3 * number), np.zeros(number)
        self._action = np.zeros(number + 1)
        return self._observation(), self._info(None, None)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take `steps_per_action` steps of DP-SGD, or as many as the budget allows.

        Raises:
            UsageError: the episode is over, or the action lies outside the space.
        """
        if not self._is_running:
            raise UsageError("the episode is over or was never begun: call reset before step")
        given = np.asarray(action, dtype=np.float64)
        if given.shape != self.action_space.shape or not (np.abs(given) <= 1 + 1e-6).all():
            raise UsageError(f"an action is {len(self.blocks) + 1} numbers in [-1, 1], got {action!r}")
        clip, sigma = self.settings(given)
        before, spent_before = self._utility(), self.mu2
        is_whole = self._train(clip, sigma)
        self._action = given.clip(-1, 1)
        self.public_loss = self.problem.public_loss(self.parameters)
        gain, share = before - self._utility(), (self.mu2 - spent_before) / self.most_mu2
        reward = self.reward_scale * gain - self.privacy_cost * share
        terminated = self.steps >= self.total_steps or not is_whole
        self._is_running = not terminated
        return self._observation(), float(reward), terminated, False, self._info(clip, sigma)

    def settings(self, action: np.ndarray) -> tuple[Tensor, float]:
        """Return what an action means: the clipping norms C [J], and sigma."""
        share = (np.asarray(action, dtype=np.float64).clip(-1, 1) + 1) / 2
        low, high = self.clip_range
        clip = torch.as_tensor(10 ** (low + share[:-1] * (high - low)), dtype=torch.float32)
        first, last = map(math.log, self.sigma_range)
        return clip, math.exp(first + float(share[-1]) * (last - first))

    def _train(self, clip: Tensor, sigma: float) -> bool:
        """Take steps of DP-SGD, and return whether the budget allowed all of them."""
        cost, expected = step_cost(sigma), self.sample_rate * self.problem.size
        shown = step_cost(self.state_sigma) if self.private_state else 0.0  # kept back for what the controller sees
        last: list[Tensor] | None = None
        is_whole = True
        for _ in range(min(self.steps_per_action, self.total_steps - self.steps)):
            if self.mu2 + cost + shown > self.most_mu2:  # the filter: asked before the step
                is_whole = False
                break
            drawn = torch.rand(self.problem.size, generator=self.generator) < self.sample_rate
            gradients, losses = self._gradients(drawn.nonzero().squeeze(1))
            self._apply(dp_clip_noise(gradients, clip, sigma, expected, self.generator))
            self.mu2 += cost
            self.steps += 1
            if len(losses) and not self.private_state:
                last = gradients
                self.loss += 0.1 * (float(losses.mean().clamp(0, self.loss_bound)) - self.loss)
        if last is not None:
            self._look(last, clip)
        if self.private_state and is_whole:
            self._look_noisily(gradients, losses, clip, expected)
            self.mu2 += shown
        return is_whole

    def _gradients(self, index: Tensor) -> tuple[list[Tensor], Tensor]:
        detached = {name: value.detach() for name, value in self.parameters.items()}
        gradients, losses = self.problem.gradients(detached, index)
        if len(self.blocks) != len(gradients):
            gradients = [torch.cat(gradients, 1)]
        return gradients, losses

    def _apply(self, gradients: list[Tensor]) -> None:
        for block, gradient in zip(self.blocks, gradients, strict=True):
            sizes = [self.parameters[name].numel() for name in block]
            for name, part in zip(block, gradient.split(sizes), strict=True):
                self.parameters[name].grad = part.view_as(self.parameters[name])
        self.optimiser.step()

    # -------------------------------------------------------------------------------------- what the controller sees

    def _look(self, gradients: list[Tensor], clip: Tensor) -> None:
        """Keep the statistics of a sample."""
        norms = torch.stack([g.norm(dim=1) for g in gradients])  # [J, B]
        quantiles = norms.quantile(torch.tensor(QUANTILES), dim=1).T.reshape(-1).numpy()  # block by block
        self._norms = np.log10(np.maximum(quantiles, 10**-LOG_NORM))
        self._clipped = (norms > clip[:, None]).float().mean(1).numpy()

    def _look_noisily(self, gradients: list[Tensor], losses: Tensor, clip: Tensor, expected: float) -> None:
        """Keep noisy sums over a sample: each example adds a vector in [0, 1]^(4 J + 1), of norm sqrt(4 J + 1) at most."""
        norms = torch.stack([g.norm(dim=1) for g in gradients])
        low, high = self.clip_range
        marks = torch.tensor([10 ** (low + share * (high - low)) for share in QUANTILES])
        above = (norms[:, None, :] > marks[:, None]).float().flatten(0, 1)  # [3 J, B]
        rows = torch.cat([above, (norms > clip[:, None]).float(), (losses / self.loss_bound).clamp(0, 1)[None]])
        noise = torch.randn(len(rows), generator=self.generator) * self.state_sigma * math.sqrt(len(rows))
        shares = ((rows.sum(1) + noise) / expected).clamp(0, 1).numpy()
        number = len(self.blocks)
        self._norms, self._clipped = shares[: 3 * number], shares[3 * number : -1]
        self.loss = float(shares[-1]) * self.loss_bound

    def _utility(self) -> float:
        return self.public_loss if self.utility == "public" else self.loss

    def _observation(self) -> np.ndarray:
        left = 1 - self.mu2 / self.most_mu2
        rest = [self.loss, self.steps / self.total_steps, left]
        shown = np.concatenate([self._norms, self._clipped, rest, self._action])
        return shown.clip(self._low, self._high).astype(np.float32)

    def _info(self, clip: Tensor | None, sigma: float | None) -> dict[str, Any]:
        mu = self.sample_rate * math.sqrt(self.mu2)
        info: dict[str, Any] = {"epsilon": gdp_eps(mu, self.delta), "mu": mu, "steps": self.steps}
        info |= {"public_loss": self.public_loss}
        return info if clip is None else {**info, "clip": clip.numpy(), "sigma": sigma}


def _range(name: str, given: Any) -> tuple[float, float]:
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{name} is two finite numbers, the smaller one first, got {given!r}")
    return low, high
