"""A user's own run that honours the contract, and needs nothing but the standard library."""
