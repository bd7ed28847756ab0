"""Publishing: from a decoded message to its entries, with idempotency."""
