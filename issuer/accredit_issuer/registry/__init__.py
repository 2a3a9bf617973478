"""Who and what is known: signers, manifests, agents, instances, admins and their roles."""
