"""How a node proves which host it is: the contract, and one module a kind of evidence."""
