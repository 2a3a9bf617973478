from accredit_client.daemon.proto import envoy_discovery_pb2 as _envoy_discovery_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
