"""The hash tree against published vectors, its definition, and every altered proof."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accredit_credentials.errors import InvalidProof
from accredit_credentials.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    Frontier,
    Node,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of_hashes,
    verify_consistency,
    verify_inclusion,
)

# The test data of google/certificate-transparency, that Trillian and others took over.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION_PROOFS = [  # (index, size, proof)
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY_PROOFS = [  # (old, new, proof)
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
SIZES = range(1, 34)  # past two powers of two


def hashes_of(count: int) -> list[bytes]:
    """Distinct leaf hashes."""
    return [leaf_hash(number.to_bytes(4)) for number in range(count)]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 §2.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = naive_split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH as RFC 6962 §2.1.1 writes it."""
    if len(leaves) == 1:
        return []
    k = naive_split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF as RFC 6962 §2.1.2 writes it."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = naive_split(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole=whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], whole=False), naive_root(leaves[:k])]


def naive_split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def nodes_over(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    """Complete subtrees computed afresh; an incomplete one is a failure of the prover."""

    def node(level: int, index: int) -> bytes:
        assert (index + 1) << level <= len(leaves), "asked for a subtree that is not complete"
        return naive_root(leaves[index << level : (index + 1) << level])

    return node


def nearest_alterations(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Each proof that differs in one hash, one bit, one order or by one in its length."""
    flipped = [
        (*proof[:at], bytes([value[0] ^ 1]) + value[1:], *proof[at + 1 :])
        for at, value in enumerate(proof)
    ]
    dropped = [(*proof[:at], *proof[at + 1 :]) for at in range(len(proof))]
    doubled = [(*proof[:at], value, *proof[at:]) for at, value in enumerate(proof)]
    extended = [(*proof, EMPTY_ROOT), (EMPTY_ROOT, *proof)]
    swapped = [
        (*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]) for at in range(len(proof) - 1)
    ]
    return [*flipped, *dropped, *doubled, *extended, *swapped]


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_the_published_ones(size: int) -> None:
    """Every way to a root gives the root of the reference test data."""
    leaves = [leaf_hash(data) for data in LEAVES[:size]]
    assert root_of_hashes(leaves).hex() == ROOTS[size]
    assert Frontier().extend(leaves)[0].root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "expected"), INCLUSION_PROOFS)
def test_inclusion_proofs_are_the_published_ones(
    index: int, size: int, expected: list[str]
) -> None:
    """The path of a leaf is, hash for hash, the one of the reference test data."""
    leaves = [leaf_hash(data) for data in LEAVES]
    proof = inclusion_proof(index, size, nodes_over(leaves[:size]))
    assert [value.hex() for value in proof] == expected
    verify_inclusion(
        leaf_hash=leaves[index],
        index=index,
        size=size,
        proof=proof,
        root=bytes.fromhex(ROOTS[size]),
    )


@pytest.mark.parametrize(("old", "new", "expected"), CONSISTENCY_PROOFS)
def test_consistency_proofs_are_the_published_ones(old: int, new: int, expected: list[str]) -> None:
    """The proof between two sizes is, hash for hash, the one of the reference test data."""
    leaves = [leaf_hash(data) for data in LEAVES]
    proof = consistency_proof(old, new, nodes_over(leaves[:new]))
    assert [value.hex() for value in proof] == expected
    verify_consistency(
        old_size=old,
        new_size=new,
        old_root=bytes.fromhex(ROOTS[old]),
        new_root=bytes.fromhex(ROOTS[new]),
        proof=proof,
    )


def test_leaf_and_node_are_hashed_apart() -> None:
    """No leaf's data can be passed off as an inner node."""
    left, right = hashes_of(2)
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"\x01" + left + right) != node_hash(left, right)


@given(st.lists(st.binary(max_size=8), max_size=70))
@settings(deadline=None)
def test_roots_agree_with_the_definition(entries: list[bytes]) -> None:
    """Level by level and by appending, the root is that of the recursive definition."""
    leaves = [leaf_hash(entry) for entry in entries]
    assert root_of_hashes(leaves) == naive_root(leaves)
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    assert frontier.size == len(leaves)
    assert frontier.root() == naive_root(leaves)


@given(st.integers(1, 200), st.data())
@settings(deadline=None)
def test_every_leaf_is_proved(size: int, data: st.DataObject) -> None:
    """The path of any leaf is that of the recursive definition, and verifies."""
    index = data.draw(st.integers(0, size - 1))
    leaves = hashes_of(size)
    proof = inclusion_proof(index, size, nodes_over(leaves))
    assert list(proof) == naive_path(index, leaves)
    verify_inclusion(
        leaf_hash=leaves[index], index=index, size=size, proof=proof, root=naive_root(leaves)
    )


@given(st.integers(1, 200), st.data())
@settings(deadline=None)
def test_every_growth_is_proved(new: int, data: st.DataObject) -> None:
    """The proof between any two sizes is that of the recursive definition, and verifies."""
    old = data.draw(st.integers(1, new))
    leaves = hashes_of(new)
    proof = consistency_proof(old, new, nodes_over(leaves))
    assert list(proof) == naive_subproof(old, leaves, whole=True)
    verify_consistency(
        old_size=old,
        new_size=new,
        old_root=naive_root(leaves[:old]),
        new_root=naive_root(leaves),
        proof=proof,
    )


@pytest.mark.parametrize("size", SIZES)
def test_every_altered_inclusion_proof_is_refused(size: int) -> None:
    """One changed bit, hash, order, length, index, leaf or root, and the proof proves nothing."""
    leaves = hashes_of(size)
    root = naive_root(leaves)
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(index, size, nodes_over(leaves))
        for altered in nearest_alterations(proof):
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf_hash=leaf, index=index, size=size, proof=altered, root=root)
        for other in {*range(-1, size + 1)} - {index}:
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf_hash=leaf, index=other, size=size, proof=proof, root=root)
        for wrong in (leaf_hash(b"another"), leaf[:-1], b""):
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf_hash=wrong, index=index, size=size, proof=proof, root=root)
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf_hash=leaf, index=index, size=size, proof=proof, root=wrong)


@pytest.mark.parametrize("new", SIZES)
def test_every_altered_consistency_proof_is_refused(new: int) -> None:
    """One changed bit, hash, order, length or root, and the proof proves nothing."""
    leaves = hashes_of(new)
    new_root = naive_root(leaves)
    for old in range(1, new + 1):
        old_root = naive_root(leaves[:old])
        proof = consistency_proof(old, new, nodes_over(leaves))
        for altered in nearest_alterations(proof):
            with pytest.raises(InvalidProof):
                verify_consistency(
                    old_size=old,
                    new_size=new,
                    old_root=old_root,
                    new_root=new_root,
                    proof=altered,
                )
        for wrong in (leaf_hash(b"another"), EMPTY_ROOT, old_root[:-1], b""):
            with pytest.raises(InvalidProof):
                verify_consistency(
                    old_size=old, new_size=new, old_root=wrong, new_root=new_root, proof=proof
                )
            with pytest.raises(InvalidProof):
                verify_consistency(
                    old_size=old, new_size=new, old_root=old_root, new_root=wrong, proof=proof
                )


@pytest.mark.parametrize("changed", range(5))
def test_rewritten_history_is_refused(changed: int) -> None:
    """No honest proof of a rewritten tree joins it to the root that was seen before."""
    leaves = hashes_of(9)
    rewritten = [*leaves]
    rewritten[changed] = leaf_hash(b"rewritten")
    with pytest.raises(InvalidProof):
        verify_consistency(
            old_size=5,
            new_size=9,
            old_root=naive_root(leaves[:5]),
            new_root=naive_root(rewritten),
            proof=consistency_proof(5, 9, nodes_over(rewritten)),
        )


def test_a_moved_border_between_siblings_is_refused() -> None:
    """A leaf and a sibling of other lengths, that concatenate to the same node, prove nothing."""
    left, right = hashes_of(2)
    with pytest.raises(InvalidProof, match="32 bytes"):
        verify_inclusion(
            leaf_hash=left + right[:1],
            index=0,
            size=2,
            proof=[right[1:]],
            root=node_hash(left, right),
        )


def test_every_tree_begins_with_the_empty_tree() -> None:
    """From size 0 nothing needs to be shown, but the root must be the empty tree's."""
    root = naive_root(hashes_of(3))
    assert consistency_proof(0, 3, nodes_over([])) == ()
    verify_consistency(old_size=0, new_size=3, old_root=EMPTY_ROOT, new_root=root, proof=())
    verify_consistency(old_size=0, new_size=0, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=())
    for old_root, new_size, new_root, proof in [
        (root, 3, root, ()),
        (EMPTY_ROOT, 3, root, (root,)),
        (EMPTY_ROOT, 0, root, ()),
        (root, 0, root, ()),
    ]:
        with pytest.raises(InvalidProof):
            verify_consistency(
                old_size=0, new_size=new_size, old_root=old_root, new_root=new_root, proof=proof
            )


@pytest.mark.parametrize(
    ("index", "size"), [(0, 0), (-1, 3), (3, 3), (0, -1), (0, MAX_TREE_SIZE + 1)]
)
def test_no_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    """A leaf that the tree does not have is refused before any node is read."""
    with pytest.raises(InvalidProof):
        inclusion_proof(index, size, nodes_over([]))
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf_hash=EMPTY_ROOT, index=index, size=size, proof=(), root=EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3), (1, MAX_TREE_SIZE + 1)])
def test_no_proof_of_a_tree_that_shrank(old: int, new: int) -> None:
    """A smaller new tree, or an impossible size, is refused before any node is read."""
    with pytest.raises(InvalidProof):
        consistency_proof(old, new, nodes_over([]))
    with pytest.raises(InvalidProof):
        verify_consistency(
            old_size=old, new_size=new, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=()
        )


@given(st.lists(st.integers(0, 20), max_size=6))
@settings(deadline=None)
def test_a_frontier_yields_every_complete_node_once(batches: list[int]) -> None:
    """Whatever the batches, the completed nodes are exactly the tree's, each with its hash."""
    leaves = hashes_of(sum(batches))
    frontier = Frontier()
    stored: list[Node] = []
    for batch in batches:
        frontier, completed = frontier.extend(leaves[frontier.size :][:batch])
        stored += completed
    expected = {
        (level, index)
        for level in range(len(leaves).bit_length())
        for index in range(len(leaves) >> level)
    }
    node = nodes_over(leaves)
    assert len(stored) == len(expected)
    assert {(entry.level, entry.index): entry.hash for entry in stored} == {
        address: node(*address) for address in expected
    }


@given(st.integers(0, 300))
@settings(deadline=None)
def test_a_frontier_is_rebuilt_from_stored_nodes(size: int) -> None:
    """After a restart the frontier is the same as before it."""
    leaves = hashes_of(size)
    assert Frontier.load(size, nodes_over(leaves)) == Frontier().extend(leaves)[0]


@pytest.mark.parametrize(
    ("size", "peaks"),
    [
        (0, (EMPTY_ROOT,)),
        (1, ()),
        (2, (EMPTY_ROOT, EMPTY_ROOT)),
        (3, (EMPTY_ROOT,)),
        (1, (EMPTY_ROOT[1:],)),
        (-1, (EMPTY_ROOT,)),
        (MAX_TREE_SIZE + 1, (EMPTY_ROOT,)),
    ],
)
def test_a_frontier_that_no_tree_has_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    """Peaks that do not fit the size never become a root."""
    with pytest.raises(InvalidProof):
        Frontier(size, peaks)


def test_a_leaf_that_is_not_a_hash_is_refused() -> None:
    """Data in place of its hash never enters the tree, not even below a node."""
    for leaves in ([b"data"], [b"data", b"data"], [EMPTY_ROOT, EMPTY_ROOT + b"0"]):
        with pytest.raises(InvalidProof):
            Frontier().extend(leaves)
        with pytest.raises(InvalidProof):
            root_of_hashes(leaves)


def test_the_largest_tree_costs_one_path() -> None:
    """A proof in a tree of 2**63 - 1 leaves asks for at most two paths of nodes."""
    asked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        asked.append((level, index))
        return leaf_hash(f"{level}/{index}".encode())

    size = MAX_TREE_SIZE
    proof = inclusion_proof(size // 3, size, node)
    assert len(proof) <= 63
    assert len(asked) <= 126
