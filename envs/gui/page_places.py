"""Where pages of one's own may be, and where a page may go."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from polyathlon.envs.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def own_url(page: str) -> str:
    """Return the address of a page of one's own.

    Args:
        page: a file, a folder with index.html, file:///..., or an address on loopback.

    Raises:
        UsageError: there is no such file, or the address is another machine's.
    """
    parts = urlsplit(page)
    if parts.scheme in ("http", "https"):
        if parts.hostname not in LOOPBACK:
            raise UsageError(f"pages are files or served on loopback ({', '.join(LOOPBACK)}), got {page!r}")
        return page
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(page).expanduser()
    path = path / "index.html" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"there is no page {str(path)!r}; give a file, a folder with index.html or an address on loopback"
        )
    return path.resolve().as_uri()


def folder_of(url: str, is_own: bool) -> str:
    """Return what the addresses begin with that a page may go to: its folder, or its server; of bundled pages, its own."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc}/"
    return url.rsplit("/", 1)[0] + "/" if is_own else url


def allowed_place(address: str, folder: str) -> str | None:
    """Return why a page must not be at an address, or None."""
    plain = address.split("#", 1)[0].split("?", 1)[0]
    inside = plain.startswith(folder) and "/../" not in unquote(plain)
    return None if inside or address == "about:blank" else f"the page may not go to {address[:200]}"
