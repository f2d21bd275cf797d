"""Map the root folders envs/, agents/ and wrappers/ to polyathlon.envs, polyathlon.agents and polyathlon.wrappers."""

from setuptools import find_packages, setup

folders = ["envs", "agents", "wrappers"]
found = find_packages()
front = [p for p in found if p.split(".")[0] == "polyathlon" and p.split(".")[1:2] not in [[f] for f in folders]]
setup(
    packages=front + [f"polyathlon.{p}" for p in found if p.split(".")[0] in folders],
    package_dir={f"polyathlon.{f}": f for f in folders},
)
