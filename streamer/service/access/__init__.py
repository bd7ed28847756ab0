"""Access: credentials checked, minted and revoked."""
