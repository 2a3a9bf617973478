"""How much one statement of the feed tells: what is too much for one comes in pages.

A page ends where a block of sequence numbers does, the same for all who ask: so one signature
serves all, and who shows the end of a page is told the next. No page is larger than a verifier
takes from another trust domain, whatever reasons its facts have.
"""

from collections.abc import Iterable, Sequence

from accredit_credentials.revocation import RevocationFact

BLOCK = 100  # sequence numbers
PAGE = 1_000_000  # characters of facts; a block is a page even where it has a little more
_FRAME = 128  # characters of a fact beside its target and its reason
_ESCAPED = 12  # characters of one beyond the basic plane in JSON
_QUOTED = 2  # characters of a quotation mark
MOST = PAGE // _FRAME  # facts of a page


def fit(facts: Sequence[RevocationFact]) -> bool:
    """Whether one statement can tell all of these."""
    return len(facts) <= MOST and sum(map(_size, facts)) <= PAGE


def ends_page(sequence: int) -> bool:
    """Whether a page may end with this sequence number; 0 is before the first."""
    return sequence % BLOCK == 0


def page(facts: Sequence[RevocationFact], start: int) -> tuple[int, int | None]:
    """The page that begins with the fact at ``start``: where the next begins, and its last number.

    The last number is None where nothing is left for another page.
    """
    size, end = 0, start
    for following in _blocks(facts, start):
        size += sum(_size(facts[index]) for index in range(end, following))
        if size > PAGE and end > start:
            break
        end = following
    if end == len(facts):
        return end, None
    return end, _block_of(facts[end - 1]) * BLOCK


def _blocks(facts: Sequence[RevocationFact], start: int) -> Iterable[int]:
    """Where each block ends, of the facts from ``start`` on."""
    for index in range(start + 1, len(facts)):
        if _block_of(facts[index]) != _block_of(facts[index - 1]):
            yield index
    if start < len(facts):
        yield len(facts)


def _block_of(fact: RevocationFact) -> int:
    return -(-fact.sequence // BLOCK)


def _size(fact: RevocationFact) -> int:
    """At most so many characters in a statement."""
    return _FRAME + sum(
        len(text) * (_QUOTED if text.isascii() else _ESCAPED)
        for text in (fact.target.value, fact.reason)
    )
