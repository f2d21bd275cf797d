"""One update of a language model on a batch of episodes, by the parts of a row in the order of an iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.agents.parts.fields import role_field
from polyathlon.agents.parts.wiring import Schedule
from polyathlon.envs.errors import UsageError

from .compared import compared_metrics, penalty_metric
from .episodes import Episode, Fields, collate, moved, select, unbroken
from .given_models import read_head
from .noise import make_noise
from .reading import Reading
from .recipe_wiring import Wiring
from .refusals import refuse_lost, refuse_lost_report, refuse_missing_scores, refuse_missing_verdicts, refuse_unaveraged

if TYPE_CHECKING:
    from .agent import LanguageAgent

Metrics = dict[str, Tensor]


class Update:
    """One update.

    Args:
        agent: has the policy, the side models and the generator.
        wiring: the row, bound.
        episodes: N of them; those that broke outside the policy are left out.

    Raises:
        UsageError: no episode is left, or there are more minibatches than groups.
    """

    def __init__(self, agent: LanguageAgent, wiring: Wiring, episodes: Sequence[Episode]) -> None:
        self.agent, self.wiring, self.row = agent, wiring, wiring.row
        whole = unbroken(episodes)
        if not whole:
            raise UsageError("an update needs at least one episode that did not break outside the policy")
        self.number = len(whole)
        processor = torch.device("cpu")
        # what the processor knows of the batch: parts that read nothing else run there, and no device is waited for
        self.known: Fields = collate(whole, agent.token_env.rules.pad, processor)
        refuse_missing_verdicts(whole, self.known, wiring)
        refuse_missing_scores(agent, wiring)
        self.known |= {"max_length": agent.token_env.max_new_tokens, "progress": agent.progress}
        rows, tokens = self.known["mask"].shape
        for name, noise in self.row.noise:
            seed = agent._initial_seed
            self.known[name] = make_noise(name, noise, seed, agent._n_updates, rows, tokens, processor)
        self.is_apart = agent.device.type != "cpu"
        self.fields: Fields = moved(self.known, agent.device) if self.is_apart else self.known
        groups = int(self.known["group"].max()) + 1
        self.minibatches = min(self.row.minibatches, groups)
        if self.row.minibatches > groups and len(whole) == len(episodes):
            raise UsageError(
                f"minibatches={self.row.minibatches}, but there are {groups} groups, which are never cut: take fewer "
                "minibatches or more num_prompts"
            )
        count = self.number if self.minibatches == 1 else groups
        drawn = [
            torch.randperm(count, generator=agent.generator, device=agent.device) for _ in range(self.row.n_epochs)
        ]
        self.orders = [self._minibatches(order) for order in torch.stack(drawn).cpu()]
        self.gap: float | None = None
        self.seen: list[Metrics] = []

    # ------------------------------------------------------------------------------------------------ the order

    def run(self) -> dict[str, float]:
        """Update the policy and the side models.

        Returns:
            Means of the metrics over the minibatches.
        """
        self._before()
        for epoch, order in enumerate(self.orders):
            for place, index in enumerate(order):
                self.seen.append(self._step(select(self.fields, index, self.number), epoch == place == 0))
        for role in self.wiring.side_losses:
            for order in self.orders:
                for index in order:
                    self._step_side_model(role, select(self.fields, index, self.number))
        for part in self.wiring.stages["after"]:
            self._call(part)
        names = sorted({name for metrics in self.seen for name in metrics})
        means = [torch.stack([m[n] for m in self.seen if n in m]).mean().double() for n in names]
        report = dict(zip(names, _numbers(means)))
        refuse_lost_report(report, self.agent._n_updates)
        return report if self.gap is None else report | {"logp_gap": self.gap}

    def _call(self, part: Any) -> Any:
        """Call a bound part, on the processor where that knows all that it reads."""
        is_known = all(name is None or name in self.known for name in part.fields)
        return part(self.known if is_known else self.fields)

    def _put(self, name: str, value: Tensor) -> None:
        """Set a field that was made on the processor or on the device."""
        self.fields[name] = value.to(self.agent.device)
        if value.device.type == "cpu":
            self.known[name] = value
        else:
            self.known.pop(name, None)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the loss of all rows under the current parameters, what is watched of them and "logp" (mean of sums); nothing is updated."""
        self._before()
        reading = self._read_in_parts(self.fields)
        loss, metrics = self._loss(self.fields, reading)
        whole = (reading.logp * self.fields["mask"]).sum(1).mean()
        found = metrics | {"loss": loss, "logp": whole}
        return dict(zip(found, _numbers([value.double() for value in found.values()])))

    def _minibatches(self, order: Tensor) -> list[Tensor]:
        """Return the rows of each minibatch, on the processor; `order` is one of all rows, or of groups, none of which is cut."""
        count = self.minibatches
        if count == 1:
            return [order]
        group = self.known["group"]
        chunks = []
        for groups in order.chunk(count):
            rank = torch.full_like(order, -1).index_copy_(0, groups, torch.arange(len(groups)))[group]
            rows = (rank >= 0).nonzero()[:, 0]
            chunks.append(rows[rank[rows].argsort(stable=True)])
        return chunks

    @torch.no_grad()
    def _before(self) -> None:
        """Make what holds for the whole batch: old values, side models, rewards, weights of rows, advantages."""
        self._read_before()
        for part in self.wiring.stages["rewards"]:
            found = self._call(part)
            fields = self.fields if found.device.type != "cpu" else self.known
            add_reward(fields, found)
            if self.is_apart:
                for name in ("reward", "token_reward"):
                    self._put(name, fields[name])
        keep = None
        for part in self.wiring.stages["keep"]:
            keep = self._call(part)
        ones = torch.ones_like(self.known["mask"])
        self._put("weight", ones if keep is None else ones.to(keep.device) * keep[:, None])
        for part in self.wiring.stages["advantage"]:
            found = self._call(part)
            for name, value in zip(("adv", "returns"), found if isinstance(found, tuple) else (found,)):
                self._put(name, value.detach())

    def _read_before(self) -> None:
        needs, fields = self.wiring.needs, self.fields
        is_read = self.row.old_logp == "read" and "old_logp" in needs
        if is_read or {"old_value", "old_entropy", "old_full_logp"} & needs:
            old = self._read_rows(is_read)
            if is_read:
                self._check_gap(old.logp, fields)
                self._put("old_logp", old.logp)
            fields |= {"old_value": old.value, "old_entropy": old.entropy, "old_full_logp": old.full_logp}
        for role in self.wiring.roles:
            wanted = {ending for name in needs if (s := role_field(name)) and s[0] == role for ending in (s[1],)}
            if role == "reference" and "reference_logp" in fields and "full_logp" not in wanted:
                continue  # stored beside the data
            if wanted & {"score", "value"}:
                (head,) = wanted
                model, size = self.agent.side_models.given[role], self.agent.micro_batch
                fields[f"{role}_{head}"] = read_head(model, head, fields["tokens"], fields["attention"], size)
            elif wanted:
                reading = self.agent.read_role(role, fields, "full_logp" in wanted)
                fields |= {f"{role}_logp": reading.logp, f"{role}_full_logp": reading.full_logp}

    def _read_rows(self, by_minibatch: bool) -> Reading:
        """Read all rows without gradient; by the minibatches of the first epoch where the numbers must be theirs to a bit."""
        if not by_minibatch:
            return self._read(self.fields, True)
        index = torch.cat(self.orders[0])
        parts = [self._read_in_parts(select(self.fields, order, self.number), True) for order in self.orders[0]]
        back = index.argsort()
        return Reading(*(_joined(each, back) for each in zip(*parts, strict=True)))

    # ------------------------------------------------------------------------------------------------ the policy

    def _read(self, rows: Fields, is_old: bool = False) -> Reading:
        needs = self.wiring.needs
        has_value = bool({"value", "old_value"} & needs)
        has_full = "full_logp" in needs or (is_old and "old_full_logp" in needs)
        return self.agent._read(rows, has_value, has_full, "entropy" in self.wiring.differentiated)

    def _read_in_parts(self, rows: Fields, is_old: bool = False) -> Reading:
        """Read rows without gradient, `micro_batch` at a time where that is given."""
        number, size = len(rows["mask"]), self.agent.micro_batch
        with torch.no_grad():
            if size is None or size >= number:
                return self._read(rows, is_old)
            index = torch.arange(number)
            parts = [self._read(select(rows, part, number), is_old) for part in index.split(size)]
        return Reading(*(_joined(each) for each in zip(*parts, strict=True)))

    def _step(self, rows: Fields, is_first: bool) -> Metrics:
        optimizer = self.agent.policy.optimizer
        optimizer.zero_grad(set_to_none=True)

        def loss_of(reading: Reading) -> tuple[Tensor, Metrics]:
            if is_first and self.row.old_logp == "sampled":
                self._check_gap(reading.logp, rows)
            return self._loss(rows, reading)

        metrics = self._backward(rows, loss_of, self._read)
        if self.row.max_grad_norm is not None:
            trained = [p for p in self.agent.policy.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(trained, self.row.max_grad_norm)
        optimizer.step()
        return metrics

    def _backward(
        self, rows: Fields, loss_of: Callable[[Reading], tuple[Tensor, Metrics]], read: Callable[[Fields], Reading]
    ) -> Metrics:
        """Add the gradient of a loss of log-probabilities to the parameters, `micro_batch` rows in memory at a time.

        With L the loss, l its log-probabilities and w the weights: dL/dw = sum over rows of dL/dl dl/dw. The first factor is
        taken once, over all rows; the second a few rows at a time. The first rows are read once, the others twice.
        """
        number, size = len(rows["mask"]), self.agent.micro_batch
        if size is None or size >= number:
            loss, metrics = loss_of(read(rows))
            refuse_lost(loss, metrics, self.agent._n_updates)
            if loss.requires_grad:
                loss.backward()
            return metrics
        index = torch.arange(number).split(size)
        with torch.no_grad():
            others = [read(select(rows, part, number)) for part in index[1:]]
        held = [read(select(rows, index[0], number))]  # last, so that its graph alone is in memory
        leaves = Reading(*(_leaf(_joined(each)) for each in zip(held[0], *others, strict=True)))
        del others
        loss, metrics = loss_of(leaves)
        refuse_lost(loss, metrics, self.agent._n_updates)
        if not loss.requires_grad:
            return metrics
        loss.backward()
        for part in index:
            again = held.pop() if held else read(select(rows, part, number))
            pairs = [
                (found, leaf.grad[int(part[0]) : int(part[-1]) + 1])
                for found, leaf in zip(again, leaves, strict=True)
                if found is not None and leaf is not None and leaf.grad is not None and found.requires_grad
            ]
            if pairs:
                torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs])
        return metrics

    def _loss(self, rows: Fields, reading: Reading) -> tuple[Tensor, Metrics]:
        """Return the loss of a minibatch and its metrics."""
        current = {
            "logp": reading.logp,
            "entropy": reading.entropy,
            "value": reading.value,
            "full_logp": reading.full_logp,
            "policy_score": reading.score,
        }
        rows = rows | current
        with torch.no_grad():
            constant = rows | {name: None if x is None else x.detach() for name, x in current.items()}
            for part in self.wiring.stages["weights"]:
                rows["weight"] = constant["weight"] = rows["weight"] * part(constant)
        each = self.wiring.loss(rows)
        loss, is_averaged = self._mean(each, rows), each.dim() > 0
        metrics = {"policy_loss": loss.detach()}
        for name, coefficient, term in self.wiring.penalties:
            number = coefficient.at(rows["progress"]) if isinstance(coefficient, Schedule) else coefficient
            each = term(rows)
            value, is_averaged = self._mean(each, rows), is_averaged or each.dim() > 0
            loss = loss + number * value
            metrics[penalty_metric(name, term.fields)] = value.detach()
        if not is_averaged:
            refuse_unaveraged(self.wiring)
        compared = compared_metrics(rows, reading, "side" in self.wiring.differentiated)
        return loss, metrics | compared | self._metrics(rows, reading)

    def _mean(self, loss: Tensor, rows: Fields) -> Tensor:
        """Average [N, T] as the row says; a scalar stays."""
        if loss.dim() == 0:
            return loss
        if loss.shape != rows["mask"].shape:
            raise UsageError(
                f"the loss of {self.row.name!r} has the shape {tuple(loss.shape)}: it must be {tuple(rows['mask'].shape)} "
                "(rows, tokens), or a scalar"
            )
        mask, norm = rows["mask"], float(rows["max_length"])
        if not (self.wiring.has_stage("keep") or self.wiring.has_stage("weights")):
            return agg_loss(loss, mask, self.row.aggregation, norm)
        weight = rows["weight"]
        counted = mask * (weight > 0) if self.row.denominator == "kept" else None
        return agg_loss(loss, mask, self.row.aggregation, norm, weight, counted)

    @torch.no_grad()
    def _metrics(self, rows: Fields, reading: Reading) -> Metrics:
        mask = rows["mask"]
        count = mask.sum().clamp(min=1)
        found = {"entropy": (reading.entropy * mask).sum() / count}
        if "old_logp" not in self.wiring.differentiated:
            return found
        log_ratio = (reading.logp - rows["old_logp"]) * mask
        found["approx_kl"] = (((log_ratio.exp() - 1) - log_ratio) * mask).sum() / count
        options = dict(self.wiring.loss.options)
        low, high = options.get("clip_low"), options.get("clip_high")
        if isinstance(low, int | float) and isinstance(high, int | float):
            ratio = log_ratio.exp()
            found["clip_fraction"] = (((ratio > 1 + high) | (ratio < 1 - low)) * mask).sum() / count
        return found

    @torch.no_grad()
    def _check_gap(self, logp: Tensor, rows: Fields) -> None:
        """Compare the log-probabilities of sampling and of training, where the newest policy wrote.

        Raises:
            UsageError: they differ by more than `max_logp_gap`, or are no numbers.
        """
        gap = ((logp - rows["old_logp"]).abs() * rows["newest"]).max()
        is_compared, gap = torch.stack([rows["newest"].any().to(gap), gap]).tolist()
        if not is_compared:
            return
        self.gap = gap
        if not self.gap <= self.agent.max_logp_gap:
            raise UsageError(
                f"sampling and training disagree on log-probabilities by {self.gap:.3g}, more than "
                f"max_logp_gap={self.agent.max_logp_gap}: use float32 weights or attn='eager', or raise max_logp_gap"
            )

    # ------------------------------------------------------------------------------------------------ side models

    def _step_side_model(self, role: str, rows: Fields) -> None:
        """Move a side model by its own loss; the policy is constant in it."""
        agent, bound = self.agent, self.wiring.side_losses[role]
        with torch.no_grad():
            now = self._read(rows)
        rows = rows | {"logp": now.logp, "entropy": now.entropy, "value": now.value, "full_logp": now.full_logp}
        has_full = f"{role}_full_logp" in bound.fields

        def loss_of(reading: Reading) -> tuple[Tensor, Metrics]:
            own = {f"{role}_logp": reading.logp, f"{role}_full_logp": reading.full_logp}
            loss = self._mean(bound(rows | own), rows)
            return loss, {f"{role}_loss": loss.detach()}

        with agent.weights_of(role, with_gradient=True) as model:
            trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
            for p in trained.values():
                p.grad = None
            metrics = self._backward(rows, loss_of, lambda part: agent._read(part, False, has_full))
            gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
            for p in trained.values():
                p.grad = None
        agent.side_models.step(role, gradients, agent.progress)
        self.seen.append(metrics)


def add_reward(fields: Fields, found: Tensor) -> None:
    """Add what a reward part gives: [N] also to the last written token, [N, T] also, as its sum, to the answer.

    Raises:
        UsageError: it is no finite number where the policy wrote, or of another shape.
    """
    mask, reward = fields["mask"], fields["reward"]
    if found.shape == mask.shape:
        found = torch.where(mask > 0, found, torch.zeros_like(found))
        fields["token_reward"], fields["reward"] = fields["token_reward"] + found, reward + found.sum(1)
    elif found.shape == reward.shape:
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        places = torch.zeros_like(mask).scatter(1, last[:, None], found[:, None].to(mask.dtype))
        fields["token_reward"], fields["reward"] = fields["token_reward"] + places, reward + found
    else:
        raise UsageError(
            f"a reward part gives [N] or [N, T], here {tuple(reward.shape)} or {tuple(mask.shape)}, got {tuple(found.shape)}"
        )
    if not bool(fields["reward"].isfinite().all()):
        row = int((~fields["reward"].isfinite()).nonzero()[0, 0])
        raise UsageError(
            f"a reward part gives {float(found.reshape(len(reward), -1).sum(1)[row])} for the answer {fields['text'][row]!r} to "
            f"the task {fields['task'][row]!r}: rewards must be finite numbers"
        )


def _joined(parts: Sequence[Any], index: Tensor | None = None) -> Any:
    if parts[0] is None:
        return None
    whole = torch.cat(list(parts))
    return whole if index is None else whole[index.to(whole.device)]


def _numbers(values: Sequence[Tensor]) -> list[float]:
    """Return scalars as numbers; those of a device come in one transfer."""
    there = [value for value in values if value.device.type != "cpu"]
    moved = iter(torch.stack(there).tolist() if there else [])
    return [float(value) if value.device.type == "cpu" else next(moved) for value in values]


def _leaf(value: Tensor | None) -> Any:
    return None if value is None else value.detach().requires_grad_()
