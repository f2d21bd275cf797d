"""Small classes with a state, for the multi-turn problems that come with this package."""

from __future__ import annotations

from typing import Any


class _Stateful:
    """Takes its public attributes from the initial state of a problem."""

    defaults: dict[str, Any] = {}

    def _load_scenario(self, state: dict[str, Any], long_context: bool = False) -> None:
        for name, value in self.defaults.items():
            setattr(self, name, state.get(name, type(value)(value)))


class Notes(_Stateful):
    """A box of notes, each under a title."""

    defaults = {"notes": {}}
    notes: dict[str, str]

    def list_notes(self) -> dict[str, Any]:
        """List the titles of all notes."""
        return {"titles": sorted(self.notes)}

    def read_note(self, title: str) -> dict[str, Any]:
        """Read a note.

        Args:
            title: its title.
        """
        return {"text": self.notes[title]} if title in self.notes else {"error": f"no note {title!r}"}

    def write_note(self, title: str, text: str) -> dict[str, Any]:
        """Write a new note, or replace one.

        Args:
            title: its title.
            text: what it says.
        """
        self.notes[title] = text
        return {"written": title}

    def append_note(self, title: str, text: str) -> dict[str, Any]:
        """Add a line to a note.

        Args:
            title: its title.
            text: the line.
        """
        if title not in self.notes:
            return {"error": f"no note {title!r}"}
        self.notes[title] += "\n" + text
        return {"lines": self.notes[title].count("\n") + 1}

    def delete_note(self, title: str) -> dict[str, Any]:
        """Throw a note away.

        Args:
            title: its title.
        """
        return {"deleted": title} if self.notes.pop(title, None) is not None else {"error": f"no note {title!r}"}


class Bank(_Stateful):
    """Accounts with whole amounts of money."""

    defaults = {"accounts": {}}
    accounts: dict[str, int]

    def get_balance(self, account: str) -> dict[str, Any]:
        """Tell how much is in an account.

        Args:
            account: its name.
        """
        return {"balance": self.accounts[account]} if account in self.accounts else {"error": f"no account {account!r}"}

    def open_account(self, account: str) -> dict[str, Any]:
        """Open an empty account.

        Args:
            account: its name.
        """
        if account in self.accounts:
            return {"error": f"there is an account {account!r} already"}
        self.accounts[account] = 0
        return {"opened": account}

    def transfer(self, source: str, target: str, amount: int) -> dict[str, Any]:
        """Move money from one account to another.

        Args:
            source: account it is taken from.
            target: account it goes to.
            amount: how much.
        """
        if source not in self.accounts or target not in self.accounts:
            return {"error": "no such account"}
        if amount <= 0 or self.accounts[source] < amount:
            return {"error": "the amount is not there"}
        self.accounts[source] -= amount
        self.accounts[target] += amount
        return {"balance": self.accounts[source]}


class Calendar(_Stateful):
    """Events on days."""

    defaults = {"events": {}}
    events: dict[str, str]

    def list_events(self, day: str) -> dict[str, Any]:
        """List the events of a day.

        Args:
            day: as YYYY-MM-DD.
        """
        return {"events": sorted(name for name, on in self.events.items() if on == day)}

    def add_event(self, name: str, day: str) -> dict[str, Any]:
        """Add an event.

        Args:
            name: its name.
            day: as YYYY-MM-DD.
        """
        if name in self.events:
            return {"error": f"there is an event {name!r} already"}
        self.events[name] = day
        return {"added": name}

    def move_event(self, name: str, day: str) -> dict[str, Any]:
        """Move an event to another day.

        Args:
            name: its name.
            day: as YYYY-MM-DD.
        """
        if name not in self.events:
            return {"error": f"no event {name!r}"}
        self.events[name] = day
        return {"moved": name}

    def cancel_event(self, name: str) -> dict[str, Any]:
        """Cancel an event.

        Args:
            name: its name.
        """
        return {"cancelled": name} if self.events.pop(name, None) is not None else {"error": f"no event {name!r}"}


class Calculator:
    """Arithmetic of two numbers; it has no state."""

    def add(self, a: float, b: float) -> dict[str, Any]:
        """Add two numbers.

        Args:
            a: a number.
            b: a number.
        """
        return {"result": a + b}

    def divide(self, a: float, b: float) -> dict[str, Any]:
        """Divide one number by another.

        Args:
            a: what is divided.
            b: what it is divided by.
        """
        return {"result": a / b} if b else {"error": "division by zero"}


CLASSES: dict[str, type] = {"Notes": Notes, "Bank": Bank, "Calendar": Calendar, "Calculator": Calculator}
