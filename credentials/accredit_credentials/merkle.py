"""The hash tree of the log: its root, its growth, and the proofs that it kept its promises.

Decides whether a leaf is in the tree behind a root (``verify_inclusion``) and whether a later tree
only added to an earlier one (``verify_consistency``). Does not decide whose root it is: that is
``checkpoint``. Does not store anything: provers ask a ``Node`` function for the hashes of complete
subtrees, so that a database, a tile or a list can serve them.

The tree is that of RFC 6962 §2.1 (unchanged in RFC 9162 §2.1), with SHA-256. A complete subtree has
an address: at level ``l`` the ``i``-th one covers the leaves ``[i << l, (i + 1) << l)``. Once
complete, its hash never changes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from accredit_credentials.errors import InvalidProof

HASH_BYTES = 32
MAX_TREE_SIZE = 2**63 - 1  # the largest number that every database's integer column holds
EMPTY_ROOT = hashlib.sha256().digest()  # RFC 6962 §2.1

NodeSource = Callable[[int, int], bytes]
"""``node(level, index)``: the hash of a complete subtree of ``2**level`` leaves."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf's data (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_hashes(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash over leaf hashes (RFC 6962 §2.1).

    Raises:
        InvalidProof: a leaf that is not a hash.
    """
    _check_hashes(leaf_hashes)
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        # A node without a right neighbour rises as it is: the same tree as the recursive
        # definition, whose left side is always the largest power of two.
        unpaired = level[len(level) & ~1 :]
        level = [node_hash(*pair) for pair in zip(level[::2], level[1::2], strict=False)]
        level += unpaired
    return level[0]


@dataclass(frozen=True, slots=True)
class Node:
    """A complete subtree: its address and its hash."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed of a tree to append to it: the roots of its complete subtrees.

    ``peaks`` go from left to right, largest first: one for each bit that is set in ``size``.

    Raises:
        InvalidProof: a size without that many peaks, or a peak that is not a hash.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _check_size(self.size)
        if len(self.peaks) != self.size.bit_count():
            raise InvalidProof(
                f"a tree of {self.size} leaves has {self.size.bit_count()} peaks, "
                f"not {len(self.peaks)}"
            )
        _check_hashes(self.peaks)

    @classmethod
    def load(cls, size: int, node: NodeSource) -> Self:
        """Build the frontier of the tree's first ``size`` leaves out of stored nodes."""
        _check_size(size)
        return cls(size, tuple(node(*address) for address in _complete_subtrees(0, size)))

    def append(self, leaf_hash: bytes) -> Self:
        """The frontier with one more leaf."""
        return self.extend((leaf_hash,))[0]

    def extend(self, leaf_hashes: Iterable[bytes]) -> tuple[Self, list[Node]]:
        """The frontier with more leaves, and every node that they completed.

        The nodes, the leaves among them, are what a store must keep to serve proofs later. Two
        hashes a leaf on average, whatever the size of the tree.

        Raises:
            InvalidProof: a leaf that is not a hash.
        """
        leaves = tuple(leaf_hashes)
        _check_hashes(leaves)
        size, peaks, completed = self.size, list(self.peaks), list[Node]()
        for leaf in leaves:
            node = Node(0, size, leaf)
            completed.append(node)
            while node.index & 1:
                node = Node(node.level + 1, node.index >> 1, node_hash(peaks.pop(), node.hash))
                completed.append(node)
            peaks.append(node.hash)
            size += 1
        return type(self)(size, tuple(peaks)), completed

    def root(self) -> bytes:
        """The Merkle Tree Hash of the whole tree (RFC 6962 §2.1)."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeSource) -> tuple[bytes, ...]:
    """The path from leaf ``index`` to the root of the first ``size`` leaves (RFC 9162 §2.1.3.1).

    Raises:
        InvalidProof: there is no such leaf in a tree of that size.
    """
    _check_index(index, size)
    proof = []
    start, end = 0, size
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            proof.append(_hash_of_range(split, end, node))
            end = split
        else:
            proof.append(_hash_of_range(start, split, node))
            start = split
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: NodeSource) -> tuple[bytes, ...]:
    """What shows that the first ``old`` leaves were kept in a tree of ``new`` (RFC 9162 §2.1.4.1).

    Empty where nothing needs to be shown: for the empty tree, and for the same tree.

    Raises:
        InvalidProof: the old tree is larger than the new one.
    """
    _check_growth(old, new)
    if old == 0:
        return ()
    proof = []
    start, end = 0, new
    while end != old:
        split = _split(start, end)
        if old <= split:
            proof.append(_hash_of_range(split, end, node))
            end = split
        else:
            proof.append(_hash_of_range(start, split, node))
            start = split
    if start > 0:  # else the last subtree is the old tree itself, whose root the verifier holds
        proof.append(_hash_of_range(start, end, node))
    return tuple(reversed(proof))


def verify_inclusion(
    *, leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Accept if the leaf stands at ``index`` in the tree of ``root`` (RFC 9162 §2.1.3.2).

    Raises:
        InvalidProof: the proof is longer or shorter than this tree's, or leads elsewhere.
    """
    _check_index(index, size)
    _check_hashes((leaf_hash, root, *proof))
    reached = leaf_hash
    for sibling, is_left in _climb(index, size - 1, proof):
        reached = node_hash(sibling, reached) if is_left else node_hash(reached, sibling)
    if reached != root:
        raise InvalidProof(f"the proof of leaf {index} does not lead to the root of size {size}")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Accept if the new tree begins with all leaves of the old one (RFC 9162 §2.1.4.2).

    Every tree begins with the empty one: there the roots of empty trees are checked, and an empty
    proof is expected.

    Raises:
        InvalidProof: the proof is longer or shorter than these trees', or leads elsewhere.
    """
    _check_growth(old_size, new_size)
    _check_hashes((old_root, new_root, *proof))
    _check_root(old_size, old_root)
    _check_root(new_size, new_root)
    if old_size in {0, new_size}:
        if proof:
            raise InvalidProof(f"the proof has {len(proof)} hashes, expected none")
        if old_size == new_size and old_root != new_root:
            raise InvalidProof(f"two different roots of the same size {old_size}")
        return
    # Where the old tree is one complete subtree, its root opens the path and is left out of it.
    path = (old_root, *proof) if old_size & (old_size - 1) == 0 else tuple(proof)
    if not path:
        raise InvalidProof("the proof is too short")
    within, last = old_size - 1, new_size - 1
    while within & 1:
        within, last = within >> 1, last >> 1
    old = new = path[0]
    for sibling, is_left in _climb(within, last, path[1:]):
        if is_left:  # in both trees; what stands to the right was added later
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if (old, new) != (old_root, new_root):
        raise InvalidProof(
            f"the proof does not lead from the root of size {old_size} to that of {new_size}"
        )


def _climb(index: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each hash of the path and whether it stands to the left, on the way up to the root.

    The way starts at node ``index`` of a level whose last node is ``last``: the loop of
    RFC 9162 §2.1.3.2 and §2.1.4.2. It ends at the root or in an error, never before or beyond.
    """
    for sibling in path:
        if last == 0:
            raise InvalidProof("the proof is too long")
        is_left = index & 1 == 1 or index == last
        yield sibling, is_left
        if is_left:
            while index & 1 == 0 and index:  # levels where this node has no right neighbour
                index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    if last:
        raise InvalidProof("the proof is too short")


def _split(start: int, end: int) -> int:
    """Where the range divides: its left side is the largest power of two below its length."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _complete_subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The addresses of the complete subtrees that make up a subtree's range, from the left."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _hash_of_range(start: int, end: int, node: NodeSource) -> bytes:
    return _fold([node(*address) for address in _complete_subtrees(start, end)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    """The hash over complete subtrees that stand side by side, largest first."""
    *rest, result = peaks
    for peak in reversed(rest):
        result = node_hash(peak, result)
    return result


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_TREE_SIZE:
        raise InvalidProof(f"tree size must be 0 to {MAX_TREE_SIZE}")


def _check_index(index: int, size: int) -> None:
    _check_size(size)
    if not 0 <= index < size:
        raise InvalidProof(f"leaf {index} is not in a tree of {size} leaves")


def _check_growth(old: int, new: int) -> None:
    _check_size(old)
    _check_size(new)
    if old > new:
        raise InvalidProof(f"a tree of {new} leaves cannot contain one of {old}")


def _check_root(size: int, root: bytes) -> None:
    if size == 0 and root != EMPTY_ROOT:
        raise InvalidProof("the root of size 0 is not the root of the empty tree")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    # A value of another length could move the border between two children of a node.
    if any(len(value) != HASH_BYTES for value in hashes):
        raise InvalidProof(f"every hash must have {HASH_BYTES} bytes")
