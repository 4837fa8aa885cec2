"""Where a secret comes from: the variable itself, or a file that is read again at each use.

A file may be replaced while the broker runs, as Kubernetes does with mounted secrets; whoever needs
the secret asks for it then, and keeps it no longer than it takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from broker.config.problems import SecretUnreadableError
from broker.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SecretSource:
    """A secret that can be read. Exactly one of `value` and `path` is there."""

    variable: str
    """The name that the value, or the path, was read from."""

    value: Secret | None = field(default=None)
    path: Path | None = None

    def __repr__(self) -> str:
        """Says where it is, and not what."""
        return "<secret>" if self.path is None else f"<secret in {self.path}>"

    def read(self) -> Secret:
        """Returns the secret, without one newline at its end, as editors and `echo` leave it.

        Blocks for as long as a small local file takes.

        Raises:
            SecretUnreadableError: the file is missing, empty, or no text.
        """
        if self.path is None:
            return self.value or Secret("")
        try:
            text = without_newline(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise self._unreadable(why or "no text in UTF-8") from None
        if not text:
            raise self._unreadable("is empty")
        return Secret(text)

    def _unreadable(self, why: str) -> SecretUnreadableError:
        return SecretUnreadableError(variable=self.variable, path=self.path or Path(), why=why)


def without_newline(text: str) -> str:
    """Cuts off one newline, of either kind; more of them, or blanks, belong to the secret."""
    return text.removesuffix("\n").removesuffix("\r")
