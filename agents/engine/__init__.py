"""The engine of gradient-based control methods: losses in, trained networks out.

`Method` and `Loss` (method.py) say what is learned, `Network` and `Scalar` (network.py) hold the parameters, `Engine`
(engine.py) differentiates, steps, moves the targets and compiles. Optimisers, distributions and noise stand beside them.
"""

from .engine import Engine
from .features import linked, with_features
from .files import method_of, method_record, refuse_other_method
from .method import Loss, Method, replace_loss, with_options
from .network import Network, Scalar, compact_state_dict
from .noise import draw_noise
from .optimisers import IGT, Adam, Average, Harpg, NaturalGradient, NormalisedMomentum, Optimiser, orthogonal

__all__ = [
    "IGT",
    "Adam",
    "Average",
    "Engine",
    "Harpg",
    "Loss",
    "Method",
    "NaturalGradient",
    "Network",
    "NormalisedMomentum",
    "Optimiser",
    "Scalar",
    "compact_state_dict",
    "draw_noise",
    "linked",
    "method_of",
    "method_record",
    "orthogonal",
    "refuse_other_method",
    "replace_loss",
    "with_features",
    "with_options",
]
