"""RL4CO's POMO on TSP-50 at the processor time that BQ-NCO is given: ten minutes on one core, the same test instances.

`python scripts/benchmark/construction_pomo.py --cpu-seconds 600` trains RL4CO's own policy and environment with the loss
of its POMO (shared baseline over 50 starts, Adam with its learning rate) in a virtual environment under .bench, and
writes the gaps to .cache/quality/pomo.json, from where `construction_quality.py --page` takes them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

REPOSITORY = Path(__file__).resolve().parents[2]
RL4CO = ("torch==2.13.0", "rl4co==0.7.0")
NODES, BATCH, LEARNING_RATE = 50, 64, 1e-4


def peer(cpu_seconds: float, data: str, out: str) -> None:
    """Train and evaluate in this process, which has RL4CO."""
    import numpy as np
    import torch
    from rl4co.envs import TSPEnv
    from rl4co.models.zoo.pomo import POMO
    from rl4co.utils.ops import unbatchify
    from tensordict import TensorDict

    torch.set_num_threads(1)  # the import of rl4co.envs resets them
    torch.manual_seed(0)
    env = TSPEnv(generator_params={"num_loc": NODES})
    policy = POMO(env).policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE, weight_decay=1e-6)
    start, steps, shown = time.process_time(), 0, 60.0
    policy.train()
    while time.process_time() - start < cpu_seconds:
        state = env.reset(batch_size=[BATCH])
        found = policy(state, env, phase="train", num_starts=NODES, decode_type="multistart_sampling")
        reward, log_likelihood = (unbatchify(found[key], NODES) for key in ("reward", "log_likelihood"))
        advantage = reward - reward.mean(1, keepdim=True)
        loss = -(advantage * log_likelihood).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if time.process_time() - start > shown:
            shown += 60.0
            print(f"{time.process_time() - start:.0f} CPU-s, {steps} steps, length {-reward.mean():.3f}", flush=True)
    spent = time.process_time() - start
    stored = np.load(data)
    policy.eval()
    costs: dict[str, list[float]] = {"greedy": [], "best of 50 starts": []}
    with torch.inference_mode():
        for points in torch.as_tensor(stored["xy"]).split(100):
            state = env.reset(TensorDict({"locs": points}, batch_size=[len(points)]))
            found = policy(state.clone(), env, phase="test", decode_type="greedy")
            costs["greedy"] += (-found["reward"]).tolist()
            found = policy(state.clone(), env, phase="test", decode_type="multistart_greedy", num_starts=NODES)
            costs["best of 50 starts"] += (-unbatchify(found["reward"], NODES).max(1).values).tolist()
    gaps = {key: float((100 * (np.array(c) / stored["cost"] - 1)).mean()) for key, c in costs.items()}
    Path(out).write_text(json.dumps({"cpu_seconds": spent, "steps": steps, "batch": BATCH, "gaps": gaps}))
    print(gaps, steps, spent, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu-seconds", type=float, default=600.0)
    parser.add_argument("--peer", nargs=2, metavar=("DATA", "OUT"))
    options = parser.parse_args()
    if options.peer:
        peer(options.cpu_seconds, *options.peer)
        return 0
    import numpy as np
    from _harness import peer_python
    from construction_quality import COUNTS, TEST_SEED, solved

    _, instance, labels = solved(NODES, COUNTS[NODES], TEST_SEED)
    out = REPOSITORY / ".cache" / "quality" / "pomo.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "test.npz")
        np.savez(data, xy=instance.nodes.numpy(), cost=labels.cost)
        command = [str(peer_python("rl4co", *RL4CO)), __file__, "--cpu-seconds", str(options.cpu_seconds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([*command, "--peer", data, str(out)], check=True, env=environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
