"""SB3's words for the sizes of networks in `policy_kwargs`: taken or refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polyathlon.envs.errors import UsageError, constructor_keywords, unknown_name

# what SB3's policies are given by their agent, and noise that depends on the state, which agents here do not have
_NOT_GIVEN = {"observation_space", "action_space", "lr_schedule", "use_sde", "full_std", "use_expln", "squash_output"}


def check_widths(widths: Any, name: str = "", names: Sequence[str] = ("pi", "qf")) -> list[int]:
    """Return hidden widths as a list.

    Args:
        widths: of one network.
        name: of the network, where `net_arch` is a dict.
        names: of the networks that the dict may have, for the message.

    Raises:
        UsageError: one is no positive integer.
    """
    where = f"net_arch[{name!r}]" if name else "net_arch"
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        known = " and ".join(repr(one) for one in names)
        raise UsageError(
            f"{where} is a list of hidden widths such as [256, 256], or a dict of such by {known}, got {widths!r}"
        )
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise UsageError(f"{where} holds positive numbers of units, got {width!r} in {list(widths)}")
    return list(widths)


def check_activation(activation: Any) -> None:
    """Refuse what is no class of torch modules.

    Raises:
        UsageError: it is something else.
    """
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise UsageError(f"activation_fn is a class of torch modules such as torch.nn.ReLU, got {activation!r}")


def refuse_policy_words(policy_class: type | None, words: Mapping[str, Any]) -> None:
    """Refuse words that a policy of actor and critic does not take, and impossible widths.

    Args:
        policy_class: SB3's `ActorCriticPolicy` or a class made of it; None lets words pass that are not known here, since a class of
            the user's own may read more than its constructor names.
        words: `policy_kwargs`.

    Raises:
        UsageError: naming the word.
    """
    known = constructor_keywords(policy_class) - _NOT_GIVEN if policy_class else words
    for word in words:
        if word not in known:
            raise unknown_name("word in policy_kwargs", word, sorted(known))
    check_activation(words.get("activation_fn") or nn.Tanh)
    arch = words.get("net_arch")
    if isinstance(arch, list | tuple) and arch and isinstance(arch[0], Mapping):
        arch = arch[0]  # as SB3 reads it
    if not isinstance(arch, Mapping):
        if arch is not None:
            check_widths(arch, names=("pi", "vf"))
        return
    for name, widths in arch.items():
        if name not in ("pi", "vf"):
            raise unknown_name("network of net_arch", str(name), ("pi", "vf"))
        check_widths(widths, name, ("pi", "vf"))
