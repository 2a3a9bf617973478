"""The descriptors of our messages, apart from everybody else's.

A process has one default pool, and two packages that each bring ``workload.proto`` or Envoy's
messages (``spiffe``, ``xds-protos``) cannot both be in it: the second import fails. Ours have a
pool of their own. The generated modules ask for it under the name of the default one.
"""

from google.protobuf import any_pb2, descriptor_pool, struct_pb2, timestamp_pb2


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    return pool


POOL = _pool()


def Default() -> descriptor_pool.DescriptorPool:  # noqa: N802 (what generated code calls)
    """The pool that generated modules put their descriptors into."""
    return POOL
