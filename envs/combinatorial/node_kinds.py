"""What a row of a combinatorial task's table of nodes is, as its observation's `kind` says."""

from __future__ import annotations

PADDING, ORIGIN, DESTINATION, OPEN = 0, 1, 2, 3
