"""Counts every case on the pretend device, in a process of its own: `python -m tests.agents.waits OUT.json`."""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from . import pretend


def main(out: Path) -> None:
    """Write name -> counts, or the error, of every case."""
    start = time.process_time()
    pretend.start()
    from polyathlon.agents.streams.env_stream import EnvStream

    from . import cases, equal

    EnvStream.check_every = 64  # half of what runs have: a count of 64 steps then holds one reading
    found = {"build": {"seconds": time.process_time() - start}}
    for name, check in (("equal", equal.check_equal), ("device", equal.check_device)):
        try:
            found[name] = {"failures": check()}
        except Exception:
            found[name] = {"failures": [traceback.format_exc(limit=-8)]}
    for name, case in cases.all_cases().items():
        begin = time.process_time()
        try:
            counts, units = case.run()
        except Exception:
            found[name] = {"error": traceback.format_exc(limit=-6)}
            continue
        found[name] = {
            "waits": counts.waits / units,
            "uploads": counts.uploads / units,
            "launches": counts.launches / units,
            "unit": case.unit,
            "lines": counts.lines.most_common(),
            "units": units,
            "seconds": time.process_time() - begin,
        }
    found["seconds"] = {"all": time.process_time() - start}
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
