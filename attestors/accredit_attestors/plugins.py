"""The installed attestors, found by their entry points.

Those of agents are in the group ``accredit.attestors``, those of nodes in
``accredit.node_attestors``.

Anybody's package may add a kind of evidence; none may take the place of another. An entry point
carries the name of its kind, and names one object that keeps the ``Attestor`` contract.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import cast

from accredit_attestors.contract import Attestor
from accredit_attestors.errors import InvalidPlugin, shown
from accredit_attestors.nodes.contract import NodeAttestor

GROUP = "accredit.attestors"
NODE_GROUP = "accredit.node_attestors"


def load_attestors() -> Mapping[str, Attestor]:
    """Load every installed attestor, by kind.

    Raises:
        InvalidPlugin: one cannot be used, or two are of one kind.
    """
    return attestors_of(entry_points(group=GROUP))


def load_node_attestors() -> Mapping[str, NodeAttestor]:
    """Load every installed attestor of nodes, by kind.

    Raises:
        InvalidPlugin: one cannot be used, or two are of one kind.
    """
    # The two contracts have the same members: what a loaded object is asked for differs by type.
    found = attestors_of(entry_points(group=NODE_GROUP))
    return cast("Mapping[str, NodeAttestor]", found)


def attestors_of(points: Iterable[EntryPoint]) -> Mapping[str, Attestor]:
    """Load the attestors of these entry points, by kind.

    Raises:
        InvalidPlugin: one cannot be used, or two are of one kind.
    """
    attestors: dict[str, Attestor] = {}
    for point in points:
        attestor = _load(point)
        if attestor.kind in attestors:
            raise InvalidPlugin(f"two installed attestors are of kind {shown(attestor.kind)}")
        attestors[attestor.kind] = attestor
    return MappingProxyType(attestors)


def _load(point: EntryPoint) -> Attestor:
    try:
        attestor = point.load()
    except (ImportError, AttributeError) as error:
        raise InvalidPlugin(f"attestor {point.value} cannot be loaded") from error
    if not isinstance(attestor, Attestor):
        raise InvalidPlugin(f"attestor {point.value} must have kind, collect and verify")
    if attestor.kind != point.name:
        raise InvalidPlugin(
            f"attestor {point.value} is of kind {shown(str(attestor.kind))}, "
            f"its entry point says {shown(point.name)}"
        )
    return attestor
