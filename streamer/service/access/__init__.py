"""Access: authentication, tickets, minting and revocation of credentials."""
