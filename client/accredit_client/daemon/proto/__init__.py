"""Messages of the node daemon's socket, written by ``scripts/protos`` from the files beside it."""
