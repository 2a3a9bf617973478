"""The work itself: one line about a ticket. Knows nothing of identities.

Stands in for a model: it takes the first sentence. What matters here is what the agent may reach,
not how clever it is.
"""

MAX_LENGTH = 72


def one_line(subject: str, body: str) -> str:
    """What a ticket is about."""
    first = body.strip().split(". ")[0].rstrip(".")
    line = f"{subject}: {first}"
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 1] + "…"
