"""Write docs/papers.md, an index of papers that runs, from the rows of the recipes.

    python scripts/papers.py           # writes docs/papers.md

Each row gets its source, the first paragraph of what distinguishes it (a part's or a collector's docstring), a snippet that the tests of the
documentation run, the file that tests its formula, and its claims.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from polyathlon.agents.language.recipes import Recipe, find_recipe, recipe_rows
from polyathlon.agents.language.recipes.options import slots
from polyathlon.agents.parts.wiring import find_part

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "papers.md"
# parts that most rows share: what distinguishes a row stands beside them
SHARED = {
    "surrogates:ppo_surrogate",
    "divergences:kl_token",
    "collectors:Groups",
    "collectors:Records",
    "collectors:Both",
    "collectors:Iterated",
    "collectors:Opponents",
    "collectors:Proposals",
    "answer_selection:clamped_reward",
    "surrogates:clipped_value_loss",
    "response_filters:overlong",
}
HEAD = """# Papers

Every recipe of language models, with its paper, the formula that distinguishes it, a snippet that runs, and where it is tested. Written by
`python scripts/papers.py` from the rows; the snippets take a table of numbers as the language model, so that each runs in a second.

```python
import gymnasium as gym

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.envs.language import Hinted
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction

TABLE = "table:8,3,5,ends=1"
env = TokenAction(TableTask(8, 2, 4), model=TABLE, max_new_tokens=3, max_length=32)
PAIRS = [dict(prompt=f"p{i}", chosen="1 2 4", rejected="0 3 4") for i in range(8)]
SUMS = dict(task_kwargs=dict(task="chain_sum", config=dict(max_terms=2, max_digits=1)))
```
"""
SNIPPETS = {
    "ghpo": """task = Hinted(TableTask(8, 2, 4), announcement=" ", continues=True)
hinted = TokenAction(task, model=TABLE, max_new_tokens=3, max_length=32)
agent = LanguageAgent(TABLE, hinted, recipe="ghpo", num_prompts=4, seed=0).learn(1)
""",
    "kdrl": """agent = LanguageAgent(TABLE, env, recipe="kdrl", side_models={"teacher": TABLE}, num_prompts=4, seed=0).learn(1)
""",
    "rto": """agent = LanguageAgent(TABLE, env, recipe="rto", side_models={"dpo": TABLE}, num_prompts=4, seed=0).learn(1)
""",
    "salsa": """models = {"reference": [TABLE, TABLE]}
agent = LanguageAgent(TABLE, env, recipe="salsa", side_models=models, num_prompts=4, seed=0).learn(1)
""",
    "tw_grpo": """choice = gym.make("polyathlon/MultipleChoice-v0", invert=0.5, **SUMS)
choice = TokenAction(choice, model="tiny", max_new_tokens=4, max_length=512)
agent = LanguageAgent("tiny", choice, recipe="tw_grpo", group_size=4, num_prompts=2, seed=0).learn(1)
""",
    "s_grpo": """critic = gym.make("polyathlon/Judge-v0", kind="critique", **SUMS)
critic = TokenAction(critic, model="tiny", max_new_tokens=4, max_length=512)
agent = LanguageAgent("tiny", critic, recipe="s_grpo", group_size=4, num_prompts=2, seed=0).learn(1)
""",
    "critic_r1": """judge = TokenAction(gym.make("polyathlon/Judge-v0", **SUMS), model="tiny", max_new_tokens=4, max_length=512)
agent = LanguageAgent("tiny", judge, recipe="critic_r1", group_size=4, num_prompts=2, seed=0).learn(1)
""",
}


def distinguishing(row: Recipe) -> str:
    """Return the path of the part that distinguishes a row: the first that is not shared, in the order of an iteration."""
    paths = [slot.part.path for slot in slots(row)]
    own = [path for path in paths if path not in SHARED and path != "advantages:group_advantage"]
    return own[0] if own else row.advantage.path if row.advantage else row.loss.path


def first_paragraph(path: str) -> str:
    """Return the first paragraph of the docstring of a part."""
    text = inspect.getdoc(find_part(path)) or ""
    return " ".join(text.split("\n\n")[0].split())


def tested_in(path: str) -> list[str]:
    """Return the file of the parts' tests that names a part most often, and otherwise the conformance test of all rows."""
    name = path.partition(":")[2]
    files = [
        file for file in sorted((ROOT / "tests" / "agents" / "parts").glob("test_*.py")) if "wiring" not in file.name
    ]
    counts = {file: len(re.findall(rf"\b{name}\b", file.read_text())) for file in files}
    best = max(files, key=lambda file: counts[file])
    return [str(best.relative_to(ROOT))] if counts[best] else ["tests/agents/language/test_every_recipe.py"]


def claims_of(name: str) -> list[str]:
    """Return the claims whose arms train a recipe."""
    files = sorted((ROOT / "scripts" / "reproduce").glob("[!_]*.py"))
    named = rf'(recipe=|recipe\(|seed, )"{name}"'
    return [file.stem for file in files if file.stem.startswith(f"{name}_") or re.search(named, file.read_text())]


def entry(row: Recipe) -> str:
    """Return the section of a row."""
    path = distinguishing(row)
    data = ", data=PAIRS" if hasattr(find_part(row.collect.path), "check_data") else ""
    usual = f'agent = LanguageAgent(TABLE, env, recipe="{row.name}"{data}, num_prompts=4, seed=0).learn(1)\n'
    claims = ", ".join(f"`polyathlon reproduce {name}`" for name in claims_of(row.name))
    return "\n".join(
        [
            f"## {row.name}",
            "",
            f"{row.source}: {row.summary}.",
            "",
            f"`{path}`: {first_paragraph(path)}",
            "",
            f"```python\n{SNIPPETS.get(row.name, usual)}```",
            "",
            f"Tests: {', '.join(f'`{file}`' for file in tested_in(path))}." + (f" Claim: {claims}." if claims else ""),
            "",
        ]
    )


def page() -> str:
    """Return the page."""
    return HEAD + "\n" + "\n".join(entry(find_recipe(row.name)) for row in recipe_rows() if row.source != "test")


if __name__ == "__main__":
    PAGE.write_text(page())
