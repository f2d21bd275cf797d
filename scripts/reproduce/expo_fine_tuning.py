"""EXPO against RLPD, IQL and itself without edits: fine-tuning on a sparse reward from demonstrations with many routes."""

from __future__ import annotations

import fcntl
from functools import cache

import gymnasium as gym
import numpy as np
from _claim import REPOSITORY, Claim, Comparison, Control, Run, main

STEPS, EVERY, EPISODES, OFFLINE, UPDATES = 1_000, 125, 25, 3_000, 4
DEMONSTRATIONS, LIMIT = 20, 60
NETWORKS = {"net_arch": [64, 64]}
SETTINGS = {"learning_rate": 1e-3, "batch_size": 64, "gradient_steps": UPDATES, "learning_starts": 0, "device": "cpu"}
FIRST_EVALUATION, FIRST_DEMONSTRATION = 2_000_000_000, 1_000

# the course, in metres: three walls across a corridor, each with two doors, as far from the middle one as the other
LENGTH, HALF_WIDTH, THICKNESS = 6.0, 1.5, 0.3
WALLS, DOOR, DOOR_HALF = (1.5, 3.0, 4.5), 0.9, 0.25
START, GOAL, REACH = np.array([0.5, 0.0]), np.array([5.5, 0.0]), 0.3
FRAME_SKIP, MAX_SPEED = 5, 5.0


def _box(x: float, y: float, half_x: float, half_y: float) -> str:
    return f'<geom type="box" pos="{x} {y} 0" size="{half_x} {half_y} 0.2"/>'


@cache
def _model():
    """Return the course in MuJoCo; ball, motors and contacts have the numbers of Gymnasium-Robotics' PointMaze."""
    import mujoco

    side, end, half = HALF_WIDTH + 0.1, LENGTH / 2 + 0.2, THICKNESS / 2
    boxes = [_box(LENGTH / 2, sign * side, end, 0.1) for sign in (-1, 1)]
    boxes += [_box(x, 0, 0.1, side) for x in (-0.1, LENGTH + 0.1)]
    outer = (HALF_WIDTH - DOOR - DOOR_HALF) / 2
    for x in WALLS:
        boxes.append(_box(x, 0, half, DOOR - DOOR_HALF))
        boxes += [_box(x, sign * (HALF_WIDTH - outer), half, outer) for sign in (-1, 1)]
    joints = "".join(f'<joint name="{n}" type="slide" axis="{axis}"/>' for n, axis in (("x", "1 0 0"), ("y", "0 1 0")))
    motors = "".join(f'<motor joint="{n}" gear="100" ctrlrange="-1 1" ctrllimited="true"/>' for n in "xy")
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><compiler inertiafromgeom="true"/><option timestep="0.01" gravity="0 0 0" integrator="Euler"/>
        <default><joint damping="1"/><geom friction=".5 .1 .1" density="1000" margin="0.002" condim="1"/></default>
        <worldbody><body>{joints}<geom type="sphere" size="0.1"/></body>{"".join(boxes)}</worldbody>
        <actuator>{motors}</actuator></mujoco>"""
    )


class Doors(gym.Env):
    """Push a ball through three walls with two doors each; -1 a step, and the episode ends at the goal."""

    observation_space = gym.spaces.Box(-10, 10, (4,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self):
        import mujoco

        self.mujoco, self.model = mujoco, _model()
        self.data, self.steps = mujoco.MjData(self.model), 0

    def reset(self, *, seed=None, options=None):
        """Lay the ball still near the start."""
        super().reset(seed=seed)
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = START + self.np_random.uniform(-0.1, 0.1, 2)
        self.steps = 0
        return self._observation(), {"success": False}

    def step(self, action):
        """Push for a twentieth of a second."""
        self.data.ctrl[:] = action
        for _ in range(FRAME_SKIP):
            self.data.qvel[:] = np.clip(self.data.qvel, -MAX_SPEED, MAX_SPEED)
            self.mujoco.mj_step(self.model, self.data)
        self.steps += 1
        success = bool(np.linalg.norm(self.data.qpos - GOAL) < REACH)
        return self._observation(), -1.0, success, self.steps >= LIMIT and not success, {"success": success}

    def _observation(self):
        return np.concatenate([self.data.qpos, self.data.qvel]).astype(np.float32)


class Demonstrator:
    """Drives through doors chosen by lot, from point to point, with a trembling hand."""

    def __init__(self, seed: int) -> None:
        self.rng, self.points = np.random.default_rng(seed), []
        self.last = np.inf

    def __call__(self, observation, mask):
        """Push towards the next point of this episode's route."""
        place, speed = observation[:2], observation[2:]
        if place[0] < self.last - 1:  # a new episode
            doors = self.rng.choice([-DOOR, DOOR], len(WALLS))
            self.points = [np.array([x + side, y]) for x, y in zip(WALLS, doors) for side in (-0.4, 0.4)] + [GOAL]
        self.last = place[0]
        if len(self.points) > 1 and np.linalg.norm(self.points[0] - place) < 0.25:
            del self.points[0]
        pull = 10 * (self.points[0] - place) - speed
        return np.clip(pull + 0.5 * self.rng.normal(size=2), -1, 1).astype(np.float32)


def _data(seed: int) -> str:
    """Record the demonstrations of a seed, once."""
    from polyathlon.datasets import open_dataset, record
    from polyathlon.envs.errors import UsageError

    name = f"polyathlon/expo-doors/seed{seed}-v0"
    folder = REPOSITORY / ".cache" / "reproduce"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "expo_fine_tuning.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # arms in other processes wait for the first one
        try:
            return open_dataset(name).id
        except UsageError:
            first = FIRST_DEMONSTRATION * (seed + 1)
            return record(Demonstrator(seed), Doors(), DEMONSTRATIONS, name, seed=first, overwrite=True)


def success_rate(agent, deterministic: bool = True) -> float:
    """Play all episodes of an evaluation side by side and return the share that reaches the goal in time."""
    envs = [Doors() for _ in range(EPISODES)]
    seen = {i: env.reset(seed=FIRST_EVALUATION + i)[0] for i, env in enumerate(envs)}
    reached = 0
    while seen:
        actions = agent.predict(np.stack(list(seen.values())), deterministic=deterministic)[0]
        for i, action in zip(list(seen), actions):
            seen[i], _, terminated, truncated, info = envs[i].step(action)
            reached += info["success"]
            if terminated or truncated:
                del seen[i]
    return reached / EPISODES


def _fine_tune(agent, before: int = 0) -> Run:
    """Train online and score the evaluations at equal distances, the one before the first online step among them."""
    if before:
        agent.learn(before, log_interval=None)
    curve = [(0.0, success_rate(agent))]
    for k in range(STEPS // EVERY):
        agent.learn(EVERY, log_interval=None, reset_num_timesteps=not before and k == 0)
        curve.append((float((k + 1) * EVERY), success_rate(agent)))
    return Run(float(np.mean([rate for _, rate in curve])), curve, {"first": curve[0][1], "last": curve[-1][1]})


def _expo(seed: int, samples: int, edits: int, num_min: int = 1, offline: int = OFFLINE, learns: bool = True) -> Run:
    from _learning import without_learning

    from polyathlon.agents import EXPO

    agent = EXPO(
        "MlpPolicy",
        Doors(),
        dataset=_data(seed),
        num_samples=samples,
        num_edits=edits,
        num_min_critics=num_min,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    if offline:
        agent.pretrain(offline, values=True)
    return _fine_tune(agent if learns else without_learning(agent))


def expo(seed: int, task: str) -> Run:
    """Learn offline, then act by the best of four samples and their edits."""
    return _expo(seed, 4, 4)


def selection(seed: int, task: str) -> Run:
    """The same with eight samples and no edits, which is what IDQL does online."""
    return _expo(seed, 8, 0)


def expo_two(seed: int, task: str) -> Run:
    """EXPO that believes the smaller of two critics."""
    return _expo(seed, 4, 4, num_min=2)


def selection_two(seed: int, task: str) -> Run:
    """Selection that believes the smaller of two critics."""
    return _expo(seed, 8, 0, num_min=2)


def offline_alone(seed: int, task: str) -> Run:
    """EXPO as it is after the offline steps."""
    return _expo(seed, 4, 4, learns=False)


def untrained(seed: int, task: str) -> Run:
    """EXPO with neither offline steps nor gradient steps online."""
    return _expo(seed, 4, 4, offline=0, learns=False)


def rlpd(seed: int, task: str) -> Run:
    """Learn online, half of each minibatch from the demonstrations."""
    from polyathlon.agents import RLPD

    agent = RLPD(
        "MlpPolicy",
        Doors(),
        dataset=_data(seed),
        num_min_critics=1,
        backup_entropy=False,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    return _fine_tune(agent)


def iql(seed: int, task: str) -> Run:
    """Learn offline, then go on online, with the values that the paper gives for mazes."""
    from polyathlon.agents import IQL

    agent = IQL(
        "MlpPolicy",
        Doors(),
        dataset=_data(seed),
        offline_steps=OFFLINE,
        expectile=0.9,
        beta=10.0,
        policy_kwargs=NETWORKS,
        seed=seed,
        **SETTINGS,
    )
    return _fine_tune(agent, OFFLINE)


CLAIM = Claim(
    name="expo_fine_tuning",
    statement="From the same demonstrations and on a sparse reward, EXPO reaches the goal more often while it learns online than it "
    "did after its offline steps alone, than RLPD, than IQL's fine-tuning, and than itself with as many candidates and no edits, "
    "whether one critic is believed or the smaller of two.",
    source="Dong et al. 2025, EXPO: Stable Reinforcement Learning with Expressive Policies, section 5, at a very small scale",
    metric=f"share of {EPISODES} episodes that reach the goal, averaged over evaluations every {EVERY} online steps from 0 on",
    arms={
        "EXPO": expo,
        "EXPO, offline steps alone": offline_alone,
        "RLPD": rlpd,
        "IQL": iql,
        "8 samples, no edits": selection,
        "EXPO, two critics": expo_two,
        "8 samples, no edits, two critics": selection_two,
        "untrained": untrained,
    },
    comparisons=(
        Comparison("EXPO", "EXPO, offline steps alone", "higher"),
        Comparison("EXPO", "RLPD", "higher"),
        Comparison("EXPO", "IQL", "higher"),
        Comparison("EXPO", "8 samples, no edits", "higher"),
        Comparison("EXPO, two critics", "8 samples, no edits, two critics", "higher"),
    ),
    controls=[Control("untrained", ("EXPO", "EXPO, two critics"))],
    tasks=("doors",),
    seeds=8,
    curve=f"share of {EPISODES} episodes that reach the goal",
    setting=(
        f"A ball with the mass and motors of PointMaze is pushed in MuJoCo through three walls with two doors each, reward -1 a step "
        f"until the goal, at most {LIMIT} steps; {DEMONSTRATIONS} demonstrations a seed by a noisy driver that takes each door by lot "
        f"and needs 26 to 44 steps. EXPO, selection and IQL take {OFFLINE:,} offline gradient steps with all their networks (the "
        f"paper pretrains the diffusion policy alone, 200,000 to 500,000 steps), then all {STEPS:,} online steps with {UPDATES} "
        "gradient steps each; RLPD, as in its paper, only these. Networks of 64-64, minibatches of 64, step size 0.001; ten critics "
        "of which one, or the smaller of two, drawn at random, is believed (IQL: two; expectile 0.9, weights of 10), 4 samples and 4 "
        "edits of at most 0.1, or 8 samples and no edits, 5 denoising steps. The paper: robomimic, MimicGen, Adroit and antmaze, 300,000 to 1,000,000 online steps with 20 gradient "
        "steps each, networks of 256-256-256, minibatches of 256, 8 samples and 8 edits."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
