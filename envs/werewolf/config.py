"""The rules of a game of Werewolf: every rule a field, role tables, and the rules of other suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name

ROLES = ("villager", "werewolf", "seer", "doctor")
VILLAGER, WEREWOLF, SEER, DOCTOR = range(4)
PHASES = ("night", "talk", "vote", "bid", "last_words")
NIGHT, TALK, VOTE, BID, LAST_WORDS, OVER = range(6)
SIDES = ("nobody", "village", "werewolves")
BIDS = 5

# number of players -> werewolves; beside them one Seer, from five players on one Doctor, the others Villagers
WOLVES = {4: 1, 5: 1, 6: 2, 7: 2, 8: 2, 9: 3, 10: 3, 11: 3, 12: 3, 13: 4, 14: 4, 15: 4, 16: 4}
MOST_PLAYERS = 20

_CHOICES = {
    "wolf_consensus": ("plurality_last", "plurality_random", "first", "one_random"),
    "wolf_order": ("seat", "random"),
    "wolf_targets": ("others", "anyone"),
    "vote_tie": ("none", "random"),
    "vote_rule": ("plurality", "majority"),
    "vote_order": ("seat", "random"),
    "speak_order": ("rotating", "random", "fixed", "bid"),
}
_COUNTS = {"talk_turns": (0, 20), "max_rounds": (1, 50), "max_chars": (1, 1 << 16), "retries": (0, 10)}
_NUMBERS = ("illegal_reward", "vote_reward", "survive_reward")


@dataclass(frozen=True)
class WerewolfConfig:
    """The rules of a game.

    Attributes:
        roles: one role name a player, in any order; they are dealt uniformly.
        wolf_consensus: how the werewolves' proposals become a victim. "plurality_last": the target named most often,
            among equals the one named last; "plurality_random": among equals drawn; "first": the first living werewolf
            decides alone; "one_random": a living werewolf, drawn each night, decides alone.
        wolf_order: the order in which werewolves propose: "seat" or "random".
        wolf_targets: "others": nobody of their own; "anyone": any living player.
        night_order: the order of the roles at night.
        first_night_kill: False: in the first night nobody is killed, and neither werewolves nor Doctor are asked.
        kill_needs_helper: nobody is killed at night when neither Seer nor Doctor lives (an oddity of SecretMafia).
        doctor_self: the Doctor may protect itself.
        doctor_repeat: the Doctor may protect the same player in two nights running.
        seer_self: the Seer may name itself.
        reveal_role: the role of who dies is announced.
        speak_order: "rotating": from seat r in round r on; "fixed": from seat 0 on; "random": one order drawn for each
            day; "bid": before each speech all bid, and the highest speaks, among equals drawn, where the player that
            the last speech was about counts twice; who spoke last may not bid.
        talk_turns: how often each living player speaks a day; with "bid", how many speeches a day has.
        last_words: who was voted out speaks once more, unless the game is over.
        vote_rule: "plurality": the player named most often; "majority": only if by more than half of the living.
        vote_tie: among equals "none" is voted out, or one is drawn ("random").
        vote_order: the order in which the voters are asked: "seat" or "random".
        vote_pass: a voter may pass.
        vote_self: a voter may name itself.
        reveal_votes: it is announced who voted for whom.
        synthetic_votes: with "bid", all vote after each speech; the vote after the last counts alone.
        saved_is_hidden: a victim that the Doctor saved cannot be named by anybody any more (an oddity of
            werewolf_arena).
        simultaneous_night: all who act at night act at once: werewolves do not see earlier proposals.
        simultaneous_talk: all speak at once.
        simultaneous_vote: votes are hidden until all are in.
        max_rounds: rounds after which the game ends without a winner.
        illegal_reward: what an action that is not allowed costs the one who gave it; another is played in its place.
        vote_reward: shaping; a Villager's, Seer's or Doctor's vote for a werewolf gives it, one for another loses it.
        survive_reward: shaping; given to each living player at the end of each round.
        max_chars: longest utterance; what is longer is cut.
        retries: how often a player is asked again after a text that cannot be read.

    Raises:
        UsageError: a value is outside what is allowed.
    """

    roles: tuple[str, ...] = ("werewolf",) * 2 + ("seer", "doctor") + ("villager",) * 3
    wolf_consensus: str = "plurality_last"
    wolf_order: str = "seat"
    wolf_targets: str = "others"
    night_order: tuple[str, ...] = ("werewolf", "seer", "doctor")
    first_night_kill: bool = True
    kill_needs_helper: bool = False
    doctor_self: bool = True
    doctor_repeat: bool = True
    seer_self: bool = False
    reveal_role: bool = False
    speak_order: str = "rotating"
    talk_turns: int = 1
    last_words: bool = False
    vote_rule: str = "plurality"
    vote_tie: str = "none"
    vote_order: str = "seat"
    vote_pass: bool = True
    vote_self: bool = False
    reveal_votes: bool = True
    synthetic_votes: bool = False
    saved_is_hidden: bool = False
    simultaneous_night: bool = False
    simultaneous_talk: bool = False
    simultaneous_vote: bool = True
    max_rounds: int = 8
    illegal_reward: float = -1.0
    vote_reward: float = 0.0
    survive_reward: float = 0.0
    max_chars: int = 600
    retries: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "roles", tuple(self.roles))
        object.__setattr__(self, "night_order", tuple(self.night_order))
        _check_roles(self.roles)
        if sorted(self.night_order) != sorted(ROLES[1:]):
            raise UsageError(f"night_order holds each of {ROLES[1:]} once, got {self.night_order!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown_name(name, str(getattr(self, name)), allowed)
        for name, (low, high) in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name} is an integer from {low} to {high}, got {value!r}")
        for name in _NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
                raise UsageError(f"{name} is a finite number, got {value!r}")
        for item in fields(self):
            if isinstance(item.default, bool) and not isinstance(getattr(self, item.name), bool):
                raise UsageError(f"{item.name} is True or False, got {getattr(self, item.name)!r}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.has_bids and self.simultaneous_talk:
            raise UsageError("speak_order='bid' gives the word to one player; simultaneous_talk must be False")
        if self.has_bids and not self.talk_turns:
            raise UsageError("speak_order='bid' needs talk_turns of at least 1")
        if self.synthetic_votes and not self.has_bids:
            raise UsageError("synthetic_votes is for speak_order='bid' alone")

    @property
    def num_players(self) -> int:
        """Number of players."""
        return len(self.roles)

    @property
    def has_bids(self) -> bool:
        """Players bid for the word."""
        return self.speak_order == "bid"

    @property
    def role_numbers(self) -> tuple[int, ...]:
        """The roles as indices into `ROLES`, werewolves first."""
        order = {WEREWOLF: 0, SEER: 1, DOCTOR: 2, VILLAGER: 3}
        return tuple(sorted((ROLES.index(name) for name in self.roles), key=order.__getitem__))

    @property
    def num_slots(self) -> int:
        """How many speeches of one player a round can hold."""
        return max(1, self.talk_turns) + int(self.last_words)

    def is_simultaneous(self, phase: int) -> bool:
        """Tell whether all who act in a phase act at once (bids are always hidden)."""
        flags = (self.simultaneous_night, self.simultaneous_talk, self.simultaneous_vote, True, False)
        return phase < OVER and flags[phase]


def _check_roles(roles: tuple[str, ...]) -> None:
    for name in roles:
        if name not in ROLES:
            raise unknown_name("role", str(name), ROLES)
    count, wolves = len(roles), roles.count("werewolf")
    if not 3 <= count <= MOST_PLAYERS:
        raise UsageError(f"a game has 3 to {MOST_PLAYERS} players, got {count} roles")
    if wolves < 1 or wolves * 2 >= count:
        raise UsageError(f"there is at least one werewolf and fewer than others, got {wolves} among {count} roles")
    for name in ("seer", "doctor"):
        if roles.count(name) > 1:
            raise UsageError(f"there is at most one {name}, got {roles.count(name)}")


def role_table(num_players: int) -> tuple[str, ...]:
    """Return the roles of a game of 4 to 16 players.

    | players | 4-5 | 6-8 | 9-12 | 13-16 |
    |---|---|---|---|---|
    | werewolves | 1 | 2 | 3 | 4 |

    Beside them one Seer, from five players on one Doctor; the others are Villagers.

    Raises:
        UsageError: there is no table for this number.
    """
    if type(num_players) is not int or num_players not in WOLVES:
        raise UsageError(
            f"there are role tables for {min(WOLVES)} to {max(WOLVES)} players, got num_players={num_players!r}; "
            "give the roles yourself: config={'roles': [...]}"
        )
    special = ["werewolf"] * WOLVES[num_players] + ["seer"] + ["doctor"] * (num_players > 4)
    return tuple(special + ["villager"] * (num_players - len(special)))


def secret_mafia(num_players: int = 7, quirks: bool = False, talk_turns: int = 3) -> WerewolfConfig:
    """Return the rules of TextArena's SecretMafia (0.7.4): mafia are the werewolves, the detective is the Seer.

    Args:
        num_players: 6 to 15.
        quirks: reproduce its oddities: mafia may name mafia, Doctor and detective themselves, voters themselves, and
            nobody is killed at night once Doctor and detective are dead.
        talk_turns: its `discussion_rounds`.

    Raises:
        UsageError: the number of players is another one.
    """
    if isinstance(num_players, bool) or not isinstance(num_players, int) or not 6 <= num_players <= 15:
        raise UsageError(f"SecretMafia is for 6 to 15 players, got {num_players!r}")
    wolves = max(1, round(num_players * 0.25))
    roles = ("werewolf",) * wolves + ("seer", "doctor") + ("villager",) * (num_players - wolves - 2)
    return WerewolfConfig(
        roles=roles,
        wolf_consensus="plurality_random",
        wolf_order="random",
        wolf_targets="anyone" if quirks else "others",
        night_order=("werewolf", "doctor", "seer"),
        kill_needs_helper=quirks,
        doctor_self=quirks,
        seer_self=quirks,
        speak_order="random",
        talk_turns=talk_turns,
        vote_tie="random",
        vote_order="random",
        vote_pass=False,
        vote_self=quirks,
        simultaneous_vote=False,
        max_rounds=50,
    )


def werewolf_arena(num_players: int = 8, quirks: bool = False, talk_turns: int = 8) -> WerewolfConfig:
    """Return the rules of google/werewolf_arena: bids for the word, a secret vote, exile by more than half.

    Args:
        num_players: its games have 8.
        quirks: a victim that the Doctor saved cannot be named any more.
        talk_turns: speeches a day, its `MAX_DEBATE_TURNS`.

    Raises:
        UsageError: a number is outside what is allowed.
    """
    if isinstance(num_players, bool) or not isinstance(num_players, int) or not 6 <= num_players <= MOST_PLAYERS:
        raise UsageError(
            f"werewolf_arena is for 6 to {MOST_PLAYERS} players (its own games have 8), got {num_players!r}"
        )
    return WerewolfConfig(
        roles=("werewolf",) * 2 + ("seer", "doctor") + ("villager",) * (num_players - 4),
        wolf_consensus="one_random",
        night_order=("werewolf", "doctor", "seer"),
        speak_order="bid",
        talk_turns=talk_turns,
        vote_rule="majority",
        vote_pass=False,
        reveal_votes=False,
        synthetic_votes=True,
        saved_is_hidden=quirks,
        max_rounds=50,
    )


SUITES = {"secret_mafia": secret_mafia, "werewolf_arena": werewolf_arena}


def make_config(
    num_players: int | None = None,
    config: WerewolfConfig | Mapping[str, Any] | str | None = None,
    quirks: bool = False,
) -> WerewolfConfig:
    """Return the rules that a user asked for.

    Args:
        num_players: picks a role table; None: what `config` says, else 7.
        config: rules, a mapping of those that differ from the defaults, or the name of a suite of `SUITES`. A mapping
            may name a suite as "suite", whose rules it then changes.
        quirks: reproduce the oddities of the suite.

    Raises:
        UsageError: a rule is unknown or malformed, or the numbers of players contradict each other.
    """
    if isinstance(config, WerewolfConfig):
        _refuse_quirks(quirks)
        return _agreed(config, num_players)
    if config is not None and not isinstance(config, str | Mapping):
        raise UsageError(f"config is a WerewolfConfig, a mapping or the name of a suite, got {config!r}")
    given: dict[str, Any] = {"suite": config} if isinstance(config, str) else dict(config or {})
    suite = given.pop("suite", None)
    known = {item.name for item in fields(WerewolfConfig)}
    for name in given:
        if name not in known:
            raise unknown_name("rule", str(name), known | {"suite"})
    if suite is None:
        _refuse_quirks(quirks)
        if "roles" not in given:
            given["roles"] = role_table(7 if num_players is None else num_players)
        return _agreed(WerewolfConfig(**given), num_players)
    if suite not in SUITES:
        raise unknown_name("suite of rules", str(suite), SUITES)
    make = SUITES[suite]
    base = make(quirks=quirks) if num_players is None else make(num_players, quirks)
    return _agreed(replace(base, **given), num_players)


def _refuse_quirks(quirks: bool) -> None:
    if quirks:
        raise UsageError(f"quirks=True is for the rules of another suite: config= one of {list(SUITES)}")


def _agreed(config: WerewolfConfig, num_players: int | None) -> WerewolfConfig:
    if num_players is not None and num_players != config.num_players:
        raise UsageError(f"num_players={num_players!r}, but the config has {config.num_players} roles; leave one out")
    return config
