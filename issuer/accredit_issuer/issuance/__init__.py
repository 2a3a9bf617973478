"""How a credential comes to be: decide, record the intent, sign, check, record, release."""
